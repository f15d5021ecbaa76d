"""JSON rows: one strict decoder, and a document read row by row without holding it whole."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tuneahead.errors import DataError
from tuneahead.misfits import find_misfit, shape_of

Record = dict[str, object]

WRAPPERS = ("data", "train", "rows", "examples", "records", "items", "instances")
"""Keys under which a JSON document may hold its rows, as in ``{"data": [...]}``."""

_WRAPPED = re.compile(r'\{\s*"(' + "|".join(WRAPPERS) + r')"\s*:\s*\[\s*[{\]]')
_CHUNK_BYTES = 256 * 2**10
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = " \t\r\n"
_DEEP = "nested too deeply to be read"


class _Refused(ValueError):
    """Valid for Python's decoder, but not unambiguous JSON."""


def _unique(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return record


def _refuse_constant(name: str) -> object:
    raise _Refused(f"{name} is not JSON; write null or leave the field out")


class Number(str):
    """A JSON number as the text it was written as, told from a string so that it can be written again."""


NumberKind = Callable[[str], object] | None
"""What becomes of a number's text: ``str``, :class:`Number`, or None for Python's own numbers."""


def _decoder(number: NumberKind) -> json.JSONDecoder:
    # As text an answer of 1.10 is not 1.1, and an integer of 5,000 digits is no error.
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=number, parse_int=number
    )


def decode_json(number: NumberKind = str) -> Callable[[str, Path, int], object]:
    """A function of (text, path, row) that decodes one JSON value or raises :class:`DataError`.

    Refuses duplicate keys, NaN and Infinity, which Python's own decoder lets pass.
    """
    decode = _decoder(number).decode

    def decoded(text: str, path: Path, row: int) -> object:
        try:
            return decode(text)
        except (ValueError, RecursionError) as error:
            raise _invalid(error, text, path, row) from None

    return decoded


