"""Rows of tokens as text: prompts, without what a chat template puts around them, and answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        if (opened := self._opened(text.strip())) is None:
            return None
        system, body = opened
        for lead in self.to_answer:
            # What is trained may begin with white space that the template closes the prompt with.
            if body.endswith(lead.rstrip()):
                return self._turns(system, self._pieces(body.removesuffix(lead.rstrip())))
        return None

    def conversation(self, text: str) -> tuple[list[str], str] | None:
        """The contents of all turns before the last answer, and that with its end, in the text of a row.

        None where the template did not make it, or it does not close with an answer.
        """
        if (opened := self._opened(text)) is None:
            return None
        system, body = opened
        *before, answer = self._pieces(body)
        if not before or self.to_user in answer:
            return None
        turns = self._turns(system, before)
        return None if turns is None else (turns, answer)

    def _opened(self, text: str) -> tuple[list[str], str] | None:
        """The content of a system turn that is given, if any, and what follows from the user's on."""
        if text.startswith(self.opening):
            return [], text[len(self.opening) :]
        if not self.system or not text.startswith(self.system[0]):
            return None
        said, found, body = text[len(self.system[0]) :].partition(self.system[1])
        return ([said], body) if found else None

    def _pieces(self, body: str) -> list[str]:
        """What stands before, between and after the places that lead to an answer."""
        return re.split("|".join(map(re.escape, self.to_answer)), body)

    def _turns(self, system: list[str], pieces: list[str]) -> list[str] | None:
        first, *later = pieces
        found = [*system, first]
        for turn in later:
            answer, back, asked = turn.partition(self.to_user)
            if not back:
                return None
            found += [answer, asked]
        return found


def chat_marks(tokenizer: PreTrainedTokenizerBase) -> ChatMarks | None:
    """The marks of a tokenizer's chat template; None without one, or where it changes what it is given."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    system, user, answer, again = (
        {"role": role, "content": place}
        for role, place in zip(("system", "user", "assistant", "user"), _PLACES, strict=True)
    )
    if (parts := _around(tokenizer, [user, answer, again], _PLACES[1:])) is None:
        return None
    opening, to_answer, to_user, last = parts
    told = _around(tokenizer, [system, user], _PLACES[:2])
    # The opening of a new answer may hold more than that of one given: an empty thought.
    leads = tuple(sorted({lead for lead in (to_answer, last) if lead.strip()}, key=len, reverse=True))
    if not (opening.strip() and leads and to_user.strip()):
        return None
    return ChatMarks(opening, None if told is None else (told[0], told[1]), leads, to_user)


def _around(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], places: Sequence[str]
) -> list[str] | None:
    """What a template puts before, between and after ``places``; None where it refuses or changes them."""
    from jinja2 import TemplateError

    try:
        text = chat_text(tokenizer, turns, generation=True)
    except (TemplateError, TypeError, ValueError):
        # Several templates, none of them the default; contents that have to be lists; no system turns.
        return None
    parts: list[str] = []
    for place in places:
        before, found, text = text.partition(place)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]


@dataclass(frozen=True)
class Decoded:
    """A row as text, and its tokens with those of the answer marked as trained."""

    example: Example
    encoded: Encoded


def decode_rows(rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> tuple[Decoded, ...]:
    """Rows as text: the last answer that is trained, and what comes before it.

    A prompt that the tokenizer's chat template made is the contents of its turns, as those of a file are,
    also where it is trained. Other special tokens are markup and left out, unless nothing else tells the
    answers apart.
    """
    marks = chat_marks(tokenizer)
    read = [_conversation(row, tokenizer, marks) or _asked(row, tokenizer, marks) for row in rows]
    answers = [one.example.answer for one in read]
    if len(set(answers)) > 1:
        return tuple(read)
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    spans = [row.ids[slice(*_last_span(row, tokenizer))] for row in rows]
    whole = [_text([i for i in ids if i not in ends], tokenizer, special=True) for ids in spans]
    # Labels such as <|safe|> may be tokens of their own; the end of an empty turn is always the same.
    if len(set(whole) - {""}) < 2:
        return tuple(read)
    return tuple(
        replace(one, example=replace(one.example, answer=answer))
        for one, answer in zip(read, whole, strict=True)
    )


def _asked(row: Encoded, tokenizer: PreTrainedTokenizerBase, marks: ChatMarks | None) -> Decoded:
    """The row as it is trained: its prompt stands before the last trained tokens."""
    start, stop = _last_span(row, tokenizer)
    contents = marks.contents(_text(row.ids[:start], tokenizer, special=True)) if marks else None
    prompt = _text(row.ids[:start], tokenizer) if contents is None else _joined(contents)
    return Decoded(Example(prompt, _text(row.ids[start:stop], tokenizer), row.row), row)


def _conversation(
    row: Encoded, tokenizer: PreTrainedTokenizerBase, marks: ChatMarks | None
) -> Decoded | None:
    """A row that is trained from its beginning on and holds a conversation; None of any other."""
    if marks is None or not getattr(tokenizer, "is_fast", False) or not all(row.answer[1:]):
        return None
    text = str(tokenizer.decode(list(row.ids), clean_up_tokenization_spaces=False))
    if (found := marks.conversation(text)) is None:
        return None
    turns, answer = found
    again = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if again["input_ids"] != list(row.ids):
        return None
    start = len(text) - len(answer)
    own = tuple(end > start for _, end in again["offset_mapping"])
    said = _text([i for i, on in zip(row.ids, own, strict=True) if on], tokenizer)
    return Decoded(Example(_joined(turns), said, row.row), replace(row, answer=own))


def _joined(turns: Sequence[str]) -> str:
    return "\n\n".join(filter(None, turns)).strip()


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


def _text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, special: bool = False) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special)).strip()
