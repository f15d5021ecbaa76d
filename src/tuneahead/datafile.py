"""A data file before it is read: which container, which encoding, and its lines as text."""

from __future__ import annotations

import codecs
import io
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tuneahead.errors import DataError
from tuneahead.jsonstream import JsonStream

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
_SAVE = "load_from_disk(FOLDER).to_parquet('NEW.parquet'), of several splits load_from_disk(FOLDER)['train']"
_TABLE = "orient='records', lines=True"
_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")
"""Files in a folder that save_to_disk of the library datasets wrote."""
# First bytes of files that people do hand over, and what to do with each.
_FOREIGN = (
    (b"\x1f\x8b", "a gzip archive", "unpack it: gunzip FILE"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it: unzstd FILE"),
    (b"\xfd7zXZ", "an xz archive", "unpack it: unxz FILE"),
    (b"BZh", "a bzip2 archive", "unpack it: bunzip2 FILE"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", f"save it as Parquet; of the library datasets: {_SAVE}"),
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the file", "fetch it: git lfs pull"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV or JSONL"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\x89PNG", "a PNG image", f"hand over a {_KINDS} file"),
    (b"%PDF", "a PDF document", f"hand over a {_KINDS} file"),
)


@dataclass(frozen=True)
class Source:
    """A data file that was looked at: its kind of container and its text encoding."""

    path: Path
    container: str
    encoding: str = "utf-8"
    bom_bytes: int = 0
    columns: frozenset[str] | None = None
    """Columns of a Parquet file that are read; all without."""
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

    Raises :class:`DataError` for a missing, unreadable, empty or foreign file, and for what is no path.
    """
    try:
        path = Path(path)
    except TypeError:
        kind = type(path).__name__
        raise DataError(
            f"what was handed over is a {kind}, not the path of a data file",
            remedy=f"write it to a file: a DataFrame with to_json('NEW.jsonl', {_TABLE}), a data set of the "
            "library datasets with to_json('NEW.jsonl'), a list with one json.dumps a line",
        ) from None
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            saved = any((path / name).is_file() for name in _SAVED)
            remedy = f"save it as Parquet: {_SAVE}" if saved else f"name one {_KINDS} file in it"
            raise DataError("is a folder, not a file", path=path, remedy=remedy)
        if not stat.S_ISREG(mode):
            raise DataError("is not a regular file", path=path, remedy="save the stream to a file first")
        with path.open("rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise DataError(f"not a usable path ({error})", path=repr(path), remedy="correct the path") from None
    if not head:
        raise DataError("is empty (0 bytes)", path=path, remedy="check the export that wrote it")
    return _sniff(path, head)


def unreadable(path: Path, error: OSError) -> DataError:
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
        raise unreadable(path, error) from None


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
        # Latin-1 takes every byte, and makes control characters of the quotes and dashes of spreadsheets.
        remedy="convert the file, for example: iconv -f CP1252 -t UTF-8 FILE > NEW",
    )
