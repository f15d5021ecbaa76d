"""What is measured beside the steps: flatness moves every matrix by its share, and puts everything back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_fixtures import make_examples

from tuneahead.recipe import Recipe
from tuneahead.training import measure
from tuneahead.training.encode import Encoded
from tuneahead.training.loop import train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import FLATNESS_RADII, ProbeSettings, measure_flatness
from tuneahead.training.models import Base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job

RECIPE = Recipe(learning_rate=5e-3, max_steps=12, batch_size=4, lora_rank=4, lora_dropout=0.1, seed=3)


def test_flatness_moves_each_matrix_by_the_radius_in_shares_of_its_norm(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = AdapterStack(tiny, 2, RECIPE.lora_rank)
    recipes = [RECIPE, RECIPE.replace(seed=4, lora_rank=2)]
    seen: list[torch.Tensor] = []

    def counted(
        base: Base, batches: Sequence[Sequence[Encoded]], given: AdapterStack, slots: Sequence[int]
    ) -> np.ndarray:
        seen.append(given.values.clone())
        return len(seen) + 100.0 * np.array(slots)

    monkeypatch.setattr(measure, "text_losses", counted)
    try:
        for slot, recipe in enumerate(recipes):
            stack.initialise(slot, recipe)
            for _, a, b in stack.matrices(slot, recipe):
                a.normal_()
                b.normal_(std=3.0)
        before = stack.values.clone()
        first, second = measure_flatness(tiny, stack, [0, 1], recipes, [[], []], [7, 8])
        assert torch.equal(stack.values, before), "the adapters train on from where they were"
        moved = [_moved(stack, recipes, one, before) for one in seen]
    finally:
        stack.detach()
    # The centre, then direction after direction every radius.
    assert moved[0] == pytest.approx([0.0] * len(moved[0]))
    for direction in range(3):
        for place, radius in enumerate(FLATNESS_RADII):
            assert moved[1 + 2 * direction + place] == pytest.approx([radius] * len(moved[0]), rel=1e-4)
    ways = [one - before for one in seen[1:]]
    torch.testing.assert_close(
        ways[1], ways[0] * (FLATNESS_RADII[1] / FLATNESS_RADII[0]), rtol=1e-3, atol=1e-5
    )
    assert not torch.allclose(ways[2], ways[0], atol=1e-3), "the next direction is another one"
    assert (first.step, first.centre_nats) == (7, 1.0) and (second.step, second.centre_nats) == (8, 101.0)
    assert first.perturbed_nats.tolist() == [[2.0, 4.0, 6.0], [3.0, 5.0, 7.0]]
    assert (second.perturbed_nats - first.perturbed_nats == 100.0).all()


def _moved(
    stack: AdapterStack, recipes: Sequence[Recipe], values: torch.Tensor, before: torch.Tensor
) -> list[float]:
    """How far each matrix of each slot lies from where it was, in shares of its norm."""

    def matrices(source: torch.Tensor) -> list[torch.Tensor]:
        stack.values.copy_(source)
        return [
            matrix.clone()
            for slot, recipe in enumerate(recipes)
            for _, *pair in stack.matrices(slot, recipe)
            for matrix in pair
        ]

    pairs = zip(matrices(values), matrices(before), strict=True)
    return [float((now - then).norm() / then.norm()) for now, then in pairs]


def test_a_run_trains_on_as_if_nothing_had_been_measured(tiny: Base) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    plain = ProbeSettings(record_steps=12, cue_steps=(), flatness_at=None)
    asked = replace(plain, cue_steps=(0, 5), flatness_at=5, reference_texts=("red cat sun",))
    found = [next(iter(train_stack(tiny, [Job("a", data, RECIPE)], one))).trace for one in (plain, asked)]
    assert found[1].flatness is not None and len(found[1].cues) == 2
    for name in ("loss_sum_nats", "grad_norm", "dot_previous", "update_norm", "distance"):
        np.testing.assert_array_equal(*(getattr(trace.steps, name) for trace in found), err_msg=name)
