"""The recorder and the gate in a Trainer on a CUDA device; run where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integrations.trainer_fixtures import (
    RECIPE,
    SETTINGS,
    assert_same_trace,
    make_data,
    make_exam,
    make_predictor,
    make_trainer,
    make_trl_trainer,
    own_trace,
)

from tuneahead.integrations.transformers import Gate, RunNotes, TraceRecorder
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace
from tuneahead.training.memory import quantization_config
from tuneahead.training.models import Base, load_base
from tuneahead.verdict import Goal

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def base(path: Path) -> Base:
    return load_base(str(path), device=DEVICE)


def recorded(path: Path, folder: Path, base: Base, recipe: Recipe, **options: Any) -> ProbeTrace:
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trainer(path, folder, base, make_data(base, recipe), recipe, callbacks=[recorder], **options).train()
    assert recorder.trace is not None
    return recorder.trace


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trainer_on_a_gpu_has_the_trace_of_our_own_loop(
    path: Path, base: Base, tmp_path: Path, accumulation: int
) -> None:
    recipe = RECIPE.replace(gradient_accumulation_steps=accumulation)
    found = recorded(path, tmp_path, base, recipe)
    assert found.info.device == DEVICE and found.absent == ()
    assert np.isfinite(found.steps.peak_memory_mb).all() and (found.steps.peak_memory_mb > 0).all()
    assert_same_trace(found, own_trace(base, recipe))
    assert_same_trace(found, own_trace(load_base(str(path), device="cpu"), recipe), flatness=False)


def test_a_trl_run_on_a_gpu_has_it_too(path: Path, base: Base, tmp_path: Path) -> None:
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trl_trainer(path, tmp_path, base, RECIPE, callbacks=[recorder]).train()
    assert_same_trace(recorder.trace, own_trace(base, RECIPE))


def test_recording_on_a_gpu_leaves_the_run_as_it_was(path: Path, base: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(max_steps=14)
    weights = []
    for callbacks in ([], [TraceRecorder(SETTINGS)]):
        trainer = make_trainer(
            path, tmp_path, base, make_data(base, recipe), recipe, dropout=0.2, callbacks=callbacks
        )
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters() if p.requires_grad])
    assert callbacks[0].trace is not None
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_on_a_gpu(path: Path, base: Base, tmp_path: Path, precision: str) -> None:
    found = recorded(path, tmp_path, base, RECIPE, **{precision: True})
    ours = own_trace(base, RECIPE)
    assert found.info.recipe.precision == precision
    taken = np.isfinite(found.steps.grad_norm)
    # The gradient scaler begins with 65,536 and may skip steps until the gradients fit.
    skipped = 12 - int(taken.sum())
    assert skipped == 0 or (precision == "fp16" and skipped < 4)
    assert ("skipped" in str(dict(found.absent))) == (skipped > 0)
    np.testing.assert_allclose(found.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=0.05)
    if not skipped:
        np.testing.assert_allclose(found.steps.grad_norm, ours.steps.grad_norm, rtol=0.1)
        np.testing.assert_allclose(found.steps.distance, ours.steps.distance, rtol=0.1)
    assert found.flatness is not None
    for cue, other in zip(found.cues, ours.cues, strict=True):
        np.testing.assert_allclose(cue.right_probability, other.right_probability, atol=0.05)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(("precision", "share"), [("8bit", 0.1), ("4bit", 0.4)])
def test_a_quantized_base_on_a_gpu(
    path: Path, base: Base, tmp_path: Path, precision: str, share: float
) -> None:
    found = recorded(path, tmp_path, base, RECIPE, quantization=quantization_config(precision, DEVICE))
    assert found.info.recipe.precision == precision
    ours = own_trace(load_base(str(path), device=DEVICE, precision=precision), RECIPE)
    np.testing.assert_allclose(found.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=share)
    assert found.steps.loss_nats[-4:].mean() < found.steps.loss_nats[:4].mean(), "it learns"
    assert len(found.cues) == 3 and found.flatness is not None


def test_the_gate_on_a_gpu_lets_a_good_run_pass_and_stops_a_doomed_one(
    path: Path, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = make_predictor()
    found = {}
    for rate in (1e-3, 5e-2):
        recipe = RECIPE.replace(learning_rate=rate, max_steps=110)
        gate = Gate(predictor, Goal(minimum_pp=50), benchmark=make_exam(), notes=RunNotes(base="tiny"))
        folder = tmp_path / str(rate)
        trainer = make_trainer(path, folder, base, make_data(base, recipe), recipe, callbacks=[gate])
        trainer.train()
        assert trainer.args.device.type == DEVICE
        found[rate] = (gate.decision, trainer.state.global_step, (folder / "checkpoint-100").is_dir())
    assert found == {1e-3: ("GO", 110, False), 5e-2: ("NO_GO", 100, True)}
    out = capsys.readouterr().out
    assert "GO  Expected to score" in out and "NO GO  Expected to score" in out
