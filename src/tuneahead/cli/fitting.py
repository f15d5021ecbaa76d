"""The command that learns from finished runs: fit."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.options import DATA, AsJson, require_writable_folder
from tuneahead.cli.ownruns import (
    LAB_BENCHMARK,
    MOST_SEED,
    BenchmarkOf,
    MaybeStore,
    TableFile,
    read_runs,
    refuse_idle,
    refuse_idle_of_store,
)
from tuneahead.counts import counted
from tuneahead.errors import TuneAheadError
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.printable import printable
from tuneahead.workbench import LEAST_PROBE_STEPS

if TYPE_CHECKING:
    from tuneahead.predictor.predictor import Origin, Predictor
    from tuneahead.predictor.table import FeatureTable

SHIPPED = "shipped"
"""The start that stands for the packaged runs instead of a folder."""
_PRESET, _LEVEL, _SEED = "default", 0.9, 0
_SAME_BASE_PP = 2.0
"""Scores of one base may differ so far: in another precision or on another device some answers do."""


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
    base: Annotated[
        str,
        typer.Option(
            help="With --start shipped and without runs of your own: learn from the packaged ones on this "
            "base, say from another length of the probe.",
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
            max=MOST_SEED,
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
    from tuneahead.predictor.predictor import Predictor, load_predictor
    from tuneahead.predictor.warmstart import adapt

    if base:
        refuse_idle({"--benchmark": benchmark}, f"with --base: the packaged runs are of {LAB_BENCHMARK}")
    else:
        refuse_idle_of_store(store, {"--benchmark": benchmark, "--probe-steps": probe_steps})
    _require_runs(store, table, start, base)
    corrects = start not in ("", SHIPPED)
    if corrects:
        refuse_idle(
            {"--preset": preset, "--level": level, "--seed": seed},
            f"with --start {start}, which corrects a predictor that is there",
        )
    require_writable_folder(out, "--out")
    steps = PROBE_STEPS if probe_steps is None else probe_steps
    rows, helpers = _runs(store, table, benchmark, start, base, steps)
    left_out, learnt_before = 0, 0
    with ProgressBar() as bar:
        stage = f"Fitting to {counted(len(rows), 'task')}"
        bar.stage(stage)
        if corrects:
            started = load_predictor(start)
            predictor = adapt(started, rows)
            learnt_before = len(set(learnt_keys(rows.scored())) & set(started.origin.learnt))
        else:
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


def _require_runs(store: Path | None, table: Path | None, start: str, base: str) -> None:
    """Raises :class:`TuneAheadError` unless it is said, once, which runs to fit to."""
    if base and start != SHIPPED:
        raise TuneAheadError(
            f"--base {base} names packaged runs, which --start shipped learns from",
            remedy="add --start shipped, or leave --base out: your own runs say their base themselves",
        )
    own = store is not None or table is not None
    if base and own:
        refuse_idle({"--base": base}, "beside --store or --table, whose runs say their base themselves")
    if own or base:
        return
    if start:
        only = ", or --base smollm2 for the packaged ones alone" if start == SHIPPED else ""
        raise TuneAheadError(
            "--start learns from your own runs beside others, and none are named",
            remedy=f"give --store runs.sqlite, as 'runs record' and 'build' write it{only}",
        )
    raise TuneAheadError(
        "it is not said which runs to fit to",
        remedy="give --store runs.sqlite, as 'assess --store' and 'build' write it, or --table",
    )


def _runs(
    store: Path | None, table: Path | None, benchmark: str, start: str, base: str, probe_steps: int
) -> tuple[FeatureTable, FeatureTable | None]:
    """The runs to fit to, and others that help there."""
    from tuneahead.predictor.packaged import beside_packaged, packaged_runs, shipped_history

    if base:
        return packaged_runs(base, probe_steps)
    rows = read_runs(store, table, benchmark, probe_steps)
    if start != SHIPPED:
        return rows, None
    return beside_packaged(rows, shipped_history(probe_steps=rows.probe_steps))


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
    if start != SHIPPED:
        own = f"corrected by {counted(origin.own_rows, 'own task')}"
    own = f", {own}" if origin.own_rows else ""
    fitted = f"{counted(origin.rows, 'task')} on {counted(origin.data_sets, 'data set')}"
    print(f"{out}: fitted to {fitted}, preset {origin.preset}{own}")
    length = "" if origin.probe_steps == PROBE_STEPS else f" --probe-steps {origin.probe_steps}"
    print(f"To forecast with it: tuneahead assess ... --predictor {shlex.quote(str(out))}{length}")
