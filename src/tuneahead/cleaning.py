"""Cleaning: rows that can only harm are left out, and a ledger says which and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark
from tuneahead.checks.rows import DAMAGE_NAMES
from tuneahead.counts import counted
from tuneahead.datafile import JSONL_SUFFIXES, Source, find_source, iter_lines
from tuneahead.dataset import ColumnMapping, Example, iter_examples
from tuneahead.errors import DataError
from tuneahead.jsonstream import encode_json
from tuneahead.readers import Record, Unreadable, iter_records
from tuneahead.survey import Survey, take_survey
from tuneahead.textstats import Damage
from tuneahead.wholefile import whole_file

REASONS = ("empty-answers", "broken-encoding", "contamination", "exact-duplicates")
"""Why rows are removed unless told otherwise: the names of their checks, in order of precedence."""

OPTIONAL_REASONS = ("gibberish", "near-duplicates")
"""Further reasons that may be given; what they find deserves a look first."""


@dataclass(frozen=True)
class Removal:
    """One removed row: its number in the file, the check that speaks against it, and what it found."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Cleaned:
    """The examples that stay, in order, and the ledger of those that don't."""

    examples: tuple[Example, ...]
    ledger: tuple[Removal, ...]


@dataclass(frozen=True)
class CleanedFile:
    """A cleaned copy that was written: ``kept`` rows in ``path``, the ledger beside it."""

    path: Path
    ledger_path: Path
    kept: int
    ledger: tuple[Removal, ...]


def clean(
    examples: Sequence[Example], *, benchmarks: Iterable[Benchmark] = (), reasons: Sequence[str] = REASONS
) -> Cleaned:
    """Leave out empty, broken and contaminated rows and copies.

    The first of several copies stays. Raises :class:`DataError` for an unknown reason, and for examples of
    one row number, such as those of two files: the ledger tells rows apart by it.

    >>> rows = [Example("Hi", "Hello", 1), Example("Hi", "Hello", 2), Example("Bye", "", 3)]
    >>> [(removal.row, removal.reason) for removal in clean(rows).ledger]
    [(2, 'exact-duplicates'), (3, 'empty-answers')]
    """
    if len({example.row for example in examples}) < len(examples):
        raise DataError(
            "several examples have the same row number",
            remedy="number them anew: [dataclasses.replace(e, row=n) for n, e in enumerate(examples, 1)]",
        )
    ledger = find_removals(take_survey(examples, benchmarks=benchmarks), reasons)
    gone = {removal.row for removal in ledger}
    return Cleaned(tuple(example for example in examples if example.row not in gone), ledger)


def clean_file(
    path: str | Path,
    out: str | Path,
    *,
    mapping: ColumnMapping | None = None,
    benchmarks: Iterable[Benchmark] = (),
    reasons: Sequence[str] = REASONS,
) -> CleanedFile:
    """Write a cleaned copy of ``path`` as JSONL to ``out``, and its ledger beside it.

    Records keep their own columns; lines of a JSONL file are copied as they are. ``out.jsonl``
    gets the ledger ``out.ledger.jsonl``: one object a line with row, reason and detail. The
    original is never written to. Memory stays bounded. Raises :class:`DataError` when the file
    can't be read, ``out`` is the original, a folder or not named as JSONL, or nothing would be left.
    """
    find_targets(path, out)
    survey = take_survey(iter_examples(path, mapping), benchmarks=benchmarks)
    return write_cleaned(path, out, survey, reasons)


def find_targets(path: str | Path, out: str | Path) -> tuple[Path, Path]:
    """Where the copy and its ledger will lie.

    Raises :class:`DataError` where that is the original or a folder, or its name promises another format.
    """
    source, copy = find_source(path), Path(out)
    ledger_path = copy.with_name(f"{copy.stem}.ledger.jsonl")
    for target in (copy, ledger_path):
        if target.exists() and target.samefile(source.path):
            raise DataError(
                "would be overwritten by its cleaned copy", path=path, remedy="name another output file"
            )
    if copy.is_dir():
        raise DataError("is a folder", path=out, remedy=f"name a file in it: {copy / 'clean.jsonl'}")
    if copy.suffix.lower() not in JSONL_SUFFIXES:
        raise DataError(
            f"a cleaned copy is JSONL, and its name ends in {copy.suffix!r}",
            path=out,
            remedy=f"let it end in {', '.join(JSONL_SUFFIXES)}: {copy.stem}.jsonl",
        )
    return copy, ledger_path


