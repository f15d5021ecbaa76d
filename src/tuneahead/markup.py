"""Markup of web pages that stayed in running text when it was copied out of them."""

from __future__ import annotations

import re
from enum import IntEnum


class Markup(IntEnum):
    """What stayed."""

    NONE = 0
    ENTITY = 1
    """Escaped signs (``&amp;``, ``&#39;``) in a text without tags: nothing makes signs of them."""
    TAG = 2
    """Tags of running text (``<br>``, ``</p>``)."""


_ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|[lr][sd]quo|[mn]dash|hellip|[aeiou](?:acute|grave|uml|circ)|ntilde|ccedil"
    r"|szlig|#\d{2,5}|#[xX][0-9a-fA-F]{2,4});"
)
# A break, or the end of something: a lone <p> or <i> may be a sign of mathematics or of a grammar.
_TAG = re.compile(
    r"<br ?/?>|</(?:p|div|span|li|ul|ol|td|tr|table|strong|em|b|i|u|font|h[1-6]|blockquote|a)>", re.IGNORECASE
)
# Texts about markup, code, and Markdown, in which tags have their place.
_MEANT = re.compile(
    r"`|\b(?:x?html\d?|xml|svg|css|jsx|php|javascript|markdown|rss)\b|\btags?\b|\bmarkup\b|\bunescap"
    r"|\bescaped? (?:char|seq|sign)|<!doctype|<script|<style|<img|href=|class=|\]\(|\*\*|^#{1,6} |^\||[;{}]$"
    r"|^[ \t]+(?:return|def|if|for)\b|HTML|\u6807\u7b7e",
    re.IGNORECASE | re.MULTILINE,
)


def find_markup(text: str) -> Markup:
    """What of a web page's markup stayed in ``text``; nothing where it is meant, as in code and about it."""
    entity = "&" in text and _ENTITY.search(text) is not None
    tag = "<" in text and _TAG.search(text) is not None
    if not (entity or tag) or _MEANT.search(text):
        return Markup.NONE
    return Markup.TAG if tag else Markup.ENTITY
