"""Text that is safe to show: names come with downloaded data and logs."""

from __future__ import annotations

from unicodedata import bidirectional, category

_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Kinds of characters that turn the direction of all text up to their end, which a name may lack."""


def printable(text: str) -> str:
    """The text with ``?`` for control characters, which could steer a terminal, and for those that set the
    direction of writing, which turn what stands around a name.

    >>> printable("red\\x1b[31m")
    'red?[31m'
    """
    return "".join("?" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return (category(character) == "Cc" and character not in "\n\t") or bidirectional(character) in _TURNING
