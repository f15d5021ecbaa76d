"""Commands that make runs and learn from them: build, fit, backtest."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.options import DATA, OUTPUT, AsJson, StoreFile, open_console, require_writable_folder
from tuneahead.cli.runs import open_store
from tuneahead.counts import counted
from tuneahead.errors import TuneAheadError
from tuneahead.printable import printable
from tuneahead.workbench import LEAST_PROBE_STEPS, PROBE_STEPS

if TYPE_CHECKING:
    from tuneahead.backtest.result import BacktestResult
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.predictor.predictor import Origin, Predictor
    from tuneahead.predictor.table import FeatureTable

_BENCHMARK, _PRESET, _LEVEL, _SEED = "lab-exam", "default", 0.9, 0
_SAME_BASE_PP = 2.0
"""Scores of one base may differ so far: in another precision or on another device some answers do."""
_MOST_SEED = 2**31 - 1
"""The largest that a saved predictor may hold."""

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
    str,
    typer.Option(
        help=f"Benchmark whose scores are learned, from a store (default: {_BENCHMARK}).",
        rich_help_panel=DATA,
        show_default=False,
    ),
]


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
    with ProgressBar() as bar:
        bar.stage("Starting workers")

        lines = None if sys.stderr.isatty() else ProgressLines(sys.stderr)

        def show(progress: BuildProgress) -> None:
            if lines is not None:
                lines(progress)
            text = f"{progress.runs_done:,} of {progress.runs_total:,} runs, steps"
            bar.measure(text, progress.steps_done, progress.steps_total)

        summary = execute(plan, store, BuildOptions(workers=workers, width=width, cluster=cluster), show)
        _measure_data(store, bar)
    if as_json:
        print(json.dumps({"store": str(store), **asdict(summary)}, indent=1))
        return
    print(f"{store}: {counted(summary.stored, 'run')} made, {summary.present:,} were there")
    for setback in summary.setbacks:
        print(f"on the way: {setback}")
    for run_id, reason in summary.given_up.items():
        print(f"given up: {run_id}: {reason}")


def fit(
    store: MaybeStore = None,
    table: TableFile = None,
    benchmark: BenchmarkOf = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new predictor.")] = Path(
        "predictor"
    ),
    start: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="For a new base with few runs: learn from them beside the packaged ones ('shipped'), or "
            "correct the predictor in this folder by them.",
            show_default=False,
        ),
    ] = "",
    preset: Annotated[
        str, typer.Option(help=f"{_PRESET} (where none is named), quick or paper.", show_default=False)
    ] = "",
    level: Annotated[
        float | None,
        typer.Option(
            help=f"Probability that the interval holds the score (default: {_LEVEL}).", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=_MOST_SEED,
            help=f"Seed of the cross-validation (default: {_SEED}).",
            show_default=False,
        ),
    ] = None,
    probe_steps: Annotated[
        int | None,
        typer.Option(
            min=LEAST_PROBE_STEPS,
            help="Learn from so many steps of each run; the predictor is for probes of that length "
            f"(default: {PROBE_STEPS}).",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor to finished runs, or correct one by the few runs of a new base."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.predictor.fitting import learnt_keys
    from tuneahead.predictor.packaged import beside_packaged
    from tuneahead.predictor.predictor import Predictor, load_predictor
    from tuneahead.predictor.warmstart import adapt
    from tuneahead.workbench import shipped_history

    if start and store is None and table is None:
        raise TuneAheadError(
            "--start learns from your own runs beside others, and none are named",
            remedy="give --store runs.sqlite, as 'runs record' and 'build' write it",
        )
    corrects = start not in ("", "shipped")
    if corrects:
        _refuse_idle(
            {"--preset": preset, "--level": level, "--seed": seed},
            f"with --start {start}, which corrects a predictor that is there",
        )
    _refuse_idle_of_store(store, {"--benchmark": benchmark, "--probe-steps": probe_steps})
    if store is None and table is None:
        raise TuneAheadError(
            "it is not said which runs to fit to",
            remedy="give --store runs.sqlite, as 'assess --store' and 'build' write it, or --table",
        )
    require_writable_folder(out, "--out")
    rows = _table(store, table, benchmark, PROBE_STEPS if probe_steps is None else probe_steps)
    left_out, learnt_before = 0, 0
    with ProgressBar() as bar:
        stage = f"Fitting to {counted(len(rows), 'task')}"
        bar.stage(stage)
        if corrects:
            started = load_predictor(start)
            predictor = adapt(started, rows)
            learnt_before = len(set(learnt_keys(rows.scored())) & set(started.origin.learnt))
        else:
            rows, helpers = beside_packaged(rows, shipped_history()) if start else (rows, None)
            predictor = Predictor.fit(
                rows,
                preset=preset or _PRESET,
                seed=_SEED if seed is None else seed,
                level=_LEVEL if level is None else level,
                helpers=helpers,
                progress=lambda done, total: bar.measure(stage, done, total),
            )
            left_out = _left_out(predictor.origin, rows, helpers is not None)
    try:
        predictor.save(out)
    except OSError as error:
        raise TuneAheadError(f"can't write {out}: {error.strerror}", remedy="give another --out") from None
    if left_out:
        what = f"{counted(left_out, 'task')} left out: no probe or base score, which the others have"
        print(what, file=sys.stderr)
    _print_fitted(predictor.origin, out, start, as_json)
    if learnt_before:
        _tell_of_learnt(learnt_before, start)
    _tell_of_no_interval(predictor)
    _tell_of_odd_scores(rows.scored())


def _tell_of_learnt(data_sets: int, start: str) -> None:
    """A store that has grown is to be fitted anew: most of its runs would have no part in the interval."""
    them = "them" if data_sets > 1 else "it"
    print(
        f"{counted(data_sets, 'data set')} corrected nothing, for the predictor in {start} was fitted to "
        f"{them}. A correction is for a new base; to learn from more runs of this one leave --start out or "
        "give --start shipped",
        file=sys.stderr,
    )


def _tell_of_no_interval(predictor: Predictor) -> None:
    from tuneahead.predictor.intervals import least_groups

    level = predictor.level
    # One data set alone has no residuals: nothing was fitted without it.
    counts = predictor.calibration.data_sets or {"": predictor.origin.data_sets}
    for place, found in counts.items():
        if found < least_groups(level):
            which = f"Every interval on {printable(place)}" if place else "Every interval"
            print(
                f"{which} is the whole scale, 0 to 100: at level {level:g} scored runs on "
                f"{least_groups(level)} data sets are the least, these are on {found}",
                file=sys.stderr,
            )


def _tell_of_odd_scores(rows: FeatureTable) -> None:
    """Say where all runs scored the same, and where one name seems to stand for several bases."""
    for place in dict.fromkeys(rows.places):
        scores = [pp for pp, at in zip(rows.score_pp.tolist(), rows.places, strict=True) if at == place]
        if len(scores) > 1 and len(set(scores)) == 1:
            print(
                f"{printable(place)}: all runs scored {scores[0]:.1f}, as every forecast will say too. "
                "See whether the benchmark tells good runs from bad ones",
                file=sys.stderr,
            )
        own = [pp for pp, at in zip(rows.base_pp.tolist(), rows.places, strict=True) if at == place]
        known = [pp for pp in own if math.isfinite(pp)]
        if known and max(known) - min(known) > _SAME_BASE_PP:
            print(
                f"{printable(place)}: the base scored {min(known):.1f} in some runs and {max(known):.1f} in "
                "others before training. They are learnt from as runs of one base, which is wrong if its "
                "name stands for several models, or its score was measured in several ways",
                file=sys.stderr,
            )


def _left_out(origin: Origin, rows: FeatureTable, helped: bool) -> int:
    """How many scored tasks of ``rows`` the predictor was not fitted to."""
    scored = rows.scored()
    if helped:
        return len(set(scored.task_ids)) - origin.own_rows
    return len(set(zip(scored.bases, scored.task_ids, strict=True))) - origin.rows


def _print_fitted(origin: Origin, out: Path, start: str, as_json: bool) -> None:
    if as_json:
        names = ("preset", "rows", "data_sets", "own_rows", "seed", "bases", "benchmarks")
        print(
            json.dumps({"predictor": str(out), **{name: getattr(origin, name) for name in names}}, indent=1)
        )
        return
    own = f"{origin.own_rows:,} of them on its own base and benchmark"
    if start != "shipped":
        own = f"corrected by {counted(origin.own_rows, 'own task')}"
    own = f", {own}" if origin.own_rows else ""
    fitted = f"{counted(origin.rows, 'task')} on {counted(origin.data_sets, 'data set')}"
    print(f"{out}: fitted to {fitted}, preset {origin.preset}{own}")
    length = "" if origin.probe_steps == PROBE_STEPS else f" --probe-steps {origin.probe_steps}"
    print(f"To forecast with it: tuneahead assess ... --predictor {shlex.quote(str(out))}{length}")


def backtest(
    store: MaybeStore = None,
    table: TableFile = None,
    benchmark: BenchmarkOf = "",
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
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Seed of the splits.")] = 0,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how good forecasts are: hold runs out, predict them, compare with every simple rule.

    Without --store or --table: the stored result on the shipped runs.
    """
    _refuse_idle_of_store(store, {"--benchmark": benchmark})
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
    from tuneahead.backtest.result import PROTOCOLS, read_result
    from tuneahead.predictor.fingerprint import table_fingerprint
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


