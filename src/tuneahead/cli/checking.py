"""What ``tuneahead check`` does: look up a kept result or check, then show, write a page, write a copy."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneahead.assessment import Checkup
    from tuneahead.cleaning import CleanedFile
    from tuneahead.columns import ColumnMapping
    from tuneahead.recipe import Recipe
    from tuneahead.survey import Survey
    from tuneahead.workbench import Setup

MOST_WORKERS = 8


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; ``workers`` 0 is one process a core."""

    file: Path
    mapping: ColumnMapping | None
    recipe: Recipe
    setup: Setup
    html: Path | None = None
    fix: Path | None = None
    workers: int = 0
    recipe_file: Path | None = None
    benchmark_named: bool = True
    """Whether the user chose the benchmark: rows are not deleted for one that nobody asked about."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """What rows are left out of a cleaned copy for."""
        from tuneahead.cleaning import REASONS

        return tuple(reason for reason in REASONS if self.benchmark_named or reason != "contamination")


@dataclass(frozen=True)
class Found:
    """The checkup; ``survey`` is None and ``kept`` true where it was kept from an earlier check."""

    checkup: Checkup
    survey: Survey | None = None
    kept: bool = False


def run_check(request: Request, *, use_cache: bool = True) -> Found:
    """Check, or give the kept result of an equal check; raises a :class:`TuneAheadError`."""
    from tuneahead.checkcache import CheckCache, check_key

    _check_outputs(request)
    cache = CheckCache()
    before = _stamp(request.file)
    key = check_key(request.file, request.mapping, request.recipe, request.setup) if use_cache else ""
    if (kept := cache.load(key, request.file)) is not None:
        return Found(kept, kept=True)
    found = _check(request)
    # What changed while it was read is not what the key names.
    if _stamp(request.file) == before:
        cache.store(key, found.checkup)
    return found


def _check(request: Request) -> Found:
    from tuneahead.checkup import examine
    from tuneahead.cli.progress import ProgressBar

    with ProgressBar() as bar:
        examined = examine(
            request.file,
            request.recipe,
            mapping=request.mapping,
            bench=request.setup,
            workers=request.workers or min(MOST_WORKERS, os.cpu_count() or 1),
            watch=bar,
        )
    return Found(examined.checkup, examined.survey)


def show_check(request: Request, found: Found, *, as_json: bool) -> None:
    """Print the card or the JSON, and write what else was asked for."""
    try:
        _print(found, as_json=as_json)
    finally:
        # Also where nobody reads the card to its end: head and less close the pipe.
        _write(request, found, as_json=as_json)


def _print(found: Found, *, as_json: bool) -> None:
    from tuneahead.cli.options import open_console
    from tuneahead.healthcard import print_checkup

    if as_json:
        print(found.checkup.to_json())
    else:
        note = f"Kept from {found.checkup.created}; --no-cache checks again." if found.kept else ""
        print_checkup(open_console(), found.checkup, note)


def _write(request: Request, found: Found, *, as_json: bool) -> None:
    if request.html is not None:
        from tuneahead.report import write_html

        print(f"report: {write_html(found.checkup, request.html)}", file=sys.stderr)
    if request.fix is not None:
        lines = cleaned_lines(_clean(request, request.fix, found.survey))
        held = any(finding.check == "contamination" for finding in found.checkup.findings)
        if held and not request.benchmark_named:
            name = request.setup.benchmark
            lines.append(f"kept: rows that hold questions of {name} (--benchmark {name} leaves them out too)")
        print("\n".join(lines), file=sys.stderr if as_json else sys.stdout)


def cleaned_lines(done: CleanedFile) -> list[str]:
    """What a cleaned copy holds and what was left out, for people."""
    from tuneahead.counts import counted

    counts = Counter(removal.reason for removal in done.ledger).most_common()
    return [
        f"{done.path}: {counted(done.kept, 'row')} kept, {len(done.ledger):,} left out",
        *(f"  {reason}: {count:,}" for reason, count in counts),
        *([f"which rows, and why: {done.ledger_path}"] if done.ledger else []),
    ]


def cleaned_summary(done: CleanedFile) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "path": str(done.path),
        "kept": done.kept,
        "left_out": dict(Counter(removal.reason for removal in done.ledger)),
        "ledger": str(done.ledger_path) if done.ledger else None,
    }


def _clean(request: Request, out: Path, survey: Survey | None) -> CleanedFile:
    from tuneahead.cleaning import clean_file, write_cleaned
    from tuneahead.workbench import find_benchmark

    if survey is not None:
        return write_cleaned(request.file, out, survey, request.reasons)
    return clean_file(
        request.file,
        out,
        mapping=request.mapping,
        benchmarks=(find_benchmark(request.setup.benchmark),),
        reasons=request.reasons,
    )


def _check_outputs(request: Request) -> None:
    """Before any work: no output may take the place of what is read, or of another."""
    from tuneahead.cleaning import find_targets
    from tuneahead.cli.options import check_outputs, require_writable_file

    inputs = (request.file, request.recipe_file, request.setup.benchmark, request.setup.base)
    check_outputs({"--html": request.html, "--fix": request.fix}, *inputs)
    require_writable_file(request.html, "--html")
    if request.fix is not None:
        copy, ledger = find_targets(request.file, request.fix)
        check_outputs({"--html": request.html, "--fix": copy, "the ledger of --fix": ledger}, *inputs)
        require_writable_file(copy, "--fix")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
