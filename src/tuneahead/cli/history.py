"""Commands on runs already made or to be made: build, fit, backtest, runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.options import DATA, OUTPUT, AsJson, open_console
from tuneahead.errors import StoreError, TuneAheadError

if TYPE_CHECKING:
    from tuneahead.backtest.result import BacktestResult
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.history.store import RunRecord, RunStore
    from tuneahead.predictor.table import FeatureTable

StoreFile = Annotated[Path, typer.Option("--store", help="SQLite file that holds the runs.")]
TableFile = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="Feature table (Parquet) instead of a store.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
MaybeStore = Annotated[
    Path | None,
    typer.Option(
        "--store", help="SQLite file that holds the runs.", rich_help_panel=DATA, show_default=False
    ),
]
BenchmarkOf = Annotated[
    str, typer.Option(help="Benchmark whose scores are learned, from a store.", rich_help_panel=DATA)
]


def build(
    store: StoreFile = Path("runs.sqlite"),
    datasets: Annotated[int, typer.Option(min=1, help="Data sets to generate, healthy and broken.")] = 40,
    recipes: Annotated[int, typer.Option(min=1, help="Recipes to run on each.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    width: Annotated[int, typer.Option(min=1, help="Runs trained side by side in one process.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each task.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the plan.")] = 0,
) -> None:
    """Make many small full runs in the lab to learn from; start it again to go on."""
    from tuneahead.build.execute import BuildOptions, BuildProgress, execute
    from tuneahead.build.plan import lab_plan
    from tuneahead.cli.progress import ProgressBar

    plan = lab_plan(datasets, recipes, seed=seed, seeds=tuple(range(seeds)))
    with ProgressBar() as bar:
        bar.stage("Starting workers")

        def show(progress: BuildProgress) -> None:
            text = f"{progress.runs_done:,} of {progress.runs_total:,} runs, steps"
            bar.measure(text, progress.steps_done, progress.steps_total)

        summary = execute(plan, store, BuildOptions(workers=workers, width=width), show)
        _measure_data(store, bar)
    print(f"{store}: {summary.stored:,} runs made, {summary.present:,} were there")
    for run_id, reason in summary.given_up.items():
        print(f"given up: {run_id}: {reason}")


def fit(
    store: MaybeStore = None,
    table: TableFile = None,
    benchmark: BenchmarkOf = "lab-exam",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new predictor.")] = Path(
        "predictor"
    ),
    start: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Start from this predictor ('shipped' for the packaged one) and correct it by the runs: "
            "for a new base with few of them.",
            show_default=False,
        ),
    ] = "",
    preset: Annotated[str, typer.Option(help="default, quick or paper.")] = "default",
    level: Annotated[float, typer.Option(help="Probability that the interval holds the score.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the cross-validation.")] = 0,
) -> None:
    """Fit a predictor to finished runs, or correct one by the few runs of a new base."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.predictor.predictor import Predictor, load_predictor
    from tuneahead.predictor.warmstart import adapt
    from tuneahead.workbench import shipped_predictor

    rows = _table(store, table, benchmark)
    with ProgressBar() as bar:
        bar.stage(f"Fitting to {len(rows):,} tasks")
        if start:
            known = load_predictor(shipped_predictor() if start == "shipped" else start)
            predictor = adapt(known, rows)
        else:
            predictor = Predictor.fit(rows, preset=preset, seed=seed, level=level)
    try:
        predictor.save(out)
    except OSError as error:
        raise TuneAheadError(f"can't write {out}: {error.strerror}", remedy="give another --out") from None
    origin = predictor.origin
    own = f", corrected by {origin.own_rows:,} own ones" if start else ""
    fitted = f"{origin.rows:,} tasks on {origin.data_sets:,} data sets"
    print(f"{out}: fitted to {fitted}, preset {origin.preset}{own}")


