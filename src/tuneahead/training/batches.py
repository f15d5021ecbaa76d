"""Data order and packing: which rows a step trains on, and how the rows of all slots share a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuneahead.recipe import Recipe
from tuneahead.training.encode import Encoded


@lru_cache(maxsize=64)
def _epoch_order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def step_rows(recipe: Recipe, rows: int, step: int) -> list[NDArray[np.int64]]:
    """Row indices of each micro-batch of optimiser step ``step`` (0-based).

    A pure function of recipe, number of rows and step, so that a run continues anywhere. Each
    epoch is one permutation; its last batch and its last accumulation group may be smaller, as
    in the Hugging Face Trainer.
    """
    per_epoch = recipe.steps_per_epoch(rows)
    order = _epoch_order(recipe.seed, step // per_epoch, rows)
    start = (step % per_epoch) * recipe.rows_per_step
    own = order[start : start + recipe.rows_per_step]
    return [own[i : i + recipe.batch_size] for i in range(0, len(own), recipe.batch_size)]


@dataclass(frozen=True)
class Packed:
    """Rows of S slots in one padded batch, slot after slot.

    ``ids`` is (S*R, T). ``positions``, ``labels`` and ``owner`` are (N,): flat index of the
    position that predicts each answer token, the token, and the padded row (0 .. S*R-1) it
    belongs to. ``shapes`` holds each slot's own (rows, length) before padding.
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    owner: Tensor
    rows: int
    shapes: tuple[tuple[int, int], ...]


def pack(batches: Sequence[Sequence[Encoded]], pad_id: int, device: str) -> Packed:
    """Pack one batch per slot. Rows are padded on the right, where causal attention never looks.

    The last token of a row is never an input: nothing after it is predicted.
    """
    rows = max(len(batch) for batch in batches)
    length = max((len(row.ids) - 1 for batch in batches for row in batch), default=1)
    ids = np.full((len(batches) * rows, max(1, length)), pad_id, np.int64)
    positions: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    for slot, batch in enumerate(batches):
        for offset, row in enumerate(batch):
            line = slot * rows + offset
            ids[line, : len(row.ids) - 1] = row.ids[:-1]
            trained = np.flatnonzero(row.answer[1:])
            positions.extend((line * ids.shape[1] + trained).tolist())
            labels.extend(row.ids[i + 1] for i in trained)
            owner.extend([line] * len(trained))
    shapes = tuple(
        (len(batch), max((len(row.ids) - 1 for row in batch), default=0)) for batch in batches
    )
    def as_tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Packed(
        torch.from_numpy(ids).to(device), as_tensor(positions), as_tensor(labels), as_tensor(owner), rows, shapes
    )
