"""What rows give away and models repeat: keys and what belongs to a person. Never kept, only marked."""

from __future__ import annotations

import re
from enum import IntFlag


class Confidential(IntFlag):
    """Kinds of texts that are nobody else's business."""

    KEY = 1
    """A key of a service by its form, or a private key."""
    ADDRESS = 2
    """An e-mail address of a person; not of an office (``info@``), nor one of examples."""
    ACCOUNT = 4
    """A bank account or card whose check digits are right."""


# Forms that the services publish so that keys can be found; what begins so is hardly anything else.
_KEY = re.compile(
    r"(?<![\w-])(?:A(?:KIA|SIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}"
    r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{40,}|sk-or-v1-[0-9a-f]{64}|xox[abprs]-\d{9,}-[\w-]{20,}|AIza[\w-]{35}"
    r"|[sr]k_live_[A-Za-z0-9]{24,}|hf_[A-Za-z]{34}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}"
    r"|SG\.[\w-]{22}\.[\w-]{43})(?![\w-])"
)
_KEY_SIGNS = {
    "_": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "hf_", "npm_"),
    "-": ("sk-", "glpat-", "pypi-", "xox"),
    "A": ("AKIA", "ASIA", "AIza"),
    "SG.": ("SG.",),
}
"""What keys begin with, by a sign that saves the search in texts without it."""
# With its content: a text may well name the line that such a file begins with.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])*(?:[\w-]+: [^\n]*\n\s*){0,5}"
    r"[A-Za-z0-9+/]{40}"
)
_INVENTED = re.compile(r"example|sample|your|test|fake|dummy|1234567|abcdef|(.)\1{4}", re.IGNORECASE)
_KEY_KINDS = 10
"""Different characters of a key, at least; the shortest, of 16 random ones of 32, has 13 on average."""

_ADDRESS = re.compile(
    r"(?<![\w.+%/:@-])([A-Za-z0-9][\w.+%-]{0,63})@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24})(?![\w-])", re.ASCII
)
# Whose addresses nobody owns, or which texts invent.
_NO_DOMAIN = re.compile(
    r"(?:^|[.-])(?:example|test|invalid|localhost|(?:your|my)?-?(?:domain|company|email|mail|website|site)"
    r"|acme|abc|xyz|foo|bar|host|server)(?:[.-]|$)",
    re.IGNORECASE,
)
_NO_PERSON = re.compile(
    r"(?:^|[._+%-])(?:info|support|help|contact|privacy|admin|office|sales|press|news|service|team|hello|mail"
    r"|post|webmaster|no-?reply|users?|name|email|you|your|me|abuse|legal|pr|admissions?|security|jobs|careers|feedback"
    r"|enquiries|inquiries|customer|hr|git|dev|list|lists|marketing|media|account|billing|boss|john|jane|doe"
    r"|foo|bar|test|example|alice|bob)(?:\d*$|[._+%-])|^[\d.]+$",
    re.IGNORECASE,
)
# What stands before a number is looked at once it is found: a pattern that begins so is slow to search for.
_ACCOUNT = re.compile(
    r"[A-Z][A-Z][0-9][0-9](?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?|[A-Z0-9]{11,30})(?!\w)"
)
_ACCOUNT_DIGITS = 10
"""Digits that an account number or a card has, at least."""
_LENGTHS = (
    "AD24 AE23 AT20 BE16 BG22 CH21 CY28 CZ24 DE22 DK18 EE20 ES24 FI18 FR27 GB22 GR27 HR21 HU28 IE22 IL23 IS26"
    " IT27 LI21 LT20 LU20 LV21 MC27 MT31 NL18 NO15 PL28 PT25 RO24 RS22 SA24 SE24 SI19 SK24 TR26 UA29"
)
_ACCOUNT_LENGTHS = {part[:2]: int(part[2:]) for part in _LENGTHS.split()}
"""Characters of an IBAN by country (ISO 13616)."""
_CARD = re.compile(r"[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?![\w-])")
_BOOKS = (
    "DE89370400440532013000 GB29NWBK60161331926819 GB82WEST12345698765432 FR1420041010050500013M02606"
    " NL91ABNA0417164300 ES9121000418450200051332 CH9300762011623852957 BE68539007547034"
    " 4111111111111111 4242424242424242 4012888888881881 5555555555554444 5105105105105100 6011111111111117"
    " 4000056655665556 2223003122003222 6011000990139424"
)
_PRINTED = frozenset(_BOOKS.split())
"""Those that books and services print as examples."""


def find_confidential(text: str, digits: int) -> Confidential:
    """Which kinds ``text``, of so many ``digits``, holds; what is plainly invented is none."""
    found = Confidential(0)
    if _holds_key(text):
        found |= Confidential.KEY
    if "@" in text and any(_is_persons(*match.groups()) for match in _ADDRESS.finditer(text)):
        found |= Confidential.ADDRESS
    if digits >= _ACCOUNT_DIGITS and _holds_account(text):
        found |= Confidential.ACCOUNT
    return found


def _holds_key(text: str) -> bool:
    if "PRIVATE KEY" in text and _PRIVATE_KEY.search(text):
        return True
    if not any(sign in text for held, signs in _KEY_SIGNS.items() if held in text for sign in signs):
        return False
    keys = (match[0] for match in _KEY.finditer(text))
    return any(len(set(key)) >= _KEY_KINDS and not _INVENTED.search(key) for key in keys)


def _is_persons(name: str, domain: str) -> bool:
    return not _NO_PERSON.search(name) and not _NO_DOMAIN.search(domain)


def _holds_account(text: str) -> bool:
    for pattern, is_sound in ((_ACCOUNT, _is_iban), (_CARD, _is_card)):
        for match in pattern.finditer(text):
            number = re.sub("[ -]", "", match[0])
            before = text[match.start() - 1] if match.start() else " "
            inside = before.isalnum() or before in "-_"
            if not inside and number not in _PRINTED and is_sound(number):
                return True
    return False


def _is_iban(number: str) -> bool:
    """Whether length and check digits fit; the digits alone do once in 97."""
    turned = number[4:] + number[:4]
    fits = len(number) == _ACCOUNT_LENGTHS.get(number[:2])
    return fits and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1


def _is_card(number: str) -> bool:
    """Whether the check digit fits (ISO/IEC 7812): that of another number does once in ten."""
    doubled = sum(sum(divmod(2 * int(sign), 10)) for sign in number[-2::-2])
    return (sum(map(int, number[-1::-2])) + doubled) % 10 == 0
