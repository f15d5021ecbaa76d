"""Columns of a data file that hold the prompt, the answer or the conversation, and how a row is read."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeGuard, cast

from tuneahead.besides import tools_text
from tuneahead.columnuse import ColumnUse
from tuneahead.errors import DataError
from tuneahead.examples import Example, Message
from tuneahead.readers import Unreadable

Record = dict[str, object]

_ALIASES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt model bot chatgpt ai bing bard function_call tool_call",
    "tool": "tool function observation function_response tool_response ipython",
}
ROLES = {alias: role for role, aliases in _ALIASES.items() for alias in aliases.split()}
_KNOWN = "system, user, assistant and tool (also human, gpt, function_call, observation and their like)"
_TRAINED = ("weight", "train", "loss", "loss_weight")
"""Keys of a turn that say whether it is learnt: of OpenAI, Axolotl, ms-swift and LLaMA-Factory."""
_NOT = ("0", "0.0", "false")
_PYTHON_TURNS = re.compile(r"\s*\[\s*\{'(?:role|from|content|value)':")
_MISSING = object()
NAME_THE_COLUMNS = (
    "name the columns, as in -m prompt=Frage -m answer=Antwort, or -m messages=COLUMN, or -m text=COLUMN "
    "(in Python: ColumnMapping)"
)


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of the file plays which part; what is empty is found from the rows.

    Give ``prompt`` and ``answer``, or ``messages``, or ``text``. ``input`` is a second part of
    the prompt (Alpaca's input, a passage), ``system`` a system prompt, ``history`` earlier turns as pairs of
    question and answer; all three may be absent in a row.

    >>> ColumnMapping(prompt="question", answer="reply").given()
    ('question', 'reply')
    """

    prompt: str = ""
    answer: str = ""
    messages: str = ""
    text: str = ""
    system: str = ""
    input: str = ""
    history: str = ""

    def given(self) -> tuple[str, ...]:
        """Names of the columns that were set."""
        return tuple(name for name in (getattr(self, f.name) for f in fields(self)) if name)


