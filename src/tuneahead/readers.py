"""Record readers: JSONL, JSON, CSV, TSV and Parquet files as a stream of rows."""

from __future__ import annotations

import codecs
import csv
import io
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tuneahead.counts import counted
from tuneahead.errors import DataError
from tuneahead.jsonstream import JsonStream, Number, check_record, decode_json

Record = dict[str, object]
Rows = Iterator[tuple[int, Record]]
"""Pairs (row, record); ``row`` is the line for JSONL and CSV, else the record's number, from 1."""

MAX_ROW_BYTES = 128 * 2**20
"""A longer row is refused: it is a damaged file, and would not fit a training window anyway."""

_HEAD_BYTES = 64 * 2**10
_REPORT_ROWS = 1024
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
JSONL_SUFFIXES = tuple(suffix for suffix, container in _SUFFIXES.items() if container == "jsonl")
_KINDS = "JSONL, JSON, CSV, TSV or Parquet"
# First bytes of files that people do hand over, and what to do with each.
_FOREIGN = (
    (b"\x1f\x8b", "a gzip archive", "unpack it: gunzip FILE"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it: unzstd FILE"),
    (b"\xfd7zXZ", "an xz archive", "unpack it: unxz FILE"),
    (b"BZh", "a bzip2 archive", "unpack it: bunzip2 FILE"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV or JSONL"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\x89PNG", "a PNG image", f"hand over a {_KINDS} file"),
    (b"%PDF", "a PDF document", f"hand over a {_KINDS} file"),
)


@dataclass(frozen=True)
class Unreadable:
    """A Parquet cell that no Python value can hold, such as a day in the year 30000.

    It is an error only where the cell is used.
    """

    reason: str


@dataclass(frozen=True)
class Source:
    """A data file that was looked at: its kind of container and its text encoding."""

    path: Path
    container: str
    encoding: str = "utf-8"
    bom_bytes: int = 0
    on_read: Callable[[int], None] | None = field(default=None, compare=False)
    """Told from time to time how many bytes of the file have been read."""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def report(self, row: int, tell: Callable[[], int]) -> None:
        """Tell how far reading has come, every thousand rows or so."""
        if self.on_read is not None and row % _REPORT_ROWS == 0:
            self.on_read(tell())

    def open(self) -> BinaryIO:
        """The file, opened for reading and placed after its byte order mark."""
        handle = self.path.open("rb")
        handle.seek(self.bom_bytes)
        return handle


def find_source(path: str | Path) -> Source:
    """Look at the first bytes of ``path``: which container, which encoding.

    Raises :class:`DataError` for a missing, unreadable, empty or foreign file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError("is a folder, not a file", path=path, remedy=f"name one {_KINDS} file in it")
        if not stat.S_ISREG(mode):
            raise DataError("is not a regular file", path=path, remedy="save the stream to a file first")
        with path.open("rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise DataError(f"not a usable path ({error})", path=repr(path), remedy="correct the path") from None
    if not head:
        raise DataError("is empty (0 bytes)", path=path, remedy="check the export that wrote it")
    return _sniff(path, head)


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
        raise _unreadable(source.path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    remedy = {
        "FileNotFoundError": "check the path (it is relative to the current folder)",
        "PermissionError": "give yourself read permission: chmod u+r FILE",
    }.get(type(error).__name__, "check the path and the disk")
    return DataError(f"can't be read: {error.strerror or error}", path=path, remedy=remedy)


def _sniff(path: Path, head: bytes) -> Source:
    if head.startswith(b"PAR1"):
        return Source(path, "parquet")
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"is {what}, not {_KINDS}", path=path, remedy=remedy)
    container = _SUFFIXES.get(path.suffix.lower(), "")
    if container == "parquet":
        raise DataError(
            f"is not a Parquet file: it starts with {head[:8]!r}", path=path, remedy="write it again"
        )
    encoding, bom = "utf-8", 0
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(mark):
            encoding, bom = name, len(mark)
    if encoding == "utf-8":
        _refuse_binary(path, head)
    text = head[bom:].decode(encoding, errors="replace").lstrip()
    if container == "json" and text.startswith("{") and "\n" not in text and len(head) == _HEAD_BYTES:
        text = _first_line(path, encoding, bom)
    return Source(path, _container(path, container, text), encoding, bom)


def _first_line(path: Path, encoding: str, bom: int) -> str:
    """A first line that is longer than the head, and the beginning of what follows it."""
    try:
        with path.open("rb") as handle:
            handle.seek(bom)
            reader = io.TextIOWrapper(handle, encoding, errors="replace", newline="\n")
            line = reader.readline(MAX_ROW_BYTES)
            while line.isspace():
                line = reader.readline(MAX_ROW_BYTES)
            return line.lstrip() + reader.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_binary(path: Path, head: bytes) -> None:
    zeros = head.count(0)
    if zeros > len(head) // 4 and max(head[::2].count(0), head[1::2].count(0)) > 0.9 * zeros:
        raise DataError(
            "looks like UTF-16 text without a byte order mark", path=path, remedy="iconv -f UTF-16LE -t UTF-8"
        )
    control = sum(head.count(code) for code in (*range(9), 14, 15, *range(16, 32), 127))
    if control > max(16, len(head) // 10):
        raise DataError(
            f"is binary: {control} of its first {len(head)} bytes are control characters",
            path=path,
            remedy=f"hand over a {_KINDS} file",
        )


def _container(path: Path, container: str, text: str) -> str:
    if container in ("csv", "tsv"):
        return container
    if text.startswith("["):
        return "json"
    if container == "jsonl":
        return "jsonl"
    if text.startswith("{"):
        # A .json file is as often one object a line as one document: a first line that
        # is whole decides. A document wraps its rows in one key, such as {"data": [...]}.
        line, _, rest = text.partition("\n")
        if len(line) > _HEAD_BYTES and JsonStream.begins_as_wrapper(line):
            # A whole document on one line may be large; rows are not.
            return "json"
        try:
            first = json.loads(line)
        except (ValueError, RecursionError):
            return "json" if container == "json" else "jsonl"
        wrapped = isinstance(first, dict) and JsonStream.wrapper_key(first) and not rest.strip()
        return "json" if wrapped else "jsonl"
    if container == "json" or not text:
        return container or "jsonl"
    raise DataError(
        f"unknown kind of file (its name ends in {path.suffix!r}, it starts with {text[:20]!r})",
        path=path,
        remedy=f"use {_KINDS}, with the usual ending; plain text goes into a column named 'text'",
    )


def iter_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Stream the lines of a text file as (number, line), line ends kept; raises :class:`DataError`."""
    with source.open() as handle:
        read: Callable[[int], bytes | str] = handle.readline
        if source.encoding != "utf-8":
            # Not codecs' own reader: that one also breaks lines at U+2028 and the like.
            read = io.TextIOWrapper(handle, source.encoding, newline="\n").readline
        number = 0
        while True:
            number += 1
            try:
                line = read(MAX_ROW_BYTES + 1)
                text = line if isinstance(line, str) else line.decode()
            except UnicodeDecodeError as error:
                # UTF-16 is decoded in blocks, so that the row is not known.
                raise undecodable(source, number if source.encoding == "utf-8" else None, error) from None
            if not text:
                return
            if len(line) > MAX_ROW_BYTES:
                raise DataError(
                    f"the line is longer than {MAX_ROW_BYTES // 2**20} MiB",
                    path=source.path,
                    row=number,
                    remedy="put each record on a line of its own",
                )
            source.report(number, handle.tell)
            yield number, text


def undecodable(source: Source, row: int | None, error: UnicodeDecodeError) -> DataError:
    """The error for a row that is not text in the file's encoding."""
    seen = error.object[error.start : error.start + 1].hex()
    return DataError(
        f"byte 0x{seen} (number {error.start + 1}) is not valid {source.encoding.upper()}",
        path=source.path,
        row=row,
        remedy="convert the file, for example: iconv -f LATIN1 -t UTF-8 FILE > NEW",
    )


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


def _table_rows(source: Source, exact: bool) -> Rows:
    # The limit is global to the process and only ever raised: at its default of 131,072
    # characters the module refuses honest long answers.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    lines = (text for _, text in iter_lines(source))
    first = next(lines, "")
    reader = csv.reader(_chain(first, lines), delimiter=_delimiter(source, first), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            row, start = start, reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = _header(source, fields)
            elif len(fields) != len(header):
                seen = f"{counted(len(fields), 'field')} where the header names {len(header)}"
                raise DataError(
                    seen + how_split(source),
                    path=source.path,
                    row=row,
                    remedy="quote fields that hold delimiters or line breaks",
                )
            else:
                yield row, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        if "new-line character" in str(error):
            raise DataError(
                "a carriage return alone ends a line (CR, as on old Macs)",
                path=source.path,
                row=start,
                remedy=r"convert the line ends: tr '\r' '\n' < FILE > NEW; or quote the field that holds it",
            ) from None
        raise DataError(
            f"not valid {source.container.upper()} ({error})",
            path=source.path,
            row=start,
            remedy="check the quotes and line ends from this row on",
        ) from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(source: Source, header: str) -> str:
    if source.container == "tsv":
        return "\t"
    # Spreadsheets of many countries write semicolons; a header without a comma shows it.
    return next((mark for mark in (",", ";", "\t", "|") if mark in header), ",")


def how_split(source: Source) -> str:
    """For an error about the columns of a CSV file: which delimiter was guessed; empty for others."""
    if source.container != "csv":
        return ""
    header = next((text for _, text in iter_lines(source)), "")
    mark = _delimiter(source, header)
    if mark not in header:
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
            _refuse_twins(source, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=2048):
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
