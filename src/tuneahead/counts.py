"""Counts with their nouns, and lists, for messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """The count with its noun, in the plural unless it is one.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """The parts with commas between them and "and" before the last one.

    >>> listed(["10"]), listed(["10", "25", "100"])
    ('10', '10, 25 and 100')
    """
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