def encode_json(value: object, default: Callable[[object], str]) -> str:
    """JSON text of a value, numbers as they were written; ``default`` makes text of other types.

    NaN, a missing number, becomes null. Raises ValueError for infinite numbers and RecursionError for what is
    nested too deeply.
    """
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{encode_json(str(k), default)}: {encode_json(v, default)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(encode_json(item, default) for item in value) + "]"
    if isinstance(value, float) and math.isnan(value):
        return "null"
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
    # Half of a surrogate pair has no UTF-8, only an escape.
    return json.dumps(value, default=default) if _SURROGATE.search(text) else text


def check_record(value: object, path: Path, row: int) -> Record:
    """``value`` if it is an object; else :class:`DataError`."""
    if isinstance(value, dict):
        return value
    kind = {"list": "a list", "NoneType": "null", "bool": "a boolean", "str": "a string or number"}.get(
        type(value).__name__, "a number"
    )
    raise DataError(
        f"the row is {kind}, not an object",
        path=path,
        row=row,
        remedy='write each row as an object, for example {"prompt": "...", "answer": "..."}',
    )


def _invalid(error: ValueError | RecursionError, text: str, path: Path, row: int, skip: int = 0) -> DataError:
    remedy = "correct this row, or leave it out"
    if isinstance(error, json.JSONDecodeError):
        near = text[max(0, error.pos - 12) : error.pos + 12].strip()
        column = error.pos - skip + 1
        what = f"not valid JSON ({error.msg.removesuffix(' at')} at column {column}), near {near!r}"
        if not text[error.pos :].strip():
            remedy = "the row ends early: the file may be cut off, or the object spread over several lines"
    elif isinstance(error, RecursionError):
        what = _DEEP
    else:
        what = str(error)
    return DataError(what, path=path, row=row, remedy=remedy)


class JsonStream:
    """A JSON document that is an array of rows, or an object with one under a key of ``WRAPPERS``.

    Holds one row and one chunk at a time. Row numbers count records from 1.
    """

    def __init__(
        self, handle: BinaryIO, path: Path, encoding: str, *, number: NumberKind, limit: int
    ) -> None:
        self._handle = handle
        self._path = path
        self._encoding = encoding
        self._decode_bytes = codecs.getincrementaldecoder(encoding)()
        self._scan = _decoder(number).raw_decode
        self._limit = limit
        self._text = ""
        self._at = 0
        self._ended = False
        self._undecodable = ""
        self._row = 0
        self._wrapped = False

    @staticmethod
    def wrapper_key(document: dict[str, object]) -> str:
        """The key that holds a list of rows, or an empty string."""
        for key in WRAPPERS:
            value = document.get(key)
            if isinstance(value, list) and (not value or isinstance(value[0], dict)):
                return key
        return ""

    @staticmethod
    def begins_as_wrapper(text: str) -> bool:
        """Whether the first key of a document is one that holds rows."""
        return _WRAPPED.match(text) is not None

    def rows(self) -> Iterator[tuple[int, Record]]:
        """Yield (row, record); raises :class:`DataError` with the row that can't be read."""
        if self._peek() == "{":
            self._enter_wrapper()
        if self._peek() != "[":
            raise self._error("not valid JSON: a list of rows was expected")
        self._at += 1
        if self._peek() == "]":
            return self._leave()
        while True:
            self._row += 1
            yield self._row, check_record(self._value(), self._path, self._row)
            mark = self._peek()
            if mark == "]":
                return self._leave()
            if mark != ",":
                raise self._error(f"not valid JSON: the row is followed by {self._seen()}, not by ',' or ']'")
            self._at += 1

    def _leave(self) -> None:
        self._at += 1
        if self._wrapped:
            while self._peek() == ",":
                self._at += 1
                self._key()
                self._skip()
            if self._peek() != "}":
                raise self._error(f"not valid JSON: the list of rows is followed by {self._seen()}")
            self._at += 1
        if self._peek():
            raise self._error(f"not valid JSON: the list of rows is followed by {self._seen()}")

    def _seen(self) -> str:
        return repr(self._text[self._at : self._at + 20]) if self._peek() else "the end of the file"

    def _key(self) -> str:
        key = str(self._value())
        if self._peek() != ":":
            raise self._error(f"not valid JSON: ':' was expected after the key {key!r}")
        self._at += 1
        return key

    def _skip(self) -> None:
        """Pass over a value; of a list that may be as long as the rows, one item at a time."""
        if self._peek() != "[":
            self._value()
            return
        mark = ","
        while mark == ",":
            self._at += 1
            if self._peek() == "]":
                break
            self._value()
            mark = self._peek()
        if self._peek() != "]":
            raise self._error(f"not valid JSON: a list is followed by {self._seen()}")
        self._at += 1

    def _enter_wrapper(self) -> None:
        self._wrapped = True
        seen: dict[str, str] = {}
        self._at += 1
        while self._peek() == '"':
            key = self._key()
            if key in WRAPPERS and self._peek() == "[":
                return
            seen[key] = shape_of(self._value())
            if self._peek() == ",":
                self._at += 1
                self._peek()
        if (misfit := find_misfit(seen)) is not None:
            raise DataError(misfit.what, path=self._path, row=1, remedy=misfit.remedy)
        keys = ", ".join(list(seen)[:10]) or "no keys"
        raise DataError(
            f"a JSON object without a list of rows in it (its keys: {keys})",
            path=self._path,
            remedy='write a list of objects, one object a line (JSONL), or {"data": [...]}',
        )

    def _error(self, what: str) -> DataError:
        return DataError(
            what, path=self._path, row=max(1, self._row), remedy="correct this row; is the file cut off?"
        )

    def _fill(self, characters: int) -> None:
        if self._undecodable:
            raise self._error(self._undecodable)
        chunk = b"" if self._ended else self._handle.read(characters)
        self._ended = not chunk
        try:
            fresh = self._decode_bytes.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            # The rows before the bad byte are still to be read: the error waits until then,
            # so that it names the right row.
            fresh = error.object[: error.start].decode(self._encoding)
            self._undecodable = (
                f"byte 0x{error.object[error.start]:02x} is not valid {self._encoding.upper()}"
            )
        self._text = self._text[self._at :] + fresh
        self._at = 0

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if self._ended and not self._undecodable:
                return ""
            self._fill(_CHUNK_BYTES)

    def _value(self) -> object:
        self._peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._may_be_cut(error):
                    raise _invalid(error, self._text, self._path, max(1, self._row), self._at) from None
            else:
                # A bare number at the end of a chunk may go on in the next, also after "." or "e+".
                if end + 2 < len(self._text) or self._ended or self._text[end - 1] in '}]"':
                    self._at = end
                    return value
            if len(self._text) - self._at > self._limit:
                raise self._error(f"the row is longer than {self._limit // 2**20} MiB")
            # Doubling keeps the cost of a huge row linear.
            self._fill(max(_CHUNK_BYTES, len(self._text) - self._at))

    def _may_be_cut(self, error: ValueError | RecursionError) -> bool:
        """Whether more text could mend the error: it lies at the end of what has been read."""
        if self._ended or not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or len(self._text[error.pos :].strip()) < 16