def _measure_data(path: Path, bar: ProgressBar) -> None:
    """Static features of the generated data sets, once each; they stay in the store."""
    from tuneahead.history.tables import complete_statics
    from tuneahead.lab.exam import lab_exam
    from tuneahead.training.models import load_base

    bar.stage("Measuring the data sets")

    def show(done: int, total: int) -> None:
        bar.measure("Measuring the data sets", done, total)

    complete_statics(open_store(path), load_base("lab"), lab_exam(), show)


def _refuse_idle(options: Mapping[str, object], where: str) -> None:
    """Raises :class:`TuneAheadError` for an option that was given and would be ignored."""
    for name, value in options.items():
        if value not in ("", None):
            raise TuneAheadError(f"{name} {value} has no effect {where}", remedy=f"leave {name} out")


def _refuse_idle_of_store(store: Path | None, options: Mapping[str, object]) -> None:
    if store is None:
        _refuse_idle(options, "without --store: a feature table is of one benchmark and probe length")


def _table(
    store: Path | None, table: Path | None, benchmark: str, probe_steps: int = PROBE_STEPS
) -> FeatureTable:
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
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.history.tables import table_from_store

    history = open_store(store)
    with ProgressBar() as bar:
        bar.stage(f"Deriving features of {counted(len(history), 'run')}")
        return table_from_store(history, benchmark=benchmark or _BENCHMARK, probe_steps=probe_steps)
