"""Training examples: what the model sees and what it is trained to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One training row: what the model sees (``prompt``) and what it is trained to say (``answer``).

    ``row`` is the 1-based line or record number in the file. ``messages`` is set for
    conversations; ``prompt`` then holds every turn before the last assistant turn, and
    ``answer`` that last turn. Plain text has an empty prompt.
    """

    prompt: str
    answer: str
    row: int
    messages: tuple[Message, ...] | None = None
