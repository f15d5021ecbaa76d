"""What ships is what the archive gives, and the archive is what the lab gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tuneahead.build.execute import lab_data, lab_settings
from tuneahead.build.plan import TaskPlan
from tuneahead.features.extract import derived_features
from tuneahead.history.archive import read_archive
from tuneahead.history.store import RunRecord
from tuneahead.lab.datasets import DatasetSpec
from tuneahead.predictor.metrics import rmse
from tuneahead.predictor.predictor import load_predictor
from tuneahead.predictor.table import read_table
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.models import load_base
from tuneahead.workbench import shipped_predictor, shipped_table

ARCHIVE = Path(__file__).parents[1] / "meta" / "lab-qwen2"


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return list(islice(read_archive(ARCHIVE), 40))


def test_the_shipped_table_is_derived_from_the_archived_traces(records: list[RunRecord]) -> None:
    table = read_table(shipped_table())
    place = {task: row for row, task in enumerate(table.task_ids)}
    for record in records[:8]:
        row = place[record.task_id]
        assert table.score_pp[row] == record.scores["lab-exam"]
        assert table.base_pp[row] == record.base_scores["lab-exam"]
        derived = derived_features(record.trace.truncate(100))
        for name, value in derived.values.items():
            kept = table.values[row, table.names.index(name)]
            assert kept == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), (record.run_id, name)


def test_the_shipped_predictor_knows_its_own_rows_better_than_persistence() -> None:
    table = read_table(shipped_table())
    forecast = load_predictor(shipped_predictor()).predict_table(table)
    assert rmse(forecast.score_pp, table.score_pp) < rmse(table.probe_pp, table.score_pp)


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
