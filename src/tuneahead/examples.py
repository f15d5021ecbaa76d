"""Training examples: what the model sees and what it is trained to say."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is system, user, assistant or tool.

    ``calls`` are the turn's tool calls as JSON, ``thoughts`` what it reasons beside its content: neither is
    ever trained on, they tell apart turns of equal content. An assistant's turn that is ``asked`` stands in
    the row's prompt, and is not trained either.
    """

    role: str
    content: str
    calls: str = ""
    thoughts: str = ""
    asked: bool = False

    @property
    def is_trained(self) -> bool:
        """Whether a chat template trains it: an assistant's turn that says something and is not asked."""
        return self.role == "assistant" and not self.asked and bool(self.content.strip())


@dataclass(frozen=True)
class Example:
    """One training row: what the model sees (``prompt``) and what it is trained to say (``answer``).

    ``row`` is the 1-based line or record number in the file. ``messages`` is set for
    conversations; ``prompt`` then holds every turn before the last assistant turn, and
    ``answer`` that last turn. Plain text has an empty prompt. ``tools`` are those that the row offers beside
    its texts, as JSON: never trained on, they tell apart rows of equal texts.
    """

    prompt: str
    answer: str
    row: int
    messages: tuple[Message, ...] | None = None
    tools: str = ""


def shortened(example: Example, characters: int) -> Example:
    """The row with no text above so many characters; a row of shorter texts as it is."""
    if len(example.prompt) <= characters and len(example.answer) <= characters:
        return example
    turns = example.messages
    if turns is not None:
        turns = tuple(Message(turn.role, turn.content[:characters], asked=turn.asked) for turn in turns)
    return replace(
        example, prompt=example.prompt[:characters], answer=example.answer[:characters], messages=turns
    )
