"""Character statistics of a block of texts, from their bytes: scripts, letters, odd letter pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

# Byte classes of UTF-8. A lead byte stands for its character; continuation bytes for none.
SCRIPTS = ("Latin", "Greek", "Cyrillic", "Hebrew or Armenian", "Arabic", "Indic or Thai", "CJK", "Hangul")
_CLASSES = ("other", "letter", "digit", "space", "sign", "control", *SCRIPTS, "continuation")
_NAMED = {name: code for code, name in enumerate(_CLASSES)}
_RANGES = (
    (0x00, 0x08, "control"), (0x09, 0x0D, "space"), (0x0E, 0x1F, "control"), (0x20, 0x20, "space"),
    (0x21, 0x2F, "sign"), (0x30, 0x39, "digit"), (0x3A, 0x40, "sign"), (0x41, 0x5A, "letter"),
    (0x5B, 0x60, "sign"), (0x61, 0x7A, "letter"), (0x7B, 0x7E, "sign"), (0x7F, 0x7F, "control"),
    (0x80, 0xBF, "continuation"), (0xC3, 0xCA, "Latin"), (0xCD, 0xCF, "Greek"), (0xD0, 0xD4, "Cyrillic"),
    (0xD5, 0xD7, "Hebrew or Armenian"), (0xD8, 0xDD, "Arabic"), (0xE0, 0xE0, "Indic or Thai"),
    (0xE1, 0xE1, "Latin"), (0xE3, 0xE9, "CJK"), (0xEA, 0xED, "Hangul"),
)  # fmt: skip

# Pairs of plain letters below 0.02 % of all pairs in each of 24 languages of Latin script
# (word frequencies of wordfreq 3.1.1): first letter, then the second ones. In running text
# they are at most 0.25 % of the pairs, among random letters 22 %.
_ODD_PAIRS = (
    "ax bfhkpqvwxz cbdfgmpqvwx dhqx fbchkmnpqvwxz gcqwx hbfghpqxz jhjpqxy kfgpqxz lrwx mjqvwx nx ox pbdqvwxz "
    "qabcdefghijklmnopqrstvwxyz sx tqx uq vbcfhjmqwx wbfgjlmqvwx xbdfghjklmnqrsvwxyz yfqx zfqx"
)


class Damage(IntFlag):
    """Signs of a text that was decoded or exported wrongly."""

    REPLACEMENT = 1
    """U+FFFD, what a decoder writes for bytes that it can't read."""
    MOJIBAKE = 2
    """UTF-8 read as a single-byte encoding: two odd characters for one."""
    CONTROL = 4
    """NUL and other control characters; not the ESC of terminal colours, which is meant."""
    PRIVATE = 8
    """Private-use characters: symbols of a font that nobody else has."""


_CAPITAL, _SMALL = "A-Z\u00c0-\u00de", "a-z\u00df-\u00ff"
_BEFORE_FACTOR = r"\s(\[{<|$=+\-*/" + "\u27e8\u2212\u00b7"
# Two bytes read as Latin-1 or cp1252. Spaces, dashes and quotation marks rightly follow a word in capitals,
# which may end in such a letter: what stands around them tells. Powers of an operator with a hat stand
# where a factor may.
_MOJIBAKE = re.compile(
    f"(?!(?<![^{_BEFORE_FACTOR}])\u00c2[\u00b2\u00b3\u00b9])"
    "[\u00c2\u00c3\u00d0\u00d1](?:[\u0080-\u009f\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf]"
    f"|(?<![{_CAPITAL}].)\u00a0|(?<=[{_SMALL}].)[\u00ab\u00bb]|[\u00ab\u00bb](?=[{_SMALL}]))"
    "|\u00e2\u20ac[\u0080-\u00bf\u0153\u2122\u02dc\u201c\u201d\u00a6\u00a2]"  # quotes and dashes as cp1252
    "|\u00c3(?:[\u2020-\u2022\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2030\u20ac]"
    f"|[\u2018-\u201e\u2026\u2039\u203a](?=[{_CAPITAL}])"
    f"|(?<![{_CAPITAL}].)[\u2013\u2014\u2018-\u201e\u2026\u2039\u203a\u2122](?=[{_SMALL}])"
    r"|(?<=[\s\d].)\u2014(?=[\s\d]))"
    "|\u00f0\u0178|\u00ef\u00bb\u00bf|[\u0080-\u009f]"
)
_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]")


