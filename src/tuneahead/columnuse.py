"""Names by which columns are known, and what became of the columns of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

PROMPT_NAMES = ("prompt", "instruction", "question", "query", "problem", "input", "user", "human")
SOURCE_NAMES = ("source",)
"""Names of a prompt where no other column can be one; beside another they say where the row is from."""
ANSWER_NAMES = (
    "completion", "answer", "response", "output", "target", "solution", "reply", "answers", "assistant", "gpt"
)  # fmt: skip
INPUT_NAMES = ("input", "context", "passage")
MESSAGE_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
TEXT_NAMES = ("text", "content", "document")
DOCUMENT_NAMES = ("document", "article", "text", "content", "dialogue")
SUMMARY_NAMES = ("summary", "highlights")
SYSTEM_NAMES = ("system", "system_prompt")
WANTED_NAMES = ("kto_tag",)
"""Columns that say whether an answer is wanted."""
LABEL_NAMES = ("label",)
"""Columns that may say so, among other things."""
_PASSAGE_WORDS = 8
_RIVALS = {
    # A user beside a prompt says where the row is from.
    "prompt": tuple(name for name in PROMPT_NAMES if name != "user"),
    "answer": ANSWER_NAMES,
    "messages": MESSAGE_NAMES,
    "text": TEXT_NAMES,
    "system": SYSTEM_NAMES,
    "input": INPUT_NAMES,
    "history": (),
}


@dataclass(frozen=True)
class ColumnUse:
    """What became of the columns of a file, as far as its first rows show them.

    ``parts`` pairs each part with the column it was read from, ``unused`` are the others, and ``rivals``
    those of them, with the part, whose names would have done as well. ``passages`` are unused ones of running
    text beside a prompt without a second part: what its questions are about may stand there.
    """

    parts: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    rivals: tuple[tuple[str, str], ...] = ()
    passages: tuple[str, ...] = ()


def column_names(records: Iterable[Mapping[str, object]]) -> list[str]:
    """The names of all columns that any of the records has, in order of appearance."""
    return list(dict.fromkeys(str(key) for record in records for key in record))


def find_use(
    records: Sequence[Mapping[str, object]],
    read: Mapping[str, str],
    named: Collection[str],
    others: Collection[str] = (),
) -> ColumnUse:
    """How the columns of some records are used: ``read`` gives a column for each part, ``named`` the parts
    that were not found but told, ``others`` columns that are read where one of ``read`` is empty. A column
    without a name, as of a table's index, is read for no part.
    """
    read = {part: column for part, column in read.items() if column}
    seen = column_names(records)
    parts = tuple((part, column) for part, column in read.items() if column in seen)
    unused = tuple(column for column in seen if column not in (*read.values(), *others))
    rivals = tuple(
        (part, column)
        for part, chosen in parts
        for column in unused
        if part not in named and column.strip().lower() in _alike(part, chosen)
    )
    alone = "prompt" in read and "input" not in dict(parts)
    passages = tuple(column for column in unused if alone and _is_passage(records, column))
    return ColumnUse(parts, unused, rivals, passages)


def _is_passage(records: Sequence[Mapping[str, object]], column: str) -> bool:
    """Whether most of the rows hold running text there."""
    texts = [value for record in records if isinstance(value := record.get(column), str)]
    long = sum(len(text.split()) >= _PASSAGE_WORDS for text in texts)
    return bool(column) and long > len(records) / 2


def _alike(part: str, column: str) -> tuple[str, ...]:
    """Names of a part that would have done as well as that of the column it was read from."""
    document = part == "prompt" and column.strip().lower() in DOCUMENT_NAMES
    return _RIVALS[part] + (DOCUMENT_NAMES if document else ())
