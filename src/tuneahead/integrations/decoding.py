"""Rows of tokens as text: prompts, without what a chat template puts around them, and answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneahead.examples import Example
from tuneahead.training.encode import Encoded, chat_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACES = tuple(f"content-{number}-of-turn" for number in range(4))


@dataclass(frozen=True)
class ChatMarks:
    """What a tokenizer's chat template puts around the contents of turns, each as it is rendered.

    ``opening`` stands before the first user's content, with the template's own system turn or none.
    ``system`` is what stands before and after the content of one that is given, None where none may be.
    ``to_answer`` are what leads from a user's content to the assistant's, ``to_user`` what leads back.
    """

    opening: str
    system: tuple[str, str] | None
    to_answer: tuple[str, ...]
    to_user: str

    def contents(self, text: str) -> list[str] | None:
        """The contents of all turns in the ``text`` of a prompt; None where the template did not make it."""
        system: list[str] = []
        if text.startswith(self.opening):
            body = text[len(self.opening) :]
        elif self.system and text.startswith(self.system[0]):
            said, found, body = text[len(self.system[0]) :].partition(self.system[1])
            if not found:
                return None
            system = [said]
        else:
            return None
        for lead in self.to_answer:
            # What is trained may begin with white space that the template closes the prompt with.
            if body.rstrip().endswith(lead.rstrip()):
                return self._turns(system, body.rstrip().removesuffix(lead.rstrip()))
        return None

    def _turns(self, system: list[str], body: str) -> list[str] | None:
        first, *later = re.split("|".join(map(re.escape, self.to_answer)), body)
        found = [*system, first]
        for turn in later:
            answer, back, asked = turn.partition(self.to_user)
            if not back:
                return None
            found += [answer, asked]
        return found


def chat_marks(tokenizer: PreTrainedTokenizerBase) -> ChatMarks | None:
    """The marks of a tokenizer's chat template; None without one, or where it changes what it is given."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        return None
    system, user, answer, again = (
        {"role": role, "content": place}
        for role, place in zip(("system", "user", "assistant", "user"), _PLACES, strict=True)
    )
    try:
        parts = _between(chat_text(tokenizer, [user, answer, again], generation=True), _PLACES[1:])
    except TemplateError:
        return None
    if parts is None:
        return None
    opening, to_answer, to_user, last = parts
    try:
        told = _between(chat_text(tokenizer, [system, user], generation=True), _PLACES[:2])
    except TemplateError:
        told = None
    # The opening of a new answer may hold more than that of one given: an empty thought.
    leads = tuple(sorted({lead for lead in (to_answer, last) if lead.strip()}, key=len, reverse=True))
    if not (opening.strip() and leads and to_user.strip()):
        return None
    return ChatMarks(opening, None if told is None else (told[0], told[1]), leads, to_user)


def _between(text: str, places: Sequence[str]) -> list[str] | None:
    """What stands before, between and after ``places``; None where they are not all there in order."""
    parts: list[str] = []
    for place in places:
        before, found, text = text.partition(place)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]


def decode_examples(rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> tuple[Example, ...]:
    """Rows as text: the last answer that is trained, and what comes before it.

    A prompt that the tokenizer's chat template made is the contents of its turns, as those of a file are.
    Other special tokens are markup and left out, unless nothing else tells the answers apart.
    """
    marks = chat_marks(tokenizer)
    spans = [_last_span(row, tokenizer) for row in rows]
    trained = [list(row.ids[start:stop]) for row, (start, stop) in zip(rows, spans, strict=True)]
    answers = [_text(ids, tokenizer) for ids in trained]
    if len(set(answers)) == 1:
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        whole = [_text([i for i in ids if i not in ends], tokenizer, special=True) for ids in trained]
        # Labels such as <|safe|> may be tokens of their own; the end of an empty turn is always the same.
        answers = whole if len(set(whole) - {""}) > 1 else answers
    return tuple(
        Example(_prompt(row.ids[:start], tokenizer, marks), answer, row.row)
        for row, (start, _), answer in zip(rows, spans, answers, strict=True)
    )


def _last_span(row: Encoded, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Where the last trained tokens stand that say something; behind all tokens where none do."""
    spans: list[tuple[int, int]] = []
    for place, on in enumerate(row.answer):
        if on and spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
        elif on:
            spans.append((place, place + 1))
    # Labels of an end that padding shares are masked, and a line break after it is not.
    said = [span for span in spans[::-1] if len(spans) == 1 or _text(row.ids[slice(*span)], tokenizer)]
    return (said or spans[::-1] or [(len(row.ids), len(row.ids))])[0]


def _prompt(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, marks: ChatMarks | None) -> str:
    contents = marks.contents(_text(ids, tokenizer, special=True)) if marks else None
    if contents is None:
        return _text(ids, tokenizer)
    return "\n\n".join(filter(None, contents)).strip()


def _text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, special: bool = False) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special)).strip()
