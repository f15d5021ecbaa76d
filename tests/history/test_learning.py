"""From judged runs whose scores become known to the next predictor, with real probes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tuneahead.assessment import Assessment
from tuneahead.dataset import read_examples
from tuneahead.history.store import RunStore
from tuneahead.judge import assess
from tuneahead.lab.datasets import broken_example, generate, healthy_example, write_jsonl
from tuneahead.lab.exam import lab_exam
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable
from tuneahead.recipe import Recipe
from tuneahead.record import record_run
from tuneahead.report.words import scores_note
from tuneahead.verdict import Goal
from tuneahead.workbench import Setup, Workbench, open_workbench

RECIPE = Recipe(learning_rate=2e-3, max_steps=400, max_length=128)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    """The lab's base on an exam that no predictor knows."""
    plain = open_workbench(Setup(), forecasts=False)
    few = dataclasses.replace(lab_exam(), name="own-exam", items=lab_exam().items[::16])
    return dataclasses.replace(plain, benchmark=few, predictor_absent="no run is known")


def judged(bench: Workbench, folder: Path, seed: int, *, healthy: bool) -> Assessment:
    spec = healthy_example() if healthy else broken_example()
    path = folder / f"data{seed}{healthy}.jsonl"
    write_jsonl(generate(dataclasses.replace(spec, seed=seed))[:300], path)
    return assess(read_examples(path), RECIPE.replace(seed=seed), goal=Goal(gain_pp=1), bench=bench)


def test_scores_that_become_known_make_the_next_fit_forecast(bench: Workbench, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for seed in range(2):
        found = judged(bench, tmp_path, seed, healthy=True)
        assert found.verdict.decision == "UNSURE" and found.forecast is None
        store.record_score(record_run(found, store), "own-exam", found.probe_pp + 10)
    early = Predictor.fit(store.table(benchmark="own-exam"), preset="quick")
    assert (early.origin.rows, early.origin.benchmarks) == (2, ("own-exam",))
    # The next task is forecast from two runs that gained, and the interval says how little that is.
    broken = judged(dataclasses.replace(bench, predictor=early), tmp_path, 2, healthy=False)
    assert broken.forecast is not None
    assert broken.forecast.score_pp == pytest.approx(broken.probe_pp + 10, abs=3)
    assert (broken.forecast.low_pp, broken.forecast.high_pp) == (0, 100)
    truth = broken.probe_pp - 10
    store.record_score(record_run(broken, store), "own-exam", truth)
    late = Predictor.fit(store.table(benchmark="own-exam"), preset="quick")
    assert (late.origin.rows, late.origin.data_sets) == (3, 3)
    again = judged(dataclasses.replace(bench, predictor=late), tmp_path, 2, healthy=False)
    assert again.forecast is not None
    assert abs(again.forecast.score_pp - truth) < abs(broken.forecast.score_pp - truth) - 3
    # A broken data set that no run was on is forecast better too.
    fresh = judged(bench, tmp_path, 3, healthy=False)
    told = [known.predict(fresh.features, fresh.base_pp, fresh.probe_pp).score_pp for known in (early, late)]
    errors = [abs(score_pp - (fresh.probe_pp - 10)) for score_pp in told]
    assert errors[1] < errors[0] - 3
    # That the late forecast of the known one is near is no wonder, and is said.
    assert (broken.forecast.data_learnt, again.forecast.data_learnt) == (False, True)
    assert not scores_note(broken) and "this very data set" in scores_note(again)


def few_facts(rows: int, sets: int) -> FeatureTable:
    """Runs as imports leave them: most features and half of the scores before the end unknown."""
    draw = np.random.default_rng(0)
    values = np.full((rows, 6), np.nan)
    values[:, 0] = draw.normal(size=rows)
    values[::3, 1] = draw.normal(size=len(values[::3]))
    unknown = np.full(rows, np.nan)
    base = np.where(np.arange(rows) % 2 == 0, 30.0, np.nan)
    return FeatureTable(
        names=tuple(f"f{i}" for i in range(6)),
        values=values,
        score_pp=50.0 + 8.0 * values[:, 0] + draw.normal(size=rows),
        base_pp=base,
        probe_pp=unknown,
        chance_pp=unknown,
        task_ids=tuple(f"t{i}" for i in range(rows)),
        data_ids=tuple(f"d{i % sets}" for i in range(rows)),
        families=("imported",) * rows,
        seeds=np.ones(rows),
        seed_sd_pp=unknown,
        bases=("base",) * rows,
        benchmarks=("exam",) * rows,
        groups=("recipe",) * 6,
    )


@pytest.mark.parametrize(("rows", "sets"), [(1, 1), (2, 2), (5, 3), (8, 8)])
def test_a_handful_of_runs_bounds_nothing(rows: int, sets: int) -> None:
    table = few_facts(rows, sets)
    predictor = Predictor.fit(table)
    found = predictor.predict_table(table)
    assert np.isfinite(found.score_pp).all()
    assert (found.low_pp == 0).all() and (found.high_pp == 100).all()


def test_intervals_of_sparse_runs_hold_what_they_promise() -> None:
    table, fresh = few_facts(60, 20), few_facts(400, 400)
    predictor = Predictor.fit(table, preset="quick")
    found = predictor.predict_table(fresh)
    covered = (found.low_pp <= fresh.score_pp) & (fresh.score_pp <= found.high_pp)
    assert covered.mean() > 0.87 and (found.high_pp - found.low_pp).mean() < 40
    # A task that measured what the old runs had not is no stranger for that.
    richer = dataclasses.replace(fresh, values=fresh.values.copy())
    richer.values[:, 2:] = 5.0
    assert predictor.predict_table(richer).in_distribution.mean() > 0.9
