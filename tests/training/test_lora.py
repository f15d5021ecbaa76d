"""Where an adapter begins: A drawn as PEFT draws it, from the recipe's seed, and B zero."""

from __future__ import annotations

import math

import pytest
import torch

from tuneahead.recipe import Recipe
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base


def test_a_fresh_adapter_is_uniform_within_one_over_the_root_of_the_inputs(tiny: Base) -> None:
    recipe = Recipe(lora_rank=8, seed=3)
    stack = AdapterStack(tiny, 1, 8)
    try:
        stack.initialise(0, recipe)
        for _, a, b in stack.matrices(0, recipe):
            bound = 1 / math.sqrt(a.shape[1])
            assert float(a.abs().max()) <= bound
            # That of a uniform distribution, which 256 numbers know to 3 %.
            assert float(a.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert not b.any()
    finally:
        stack.detach()


def test_a_fresh_adapter_follows_its_seed_and_not_its_place(tiny: Base) -> None:
    stack = AdapterStack(tiny, 3, 4)
    try:
        for place, seed in enumerate((3, 4, 3)):
            stack.initialise(place, Recipe(lora_rank=4, seed=seed))
        first, other, again = stack.values
        assert torch.equal(first, again) and not torch.equal(first, other)
    finally:
        stack.detach()
