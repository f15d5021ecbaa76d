"""Bases in 8 and 4 bits on a processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_fixtures import WORDS, make_examples, write_tiny_model

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.recipe import Recipe
from tuneahead.training.loop import train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job, RunResult

RECIPE = Recipe(learning_rate=5e-3, max_steps=20, batch_size=4, lora_rank=4, lora_alpha=8, seed=3)
EXAM = Benchmark(
    "exam",
    "accuracy",
    tuple(ChoiceItem(str(i), f"{word} is", ("cat", "dog", "bird"), (i % 3,)) for i, word in enumerate(WORDS)),
)
SETTINGS = ProbeSettings(record_steps=20, cue_steps=(0, 20), cue_benchmark=EXAM, flatness_at=10)


def run(path: Path, precision: str, beside: int = 0) -> RunResult:
    base = load_base(str(path), device="cpu", precision=precision)
    recipes = [RECIPE, *(RECIPE.replace(seed=10 + i) for i in range(beside))]
    jobs = [
        Job(str(i), prepare_data(base, make_examples(40), recipe), recipe, (EXAM,))
        for i, recipe in enumerate(recipes)
    ]
    return next(result for result in train_stack(base, jobs, SETTINGS) if result.job_id == "0")


@pytest.mark.parametrize(("precision", "share"), [("8bit", 0.1), ("4bit", 0.4)])
def test_a_base_in_fewer_bits_trains_nearly_the_same(tmp_path: Path, precision: str, share: float) -> None:
    path = write_tiny_model(tmp_path)
    plain, small, again = run(path, "fp32"), run(path, precision), run(path, precision)
    losses = small.trace.steps.loss_nats
    np.testing.assert_allclose(losses[:10], plain.trace.steps.loss_nats[:10], rtol=share)
    assert not np.allclose(losses[:10], plain.trace.steps.loss_nats[:10], rtol=1e-5), "it is rounded"
    assert losses[-5:].mean() < losses[:5].mean(), "it learns"
    np.testing.assert_array_equal(losses, again.trace.steps.loss_nats)
    assert small.scores == again.scores and small.trace.flatness is not None
    assert small.trace.info.base_fingerprint == again.trace.info.base_fingerprint
    assert small.trace.info.base_fingerprint != plain.trace.info.base_fingerprint


def test_neighbours_change_nothing_in_4_bits(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    alone, beside = run(path, "4bit"), run(path, "4bit", beside=2)
    np.testing.assert_allclose(beside.trace.steps.loss_sum_nats, alone.trace.steps.loss_sum_nats, rtol=1e-4)
