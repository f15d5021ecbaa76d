"""Runs that would not fit are made with layers run twice, or refused with the number."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import make_examples

from tuneahead.errors import ModelError
from tuneahead.recipe import Recipe
from tuneahead.training import activations, loop
from tuneahead.training.activations import (
    LineBytes,
    PassSize,
    fit_runs,
    keep_layers,
    recompute_layers,
    saved_bytes,
)
from tuneahead.training.loop import train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job

RECIPE = Recipe(learning_rate=5e-3, max_steps=8, batch_size=4, lora_rank=4, lora_dropout=0.2, seed=3)
SETTINGS = ProbeSettings(record_steps=8, cue_steps=(0, 8), flatness_at=8)


def test_layers_run_twice_give_the_same_run(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    jobs = [Job("a", data, RECIPE), Job("b", data, RECIPE.replace(seed=5, lora_dropout=0.1))]
    plain = {r.job_id: r.trace for r in train_stack(tiny, jobs, SETTINGS)}
    asked: list[int] = []

    def always(stack: AdapterStack, sizes: list[PassSize], width: int) -> bool:
        recompute_layers(stack)
        asked.append(width)
        return True

    monkeypatch.setattr(loop, "fit_runs", always)
    twice = {r.job_id: r.trace for r in train_stack(tiny, jobs, SETTINGS)}
    assert asked == [2]
    for name, trace in plain.items():
        np.testing.assert_allclose(
            twice[name].steps.loss_sum_nats, trace.steps.loss_sum_nats, rtol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(twice[name].steps.grad_norm, trace.steps.grad_norm, rtol=1e-4)
    assert not any("forward" in vars(module) for module in tiny.model.modules()), "the base is left as it was"


def test_what_a_pass_keeps_is_counted_and_recomputing_keeps_less(tiny: Base) -> None:
    stack = AdapterStack(tiny, 1, 4)
    short, long = saved_bytes(stack, 16), saved_bytes(stack, 64)
    # At least every layer's input and the two halves of its MLP, of 32 and 64 numbers in fp32.
    assert long >= 64 * 2 * 4 * (32 + 2 * 64)
    assert 3.5 * short < long, "activations grow with the tokens"
    recompute_layers(stack)
    assert saved_bytes(stack, 64) < long / 3
    keep_layers(stack)
    assert saved_bytes(stack, 64) == long
    stack.detach()


def test_long_lines_are_reckoned_with_the_square_that_attention_keeps(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = AdapterStack(tiny, 1, 4)
    kept = saved_bytes(stack, 128)
    monkeypatch.setattr(activations, "MEASURED_TOKENS", 32)
    assert saved_bytes(stack, 32) * 4 < kept * 0.75, "each token keeps more in a longer line"
    assert LineBytes.measure(stack, 128).of_line(128) == pytest.approx(kept, rel=0.01)
    # Room that would do if a token of a long line kept no more than one of a short line.
    size = PassSize(rows=1000, row_tokens=128, answer_tokens=1)
    monkeypatch.setattr(activations, "free_bytes", lambda device: int(1000 * kept * 0.9))
    assert fit_runs(stack, [size], 1), "layers are run twice"
    keep_layers(stack)
    stack.detach()


def test_runs_that_do_not_fit_are_refused_with_the_number(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = AdapterStack(tiny, 2, 4)
    kept = saved_bytes(stack, 100)
    size = PassSize(rows=1000, row_tokens=100, answer_tokens=1)
    assert not fit_runs(stack, [size], 2), "this machine has room"
    fixed = 6 * 4 * 2 * stack.parameters + 16 * 2 * 1000 * tiny.model.config.vocab_size
    monkeypatch.setattr(activations, "free_bytes", lambda device: int(fixed + 2 * 1000 * kept * 0.9))
    assert fit_runs(stack, [size], 2), "recomputing makes them fit"
    keep_layers(stack)
    monkeypatch.setattr(activations, "free_bytes", lambda device: 2**20)
    with pytest.raises(
        ModelError, match=r"2 run\(s\) of 1000 rows of 100 tokens .* need 0\.\d GiB"
    ) as caught:
        fit_runs(stack, [size], 2)
    assert "batch_size" in caught.value.remedy
    keep_layers(stack)
    stack.detach()


def test_a_refused_run_leaves_the_base_whole(
    tiny: Base, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, _ in tiny.model.named_modules()]
    data = prepare_data(tiny, make_examples(30), RECIPE)
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="GiB free"):
        patch.setattr(activations, "free_bytes", lambda device: 1000)
        list(train_stack(tiny, [Job("a", data, RECIPE)], SETTINGS))
    assert [name for name, _ in tiny.model.named_modules()] == names
    with torch.no_grad():
        ids = torch.tensor([[3, 22, 25]])
        plain = load_base(str(tiny_path), device="cpu").model(ids).logits
        torch.testing.assert_close(tiny.model(ids).logits, plain)


def test_runs_that_do_not_fit_together_are_trained_fewer_at_a_time(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    jobs = [Job(str(i), data, RECIPE.replace(seed=i)) for i in range(4)]
    together = {r.job_id: r.trace for r in train_stack(tiny, jobs, SETTINGS, width=4)}
    asked: list[int] = []
    stacks: list[weakref.ref[AdapterStack]] = []
    fit = activations.fit_runs

    def narrow(stack: AdapterStack, sizes: list[PassSize], width: int) -> bool:
        asked.append(width)
        assert not any(earlier() for earlier in stacks), "the wider stack's memory is free again"
        stacks.append(weakref.ref(stack))
        monkeypatch.setattr(activations, "free_bytes", lambda device: None if width <= 1 else 1000)
        return fit(stack, sizes, width)

    monkeypatch.setattr(loop, "fit_runs", narrow)
    steps: list[int] = []
    apart = {r.job_id: r.trace for r in train_stack(tiny, jobs, SETTINGS, width=4, on_step=steps.append)}
    assert asked == [4, 2, 1]
    assert set(steps) == {1}
    for name, trace in together.items():
        np.testing.assert_allclose(apart[name].steps.loss_sum_nats, trace.steps.loss_sum_nats, rtol=1e-4)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "CUDA out of memory. Tried"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 2 bytes"),
            "can't allocate",
        ),
        (MemoryError(), "ran out of memory: no more can be had"),
    ],
)
def test_no_memory_for_the_adapters_is_a_clear_error(
    tiny: Base, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    names = [name for name, _ in tiny.model.named_modules()]
    data = prepare_data(tiny, make_examples(30), RECIPE)

    def full(*args: object, **rest: object) -> torch.Tensor:
        raise error

    with monkeypatch.context() as patch, pytest.raises(ModelError, match=told) as caught:
        patch.setattr(torch, "zeros_like", full)
        list(train_stack(tiny, [Job(str(i), data, RECIPE) for i in range(2)], SETTINGS))
    assert "batch_size" in caught.value.remedy and "4bit" in caught.value.remedy
    assert [name for name, _ in tiny.model.named_modules()] == names
