"""Finding how the rows of a file are to be read, from the names and values of its columns."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from tuneahead.besides import find_media, find_tools
from tuneahead.columns import (
    NAME_THE_COLUMNS,
    ROLES,
    ColumnMapping,
    Layout,
    Record,
    as_pairs,
    as_turns,
    is_python_turns,
)
from tuneahead.columnuse import (
    ANSWER_NAMES,
    DOCUMENT_NAMES,
    INPUT_NAMES,
    LABEL_NAMES,
    MESSAGE_NAMES,
    PROMPT_NAMES,
    SOURCE_NAMES,
    SUMMARY_NAMES,
    SYSTEM_NAMES,
    TEXT_NAMES,
    WANTED_NAMES,
    column_names,
    find_use,
)
from tuneahead.errors import DataError
from tuneahead.misfits import find_misfit, shape_of

_OPTIONAL = ("system", "input", "history")


def find_layout(
    sample: Sequence[tuple[int, Record]], mapping: ColumnMapping | None, path: Path, how: str = ""
) -> Layout:
    """Find how rows are to be read from a sample of them: the layout that most of them fit.

    Raises :class:`DataError`, listing the columns seen and ``how`` they were, when none fits or
    ``mapping`` names a column that no row has.
    """
    shapes = _shapes(sample)
    if set(shapes.values()) == {"column"}:
        _refuse_misfit(shapes, path)
    found = _find(sample, mapping, path, how)
    named = () if mapping is None else [f.name for f in fields(mapping) if getattr(mapping, f.name)]
    read = {f.name: getattr(found.columns, f.name) for f in fields(found.columns)}
    others = [column for columns in found.others.values() for column in columns]
    records = [record for _, record in sample]
    return replace(found, use=find_use(records, read, named, others), tools=find_tools(records))


def _shapes(sample: Sequence[tuple[int, Record]]) -> dict[str, str]:
    """Of a file that holds one object: how its values look. That may be a whole table, and no row."""
    if len(sample) != 1:
        return {}
    shapes = {str(key): shape_of(value) for key, value in sample[0][1].items()}
    # On one line a conversation is a row.
    return {key: "" if shape == "turns" else shape for key, shape in shapes.items()}


def _refuse_misfit(shapes: dict[str, str], path: Path) -> None:
    if (misfit := find_misfit(shapes)) is not None:
        raise DataError(misfit.what, path=path, row=1, remedy=misfit.remedy)


def _find(
    sample: Sequence[tuple[int, Record]], mapping: ColumnMapping | None, path: Path, how: str
) -> Layout:
    if mapping is not None and mapping.given():
        return _mapped(sample, mapping, path, how)
    if all({"chosen", "rejected"} <= record.keys() for _, record in sample):
        raise _preferences(sample, "chosen", path)
    votes: Counter[tuple[str, ColumnMapping]] = Counter()
    for _, record in sample:
        found = _guess(record)
        if found is not None:
            votes[found] += 1
    if not votes or votes.most_common(1)[0][0][0] == "text":
        _refuse_turns(sample, path)
    if not votes:
        _refuse_preferences(sample, path)
        _refuse_misfit(_shapes(sample), path)
        raise DataError(
            f"no known columns (seen: {_seen(sample)}{how})",
            path=path,
            row=sample[0][0],
            remedy=NAME_THE_COLUMNS,
        )
    (name, columns), _ = votes.most_common(1)[0]
    columns, others = _with_optional(columns, sample)
    media = find_media([record for _, record in sample])
    return Layout(name, columns, path, others=others, label=_label(sample, columns), media=media)


def _refuse_preferences(sample: Sequence[tuple[int, Record]], path: Path) -> None:
    """Preferred and other answers under names of their own: ``chosen_messages``, ``response_rejected``."""
    first = sample[0][1]
    for column in map(str, first):
        other = re.sub("chosen", "rejected", column, flags=re.IGNORECASE).lower()
        twin = next((str(name) for name in first if str(name).lower() == other), "")
        if twin not in ("", column) and all(isinstance(first[name], (str, list)) for name in (column, twin)):
            raise _preferences(sample, column, path)


def _preferences(sample: Sequence[tuple[int, Record]], chosen: str, path: Path) -> DataError:
    return DataError(
        f"preference data (columns seen: {_seen(sample)}): no answer column",
        path=path,
        remedy=f"to train on the preferred answers: {_chosen_options(sample[0][1], chosen)}",
    )


def _refuse_turns(sample: Sequence[tuple[int, Record]], path: Path) -> None:
    """Rows that are single turns tell nothing of what was asked before them."""
    names = {str(key).strip().lower(): str(key) for key in sample[0][1]}
    role = next((names[name] for name in ("role", "from") if name in names), "")
    told = next((names[name] for name in ("content", "value", "text") if name in names), "")
    if role and told and all(str(record.get(role)).strip().lower() in ROLES for _, record in sample):
        raise DataError(
            f"each row is one turn (columns {role}, {told}), not a whole conversation",
            path=path,
            row=sample[0][0],
            remedy='write one conversation a row: {"messages": [{"role": "user", "content": "..."}, ...]}; '
            f"or, to train on each turn as plain text: -m text={shlex.quote(told)}",
        )


def _label(sample: Sequence[tuple[int, Record]], columns: ColumnMapping) -> str:
    """The column that marks answers as wanted or not, as unpaired preferences for KTO have it; else empty."""
    # Beside a question and its answer a label may be the answer once more, as true or false.
    own = bool(columns.messages) or columns.answer.strip().lower() == "completion"
    telling = WANTED_NAMES + (LABEL_NAMES if own else ())
    for name in column_names(record for _, record in sample):
        if name.strip().lower() in telling:
            marks = {str(record[name]).lower() for _, record in sample if record.get(name) is not None}
            if marks and marks <= {"true", "false"}:
                return name
    return ""


def _mapped(sample: Sequence[tuple[int, Record]], mapping: ColumnMapping, path: Path, how: str) -> Layout:
    for column in mapping.given():
        if not any(column in record for _, record in sample):
            raise DataError(
                f"no column {column!r} (seen: {_seen(sample)}{how})",
                path=path,
                remedy="name a column that is there, in the same letters",
            )
    kinds = [bool(mapping.messages), bool(mapping.text), bool(mapping.prompt or mapping.answer)]
    if not any(kinds):
        found = _find(sample, None, path, how)
        extra = {name: getattr(mapping, name) or getattr(found.columns, name) for name in _OPTIONAL}
        others = {part: names for part, names in found.others.items() if not getattr(mapping, part)}
        return replace(found, columns=replace(found.columns, **extra), others=others)
    if sum(kinds) != 1 or bool(mapping.prompt) != bool(mapping.answer):
        raise DataError(
            f"the mapping names {', '.join(mapping.given())}",
            path=path,
            remedy="name prompt and answer together, as in -m prompt=Frage -m answer=Antwort; or messages "
            "alone, or text alone",
        )
    name = "messages" if mapping.messages else "text" if mapping.text else "prompt-answer"
    return Layout(name, mapping, path)


def _chosen_options(record: Record, column: str) -> str:
    """How to read the preferred answers: a conversation of its own, or the answer to a prompt column."""
    chosen, quoted = record[column], shlex.quote(column)
    first = chosen[0] if isinstance(chosen, list) and chosen else None
    role = str(first.get("role", first.get("from")) if isinstance(first, dict) else "").lower()
    names = {str(key).strip().lower(): str(key) for key in record}
    prompt = next((names[name] for name in (*PROMPT_NAMES, *MESSAGE_NAMES) if name in names), "")
    if first is not None and (ROLES.get(role) != "assistant" or not prompt):
        return f"-m messages={quoted}"
    return f"-m prompt={shlex.quote(prompt)} -m answer={quoted}" if prompt else f"-m text={quoted}"


def _seen(sample: Sequence[tuple[int, Record]]) -> str:
    names = dict.fromkeys(key for _, record in sample for key in record)
    shown = ", ".join(str(name)[:40] for name in list(names)[:20])
    return shown + (", ..." if len(names) > 20 else "") if names else "none"


def _guess(record: Record) -> tuple[str, ColumnMapping] | None:
    names = {str(key).strip().lower(): key for key in record}
    first: Callable[[tuple[str, ...]], str] = lambda known: next((names[n] for n in known if n in names), "")  # noqa: E731
    for known in MESSAGE_NAMES:
        turns = as_turns(record[names[known]]) if known in names else None
        if isinstance(turns, list):
            shared = turns and isinstance(turns[0], dict) and "from" in turns[0]
            return "sharegpt" if shared else "messages", ColumnMapping(messages=names[known])
    answer = first(ANSWER_NAMES)
    prompt = first(PROMPT_NAMES)
    if prompt and answer:
        alpaca = prompt.strip().lower() == "instruction" and answer.strip().lower() == "output"
        return "alpaca" if alpaca else "prompt-answer", ColumnMapping(prompt=prompt, answer=answer)
    summary = first(SUMMARY_NAMES) or answer
    for asked, told in ((first(DOCUMENT_NAMES), summary), (first(SOURCE_NAMES), answer)):
        if asked and told:
            return "prompt-answer", ColumnMapping(prompt=asked, answer=told)
    text = first(TEXT_NAMES)
    # Of a text and its class the text is what is asked.
    if text and not {"label", "labels"} & names.keys():
        return "text", ColumnMapping(text=text)
    # So that what is wrong with them is told.
    written = next((names[n] for n in MESSAGE_NAMES if n in names and is_python_turns(record[names[n]])), "")
    return ("messages", ColumnMapping(messages=written)) if written else None


def _with_optional(
    columns: ColumnMapping, sample: Sequence[tuple[int, Record]]
) -> tuple[ColumnMapping, dict[str, tuple[str, ...]]]:
    # These may be absent in most rows, so they are looked up in every row of the sample,
    # and under their usual names even when the sample has none.
    names = {str(key).strip().lower(): str(key) for _, record in sample for key in record}
    taken = set(columns.given())
    found: dict[str, str] = {}
    others: dict[str, tuple[str, ...]] = {}
    for part, known in (("system", SYSTEM_NAMES), ("input", INPUT_NAMES)):
        usual = [names.get(name, name) for name in known]
        free = [name for name in usual if name not in taken]
        found[part] = next((name for name in free if name in names.values()), free[0])
        others[part] = tuple(
            name for name in free if name != found[part] and _may_fill_in(sample, name, found[part])
        )
    if columns.text:
        return columns, {}
    if columns.messages:
        return replace(columns, system=found["system"]), others
    column = names.get("history", "history")
    if all(as_pairs(record.get(column)) is not None for _, record in sample):
        found["history"] = column
    return replace(columns, **found), others


def _may_fill_in(sample: Sequence[tuple[int, Record]], column: str, usual: str) -> bool:
    """Whether a column may be read where the usual one is empty: it holds texts, none beside one there."""
    filled = [record for _, record in sample if record.get(column) not in (None, "")]
    return all(isinstance(record[column], str) and record.get(usual) in (None, "") for record in filled)