@dataclass(frozen=True)
class Layout:
    """How the rows of one file are read: the format's name and its columns."""

    format: str
    columns: ColumnMapping
    path: Path
    use: ColumnUse = ColumnUse()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns that are read where the ``input`` or ``system`` column is absent or empty, by part."""
    label: str = ""
    """The column that says of each answer whether it is wanted; empty where none does."""
    tools: str = ""
    """The column of the tools that a row offers; empty where there is none."""
    media: tuple[str, ...] = ()
    """Columns of pictures and sounds: rows that have any are refused."""

    def example(self, row: int, record: Record) -> Example:
        """The :class:`Example` of one record; raises :class:`DataError` naming row and column."""
        if self.label and str(record.get(self.label)).lower() == "false":
            raise self._unwanted(row, record)
        for column in self.media:
            if record.get(column):
                raise self._pictured(row, record, column)
        found = self._texts(row, record)
        tools = tools_text(record.get(self.tools)) if self.tools else ""
        return replace(found, tools=tools) if tools else found

    def _texts(self, row: int, record: Record) -> Example:
        columns = self.columns
        if columns.text:
            text = self._as_text(row, columns.text, self._json_value(row, record, columns.text))
            return Example("", text, row)
        if columns.messages:
            turns = self._turns(row, self._json_value(row, record, columns.messages), columns.messages)
            return self._conversation(row, record, turns)
        prompt = self._json_value(row, record, columns.prompt)
        answer = self._value(row, record, columns.answer)
        if (both := _turns_of(prompt, answer)) is not None:
            turns = self._turns(row, [*both[0], *both[1]], columns.prompt)
            for place, turn in enumerate(turns[: len(both[0])]):
                turns[place] = replace(turn, asked=turn.role == "assistant")
            return self._conversation(row, record, turns)
        asked = self._as_text(row, columns.prompt, prompt)
        more = self._optional(row, record, "input")
        if more:
            asked = f"{asked}\n{more}" if asked else more
        told = self._as_text(row, columns.answer, answer)
        system = self._optional(row, record, "system")
        before = self._history(row, record) if columns.history else []
        if system:
            before.insert(0, Message("system", system))
        if not before:
            return Example(asked, told, row)
        before.append(Message("user", asked))
        shown = "\n\n".join(turn.content for turn in before)
        return Example(shown, told, row, (*before, Message("assistant", told)))

    def _options(self, record: Record) -> str:
        """How to name the columns of a record that were found."""
        read = ((part.name, getattr(self.columns, part.name)) for part in fields(self.columns))
        return " ".join(f"-m {part}={shlex.quote(column)}" for part, column in read if column in record)

    def _pictured(self, row: int, record: Record, column: str) -> DataError:
        return DataError(
            f"holds pictures or sounds beside its text (column {column!r}); only text can be trained on",
            path=self.path,
            row=row,
            remedy="leave such rows out; or look at the text alone, where rows of one text are copies: "
            + self._options(record),
        )

    def _unwanted(self, row: int, record: Record) -> DataError:
        return DataError(
            f"preference data: {self.label} is false, so this answer is one not to give",
            path=self.path,
            row=row,
            remedy=f"keep the rows with {self.label} true; or learn from all: {self._options(record)}",
        )

    def _conversation(self, row: int, record: Record, turns: list[Message]) -> Example:
        system = self._optional(row, record, "system")
        if system and not (turns and turns[0].role == "system"):
            turns.insert(0, Message("system", system))
        told = (i for i, turn in enumerate(turns) if turn.role == "assistant" and not turn.asked)
        last = max(told, default=-1)
        if last < 0:
            # Nothing to train on: kept with an empty answer, which preflight reports.
            return Example(_joined(turns), "", row, tuple(turns))
        return Example(_joined(turns[:last]), turns[last].content, row, tuple(turns[: last + 1]))

    def _history(self, row: int, record: Record) -> list[Message]:
        column = self.columns.history
        value = record.get(column)
        if not value:
            return []
        if (pairs := as_pairs(value)) is None:
            what = f"column {column!r} holds {_kind(value)}, not pairs of question and answer"
            raise self._error(row, what)
        return [
            Message(role, self._as_text(row, column, text))
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    def _turns(self, row: int, value: object, column: str) -> list[Message]:
        value = as_turns(value)
        if not isinstance(value, list):
            raise self._error(row, f"column {column!r} holds {_kind(value)}, not a list of turns")
        turns = []
        for number, turn in enumerate(value, 1):
            where = f"turn {number} of {column!r}"
            if not isinstance(turn, dict):
                raise self._error(row, f"{where} is {_kind(turn)}, not an object with role and content")
            role = turn.get("role", turn.get("from"))
            known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
            if known is None:
                raise self._error(row, f"{where} has the role {_excerpt(role)}; known are {_KNOWN}")
            content = turn.get("content", turn.get("value", _MISSING))
            if content is _MISSING and "tool_calls" not in turn:
                raise self._error(row, f"{where} has no content (its keys: {', '.join(map(str, turn))})")
            if known == "assistant":
                self._refuse_unlearnt(row, where, turn)
            calls = turn.get("tool_calls") or turn.get("function_call")
            told = json.dumps(calls, sort_keys=True, default=str) if calls else ""
            thoughts = turn.get("reasoning_content") or turn.get("thinking")
            turns.append(Message(known, self._content(row, where, content), told, str(thoughts or "")))
        return turns

    def _refuse_unlearnt(self, row: int, where: str, turn: Record) -> None:
        mark = next((name for name in _TRAINED if str(turn.get(name)).lower() in _NOT), "")
        if mark:
            raise DataError(
                f"{where} has {mark} {str(turn[mark]).lower()}, so it is not to be learnt, but a template "
                "may train every answer",
                path=self.path,
                row=row,
                remedy=f"leave such turns out; or take their {mark} away to learn from them",
            )

    def _content(self, row: int, where: str, content: object) -> str:
        if not isinstance(content, list):
            return "" if content is _MISSING else self._as_text(row, where, content)
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type", "text") != "text":
                kind = part.get("type") if isinstance(part, dict) else _kind(part)
                raise self._error(
                    row, f"{where} holds a part of type {_excerpt(kind)}; only text can be trained on"
                )
            text = part.get("text", part.get("value", part.get("content")))
            if text is None:
                raise self._error(row, f"{where} holds a part without text (its keys: {', '.join(part)})")
            parts.append(self._as_text(row, where, text))
        return "".join(parts)

    def _value(self, row: int, record: Record, column: str) -> object:
        value = record.get(column, _MISSING)
        if value is _MISSING:
            seen = ", ".join(list(record)[:10]) or "none"
            raise self._error(row, f"has no column {column!r}, unlike other rows (its columns: {seen})")
        return value

    def _json_value(self, row: int, record: Record, column: str) -> object:
        value = self._value(row, record, column)
        if is_python_turns(value):
            raise DataError(
                f"column {column!r} holds a list of turns as Python writes it, not JSON",
                path=self.path,
                row=row,
                remedy="write it with json.dumps; or in pandas the whole table: "
                "to_json('NEW.jsonl', orient='records', lines=True)",
            )
        return value

    def _optional(self, row: int, record: Record, part: str) -> str:
        for column in (getattr(self.columns, part), *self.others.get(part, ())):
            if column and (text := self._as_text(row, column, record.get(column))):
                return text
        return ""

    def _as_text(self, row: int, column: str, value: object) -> str:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                code = f"\\u{ord(value[error.start]):04x}"
                raise self._error(row, f"{column!r} holds {code}, half of a surrogate pair") from None
            return value
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, Unreadable):
            raise self._error(row, f"{column!r} can't be read: {value.reason}")
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (list, dict, bytes, float)) and not (
            isinstance(value, float) and math.isfinite(value)
        ):
            raise self._error(row, f"{column!r} holds {_kind(value)}, not text: {_excerpt(value)}")
        return str(value)

    def _error(self, row: int, what: str) -> DataError:
        return DataError(
            what, path=self.path, row=row, remedy=f"correct this row, or leave it out; or {NAME_THE_COLUMNS}"
        )


def as_turns(value: object) -> object:
    """The list that a text holds as JSON, as tables without lists (CSV, SQL) keep turns, or that an object of
    lists holds part by part, as the library datasets keeps them; else ``value``."""
    if isinstance(value, dict):
        return _turns_by_part(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            found = json.loads(value)
            if isinstance(found, list):
                return found
    return value


def _turns_by_part(value: Record) -> object:
    parts = [part for part in value.values() if isinstance(part, list)]
    told = {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    if not told or len(parts) < len(value) or len({len(part) for part in parts}) > 1:
        return value
    return [dict(zip(value, turn, strict=True)) for turn in zip(*parts, strict=True)]


def is_python_turns(value: object) -> bool:
    """Whether a text is a list of turns in Python's notation, with single quotes, which is no JSON."""
    if not isinstance(value, str) or _PYTHON_TURNS.match(value) is None:
        return False
    # A question may begin with a list; and numpy writes no commas between turns, so that none can be read.
    keys = (("'role':", "'content':"), ("'from':", "'value':"))
    return value.rstrip().endswith("}]") and any(all(key in value for key in pair) for pair in keys)


def as_pairs(value: object) -> list[list[object]] | None:
    """The pairs of question and answer that a value holds, maybe as JSON text; None for anything else."""
    pairs = as_turns(value) or []
    paired = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    return cast(list[list[object]], pairs) if paired else None


def _turns_of(prompt: object, answer: object) -> tuple[list[object], list[object]] | None:
    """The turns that prompt and completion are themselves, as TRL writes them; None where they are texts."""
    if isinstance(prompt, list) and isinstance(answer, (list, dict)):
        return prompt, answer if isinstance(answer, list) else [answer]
    asked = as_turns(prompt)
    if not _are_turns(asked):
        return None
    told = as_turns(answer)
    return (asked, told) if _are_turns(told) else None


def _are_turns(value: object) -> TypeGuard[list[object]]:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def _joined(turns: Sequence[Message]) -> str:
    return "\n\n".join(turn.content for turn in turns if turn.content)


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "NoneType": "null", "str": "text", "bytes": "bytes"}
    if isinstance(value, Unreadable):
        return f"what can't be read ({value.reason})"
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _excerpt(value: object) -> str:
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:40]
