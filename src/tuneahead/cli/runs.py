"""Commands on stored runs: list, show, record, forget, import."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.command import Command, told_when_stopped
from tuneahead.cli.options import AsJson, StoreFile
from tuneahead.cli.runview import print_import, print_run, print_runs, summary_of
from tuneahead.counts import counted
from tuneahead.errors import StoreError, UnreadableRunError
from tuneahead.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuneahead.history.importers import LogReading
    from tuneahead.history.runrecord import RunRecord
    from tuneahead.history.store import RunStore

runs = typer.Typer(no_args_is_help=True, help="List, show, score, import and forget stored runs.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or its beginning.")]


@runs.command("list", cls=Command)
def list_runs(
    store: StoreFile = Path("runs.sqlite"),
    limit: Annotated[int, typer.Option(min=1, help="Most runs to show, the latest; in JSON too.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List stored runs."""
    history = open_store(store)
    records = _each(history, history.run_ids()[-limit:])
    if as_json:
        print(json.dumps([summary_of(record) for record in records], indent=1))
    else:
        print_runs(records)
    if len(history) > limit:
        print(f"{len(history) - limit:,} earlier; see --limit", file=sys.stderr)


def _each(history: RunStore, run_ids: Sequence[str]) -> Iterator[RunRecord | UnreadableRunError]:
    """The runs named, each by itself: one that can't be read hides no other."""
    for run_id in run_ids:
        try:
            yield history.get(run_id)
        except UnreadableRunError as error:
            print(error, file=sys.stderr)
            yield error


@runs.command("show", cls=Command)
def show_run(
    run_id: RunId,
    store: StoreFile = Path("runs.sqlite"),
    as_json: AsJson = False,
) -> None:
    """Show one run: recipe, scores and what the probe measured."""
    _, record = _open_run(store, run_id)
    if as_json:
        print(json.dumps(summary_of(record), indent=1))
    else:
        print_run(record)


@runs.command("record", cls=Command)
def record_score(
    run_id: RunId,
    score: Annotated[
        float, typer.Option(help="Measured final score in points, 0 to 100.", show_default=False)
    ],
    benchmark: Annotated[
        str,
        typer.Option(help="Name of the benchmark. Default: the only one that is known.", show_default=False),
    ] = "",
    points: Annotated[
        bool, typer.Option("--points", help="A score of 1 or less is one in points, no fraction.")
    ] = False,
    store: StoreFile = Path("runs.sqlite"),
    as_json: AsJson = False,
) -> None:
    """Record the measured score of a run, so that the next fit learns from it; replaces an earlier one."""
    if 0 < score <= 1 and not points:
        raise StoreError(
            f"--score {score:g} looks like a fraction, and scores are points from 0 to 100",
            remedy=f"give --score {100 * score:g}, or --points if it is {score:g} points",
        )
    history, record = _open_run(store, run_id)
    chosen = benchmark or _only_benchmark(history, record)
    others = [name for name in history.benchmarks() if name != chosen]
    is_new = chosen not in (record.trace.info.benchmark, *history.benchmarks())
    history.record_score(record.run_id, chosen, score)
    earlier = record.scores.get(chosen)
    if as_json:
        said = {"run": record.run_id, "benchmark": chosen, "score": score, "earlier": earlier}
        print(json.dumps(said, indent=1))
    else:
        was = "" if earlier is None else f" (was {earlier:.2f})"
        print(f"{record.run_id}: {chosen} {score:.2f}{was}")
    if is_new and others:
        print(f"{chosen} is new in {store}, which knows {', '.join(others)}", file=sys.stderr)


def _only_benchmark(history: RunStore, record: RunRecord) -> str:
    """The benchmark that the run knows, or else the store; raises :class:`StoreError` unless it is one."""
    own = {record.trace.info.benchmark, *record.scores, *record.base_scores} - {""}
    known = sorted(own or set(history.benchmarks()))
    if len(known) == 1:
        return known[0]
    who = f"run {record.run_id} knows" if own else f"{history.path} knows"
    raise StoreError(
        f"it is not said which benchmark the score is of, and {who} {', '.join(known) or 'none'}",
        remedy="name it with --benchmark",
    )


