"""Training examples and the files they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from tuneahead.columns import ColumnMapping, Layout
from tuneahead.columnuse import ColumnUse
from tuneahead.datafile import Source, find_source
from tuneahead.errors import DataError
from tuneahead.examples import Example, Message
from tuneahead.layouts import find_layout
from tuneahead.readers import Record, how_split, iter_records

__all__ = [
    "ColumnMapping",
    "Dataset",
    "Example",
    "ExampleFile",
    "Message",
    "iter_examples",
    "read_examples",
]

_SAMPLE_ROWS = 100
"""Rows looked at before the format is decided."""


@dataclass(frozen=True)
class Dataset:
    """The examples of one file, and what they were read as.

    ``fingerprint`` hashes what was parsed (prompts, answers, turns, tools), so that the same rows in
    another format share it. ``format`` is alpaca, prompt-answer, messages, sharegpt or text;
    ``columns`` names the columns that were read, ``use`` also those that were not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "capitals.jsonl")
    ...     _ = path.write_text('{"question": "Capital of Peru?", "answer": "Lima"}')
    ...     data = read_examples(path)
    >>> data.format, data.rows, data.examples[0].answer
    ('prompt-answer', 1, 'Lima')
    """

    examples: tuple[Example, ...] = field(repr=False)
    fingerprint: str
    path: Path
    format: str
    columns: ColumnMapping
    use: ColumnUse = ColumnUse()

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


class ExampleFile:
    """The examples of one file, read anew each time they are gone through; memory stays bounded.

    ``format``, ``columns`` and ``use`` as in :class:`Dataset`. ``fingerprint`` is known once the file has
    been read to its end, and empty before. ``on_read`` is told how many bytes have been read.
    Raises :class:`DataError` as :func:`iter_examples` does.
    """

    def __init__(
        self,
        path: str | Path,
        mapping: ColumnMapping | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        source = find_source(path)
        layout, _ = _open(source, mapping)
        self.path, self.format, self.columns = source.path, layout.format, layout.columns
        self.use = layout.use
        self.fingerprint = ""
        self._source = replace(source, on_read=on_read)
        self._mapping = mapping

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self._source.size_bytes

    def __iter__(self) -> Iterator[Example]:
        layout, rows = _open(self._source, self._mapping)
        digest = None if self.fingerprint else _Digest()
        for row, record in rows:
            example = layout.example(row, record)
            if digest is not None:
                digest.add(example)
            yield example
        if digest is not None:
            self.fingerprint = digest.text()


def iter_examples(path: str | Path, mapping: ColumnMapping | None = None) -> Iterator[Example]:
    """Stream the examples of a JSONL, JSON, CSV, TSV or Parquet file; memory stays bounded.

    The format is found from the first rows unless ``mapping`` names the columns. Raises
    :class:`DataError` naming file and row for whatever can't be read. Empty answers are kept.
    """
    layout, rows = _open(find_source(path), mapping)
    for row, record in rows:
        yield layout.example(row, record)


def read_examples(path: str | Path, *, mapping: ColumnMapping | None = None) -> Dataset:
    """Read a whole file into a :class:`Dataset`; formats and errors as in :func:`iter_examples`."""
    source = find_source(path)
    layout, rows = _open(source, mapping)
    examples = tuple(layout.example(row, record) for row, record in rows)
    return Dataset(examples, fingerprint(examples), source.path, layout.format, layout.columns, layout.use)


def fingerprint(examples: Iterable[Example]) -> str:
    """Hash of prompts, answers, turns and tools in order; 16 hex digits of SHA-256."""
    digest = _Digest()
    for example in examples:
        digest.add(example)
    return digest.text()


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, example: Example) -> None:
        parts = [example.prompt, example.answer]
        for turn in example.messages or ():
            parts += (turn.role, turn.content, *(["asked"] if turn.asked else []))
        if example.tools:
            parts.append(example.tools)
        try:
            encoded = [part.encode() for part in parts]
        except UnicodeEncodeError as error:
            code = f"\\u{ord(error.object[error.start]):04x}"
            raise DataError(
                f"row {example.row} holds {code}, half of a surrogate pair",
                remedy="correct this row, or leave it out",
            ) from None
        # Lengths first: without them ("ab", "c") and ("a", "bc") would hash alike.
        lengths = " ".join([str(len(part)) for part in encoded])
        self._hash.update(lengths.encode() + b"\n" + b"".join(encoded))

    def text(self) -> str:
        return self._hash.hexdigest()[:16]


def _open(source: Source, mapping: ColumnMapping | None) -> tuple[Layout, Iterator[tuple[int, Record]]]:
    rows = iter_records(source)
    sample = list(islice(rows, _SAMPLE_ROWS))
    if not sample:
        raise DataError("holds no rows", path=source.path, remedy="check the export that wrote it")
    layout = find_layout(sample, mapping, source.path, how_split(source))
    if source.container != "parquet":
        return layout, chain(sample, rows)
    # Vectors beside a text cost many times what the text does.
    texts = {*layout.columns.given(), *chain.from_iterable(layout.others.values())}
    used = {*texts, layout.label, layout.tools, *layout.media}
    return layout, iter_records(replace(source, columns=frozenset(used)))
