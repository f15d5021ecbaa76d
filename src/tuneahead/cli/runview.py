"""How stored runs and an import are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.cli.options import open_console
from tuneahead.columnfit import BETWEEN_COLUMNS, fitting_columns
from tuneahead.counts import counted
from tuneahead.errors import UnreadableRunError
from tuneahead.printable import printable

if TYPE_CHECKING:
    from tuneahead.history.importers import ImportSummary
    from tuneahead.history.runrecord import RunRecord

_SHORT = 6
"""Digits of a data set's identifier that a table shows."""
_LEAST_TELLING = ("Family", "Data", "Date")
"""Columns that a narrow terminal does without, in this order."""
_FOLDED = 26
"""Characters beyond which a cell is folded rather than another column left out for it."""


def print_runs(records: Iterable[RunRecord | UnreadableRunError]) -> None:
    """Print a line for each run, without the least telling columns where they do not fit."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    # Lines are kept, not records: the traces of thousands would fill the memory.
    rows = [tuple(printable(cell) for cell in _cells(record)) for record in records]
    failed = any(row[-1] for row in rows)
    titles = ("Run", "Date", "Base", "Data", "Family", "Steps", "Scores", *(("Failure",) if failed else ()))
    console = open_console()
    cells = [[title, *(row[i] for row in rows)] for i, title in enumerate(titles)]
    widths = [min(_FOLDED, max(map(cell_len, column))) for column in cells]
    # Nothing comes after the last column.
    shown = fitting_columns(titles, widths, _LEAST_TELLING, console.width + BETWEEN_COLUMNS)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place in shown:
        # What is copied into the next command stays in one piece.
        table.add_column(titles[place], overflow="fold", no_wrap=titles[place] in ("Run", "Date"))
    for row in rows:
        # As Text: what others wrote is shown, never read as markup.
        table.add_row(*(Text(row[place]) for place in shown))
    console.print(table)
    left_out = [title for place, title in enumerate(titles) if place not in shown]
    if left_out:
        console.print(f"Left out for want of width (--json has all): {', '.join(left_out)}.", style="dim")


def _cells(record: RunRecord | UnreadableRunError) -> tuple[str, ...]:
    if isinstance(record, UnreadableRunError):
        return (record.run_id, "", "", "", "", "", "", "unreadable")
    return (
        *(record.run_id, record.created[:10], record.base, record.data_id[:_SHORT], record.family),
        f"{len(record.trace.steps):,} of {record.trace.info.total_steps:,}",
        _scores_and_base(record),
        record.failure,
    )


def print_run(record: RunRecord) -> None:
    """Print one run: what it is, its recipe a line for each field, its scores and what the probe measured."""
    from tuneahead.terminal import print_trace

    console = open_console()

    def say(text: str) -> None:
        console.print(printable(text), markup=False, soft_wrap=True)

    summary = summary_of(record)
    recipe, unknown = _recipe(record)
    # The seed stands in the recipe.
    apart = ("recipe", "unknown", "seed")
    for name, value in summary.items():
        if name not in apart and value not in ("", {}):
            shown = _scores(value) if isinstance(value, dict) else value
            say(f"{name.replace('_', ' '):<16}{shown}")
    console.print("recipe")
    for field, given in recipe.items():
        shown = ", ".join(given) if isinstance(given, list) else "none" if given is None else given
        say(f"  {field:<28}{shown}")
    for field, why in unknown.items():
        say(f"  {field:<28}not known: {why}")
    print_trace(console, record.trace)


def print_import(found: ImportSummary, store: Path, score: str, benchmark: str) -> None:
    """Print what an import did, and what new runs lack."""
    print(
        f"{store}: {counted(found.added, 'run')} imported, {found.present:,} were there, "
        f"{found.scored:,} got a score"
    )
    if found.unit:
        unit = "a fraction of 1" if found.unit == "fraction" else "points"
        print(f"{score} was read as {unit}, as the score on {benchmark}")
    for why, count in found.unscored:
        print(f"no final score in {count:,}: {why} (tuneahead runs record)")
    tasks, data_sets = counted(found.tasks, "task"), counted(found.data_sets, "data set")
    # Of a log, which always lacks something, that depends on how it is read.
    fewer = found.absent and found.data_sets < found.tasks
    more = "; if they are more, import into a new store with --data-by" if fewer else ""
    print(f"They count as {tasks} on {data_sets}{more}")
    grouped: dict[tuple[int, str], list[str]] = {}
    for what, why, count in found.absent if found.added else ():
        grouped.setdefault((count, why), []).append(what)
    for (count, why), names in grouped.items():
        print(printable(f"absent in {count:,}: {', '.join(names)} ({why})"))


def summary_of(record: RunRecord | UnreadableRunError) -> dict[str, object]:
    """A run as JSON values; settings that a log did not give are under ``unknown``, with the reason.

    Of a run that can't be read: its identifier, and why under ``unreadable``.
    """
    if isinstance(record, UnreadableRunError):
        return {"run": record.run_id, "unreadable": record.message}
    recipe, unknown = _recipe(record)
    return {
        "run": record.run_id,
        "task": record.task_id,
        "data": record.data_id,
        "family": record.family,
        "base": record.base,
        "seed": None if "seed" in unknown else record.seed,
        "recipe": recipe,
        "unknown": unknown,
        "scores": dict(record.scores),
        "base_scores": dict(record.base_scores),
        "steps": record.trace.info.total_steps,
        "recorded_steps": len(record.trace.steps),
        "failure": record.failure,
        "created": record.created,
    }


def _recipe(record: RunRecord) -> tuple[dict[str, object], dict[str, str]]:
    """The fields that are facts of this run, and why others are not known."""
    from tuneahead.features.recipes import UNKNOWN_SETTING
    from tuneahead.history.settings import LOGGED_FIELDS

    absent = dict(record.trace.absent)
    fields = record.recipe.model_dump(mode="json")
    unknown = {name: absent[UNKNOWN_SETTING + name] for name in fields if UNKNOWN_SETTING + name in absent}
    if record.origin == "import":
        fields = {name: value for name, value in fields.items() if name in (*LOGGED_FIELDS, "max_steps")}
    return {name: value for name, value in fields.items() if name not in unknown}, unknown


def _scores_and_base(record: RunRecord) -> str:
    """The scores by benchmark, each with that of the plain base, as far as they are known."""
    parts = []
    for name in sorted({*record.scores, *record.base_scores}):
        own = [f"{record.scores[name]:.1f}"] if name in record.scores else []
        base = [f"(base {record.base_scores[name]:.1f})"] if name in record.base_scores else []
        parts.append(" ".join([name, *own, *base]))
    return ", ".join(parts)


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.1f}" for name, score in sorted(scores.items()))
