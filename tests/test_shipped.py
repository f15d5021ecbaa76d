"""What ships is what the archive gives, and the archive is what the lab gives."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tuneahead.backtest import BacktestOptions, backtest, read_result
from tuneahead.backtest.protocols import measured_rows
from tuneahead.build.execute import lab_data, lab_settings
from tuneahead.build.plan import TaskPlan
from tuneahead.features.extract import derived_features
from tuneahead.history.archive import read_archive
from tuneahead.history.runrecord import RunRecord
from tuneahead.lab.datasets import DatasetSpec
from tuneahead.predictor.baselines import OURS
from tuneahead.predictor.fingerprint import table_fingerprint
from tuneahead.predictor.metrics import rmse
from tuneahead.predictor.packaged import OTHER_LENGTHS, shipped_backtest, shipped_predictor, shipped_table
from tuneahead.predictor.predictor import load_predictor
from tuneahead.predictor.table import PROXY, proxy_column, read_table
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.models import load_base

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "meta" / "lab-qwen2"


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return list(islice(read_archive(ARCHIVE), 40))


@pytest.mark.parametrize("steps", [100, *OTHER_LENGTHS])
def test_the_shipped_table_is_derived_from_the_archived_traces(records: list[RunRecord], steps: int) -> None:
    table = read_table(shipped_table(probe_steps=steps))
    place = {task: row for row, task in enumerate(table.task_ids)}
    for record in records[:8]:
        row = place[record.task_id]
        if table.seeds[row] == 1:
            assert table.score_pp[row] == record.scores["lab-exam"]
        else:
            # A mean of seeds lies near each of them.
            spread = 4 * table.seed_sd_pp[row]
            assert table.score_pp[row] == pytest.approx(record.scores["lab-exam"], abs=spread)
        assert table.base_pp[row] == record.base_scores["lab-exam"]
        derived = derived_features(record.trace.truncate(steps))
        for name, value in derived.values.items():
            kept = table.values[row, table.names.index(name)]
            assert kept == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), (record.run_id, name)


@pytest.fixture(scope="module")
def proxy_scores() -> dict[str, dict[str, list[float]]]:
    """Scores of the archived proxy runs, by task and benchmark."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in read_archive(ROOT / "meta" / "lab-proxy"):
        for name, score in record.scores.items():
            found.setdefault(record.task_id, {}).setdefault(name, []).append(score)
    return found


@pytest.mark.parametrize("base", ["lab-qwen2", "lab-llama", "lab-gemma3"])
def test_every_task_of_the_lab_has_its_proxy_runs_scores(
    base: str, proxy_scores: dict[str, dict[str, list[float]]]
) -> None:
    """ProxyLM is a rival on every base whose tasks were really fine-tuned on the proxy."""
    table = read_table(shipped_table(base))
    for name, column in (("lab-exam", PROXY), *((n, proxy_column(n)) for n in table.further_benchmarks)):
        expected = [np.mean(proxy_scores[task][name]) for task in table.task_ids]
        np.testing.assert_allclose(table.extra(column), expected, rtol=1e-6, err_msg=name)


def _lengths() -> list[tuple[str, int]]:
    found = [(path.parent.name, path.stem) for path in shipped_predictor().parent.glob("*/table-*.parquet")]
    return sorted((base, int(stem.removeprefix("table-"))) for base, stem in found)


def test_every_base_ships_the_lengths_that_its_runs_were_asked_at() -> None:
    labs = [(base, steps) for base in ("lab-gemma3", "lab-llama", "lab-qwen2") for steps in OTHER_LENGTHS]
    assert _lengths() == [*labs, ("smollm2", 50)]


@pytest.mark.parametrize(("base", "steps"), _lengths())
def test_shipped_tables_of_other_lengths_hold_the_same_tasks_and_what_is_known_before(
    base: str, steps: int
) -> None:
    usual, other = read_table(shipped_table(base)), read_table(shipped_table(base, steps))
    assert (other.probe_steps, other.task_ids, other.bases) == (steps, usual.task_ids, usual.bases)
    for name in ("score_pp", "base_pp", "seeds"):
        np.testing.assert_array_equal(getattr(other, name), getattr(usual, name))
    assert (rmse(other.probe_pp, other.score_pp) > rmse(usual.probe_pp, usual.score_pp)) == (steps < 100)
    static = [name for name, group in zip(usual.names, usual.groups, strict=True) if group == "static"]
    assert len(static) > 20
    for name in static:
        columns = [table.values[:, table.names.index(name)] for table in (other, usual)]
        np.testing.assert_array_equal(*columns)


def test_our_shipped_held_out_predictions_err_by_a_third_less_than_persistence() -> None:
    table = read_table(shipped_table())
    found = {p.task_id: p.predicted_pp for p in read_result(shipped_backtest()).predictions["grouped"]}
    predicted = np.array([found[task] for task in table.task_ids])
    assert 3 * rmse(predicted, table.score_pp) < 2 * rmse(table.probe_pp, table.score_pp)


def test_the_shipped_predictor_was_fitted_to_the_shipped_table() -> None:
    table, predictor = read_table(shipped_table()), load_predictor(shipped_predictor())
    assert predictor.origin.rows == len(table)
    fitted = rmse(predictor.predict_table(table).score_pp, table.score_pp)
    held_out = {p.task_id: p.predicted_pp for p in read_result(shipped_backtest()).predictions["grouped"]}
    assert fitted < rmse(np.array([held_out[task] for task in table.task_ids]), table.score_pp)


