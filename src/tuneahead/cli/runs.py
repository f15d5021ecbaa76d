"""Commands on stored runs: list, show, record, import."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.options import AsJson, StoreFile, open_console
from tuneahead.errors import StoreError

if TYPE_CHECKING:
    from tuneahead.history.importers import ImportSummary
    from tuneahead.history.store import RunRecord, RunStore

runs = typer.Typer(no_args_is_help=True, help="List, show and score stored runs.")


@runs.command("list")
def list_runs(
    store: StoreFile = Path("runs.sqlite"),
    limit: Annotated[int, typer.Option(min=1, help="Most runs to show, in JSON too.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List stored runs."""
    history = open_store(store)
    records = list(islice(history.records(), limit))
    if as_json:
        print(json.dumps([_summary(record) for record in records], indent=1))
    else:
        _print_runs(records)
    if len(history) > limit:
        print(f"{len(history) - limit:,} more; see --limit", file=sys.stderr)


def _print_runs(records: list[RunRecord]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Run", "Base", "Family", "Scores", "Failure"):
        table.add_column(title, overflow="fold")
    for record in records:
        scores = ", ".join(f"{name} {score:.1f}" for name, score in sorted(record.scores.items()))
        cells = (record.run_id, record.base, record.family, scores, record.failure)
        # As Text: what others wrote is shown, never read as markup.
        table.add_row(*(Text(cell) for cell in cells))
    open_console().print(table)


@runs.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    store: StoreFile = Path("runs.sqlite"),
    as_json: AsJson = False,
) -> None:
    """Show one run: recipe, scores and what the probe measured."""
    from tuneahead.terminal import print_trace

    record = open_store(store).get(run_id)
    summary = _summary(record)
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    console = open_console()
    for name, value in summary.items():
        console.print(f"{name:<12}{value}", markup=False)
    print_trace(console, record.trace)


@runs.command("record")
def record_score(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    score: Annotated[
        float, typer.Option(help="Measured final score in points, 0 to 100.", show_default=False)
    ],
    benchmark: Annotated[str, typer.Option(help="Name of the benchmark.")] = "lab-exam",
    store: StoreFile = Path("runs.sqlite"),
) -> None:
    """Record the measured score of a run, so that the next fit learns from it."""
    open_store(store).record_score(run_id, benchmark, score)
    print(f"{run_id}: {benchmark} {score:.2f}")


@runs.command("import")
def import_logs(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Folder of Trainer checkpoints, a trainer_state.json, MLflow's mlruns, or its SQLite file.",
            show_default=False,
        ),
    ],
    store: StoreFile = Path("runs.sqlite"),
    benchmark: Annotated[str, typer.Option(help="Name of the benchmark that the score is of.")] = "lab-exam",
    score: Annotated[
        str,
        typer.Option(metavar="NAME", help="Name under which its score was logged.", show_default=False),
    ] = "",
    unit: Annotated[str, typer.Option(help="How it was logged: fraction, points or auto.")] = "auto",
    chance: Annotated[
        float | None, typer.Option(help="Score of guessing, in points.", show_default=False)
    ] = None,
    base: Annotated[
        str, typer.Option(help="Base model, where the log does not name it.", show_default=False)
    ] = "",
    data_by: Annotated[
        str,
        typer.Option(
            metavar="SETTING",
            help="Logged setting that tells data sets apart, or 'folder'. Without one, runs whose data set "
            "is not known count as one data set.",
            show_default=False,
        ),
    ] = "",
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="Settings that all runs shared (YAML).", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in runs made before TuneAhead, from the logs of a Trainer or of MLflow."""
    from dataclasses import asdict

    from tuneahead.history.importers import LogReading, import_runs

    reading = LogReading(
        benchmark=benchmark,
        score=score,
        chance_pp=float("nan") if chance is None else chance,
        base=base,
        data_by=data_by,
        recipe=_shared_settings(recipe),
    )
    found = import_runs(path, store, reading, unit=unit)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if found.unchanged:
        kept = f"{found.unchanged:,} known run{'s keep their' if found.unchanged > 1 else ' keeps its'}"
        what = "earlier base, data set, recipe or score"
        print(f"{kept} {what}; import into a new store to change it", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        _print_import(found, store, score)


def _print_import(found: ImportSummary, store: Path, score: str) -> None:
    print(
        f"{store}: {found.added:,} runs imported, {found.present:,} were there, {found.scored:,} got a score"
    )
    if found.unit:
        print(f"{score} was read as {'a fraction of 1' if found.unit == 'fraction' else 'points'}")
    print(f"They count as {found.data_sets:,} data set{'s' if found.data_sets != 1 else ''} (see --data-by)")
    for what, why, count in found.absent:
        print(f"absent in {count:,}: {what} ({why})")


def _shared_settings(path: Path | None) -> dict[str, object]:
    """The fields that a recipe file sets, checked; defaults are no facts about runs already made."""
    if path is None:
        return {}
    from tuneahead.recipe import read_recipe

    return dict(read_recipe(path).model_dump(exclude_unset=True))


def open_store(path: Path) -> RunStore:
    """The store in an existing file; raises :class:`StoreError` when there is none."""
    from tuneahead.history.store import RunStore

    if not path.exists():
        raise StoreError(
            f"there is no store {path}", remedy="name one with --store, or make one with 'build'"
        )
    return RunStore(path)


def _summary(record: RunRecord) -> dict[str, object]:
    return {
        "run": record.run_id,
        "task": record.task_id,
        "data": record.data_id,
        "family": record.family,
        "base": record.base,
        "seed": record.seed,
        "recipe": record.recipe.model_dump(mode="json"),
        "scores": dict(record.scores),
        "base_scores": dict(record.base_scores),
        "failure": record.failure,
        "created": record.created,
    }