@dataclass(frozen=True)
class TextStats:
    """Counts per text, all ``(texts,)``; ``scripts`` is ``(texts, len(SCRIPTS))`` in characters.

    ``pairs`` counts adjacent small letters a to z, ``odd_pairs`` those that no language uses,
    ``odd_kinds`` how many different ones. ``controls`` leaves out the ESC of terminal colours.
    """

    characters: Counts
    letters: Counts
    digits: Counts
    signs: Counts
    controls: Counts
    scripts: Counts
    pairs: Counts
    odd_pairs: Counts
    odd_kinds: Counts


def measure_texts(texts: Sequence[str]) -> TextStats:
    """Count characters by kind, and pairs of adjacent small letters a to z, in each text."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    codes = np.frombuffer(b"".join(encoded), np.uint8)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
    width = len(_CLASSES)
    counts = np.bincount(owner * width + _CLASS_OF[codes], minlength=len(texts) * width)
    table = counts.reshape(len(texts), width)
    letter = _LETTER_OF[codes]
    pair = letter[:-1].astype(np.int16) * 27 + letter[1:]
    inside = (letter[:-1] < 26) & (letter[1:] < 26) & (owner[:-1] == owner[1:])
    odd = inside & _ODD[pair]
    odd_owner = owner[:-1][odd]
    colours = np.fromiter((text.count("\x1b[") for text in texts), np.int64, len(texts))
    kinds = np.unique(odd_owner.astype(np.int64) * _ODD.size + pair[odd])
    return TextStats(
        characters=table.sum(axis=1) - table[:, _NAMED["continuation"]],
        letters=table[:, _NAMED["letter"]] + table[:, [_NAMED[name] for name in SCRIPTS]].sum(axis=1),
        digits=table[:, _NAMED["digit"]],
        signs=table[:, _NAMED["sign"]],
        controls=table[:, _NAMED["control"]] - colours,
        scripts=table[:, [_NAMED[name] for name in SCRIPTS]] + _plain_letters(table),
        pairs=np.bincount(owner[:-1][inside], minlength=len(texts)),
        odd_pairs=np.bincount(odd_owner, minlength=len(texts)),
        odd_kinds=np.bincount(kinds // _ODD.size, minlength=len(texts)),
    )


def find_damage(text: str) -> Damage:
    """Which signs of damage ``text`` shows, control characters aside (see :func:`measure_texts`)."""
    damage = Damage(0)
    if text.isascii():
        return damage
    if "\ufffd" in text:
        damage |= Damage.REPLACEMENT
    if _MOJIBAKE.search(text):
        damage |= Damage.MOJIBAKE
    if _PRIVATE.search(text):
        damage |= Damage.PRIVATE
    return damage


def find_gibberish(stats: TextStats) -> NDArray[np.bool_]:
    """Which texts look like random letters or signs; ours, and silent on short texts.

    Random letters: of at least 12 pairs of small letters 8 %, of four kinds or more, are pairs that
    no language of Latin script uses, and these letters are most of the text. Signs: of at least 20
    characters less than 25 % are letters or digits.
    """
    readable = stats.letters + stats.digits
    random_letters = (
        (stats.pairs >= 12)
        & (stats.odd_kinds >= 4)
        & (stats.odd_pairs >= 0.08 * stats.pairs)
        & (stats.pairs >= 0.4 * stats.letters)
    )
    marks = (stats.signs + readable >= 20) & (readable < 0.25 * (stats.signs + readable))
    return random_letters | marks


def _plain_letters(table: Counts) -> Counts:
    plain = np.zeros((len(table), len(SCRIPTS)), np.int64)
    plain[:, 0] = table[:, _NAMED["letter"]]
    return plain


def _class_table() -> NDArray[np.int32]:
    table = np.zeros(256, np.int32)
    for low, high, name in _RANGES:
        table[low : high + 1] = _NAMED[name]
    return table


def _letter_table() -> NDArray[np.uint8]:
    # Capitals are left out: acronyms and Roman numerals are full of odd pairs.
    table = np.full(256, 26, np.uint8)
    for i in range(26):
        table[ord("a") + i] = i
    return table


def _odd_table() -> NDArray[np.bool_]:
    table = np.zeros(27 * 27, bool)
    for group in _ODD_PAIRS.split():
        for second in group[1:]:
            table[(ord(group[0]) - 97) * 27 + ord(second) - 97] = True
    return table


_CLASS_OF = _class_table()
_LETTER_OF = _letter_table()
_ODD = _odd_table()
