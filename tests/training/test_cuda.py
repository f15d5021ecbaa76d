"""The loop on a CUDA device against the same on the processor; run where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import WORDS, make_examples, write_tiny_model

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.errors import ModelError
from tuneahead.recipe import Recipe
from tuneahead.training import loop
from tuneahead.training.activations import recompute_layers
from tuneahead.training.loop import train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job, RunResult

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

RECIPE = Recipe(learning_rate=5e-3, max_steps=20, batch_size=4, lora_rank=4, lora_alpha=8, seed=3)
EXAM = Benchmark(
    "exam",
    "accuracy",
    tuple(ChoiceItem(str(i), f"{word} is", ("cat", "dog", "bird"), (i % 3,)) for i, word in enumerate(WORDS)),
)
SETTINGS = ProbeSettings(
    record_steps=20, cue_steps=(0, 10), cue_benchmark=EXAM, reference_texts=("red cat sun",), flatness_at=10
)


def runs(path: Path, device: str, recipes: list[Recipe], precision: str = "fp32") -> dict[str, RunResult]:
    base = load_base(str(path), device=device, precision=precision)
    jobs = [
        Job(str(i), prepare_data(base, make_examples(30), recipe), recipe, (EXAM,))
        for i, recipe in enumerate(recipes)
    ]
    return {result.job_id: result for result in train_stack(base, jobs, SETTINGS)}


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_a_gpu_records_what_the_processor_does(tmp_path: Path, architecture: str) -> None:
    path = write_tiny_model(tmp_path, architecture=architecture)
    recipes = [RECIPE, RECIPE.replace(lora_rank=2, batch_size=3, max_steps=15, seed=5)]
    there, here = (runs(path, device, recipes) for device in ("cuda", "cpu"))
    for name, expected in here.items():
        found = there[name]
        assert found.trace.info.device == "cuda"
        for field in ("loss_sum_nats", "grad_norm", "dot_mean", "mean_norm", "update_norm", "distance"):
            np.testing.assert_allclose(
                getattr(found.trace.steps, field),
                getattr(expected.trace.steps, field),
                rtol=5e-3,
                atol=1e-4,
                err_msg=field,
            )
        np.testing.assert_allclose(
            found.trace.steps.layer_grad_norm, expected.trace.steps.layer_grad_norm, rtol=5e-3
        )
        for cue, other in zip(found.trace.cues, expected.trace.cues, strict=True):
            np.testing.assert_allclose(cue.margin_nats, other.margin_nats, rtol=1e-2, atol=5e-3)
            assert cue.heldout_loss_nats == pytest.approx(other.heldout_loss_nats, rel=1e-3)
        assert found.trace.flatness is not None
        assert expected.trace.flatness is not None
        assert found.trace.flatness.centre_nats == pytest.approx(
            expected.trace.flatness.centre_nats, rel=1e-3
        )
        assert found.scores == pytest.approx(expected.scores)


def test_the_same_seed_gives_the_same_trace_and_neighbours_change_nothing(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    dropped = RECIPE.replace(lora_dropout=0.2)
    alone, again = (runs(path, "cuda", [dropped])["0"].trace for _ in range(2))
    np.testing.assert_array_equal(alone.steps.loss_sum_nats, again.steps.loss_sum_nats)
    beside = runs(path, "cuda", [dropped, RECIPE.replace(batch_size=8), dropped.replace(seed=4)])
    np.testing.assert_allclose(beside["0"].trace.steps.loss_sum_nats, alone.steps.loss_sum_nats, rtol=1e-3)
    plain = runs(path, "cuda", [RECIPE])["0"].trace
    assert not np.allclose(alone.steps.loss_sum_nats, plain.steps.loss_sum_nats, rtol=1e-3)


def test_a_probe_goes_on_to_the_full_run(tmp_path: Path) -> None:
    base = load_base(str(write_tiny_model(tmp_path / "tiny")), device="cuda")
    recipe = RECIPE.replace(lora_dropout=0.1)
    data = prepare_data(base, make_examples(30), recipe)

    def run(recipe: Recipe, **job: Path) -> RunResult:
        return next(iter(train_stack(base, [Job("a", data, recipe, **job)], SETTINGS)))  # type: ignore[arg-type]

    whole = run(recipe)
    run(recipe.probe(11), checkpoint_dir=tmp_path / "probe")
    rest = run(recipe, resume_from=tmp_path / "probe")
    np.testing.assert_array_equal(rest.trace.steps.loss_sum_nats, whole.trace.steps.loss_sum_nats)


def test_layers_run_twice_give_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_model(tmp_path)
    recipes = [RECIPE, RECIPE.replace(seed=5, lora_dropout=0.1)]
    plain = runs(path, "cuda", recipes)
    monkeypatch.setattr(loop, "fit_runs", lambda stack, *rest: recompute_layers(stack))
    for name, twice in runs(path, "cuda", recipes).items():
        np.testing.assert_allclose(
            twice.trace.steps.loss_sum_nats, plain[name].trace.steps.loss_sum_nats, rtol=1e-4
        )


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.02), ("8bit", 0.1), ("4bit", 0.4)])
def test_a_base_in_fewer_bits_trains_nearly_the_same(tmp_path: Path, precision: str, share: float) -> None:
    path = write_tiny_model(tmp_path)
    plain, small = (runs(path, "cuda", [RECIPE], name)["0"].trace for name in ("fp32", precision))
    np.testing.assert_allclose(small.steps.loss_nats[:10], plain.steps.loss_nats[:10], rtol=share)
    assert small.steps.loss_nats[-5:].mean() < small.steps.loss_nats[:5].mean(), "it learns"


def test_runs_that_do_not_fit_are_refused_with_the_number(tmp_path: Path) -> None:
    base = load_base(str(write_tiny_model(tmp_path)), device="cuda")
    recipe = RECIPE.replace(batch_size=4096)
    data = prepare_data(base, make_examples(5000, opening=" ".join(WORDS * 3)), recipe)
    torch.cuda.empty_cache()
    hog = torch.empty(torch.cuda.mem_get_info()[0] - 2**27, dtype=torch.uint8, device="cuda")
    with pytest.raises(ModelError, match=r"GiB, cuda has 0\.1 GiB free") as caught:
        list(train_stack(base, [Job("a", data, recipe)], SETTINGS))
    assert "batch_size" in caught.value.remedy
    del hog
    torch.cuda.empty_cache()
