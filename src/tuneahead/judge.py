"""Judging a task before its full run: preflight, probe, forecast, reasons, verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.assessment import NAN, Assessment, Outcome
from tuneahead.conclusion import conclude, measured, stopped
from tuneahead.errors import RecipeError, TuneAheadError
from tuneahead.recipe import Recipe
from tuneahead.taskchecks import check_tasks
from tuneahead.verdict import Goal, given_goal
from tuneahead.watch import SILENT, Watch
from tuneahead.workbench import (
    Setup,
    Workbench,
    cue_items,
    open_workbench,
)

if TYPE_CHECKING:
    from tuneahead.dataset import ColumnMapping, Dataset
    from tuneahead.trace import ProbeTrace


def load_dataset(data: str | Path | Dataset, mapping: ColumnMapping | None = None) -> Dataset:
    """A data set as it is, or read from a file; raises :class:`~tuneahead.errors.DataError`."""
    from tuneahead.dataset import Dataset, read_examples

    return data if isinstance(data, Dataset) else read_examples(data, mapping=mapping)


def assess(
    data: str | Path | Dataset,
    recipe: Recipe | None = None,
    *,
    goal: Goal | None = None,
    bench: Setup | Workbench | None = None,
    checkpoint_dir: str | Path | None = None,
    watch: Watch = SILENT,
) -> Assessment:
    """Probe a task and say what its full run would score, why, and whether it is worth it.

    A preflight finding of severity ``stop`` ends it before the probe. With ``checkpoint_dir`` the
    run can go on from the probe (see :func:`verify`). Raises DataError, RecipeError, ModelError,
    BenchmarkError or PredictorError.

    >>> assess("tickets.jsonl", Recipe(learning_rate=1e-3)).verdict.decision  # doctest: +SKIP
    'GO'
    """
    recipes, wanted = [recipe or Recipe()], given_goal(goal)
    folders = None if checkpoint_dir is None else [Path(checkpoint_dir)]
    opened = open_bench(bench, recipes, watch)
    with opened.base.turn:
        return _assess_all(load_dataset(data), recipes, opened, wanted, folders, watch)[0]


def probe(
    data: str | Path | Dataset,
    recipe: Recipe | None = None,
    *,
    bench: Setup | Workbench | None = None,
    checkpoint_dir: str | Path | None = None,
    watch: Watch = SILENT,
) -> ProbeTrace:
    """Train the first steps of a run and return the raw trace, judging nothing.

    Raises as :func:`assess` does, for want of a predictor apart.
    """
    from tuneahead.training.probe import prepare_data, run_probe

    chosen, dataset = recipe or Recipe(), load_dataset(data)
    opened = open_bench(bench, [chosen], watch, forecasts=False)
    train_rows = len(prepare_data(opened.base, dataset.examples, chosen).train)
    steps = min(opened.setup.probe_steps, chosen.total_steps(max(1, train_rows)))
    watch.stage("Probe", steps)
    settings = opened.settings([steps])
    with opened.base.turn:
        return run_probe(
            opened.base,
            dataset.examples,
            chosen.probe(steps),
            settings,
            checkpoint_dir=_folder(checkpoint_dir),
            on_step=watch.advance,
        ).trace


def rank(
    data: str | Path | Dataset,
    recipes: Iterable[Recipe],
    *,
    goal: Goal | None = None,
    bench: Setup | Workbench | None = None,
    watch: Watch = SILENT,
) -> tuple[Assessment, ...]:
    """Assess several recipes on one data set in one stacked probe; best forecast first.

    Raises as :func:`assess` does, and RecipeError for recipes of several precisions.
    """
    several, wanted = tuple(recipes), given_goal(goal)
    opened = open_bench(bench, several, watch)
    with opened.base.turn:
        found = _assess_all(load_dataset(data), several, opened, wanted, None, watch)
    return tuple(sorted(found, key=_expected_pp, reverse=True))


def verify(
    assessment: Assessment,
    data: str | Path | Dataset,
    *,
    bench: Setup | Workbench | None = None,
    checkpoint_dir: str | Path | None = None,
    save_dir: str | Path | None = None,
    watch: Watch = SILENT,
) -> Assessment:
    """Make the full run (from the probe's checkpoint if given), score it, and add the outcome.

    A checkpoint that could not be written is done without. An adapter that can't be is told in the outcome.
    Raises :class:`TuneAheadError` for other data, another base or another benchmark than were assessed.
    """
    from tuneahead.training.probe import ProbeTask, run_probes

    opened, dataset = open_bench(bench, [assessment.recipe], watch, forecasts=False), load_dataset(data)
    _require_assessed(assessment, opened, dataset)
    unwritten = assessment.trace is not None and "checkpoint" in dict(assessment.trace.absent)
    resumed = None if unwritten else _folder(checkpoint_dir)
    done = assessment.task.probe_steps if resumed is not None else 0
    watch.stage("Full run", assessment.task.total_steps - done)
    task = ProbeTask(
        "full",
        dataset.examples,
        assessment.recipe.full(),
        finals=(opened.benchmark,),
        resume_from=resumed,
        save_dir=_folder(save_dir),
    )
    settings = opened.settings([assessment.task.probe_steps])
    with opened.base.turn:
        result = run_probes(opened.base, [task], settings, width=1, on_step=watch.advance)[0]
    score = result.scores.get(opened.benchmark.name, NAN)
    lost = dict(result.trace.absent).get("adapter", "")
    kept = "" if lost else str(save_dir or "")
    outcome = Outcome(score, result.steps, result.seconds, kept, lost, result.failure)
    found = replace(assessment, outcome=outcome)
    return measured(found) if found.complete and math.isfinite(score) else found


def _require_assessed(assessment: Assessment, bench: Workbench, dataset: Dataset) -> None:
    """A score of another run or benchmark would stand beside the forecast as if it were its own."""
    task = assessment.task
    # Assessments of an earlier version do not say which of a name it was.
    items = bench.benchmark.identity if task.benchmark_fingerprint else ""
    for what, given, assessed in (
        ("benchmark", _told(bench.benchmark.name, items), _told(task.benchmark, task.benchmark_fingerprint)),
        ("base", _told(bench.base.name, bench.base.fingerprint), _told(task.base, task.base_fingerprint)),
        ("data set", dataset.fingerprint, assessment.data.fingerprint),
    ):
        if given != assessed:
            raise TuneAheadError(
                f"the {what} to verify on is {given}, the assessment is of {assessed}",
                remedy="give verify the data and the bench (base, benchmark) that assess was given",
            )


def _told(name: str, fingerprint: str) -> str:
    return f"{name} ({fingerprint})" if fingerprint else name


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def open_bench(
    bench: Setup | Workbench | None,
    recipes: Sequence[Recipe],
    watch: Watch = SILENT,
    *,
    forecasts: bool = True,
) -> Workbench:
    """The loaded workbench for these recipes: the base runs in the number format that they ask for.

    Raises :class:`RecipeError` for recipes that can't be judged, or not together, :class:`TuneAheadError` for
    a ``bench`` that is none, and as :func:`~tuneahead.workbench.open_workbench` does.
    """
    for recipe in recipes:
        if not isinstance(recipe, Recipe):
            raise RecipeError(
                f"{recipe!r} is no recipe", remedy="give Recipe(...) or read_recipe('recipe.yaml')"
            )
    if not isinstance(bench, Setup | Workbench | None):
        raise TuneAheadError(
            f"{bench!r} is no workbench",
            remedy="give Setup(base=...) or open_workbench(Setup(...))",
        )
    setup = bench.setup if isinstance(bench, Workbench) else bench or Setup()
    early = next((recipe.stop_after for recipe in recipes if recipe.stop_after is not None), None)
    if early is not None:
        raise RecipeError(
            f"the recipe ends early, stop_after is {early}: what is judged is the full run",
            remedy="give recipe.full(); Setup(probe_steps=...) says how long the probe is",
        )
    asked = {recipe.precision for recipe in recipes} - {"auto"}
    if len(asked) > 1 or (isinstance(bench, Workbench) and asked - {setup.precision}):
        loaded = f", the base is loaded as {setup.precision}" if isinstance(bench, Workbench) else ""
        raise RecipeError(
            f"the recipes ask for precision {' and '.join(sorted(asked))}{loaded}",
            remedy="judge recipes of one precision at a time, with a base loaded in it",
        )
    if isinstance(bench, Workbench):
        return bench
    setup = replace(setup, precision=asked.pop() if asked else setup.precision)
    return open_workbench(setup, forecasts=forecasts, watch=watch)


def _expected_pp(assessment: Assessment) -> float:
    """What a task is ranked by: its forecast, else its score at the probe's end, else last."""
    best = assessment.probe_pp if assessment.forecast is None else assessment.forecast.score_pp
    return best if math.isfinite(best) else -math.inf


def _assess_all(
    dataset: Dataset,
    recipes: Sequence[Recipe],
    bench: Workbench,
    goal: Goal,
    folders: Sequence[Path] | None,
    watch: Watch,
) -> list[Assessment]:
    from tuneahead.training.probe import ProbeTask, run_probes

    tasks = check_tasks(dataset, recipes, bench, watch)
    going = [i for i, task in enumerate(tasks) if not task.checkup.stopped]
    found: dict[int, Assessment] = {
        i: stopped(task, goal) for i, task in enumerate(tasks) if task.checkup.stopped
    }
    if going:
        base_of_all_pp = _base_of_all_pp(bench, goal, watch)
        steps = bench.setup.probe_steps
        watch.stage("Probe", sum(tasks[i].info.probe_steps for i in going))
        began = time.perf_counter()
        jobs = [
            ProbeTask(
                str(i),
                dataset.examples,
                tasks[i].checkup.recipe.probe(steps),
                checkpoint_dir=None if folders is None else folders[i],
                data=tasks[i].data,
            )
            for i in going
        ]
        settings = bench.settings(tasks[i].info.probe_steps for i in going)
        results = run_probes(bench.base, jobs, settings, on_step=watch.advance)
        seconds = (time.perf_counter() - began) / len(going)
        for i, result in zip(going, results, strict=True):
            found[i] = conclude(tasks[i], result, bench, goal, seconds, base_of_all_pp)
    return [found[i] for i in range(len(tasks))]


def _base_of_all_pp(bench: Workbench, goal: Goal, watch: Watch) -> float:
    """The base's score on every item, where a goal is to count from it and the probe asks some only.

    NaN where nobody needs it, and of a benchmark too long for even a small base to be asked in passing.
    """
    from tuneahead.training.wholescore import whole_score_pp

    count = len(bench.benchmark.items)
    asks_all = len(cue_items(bench.benchmark, bench.base).items) == count
    too_long = len(cue_items(bench.benchmark).items) < count
    if asks_all or too_long or bench.predictor is None or goal.minimum_pp is not None:
        return NAN
    watch.stage(f"Asking the base all {count:,} items")
    return whole_score_pp(bench.base, bench.benchmark)