def write_cleaned(
    path: str | Path, out: str | Path, survey: Survey, reasons: Sequence[str] = REASONS
) -> CleanedFile:
    """Write the cleaned copy of a file whose survey was taken already; as :func:`clean_file`."""
    source = find_source(path)
    copy, ledger_path = find_targets(path, out)
    ledger = find_removals(survey, reasons)
    gone = {removal.row for removal in ledger}
    kept = len(survey) - len(gone)
    if not kept:
        raise DataError(
            "no row would be left after cleaning", path=path, remedy="see the findings of preflight"
        )
    _write(copy, (line for row, line in _record_lines(source) if row not in gone), kept)
    _write(ledger_path, (json.dumps(asdict(removal)) for removal in ledger), len(ledger))
    return CleanedFile(copy, ledger_path, kept, ledger)


def find_removals(survey: Survey, reasons: Sequence[str] = REASONS) -> tuple[Removal, ...]:
    """The rows of a survey to be removed, by row; each with the first reason that holds."""
    finders = {
        "empty-answers": _empty,
        "broken-encoding": _broken,
        "contamination": _contaminated,
        "exact-duplicates": _copies,
        "gibberish": _gibberish,
        "near-duplicates": _alike,
    }
    unknown = [reason for reason in reasons if reason not in finders]
    if unknown:
        raise DataError(
            f"no reason to remove rows is called {unknown[0]!r}", remedy=f"use {', '.join(finders)}"
        )
    found: dict[int, Removal] = {}
    for reason, find in finders.items():
        if reason in reasons:
            for row, detail in find(survey, found):
                found.setdefault(row, Removal(row, reason, detail))
    return tuple(found[row] for row in sorted(found))


Found = Iterator[tuple[int, str]]
Earlier = dict[int, Removal]


def _rows(survey: Survey, mask: NDArray[np.bool_]) -> list[int]:
    rows: list[int] = survey.row[mask].tolist()
    return rows


def _empty(survey: Survey, _: Earlier) -> Found:
    for row in _rows(survey, survey.silent):
        yield row, "the answer is empty"


def _broken(survey: Survey, _: Earlier) -> Found:
    # Private-use characters may be meant; the other signs of damage never are.
    damage = survey.damage & ~np.uint8(Damage.PRIVATE)
    for at in np.flatnonzero(damage).tolist():
        yield int(survey.row[at]), "; ".join(name for kind, name in DAMAGE_NAMES.items() if damage[at] & kind)


def _contaminated(survey: Survey, _: Earlier) -> Found:
    for result in survey.contamination:
        for row, item in zip(result.rows.tolist(), result.first_items, strict=True):
            yield row, f"holds question {item} of {result.benchmark}"


def _copies(survey: Survey, _: Earlier) -> Found:
    first, inverse = np.unique(survey.exact, return_index=True, return_inverse=True)[1:]
    for row, original in zip(survey.row.tolist(), survey.row[first[inverse]].tolist(), strict=True):
        if row != original:
            yield row, f"copy of row {original}"


def _gibberish(survey: Survey, _: Earlier) -> Found:
    for row in _rows(survey, survey.gibberish):
        yield row, "random letters or signs"


def _alike(survey: Survey, removed: Earlier) -> Found:
    for later, earlier, similarity in survey.near.spare(removed):
        yield later, f"like row {earlier} (similarity {similarity:.2f})"


def _record_lines(source: Source) -> Iterator[tuple[int, str]]:
    if source.container == "jsonl":
        for row, line in iter_lines(source):
            if not line.isspace():
                yield row, line.rstrip("\r\n")
        return
    for row, record in iter_records(source, exact=True):
        yield row, _dump(source, row, record)


def _dump(source: Source, row: int, record: Record) -> str:
    try:
        return encode_json(record, _as_text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"can't be written as JSON ({error})",
            path=source.path,
            row=row,
            remedy="drop the columns that hold bytes, infinite numbers or many nested lists",
        ) from None


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        raise TypeError("a column holds bytes")
    if isinstance(value, Unreadable):
        raise TypeError(f"a column can't be read: {value.reason}")
    return str(value)


def _write(path: Path, lines: Iterable[str], count: int) -> None:
    written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            with part.open("w", encoding="utf-8", newline="\n") as handle:
                for line in lines:
                    handle.write(line + "\n")
                    written += 1
            if written != count:
                raise DataError(
                    f"would hold {counted(written, 'row')} instead of {count:,}: the data changed meanwhile",
                    path=path,
                    remedy="clean the file again when nothing writes to it",
                )
    except OSError as error:
        raise DataError(
            f"can't be written: {error.strerror}", path=path, remedy="check the folder and the disk"
        ) from None