def test_the_shipped_backtest_is_of_the_shipped_table_and_its_rules_give_the_same_again() -> None:
    result, table = read_result(shipped_backtest()), read_table(shipped_table())
    assert result.table_fingerprint == table_fingerprint(table), "run scripts/ship_lab.py --backtest again"
    systems = ("mean", "persistence", "ridge")
    options = BacktestOptions(
        systems=systems, ablations=False, learning_curve=False, further_benchmarks=False
    )
    again = backtest(table, protocols=("grouped",), options=options)
    stored = {row[0]: row for row in result.table("main grouped").rows}
    made = [row for row in again.table("main grouped").rows if row[0] != "Seed-noise floor"]
    assert len(made) == len(systems)
    for row in made:
        for new, old in zip(row, stored[row[0]], strict=True):
            if isinstance(new, float) and old is not None:
                assert new == pytest.approx(old, rel=1e-6, abs=1e-6), row[0]


def test_the_shipped_backtest_on_other_bases_is_of_their_shipped_tables() -> None:
    result = read_result(shipped_backtest())
    stored = result.base_fingerprints
    tested = {table.name.removeprefix("transfer ") for table in result.tables if "transfer " in table.name}
    assert set(stored) == tested
    for name, fingerprint in stored.items():
        now = table_fingerprint(read_table(shipped_table(name)))
        assert fingerprint == now, f"run scripts/ship_lab.py --base {name} --backtest again"


def test_our_shipped_held_out_predictions_have_the_error_that_the_table_states() -> None:
    result, table = read_result(shipped_backtest()), read_table(shipped_table())
    found = {p.task_id: p for p in result.predictions["grouped"]}
    assert set(found) == set(table.task_ids)
    measured = measured_rows(table)
    errors = [
        found[task].predicted_pp - score
        for task, score, on in zip(table.task_ids, table.score_pp, measured, strict=True)
        if on
    ]
    stored = next(row for row in result.table("main grouped").rows if row[0] == OURS.label)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(stored[1], abs=2e-3)


@pytest.fixture(scope="module")
def write_accuracy() -> ModuleType:
    place = importlib.util.spec_from_file_location("write_accuracy", ROOT / "scripts" / "write_accuracy.py")
    assert place is not None and place.loader is not None
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    return script


def test_the_readme_states_the_figures_of_the_shipped_backtest(write_accuracy: ModuleType) -> None:
    found = write_accuracy.accuracy(read_result(shipped_backtest()))
    assert found in (ROOT / "README.md").read_text("utf-8")


def test_the_readme_compares_with_proxylm_on_the_same_tasks(write_accuracy: ModuleType) -> None:
    result = read_result(shipped_backtest())
    ours, theirs = (
        write_accuracy.figure(result, "main grouped", system, "tasks") for system in (OURS.label, "ProxyLM")
    )
    assert ours == theirs
    error = write_accuracy.figure(result, "main grouped", "ProxyLM", "RMSE")
    found = " ".join(write_accuracy.accuracy(result).split())
    assert f"ProxyLM, which really fine-tunes a smaller model on the tasks, errs by {error:.2f} on" in found
    assert "on these tasks, TuneAhead by" in found and "| ProxyLM |" in found


def test_the_readme_tells_of_a_system_that_is_measured_on_fewer_tasks(write_accuracy: ModuleType) -> None:
    result = read_result(shipped_backtest())
    table = result.table("main grouped")
    place = table.columns.index("tasks")
    rows = tuple(
        tuple(116 if row[0] == "ProxyLM" and i == place else cell for i, cell in enumerate(row))
        for row in table.rows
    )
    tables = tuple(replace(table, rows=rows) if one is table else one for one in result.tables)
    found = " ".join(write_accuracy.accuracy(replace(result, tables=tables)).split())
    assert "| ProxyLM (116 tasks) |" in found and f"| {OURS.label} |" in found
    assert "on the 116 of the 384 tasks that it was run for, TuneAhead by 2.47 on all of them." in found


def test_the_readme_says_whose_errors_the_chances_come_from(write_accuracy: ModuleType) -> None:
    found = " ".join(write_accuracy.choosing(read_result(shipped_backtest())).split())
    assert "from the held-out errors on the other data sets, said" in found


def test_an_archived_run_made_again_gives_its_stored_trace(records: list[RunRecord]) -> None:
    record = next(r for r in records if r.recipe.lora_dropout == 0 and r.trace.info.train_rows < 500)
    base = load_base("lab", device="cpu")
    task = TaskPlan(DatasetSpec.from_json(record.data_spec), record.recipe)
    data = lab_data(base, task)
    assert data.fingerprint == record.trace.info.data_fingerprint
    settings = replace(lab_settings(), cue_steps=(0, 10), flatness_at=None, record_steps=12)
    job = Job("again", data, record.recipe.probe(12))
    made = next(iter(train_stack(base, [job], settings, width=1))).trace
    stored = record.trace.truncate(12)
    np.testing.assert_array_equal(made.visits.row, stored.visits.row)
    # Stacked beside others then and alone now: equal up to rounding.
    np.testing.assert_allclose(made.steps.loss_sum_nats, stored.steps.loss_sum_nats, rtol=2e-3)
    np.testing.assert_allclose(made.steps.grad_norm, stored.steps.grad_norm, rtol=1e-2)
    assert made.cues[1].accuracy_pp == pytest.approx(stored.cues[1].accuracy_pp, abs=0.5)
