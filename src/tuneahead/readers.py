"""Record readers: JSONL, JSON, CSV, TSV and Parquet files as a stream of rows."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tuneahead.counts import counted
from tuneahead.datafile import MAX_ROW_BYTES, Source, iter_lines, undecodable, unreadable
from tuneahead.errors import DataError
from tuneahead.jsonstream import JsonStream, Number, check_record, decode_json

Record = dict[str, object]
Rows = Iterator[tuple[int, Record]]
"""Pairs (row, record); ``row`` is the line for JSONL and CSV, else the record's number, from 1."""


@dataclass(frozen=True)
class Unreadable:
    """A Parquet cell that no Python value can hold, such as a day in the year 30000.

    It is an error only where the cell is used.
    """

    reason: str


def iter_records(source: Source, *, exact: bool = False) -> Rows:
    """Stream the rows of ``source`` with bounded memory; blank lines are skipped.

    Numbers of JSON files come as the text they were written as (``1.10`` stays ``1.10``);
    ``exact`` marks them (:class:`~tuneahead.jsonstream.Number`), so that records can be written out again.
    Raises :class:`DataError` with the row that can't be read.
    """
    reader = {"jsonl": _jsonl_rows, "json": _json_rows, "parquet": _parquet_rows}.get(
        source.container, _table_rows
    )
    try:
        yield from reader(source, exact)
        if source.on_read is not None:
            source.on_read(source.size_bytes)
    except OSError as error:
        raise unreadable(source.path, error) from None


def _jsonl_rows(source: Source, exact: bool) -> Rows:
    decode = decode_json(Number if exact else str)
    for row, line in iter_lines(source):
        if line.isspace():
            continue
        yield row, check_record(decode(line.rstrip("\r\n"), source.path, row), source.path, row)


def _json_rows(source: Source, exact: bool) -> Rows:
    with source.open() as handle:
        number = Number if exact else str
        stream = JsonStream(handle, source.path, source.encoding, number=number, limit=MAX_ROW_BYTES)
        for row, record in stream.rows():
            source.report(row, handle.tell)
            yield row, record


_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SPACED = re.compile(r' +"[^"]*"\s*')


