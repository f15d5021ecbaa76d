"""Thoughts that an answer holds between tags, as reasoning models write them: whether they are whole."""

from __future__ import annotations

import re
from enum import IntEnum


class Thinking(IntEnum):
    """How the thoughts at the beginning of an answer are."""

    SOUND = 0
    """There are none, or they end and an answer follows."""
    UNCLOSED = 1
    """They never end: no answer follows."""
    ALONE = 2
    """They end, but nothing follows."""
    EMPTY = 3
    """Tags with nothing in between, and an answer after them."""


_OPENING = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)


def find_thinking(answer: str) -> Thinking:
    """How the thoughts are that ``answer`` begins with; tags further on may be what it is about."""
    opened = _OPENING.match(answer) if "<" in answer[:200] else None
    if opened is None:
        return Thinking.SOUND
    closed = re.compile(f"</{opened[1]}>", re.IGNORECASE).search(answer, opened.end())
    if closed is None:
        return Thinking.UNCLOSED
    if not answer[closed.end() :].strip():
        return Thinking.ALONE
    return Thinking.SOUND if answer[opened.end() : closed.start()].strip() else Thinking.EMPTY
