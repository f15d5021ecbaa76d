"""Stored JSON with one value in it replaced by another, wherever and by whatever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WRONG: tuple[object, ...] = (None, "0.5", [], {}, -1, 1.5, True, float("nan"), 10**400, [["x"]])
NOT_RECORDS = (b"", b"[", b"null", b"[1]", b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000)


def damaged(record: Any) -> Iterator[tuple[str, Any]]:
    """Where the damage is, and the damaged record, which is whole again at the next step.

    Of a list, the first and the last entry are tried.
    """
    for where in _damage(record, ""):
        yield where, record


def _damage(holder: Any, place: str) -> Iterator[str]:
    keys: list[Any] = []
    if isinstance(holder, dict):
        keys = list(holder)
    elif isinstance(holder, list) and holder:
        keys = sorted({0, len(holder) - 1})
    for key in keys:
        value = holder[key]
        for wrong in WRONG:
            holder[key] = wrong
            yield f"{place}.{key} is {wrong!r:.20}"
        holder[key] = value
        yield from _damage(value, f"{place}.{key}")
        # At the end of a list or of an object nothing else is moved by it.
        if isinstance(holder, dict) or key == len(holder) - 1:
            del holder[key]
            yield f"{place}.{key} is gone"
            if isinstance(holder, list):
                holder.append(value)
            else:
                holder[key] = value