@runs.command("forget", cls=Command)
def forget_run(
    run_id: RunId,
    benchmark: Annotated[
        str, typer.Option(help="Forget only the run's final score on this benchmark.", show_default=False)
    ] = "",
    store: StoreFile = Path("runs.sqlite"),
    as_json: AsJson = False,
) -> None:
    """Delete a run, or one of its scores, from a store."""
    history = open_store(store)
    name = history.find_id(run_id)
    was = history.forget(name, benchmark)
    if as_json:
        said = {"run": name, "benchmark": benchmark or None, "runs_left": len(history)}
        print(json.dumps(said, indent=1))
    elif was is not None:
        print(f"{name}: the score on {benchmark} is forgotten (was {was:.2f})")
    else:
        left = counted(len(history), "run")
        print(f"{name} is forgotten, {store} holds {left}")


@runs.command("import", cls=Command)
def import_logs(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Folder of Trainer checkpoints, a trainer_state.json, MLflow's mlruns or its SQLite file, "
            "or another store.",
            show_default=False,
        ),
    ],
    store: StoreFile = Path("runs.sqlite"),
    benchmark: Annotated[
        str, typer.Option(help="Name of the benchmark that --score is of.", show_default=False)
    ] = "",
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
    """Bring in runs made before TuneAhead, from logs of a Trainer or MLflow, or the runs of another store."""
    from dataclasses import asdict

    from tuneahead.history.importers import LogReading, import_runs
    from tuneahead.history.merging import merge_stores
    from tuneahead.history.storefile import is_store

    reading = LogReading(
        benchmark=benchmark,
        score=score,
        chance_pp=float("nan") if chance is None else chance,
        base=base,
        data_by=data_by,
        recipe=_shared_settings(recipe),
    )
    logged = not is_store(path)
    if not logged:
        _refuse_reading(reading, unit)
    left = f"stopped, {store} keeps what was brought in so far: the same command goes on from there"
    with told_when_stopped(lambda: left if store.is_file() else ""):
        found = import_runs(path, store, reading, unit=unit) if logged else merge_stores(path, store)
    for reason in found.left_out:
        print(f"left out: {printable(reason)}", file=sys.stderr)
    if found.unchanged:
        kept = f"{found.unchanged:,} known run{'s keep their' if found.unchanged > 1 else ' keeps its'}"
        them = "them" if found.unchanged > 1 else "it"
        what = f"earlier base, data set, recipe or score; to change that forget {them} first (runs forget)"
        print(f"{kept} {what} or import into a new store", file=sys.stderr)
    for name in found.other_weights:
        print(
            f"runs on {printable(name)} in {path} were made with other weights, or in another number format, "
            f"than those that were in {store}. 'fit' takes both for runs of one base: keep the runs of a "
            "changed model in a store of their own",
            file=sys.stderr,
        )
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print_import(found, store, score, benchmark)


def _refuse_reading(reading: LogReading, unit: str) -> None:
    """Raises :class:`StoreError` for options that say how to read a log, where there is none to read."""
    given = {
        "--benchmark": reading.benchmark,
        "--score": reading.score,
        "--unit": unit if unit != "auto" else "",
        "--chance": not math.isnan(reading.chance_pp),
        "--base": reading.base,
        "--data-by": reading.data_by,
        "--recipe": reading.recipe,
    }
    for option, value in given.items():
        if value:
            raise StoreError(
                f"{option} says how to read a log, and has no effect on the runs of another store",
                remedy=f"leave {option} out",
            )


def _shared_settings(path: Path | None) -> dict[str, object]:
    """The fields that a recipe file sets, checked; defaults are no facts about runs already made."""
    if path is None:
        return {}
    from tuneahead.recipe import read_recipe

    return dict(read_recipe(path).model_dump(exclude_unset=True))


def _open_run(path: Path, run_id: str) -> tuple[RunStore, RunRecord]:
    """A store and the run in it whose identifier is, or begins with, ``run_id``."""
    history = open_store(path)
    return history, history.get(history.find_id(run_id))


def open_store(path: Path) -> RunStore:
    """The store in an existing file; raises :class:`StoreError` when there is none."""
    from tuneahead.history.store import RunStore

    if not path.exists():
        raise StoreError(
            f"there is no store {path}",
            remedy="name one with --store, as 'assess --store', 'runs import' and 'build' write it",
        )
    return RunStore(path)