def backtest(
    store: MaybeStore = None,
    table: TableFile = None,
    benchmark: BenchmarkOf = "lab-exam",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="grouped, random or family-out; may be repeated. Default: all of the shipped runs, "
            "grouped for your own.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[list[str] | None, typer.Option(help="Only this system; may be repeated.")] = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="Fit everything again instead of printing the shipped result: minutes to an hour."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how good forecasts are: hold runs out, predict them, compare with every simple rule.

    Without --store or --table: the stored result on the shipped runs.
    """
    asks_for_more = refit or system or seed or store is not None or table is not None
    result = None if asks_for_more else _shipped_result(protocol)
    if result is None:
        result = _backtest(_table(store, table, benchmark), protocol, tuple(system or ()), workers, seed)
    if as_json:
        print(result.to_json())
    elif markdown:
        print(result.to_markdown())
    else:
        from tuneahead.terminal import print_table

        console = open_console()
        for one in result.tables:
            print_table(console, one)


def _shipped_result(protocols: list[str] | None) -> BacktestResult | None:
    """The stored result if it is that of the shipped table."""
    from tuneahead.backtest.result import PROTOCOLS, read_result, table_fingerprint
    from tuneahead.predictor.table import read_table
    from tuneahead.workbench import shipped_backtest, shipped_table

    if not (shipped_backtest().is_file() and shipped_table().is_file()):
        return None
    if set(protocols or ()) - set(PROTOCOLS):
        return None  # The backtest itself names the known ones.
    result = read_result(shipped_backtest())
    if result.table_fingerprint != table_fingerprint(read_table(shipped_table())):
        return None
    return result.of_protocols(protocols or PROTOCOLS)


def _backtest(
    rows: FeatureTable, protocols: list[str] | None, systems: tuple[str, ...], workers: int, seed: int
) -> BacktestResult:
    from tuneahead.backtest import BacktestOptions
    from tuneahead.backtest import backtest as run_backtest
    from tuneahead.cli.progress import ProgressBar

    options = BacktestOptions(systems=systems, workers=workers, learning_curve=False)
    with ProgressBar() as bar:
        bar.stage(f"Backtesting on {len(rows):,} tasks")
        return run_backtest(rows, protocols=tuple(protocols or ("grouped",)), seed=seed, options=options)


runs = typer.Typer(no_args_is_help=True, help="List, show and score stored runs.")


@runs.command("list")
def list_runs(
    store: StoreFile = Path("runs.sqlite"),
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List stored runs."""
    from rich import box
    from rich.table import Table

    records = list(_open(store).records())
    if as_json:
        print(json.dumps([_summary(record) for record in records], indent=1))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Run", "Base", "Family", "Scores", "Failure"):
        table.add_column(title, overflow="fold")
    for record in records[:limit]:
        scores = ", ".join(f"{name} {score:.1f}" for name, score in sorted(record.scores.items()))
        table.add_row(record.run_id, record.base, record.family, scores, record.failure)
    console = open_console()
    console.print(table)
    if len(records) > limit:
        console.print(f"{len(records) - limit:,} more; see --limit")


@runs.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    store: StoreFile = Path("runs.sqlite"),
    as_json: AsJson = False,
) -> None:
    """Show one run: recipe, scores and what the probe measured."""
    from tuneahead.terminal import print_trace

    record = _open(store).get(run_id)
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
    _open(store).record_score(run_id, benchmark, score)
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
    from tuneahead.history.store import RunStore

    reading = LogReading(
        benchmark=benchmark,
        score=score,
        chance_pp=float("nan") if chance is None else chance,
        base=base,
        data_by=data_by,
        recipe=_shared_settings(recipe),
    )
    found = import_runs(path, RunStore(store), reading, unit=unit)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
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


def _measure_data(path: Path, bar: ProgressBar) -> None:
    """Static features of the generated data sets, once each; they stay in the store."""
    from tuneahead.history.tables import complete_statics
    from tuneahead.lab.exam import lab_exam
    from tuneahead.training.models import load_base

    bar.stage("Measuring the data sets")

    def show(done: int, total: int) -> None:
        bar.measure("Measuring the data sets", done, total)

    complete_statics(_open(path), load_base("lab"), lab_exam(), show)


def _table(store: Path | None, table: Path | None, benchmark: str) -> FeatureTable:
    from tuneahead.predictor.table import read_table

    if (store is None) == (table is None):
        from tuneahead.workbench import shipped_table

        if store is None and shipped_table().is_file():
            return read_table(shipped_table())
        raise TuneAheadError(
            "give either --store or --table", remedy="--store runs.sqlite, as 'build' writes it"
        )
    if table is not None:
        return read_table(table)
    assert store is not None
    from tuneahead.history.tables import table_from_store

    return table_from_store(_open(store), benchmark=benchmark)


def _open(path: Path) -> RunStore:
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
