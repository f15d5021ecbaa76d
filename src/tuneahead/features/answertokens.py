"""The rows whose answers a base is asked for, in its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneahead.examples import Example

if TYPE_CHECKING:
    from tuneahead.training.encode import Encoded
    from tuneahead.training.models import Base

SAMPLE_TOKENS = 8_192
PROMPT_CHARACTERS = 32_768
"""Of a longer text the part next to the answer is tokenised where a prompt leaves the answer no room."""
LONGEST_TOKENS = 1 << 20


@dataclass(frozen=True)
class AnswerTokens:
    """One row in tokens: what comes before the last answer, and that answer.

    ``earlier`` marks the tokens of ``before`` that are answers themselves, in a conversation. A row is
    ``asked`` when ``before`` holds a prompt: what a template or a tokenizer puts before a text is none.
    """

    before: tuple[int, ...]
    answer: tuple[int, ...]
    earlier: tuple[bool, ...] = ()
    asked: bool = True

    @property
    def encoded(self) -> Encoded:
        """The row as training would read it."""
        from tuneahead.training.encode import Encoded

        asked = self.earlier or (False,) * len(self.before)
        return Encoded(self.before + self.answer, asked + (True,) * len(self.answer), 0)

    @property
    def scored(self) -> tuple[int, ...]:
        """The tokens that a loss is measured of: the first of a sequence can't be predicted."""
        encoded = self.encoded
        return tuple(token for token, own in zip(encoded.ids[1:], encoded.answer[1:], strict=True) if own)


def sample_answers(
    drawn: Sequence[Example], base: Base, given: Mapping[int, Encoded] | None = None
) -> list[AnswerTokens]:
    """The drawn rows in tokens, in the order of the draw, until rows or tokens suffice.

    ``given`` are the rows in tokens already, by their numbers.
    """
    from tuneahead.checks.encoding import trimmed
    from tuneahead.recipe import Recipe
    from tuneahead.training.probe import encode_rows

    recipe = Recipe(max_length=max(2, min(512, base.context_tokens)))
    rows: list[AnswerTokens] = []
    tokens = 0
    if given is None:
        encoded = encode_rows(base, [trimmed(row, recipe.max_length) for row in drawn], recipe)
    else:
        encoded = [_cut(given[row.row], recipe.max_length) for row in drawn]
    for example, row in zip(drawn, encoded, strict=True):
        if tokens > SAMPLE_TOKENS:
            break
        if given is not None and not example.answer:
            # An end alone is trained there. Under a template of our own such rows have no token to read.
            continue
        if row.answer_tokens:
            found = _last_answer(row, asked=bool(example.prompt) or len(example.messages or ()) > 1)
        elif (late := _late_row(example, base, given)) is not None:
            found = _ending_in(late, base, recipe.max_length)
        else:
            continue
        tokens += len(row.ids)
        rows.append(found)
    return rows


def _late_row(example: Example, base: Base, given: Mapping[int, Encoded] | None) -> AnswerTokens | None:
    """The answer (of a conversation the first) of a prompt that fills the window, if any."""
    if given is None:
        return _late_answer(example, base)
    row = given[example.row]
    if not row.answer_tokens:
        return None
    start = row.answer.index(True)
    stop = row.answer.index(False, start) if False in row.answer[start:] else len(row.ids)
    return AnswerTokens(row.ids[:start], row.ids[start:stop])


def _late_answer(example: Example, base: Base) -> AnswerTokens | None:
    from tuneahead.recipe import Recipe
    from tuneahead.training.encode import encode_examples

    room = PROMPT_CHARACTERS
    turns = example.messages
    if turns is not None:
        said = (i for i, turn in enumerate(turns) if turn.is_trained)
        stop = next(said, None)
        if stop is None:
            return None
        asked = (replace(turn, content=turn.content[-room:]) for turn in turns[:stop])
        turns = (*asked, replace(turns[stop], content=turns[stop].content[:room]))
    short = replace(example, prompt=example.prompt[-room:], answer=example.answer[:room], messages=turns)
    uncut = Recipe(max_length=LONGEST_TOKENS)
    (row,) = encode_examples([short], base.tokenizer, uncut)
    return _last_answer(row, asked=True) if row.answer_tokens else None


def _ending_in(whole: AnswerTokens, base: Base, window: int) -> AnswerTokens:
    """The end of the prompt and the beginning of the answer, as much as ``window`` tokens hold."""
    from tuneahead.training.encode import start_ids

    answer = whole.answer[: window // 2]
    start = tuple(start_ids(base.tokenizer))
    if whole.before[: len(start)] != start:
        start = ()
    # Some bases read nothing well without the token that begins a text.
    end = whole.before[len(start) :][-max(1, window - len(start) - len(answer)) :]
    return AnswerTokens(start + end, answer)


def _cut(row: Encoded, window: int) -> Encoded:
    return replace(row, ids=row.ids[:window], answer=row.answer[:window])


def _last_answer(row: Encoded, *, asked: bool) -> AnswerTokens:
    stop = len(row.ids) - row.answer[::-1].index(True)
    start = stop
    while start and row.answer[start - 1]:
        start -= 1
    return AnswerTokens(row.ids[:start], row.ids[start:stop], row.answer[:start], asked)
