"""A trace taken inside a user's Trainer against the trace of our own loop on the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from integrations.trainer_fixtures import RECIPE, TEXTS, make_data, make_exam, make_predictor, make_trainer
from training.training_fixtures import write_tiny_model

from tuneahead.integrations.transformers import RunNotes, TraceRecorder
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace, trace_from_bytes
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base

SETTINGS = ProbeSettings(
    record_steps=12, cue_steps=(0, 5, 12), cue_benchmark=make_exam(), reference_texts=TEXTS, flatness_at=12
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def base(path: Path) -> Base:
    return load_base(str(path), device="cpu")


def own_trace(base: Base, recipe: Recipe) -> ProbeTrace:
    job = Job("a", make_data(base, recipe), recipe)
    return next(iter(train_stack(base, [job], SETTINGS, width=1))).trace


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation_steps": 2}, {"max_grad_norm": None, "warmup_ratio": 0.0}],
    ids=["clipped", "accumulated", "unclipped"],
)
def test_the_trace_equals_that_of_our_own_loop(
    path: Path, base: Base, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = RECIPE.replace(**changes)
    ours = own_trace(base, recipe)
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder]).train()
    theirs = recorder.trace
    assert theirs is not None and len(theirs.steps) == 12
    np.testing.assert_allclose(theirs.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)
    np.testing.assert_array_equal(theirs.steps.answer_tokens, ours.steps.answer_tokens)
    np.testing.assert_allclose(theirs.steps.learning_rate, ours.steps.learning_rate, rtol=1e-6)
    for name in ("grad_norm", "mean_norm", "distance", "layer_grad_norm"):
        np.testing.assert_allclose(
            getattr(theirs.steps, name), getattr(ours.steps, name), rtol=1e-3, atol=1e-7, err_msg=name
        )
    np.testing.assert_allclose(theirs.steps.update_norm, ours.steps.update_norm, rtol=2e-3, atol=1e-7)
    scale = ours.steps.grad_norm[1:] * ours.steps.grad_norm[:-1]
    np.testing.assert_allclose(
        theirs.steps.dot_previous[1:] / scale, ours.steps.dot_previous[1:] / scale, atol=2e-3
    )
    np.testing.assert_allclose(theirs.steps.small_gradients, ours.steps.small_gradients, rtol=0.02, atol=8)
    np.testing.assert_array_equal(theirs.visits.row, ours.visits.row)
    np.testing.assert_allclose(theirs.visits.nll_nats, ours.visits.nll_nats, rtol=2e-3)
    _assert_same_observations(theirs, ours)


def _assert_same_observations(theirs: ProbeTrace, ours: ProbeTrace) -> None:
    assert [cue.step for cue in theirs.cues] == [0, 5, 12]
    for own, other in zip(ours.cues, theirs.cues, strict=True):
        np.testing.assert_allclose(other.right_probability, own.right_probability, atol=2e-3)
        assert other.heldout_loss_nats == pytest.approx(own.heldout_loss_nats, rel=1e-3)
        assert other.reference_loss_nats == pytest.approx(own.reference_loss_nats, rel=1e-3)
    assert theirs.flatness is not None and ours.flatness is not None
    assert theirs.flatness.centre_nats == pytest.approx(ours.flatness.centre_nats, rel=1e-3)
    np.testing.assert_allclose(theirs.flatness.perturbed_nats, ours.flatness.perturbed_nats, rtol=1e-3)


def test_the_trace_describes_the_run_as_our_own_loop_does(path: Path, base: Base, tmp_path: Path) -> None:
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trainer(path, tmp_path, base, make_data(base), callbacks=[recorder]).train()
    ours, theirs = own_trace(base, RECIPE), recorder.trace
    assert theirs is not None
    # The names of the packages differ, and text decoded from tokens is not the text of the file.
    same = {f.name for f in fields(theirs.info)} - {"versions", "data_fingerprint", "recipe"}
    assert {n: getattr(theirs.info, n) for n in same} == {n: getattr(ours.info, n) for n in same}
    assert theirs.info.recipe == RECIPE
    assert theirs.absent == ours.absent == ()
    again = trace_from_bytes(theirs.to_bytes())
    np.testing.assert_array_equal(again.steps.loss_sum_nats, theirs.steps.loss_sum_nats)


@pytest.mark.slow
def test_two_processes_record_one_run_and_stop_together(path: Path, base: Base, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    make_predictor().save(tmp_path / "predictor")
    done = subprocess.run(
        [*command, str(script), str(path), str(tmp_path), str(tmp_path / "predictor")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "rank1.trace").exists()
    theirs = trace_from_bytes((tmp_path / "rank0.trace").read_bytes())
    ours = own_trace(base, RECIPE).truncate(6)
    np.testing.assert_allclose(theirs.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)
    np.testing.assert_array_equal(theirs.steps.answer_tokens, ours.steps.answer_tokens)
    np.testing.assert_allclose(theirs.steps.grad_norm, ours.steps.grad_norm, rtol=1e-3)
    np.testing.assert_allclose(theirs.steps.distance, ours.steps.distance, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(theirs.visits.row, ours.visits.row)
    assert theirs.info.recipe.batch_size == 4
    assert [cue.step for cue in theirs.cues] == [0, 6] and theirs.flatness is not None
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [f["decision"] for f in found] == ["NO_GO", "NO_GO"]
    assert found[0]["steps"] == found[1]["steps"] < 6
    assert [f["judged"] for f in found] == [True, False]
