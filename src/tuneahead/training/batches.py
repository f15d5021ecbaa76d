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
from tuneahead.training.lines import LONGEST_SHARED_LINE, apart, share_lines

_PREFIX = -2
"""Owner of the places that hold a slot's shared beginning."""


@lru_cache(maxsize=256)
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
    """Rows of S slots in one padded batch of lines, slot after slot.

    ``ids`` is (S*R, T): R lines of T tokens for each slot. ``positions``, ``labels`` and
    ``owner`` are (N,): flat index of the position that predicts each answer token, the token, and
    the row it belongs to, counted over all slots (slot ``s`` owns rows ``starts[s]`` to
    ``starts[s + 1]``). ``tokens`` holds, for each slot, the flat index inside its own R*T places
    of every real token, row after row, and before them those of the prefixes that the rows share.
    With several rows in a line, ``places`` (S*R, T) restarts at each row and ``visible``
    (S*R, 1, T, T) keeps them apart; both are None otherwise.

    Where slots may share a line too, there are L lines in all, (L, T), ``segments`` holds the flat range
    of places that each slot's rows lie in, and ``tokens`` count from its beginning.
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    owner: Tensor
    starts: tuple[int, ...]
    tokens: tuple[Tensor, ...]
    places: Tensor | None
    visible: Tensor | None
    segments: tuple[tuple[int, int], ...] | None = None

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Arguments for the model's forward pass; ``dtype`` is that of its attention scores."""
        if self.visible is None or self.places is None:
            return {"input_ids": self.ids}
        mask = torch.zeros(self.visible.shape, dtype=dtype, device=self.ids.device)
        mask.masked_fill_(~self.visible, torch.finfo(dtype).min)
        return {"input_ids": self.ids, "attention_mask": mask, "position_ids": self.places}

    def by_slot(self, per_row: Tensor) -> list[Tensor]:
        """Split a value for every row (all slots) into one tensor a slot."""
        return [per_row[a:b] for a, b in zip(self.starts, self.starts[1:], strict=False)]


def pack(
    batches: Sequence[Sequence[Encoded]],
    pad_id: int,
    device: str,
    *,
    several_per_line: bool = False,
    shared_by_slots: bool = False,
    large_base: bool = False,
    prefixes: Sequence[int] | None = None,
    line: int = 0,
) -> Packed:
    """Pack one batch per slot.

    Lines are filled on the right, where causal attention never looks. ``several_per_line`` puts
    short rows behind one another, so that little is spent on filling; with ``shared_by_slots`` a slot's
    rows begin where those of the slot before end. The lines of a ``large_base`` are fitted most
    closely. The ``prefixes`` (default: 0) are how many tokens that all of a slot's rows begin with are held
    once a line. Lines have ``line`` places, where that is given, else as many as cost least. The last
    token of a row is never an input: nothing after it is predicted.
    """
    lengths = [[max(1, len(row.ids) - 1) for row in batch] for batch in batches]
    longest = max((n for own in lengths for n in own), default=1)
    several = several_per_line and longest <= LONGEST_SHARED_LINE
    if prefixes is None or not several:
        prefixes = [0] * len(batches)
    if several:
        rests = [[n - prefix for n in own] for own, prefix in zip(lengths, prefixes, strict=True)]
        layout = share_lines(
            rests, prefixes, longest, by_slots=shared_by_slots, large_base=large_base, capacity=line
        )
    else:
        layout = apart(lengths, longest)
    canvas = _Canvas(layout.lines, layout.length, pad_id)
    positions: list[NDArray[np.int64]] = []
    labels: list[int] = []
    owner: list[int] = []
    starts = [0]
    tokens: list[Tensor] = []
    for slot, (batch, placed) in enumerate(zip(batches, layout.slots, strict=True)):
        prefix = prefixes[slot]
        own = [canvas.put(place, batch[0], slice(0, prefix), slot, _PREFIX) for place in placed.prefixes]
        for number, (row, place) in enumerate(zip(batch, placed.rows, strict=True), start=starts[-1]):
            own.append(canvas.put(place, row, slice(prefix, len(row.ids) - 1), slot, number))
            trained = np.flatnonzero(row.answer[1:])
            positions.append(place[0] * layout.length + place[1] - prefix + trained)
            labels.extend(row.ids[i + 1] for i in trained)
            owner.extend([number] * len(trained))
        starts.append(starts[-1] + len(batch))
        filled = np.concatenate(own) if own else np.zeros(0, np.int64)
        tokens.append(torch.from_numpy(filled - layout.segments[slot][0]))

    def as_tensor(values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return on_device(np.asarray(values, np.int64), device)

    return Packed(
        as_tensor(canvas.ids),
        as_tensor(np.concatenate(positions) if positions else []),
        as_tensor(labels),
        as_tensor(owner),
        tuple(starts),
        tuple(tokens),
        as_tensor(canvas.places) if several else None,
        on_device(canvas.visible, device) if several else None,
        tuple(layout.segments) if several and shared_by_slots else None,
    )


def on_device(values: NDArray[np.int64] | NDArray[np.bool_], device: str) -> Tensor:
    """An array as a tensor; a GPU fetches it when it comes to it, and nobody waits for that."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class _Canvas:
    """Lines being filled: token, place in its row, row and slot of every place; -1 where nothing lies."""

    def __init__(self, lines: int, length: int, pad_id: int) -> None:
        shape = (lines, length)
        self.ids = np.full(shape, pad_id, np.int64)
        self.places = np.zeros(shape, np.int64)
        self.rows = np.full(shape, -1, np.int64)
        self.slots = np.full(shape, -1, np.int64)

    def put(
        self, place: tuple[int, int], row: Encoded, part: slice, slot: int, owner: int
    ) -> NDArray[np.int64]:
        """Lay a part of a row down; returns the flat index of its places."""
        line, start = place
        count = part.stop - part.start
        where = line, slice(start, start + count)
        self.ids[where] = row.ids[part]
        self.places[where] = np.arange(part.start, part.stop)
        self.rows[where] = owner
        self.slots[where] = slot
        return line * self.ids.shape[1] + start + np.arange(count)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(lines, 1, T, T): each place sees its own row and its slot's prefix, up to itself."""
        asking, asked = self.rows[:, None, :, None], self.rows[:, None, None, :]
        own = self.slots[:, None, :, None] == self.slots[:, None, None, :]
        causal = np.tril(np.ones((self.ids.shape[1],) * 2, bool))
        return np.asarray(own & ((asking == asked) | (asked == _PREFIX)) & causal, bool)