def _table_rows(source: Source, exact: bool) -> Rows:
    # The limit is global to the process and only ever raised: at its default of 131,072
    # characters the module refuses honest long answers.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    lines = (text for _, text in iter_lines(source))
    head = _head(lines)
    mark = _delimiter(source, head)
    of_row: list[str] = []
    reader = csv.reader(_kept(chain(head, lines), of_row), delimiter=mark, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            row, start = start, reader.line_num + 1
            text = "".join(of_row)
            of_row.clear()
            if not fields or (header is None and not any(field.strip() for field in fields)):
                continue
            if source.container == "tsv":
                _refuse_swallowed(source, fields, row)
            elif any(_SPACED.fullmatch(field) and mark + field in mark + text for field in fields):
                raise _spaced(source, row)
            if header is None:
                header = _header(source, fields)
            elif len(fields) != len(header):
                seen = f"{counted(len(fields), 'field')} where the header names {len(header)}"
                raise DataError(
                    seen + how_split(source),
                    path=source.path,
                    row=row,
                    remedy="quote fields that hold delimiters or line breaks, no space before the quotes",
                )
            else:
                yield row, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise _misquoted(source, start, error) from None


def _misquoted(source: Source, row: int, error: csv.Error) -> DataError:
    if "new-line character" in str(error):
        return DataError(
            "a carriage return alone ends a line (CR, as on old Macs)",
            path=source.path,
            row=row,
            remedy=r"convert the line ends: tr '\r' '\n' < FILE > NEW; or quote the field that holds it",
        )
    return DataError(
        f"not valid {source.container.upper()} ({error})",
        path=source.path,
        row=row,
        remedy="check the quotes and line ends from this row on",
    )


def _refuse_swallowed(source: Source, fields: list[str], row: int) -> None:
    """Most TSV has no quoting: a mark that opens a field there takes the rows up to the next mark with it."""
    if any("\t" in field and "\n" in field for field in fields):
        raise DataError(
            "a field in quotation marks holds tabs and line breaks: it may be several rows",
            path=source.path,
            row=row,
            remedy=r"write it as JSONL: in pandas read_csv(FILE, sep='\t', quoting=3) where quotation marks "
            "are text, quoting=0 where they quote, and to_json('NEW.jsonl', orient='records', lines=True)",
        )


def _spaced(source: Source, row: int) -> DataError:
    return DataError(
        "a space stands before a quotation mark, so that the marks would be part of the text",
        path=source.path,
        row=row,
        remedy="take such spaces out; in pandas: read_csv(FILE, skipinitialspace=True) and "
        "to_json('NEW.jsonl', orient='records', lines=True)",
    )


def _kept(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    """The lines, each put into a list as it is taken."""
    for line in lines:
        kept.append(line)
        yield line


def _head(lines: Iterator[str]) -> list[str]:
    """The lines up to the first that is not blank."""
    head = []
    for line in lines:
        head.append(line)
        if not line.isspace():
            break
    return head


def _delimiter(source: Source, head: list[str]) -> str:
    if source.container == "tsv":
        return "\t"
    # Spreadsheets of many countries write semicolons; a header without a comma shows it.
    return next((mark for mark in _MARKS if head and mark in head[-1]), ",")


def how_split(source: Source) -> str:
    """For an error about the columns of a CSV file: which delimiter was guessed; empty for others."""
    if source.container != "csv":
        return ""
    head = _head(text for _, text in iter_lines(source))
    mark = _delimiter(source, head)
    if not head or mark not in head[-1]:
        return "; the header holds no comma, semicolon, tab or bar"
    return f"; fields were split at {_MARKS[mark]}, a guess from the header"


def _header(source: Source, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    _refuse_twins(source, [name for name in names if name], row=1)
    return names


def _refuse_twins(source: Source, names: list[str], row: int | None = None) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(
            f"two columns are named {twice!r}", path=source.path, row=row, remedy="rename one of them"
        )


_UNREADABLE = (OverflowError, LookupError)
"""What pyarrow raises for a time that Python does not know: out of range, or in an unknown time zone."""


def _by_cell(batch: Any) -> Iterator[Record]:
    """Rows of a batch that can't be read as a whole: those before a bad one come, and it is named."""
    names = batch.schema.names
    for i in range(len(batch)):
        yield {name: _cell(column[i]) for name, column in zip(names, batch.columns, strict=True)}


def _cell(cell: Any) -> object:
    try:
        return cell.as_py()
    except _UNREADABLE as error:
        return Unreadable(str(error))


def _shortest_floats(pa: Any, batch: Any, deep: bool) -> Any:
    """Floats of 32 bits as the shortest numbers that stand for them: 0.1, not 0.10000000149011612.

    ``deep`` takes those within lists and structures too. Vectors are many numbers, and never read as text.
    """
    for at, column in enumerate(batch.schema):
        text = _with_floats(pa, column.type, pa.string(), deep)
        if text != column.type:
            double = _with_floats(pa, column.type, pa.float64(), deep)
            batch = batch.set_column(at, column.name, batch.column(at).cast(text).cast(double))
    return batch


def _with_floats(pa: Any, kind: Any, floats: Any, deep: bool) -> Any:
    """An Arrow type with ``floats`` in place of floats of 32 bits."""
    if kind == pa.float32():
        return floats
    if not deep:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([inner.with_type(_with_floats(pa, inner.type, floats, deep)) for inner in kind])
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _with_floats(pa, kind.value_type, floats, deep)
        return kind if inner == kind.value_type else pa.large_list(inner)
    return kind


def _parquet_rows(source: Source, exact: bool) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            "reading Parquet needs pyarrow", path=source.path, remedy="pip install pyarrow"
        ) from None

    row = 0
    try:
        with pq.ParquetFile(source.path) as file:
            names = file.schema_arrow.names
            _refuse_twins(source, names)
            used = [name for name in names if source.columns is None or name in source.columns]
            for raw in file.iter_batches(batch_size=2048, columns=used):
                batch = _shortest_floats(pa, raw, exact)
                try:
                    records = batch.to_pylist()
                except (UnicodeDecodeError, *_UNREADABLE):
                    records = _by_cell(batch)
                for record in records:
                    yield row + 1, record
                    row += 1
                # Row groups differ in size, but nothing else says how far the file has been read.
                if source.on_read is not None:
                    source.on_read(source.size_bytes * row // max(1, file.metadata.num_rows))
    except UnicodeDecodeError as error:
        raise undecodable(source, row + 1, error) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        line = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"damaged Parquet file after {counted(row, 'row')} ({line})",
            path=source.path,
            remedy="write or download it again",
        ) from None
