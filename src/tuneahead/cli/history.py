"""Commands that make runs and measure forecasts on them: build, backtest."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.command import told_when_stopped
from tuneahead.cli.options import OUTPUT, AsJson, StoreFile, open_console
from tuneahead.cli.ownruns import (
    MOST_SEED,
    BenchmarkOf,
    MaybeStore,
    TableFile,
    read_runs,
    refuse_idle_of_store,
)
from tuneahead.cli.runs import open_store
from tuneahead.counts import counted
from tuneahead.errors import TuneAheadError

if TYPE_CHECKING:
    from tuneahead.backtest.result import BacktestResult
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.predictor.table import FeatureTable


def build(
    store: StoreFile = Path("runs.sqlite"),
    datasets: Annotated[int, typer.Option(min=1, help="Data sets to generate, healthy and broken.")] = 40,
    recipes: Annotated[int, typer.Option(min=1, help="Recipes to run on each.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    width: Annotated[int, typer.Option(min=1, help="Runs trained side by side in one process.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each task.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the plan.")] = 0,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster whose machines the workers run on: its address, or 'auto' for the one that "
            "this machine is part of.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make many small full runs in the lab to learn from; start it again to go on."""
    from tuneahead.build.execute import BuildOptions, BuildProgress, execute
    from tuneahead.build.plan import lab_plan
    from tuneahead.build.printing import ProgressLines
    from tuneahead.cli.progress import ProgressBar

    plan = lab_plan(datasets, recipes, seed=seed, seeds=tuple(range(seeds)))
    lines = None if sys.stderr.isatty() else ProgressLines(sys.stderr)
    options = BuildOptions(workers=workers, width=width, cluster=cluster)
    with told_when_stopped(lambda: _left_in(store)), ProgressBar() as bar:
        bar.stage("Starting workers")

        def show(progress: BuildProgress) -> None:
            if lines is not None:
                lines(progress)
            text = f"{progress.runs_done:,} of {progress.runs_total:,} runs, steps"
            bar.measure(text, progress.steps_done, progress.steps_total)

        summary = execute(plan, store, options, show)
        _measure_data(store, bar)
    if as_json:
        print(json.dumps({"store": str(store), **asdict(summary)}, indent=1))
        return
    print(f"{store}: {counted(summary.stored, 'run')} made, {summary.present:,} were there")
    for setback in summary.setbacks:
        print(f"on the way: {setback}")
    for run_id, reason in summary.given_up.items():
        print(f"given up: {run_id}: {reason}")


def _left_in(store: Path) -> str:
    if not store.is_file():
        return ""
    held = counted(len(open_store(store)), "run")
    return f"stopped with {held} in {store}: the same command goes on from there"


def backtest(
    store: MaybeStore = None,
    table: TableFile = None,
    benchmark: BenchmarkOf = "",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            metavar="NAME",
            help="grouped, random or family-out; may be repeated. Default: all of the shipped runs, "
            "grouped for your own.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this system; may be repeated.")
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="Fit everything again instead of printing the shipped result: minutes to an hour."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the splits.")] = 0,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how good forecasts are: hold runs out, predict them, compare with every simple rule.

    Without --store or --table: the stored result on the shipped runs.
    """
    if as_json and markdown:
        raise TuneAheadError("--json and --markdown were both given", remedy="give one of them")
    refuse_idle_of_store(store, {"--benchmark": benchmark})
    asks_for_more = refit or system or seed or store is not None or table is not None
    result = None if asks_for_more else _shipped_result(protocol)
    if result is None:
        result = _backtest(read_runs(store, table, benchmark), protocol, tuple(system or ()), workers, seed)
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
    from tuneahead.backtest.result import PROTOCOLS, read_result
    from tuneahead.predictor.fingerprint import table_fingerprint
    from tuneahead.predictor.packaged import shipped_backtest, shipped_table
    from tuneahead.predictor.table import read_table

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


def _measure_data(path: Path, bar: ProgressBar) -> None:
    """Static features of the generated data sets, once each; they stay in the store."""
    from tuneahead.history.tables import complete_statics
    from tuneahead.lab.exam import lab_exam
    from tuneahead.training.models import load_base

    bar.stage("Measuring the data sets")

    def show(done: int, total: int) -> None:
        bar.measure("Measuring the data sets", done, total)

    complete_statics(open_store(path), load_base("lab"), lab_exam(), show)
