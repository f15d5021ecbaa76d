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

SHARED_LINES = (32, 48, 64, 96, 128, 192, 256)
"""Lengths tried for lines that short rows share."""
ATTENTION_TOKENS = 600
"""Line length at which attention costs about as much as the linear layers (measured on the lab's base)."""
LARGE_BASE_ATTENTION_TOKENS = 2_700
"""The same of a large base, whose layers are wider: reckoned from SmolLM2's 576."""
LARGE_BASE_LINE_STEP = 4
"""A large base's lines are fitted to four tokens: the search costs nothing beside a step, filling does."""
LONGEST_SHARED_LINE = 512
"""Beyond this length the explicit mask costs more memory than filling does."""


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
    """Rows of S slots in one padded batch of lines, slot after slot.

    ``ids`` is (S*R, T): R lines of T tokens for each slot. ``positions``, ``labels`` and
    ``owner`` are (N,): flat index of the position that predicts each answer token, the token, and
    the row it belongs to, counted over all slots (slot ``s`` owns rows ``starts[s]`` to
    ``starts[s + 1]``). ``tokens`` holds, for each slot, the flat index inside its own R*T places
    of every real token, row after row. With several rows in a line, ``places`` (S*R, T) restarts
    at each row and ``visible`` (S*R, 1, T, T) keeps them apart; both are None otherwise.

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
) -> Packed:
    """Pack one batch per slot.

    Lines are filled on the right, where causal attention never looks. ``several_per_line`` puts
    short rows behind one another, so that little is spent on filling; with ``shared_by_slots`` a slot's
    rows begin where those of the slot before end. The lines of a ``large_base`` are fitted most
    closely. The last token of a row is never an input: nothing after it is predicted.
    """
    lengths = [[max(1, len(row.ids) - 1) for row in batch] for batch in batches]
    longest = max((n for own in lengths for n in own), default=1)
    several = several_per_line and longest <= LONGEST_SHARED_LINE
    if several:
        layout = _shared_lines(lengths, longest, by_slots=shared_by_slots, large_base=large_base)
    else:
        layout = _apart(lengths, longest, [[(i, 0) for i in range(len(own))] for own in lengths])
    length, segments = layout.length, layout.segments
    shape = (layout.lines, length)
    ids = np.full(shape, pad_id, np.int64)
    places = np.zeros(shape, np.int64)
    rows = np.full(shape, -1, np.int64)
    positions: list[NDArray[np.int64]] = []
    labels: list[int] = []
    owner: list[int] = []
    starts = [0]
    tokens: list[Tensor] = []
    for slot, (batch, places_of) in enumerate(zip(batches, layout.places, strict=True)):
        own: list[NDArray[np.int64]] = []
        for number, (row, (at, start)) in enumerate(zip(batch, places_of, strict=True)):
            n = len(row.ids) - 1
            ids[at, start : start + n] = row.ids[:-1]
            places[at, start : start + n] = np.arange(n)
            rows[at, start : start + n] = starts[-1] + number
            trained = np.flatnonzero(row.answer[1:])
            positions.append(at * length + start + trained)
            labels.extend(row.ids[i + 1] for i in trained)
            owner.extend([starts[-1] + number] * len(trained))
            own.append(at * length + start + np.arange(n) - segments[slot][0])
        starts.append(starts[-1] + len(batch))
        tokens.append(torch.from_numpy(np.concatenate(own) if own else np.zeros(0, np.int64)).to(device))

    def as_tensor(values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.int64), device=device)

    visible = None
    if several:
        same = rows[:, None, :, None] == rows[:, None, None, :]
        visible = torch.from_numpy(same & np.tril(np.ones((length, length), bool))).to(device)
    return Packed(
        torch.from_numpy(ids).to(device),
        as_tensor(np.concatenate(positions) if positions else []),
        as_tensor(labels),
        as_tensor(owner),
        tuple(starts),
        tuple(tokens),
        as_tensor(places) if several else None,
        visible,
        tuple(segments) if several and shared_by_slots else None,
    )


@dataclass(frozen=True)
class _Layout:
    """(line, start) of every row by slot, and the flat range of places that each slot's rows lie in."""

    length: int
    lines: int
    places: list[list[tuple[int, int]]]
    segments: list[tuple[int, int]]


def _shared_lines(
    lengths: Sequence[Sequence[int]], longest: int, *, by_slots: bool, large_base: bool
) -> _Layout:
    """The layout that costs least over the line lengths tried: filling against attention."""
    fitted = range(longest, SHARED_LINES[-1] + 1, LARGE_BASE_LINE_STEP) if large_base else SHARED_LINES
    attention = LARGE_BASE_ATTENTION_TOKENS if large_base else ATTENTION_TOKENS
    tried = []
    for capacity in [longest, *(n for n in fitted if n > longest)]:
        if by_slots:
            tried.append(_shared(lengths, capacity))
        else:
            tried.append(_apart(lengths, capacity, [_fill_lines(own, capacity) for own in lengths]))
    return min(tried, key=lambda found: found.lines * found.length * (1 + found.length / attention))


def _apart(lengths: Sequence[Sequence[int]], length: int, placed: list[list[tuple[int, int]]]) -> _Layout:
    """As many lines for each slot as the slot with most needs."""
    lines = max((line + 1 for own in placed for line, _ in own), default=1)
    places = [[(slot * lines + line, start) for line, start in own] for slot, own in enumerate(placed)]
    size = lines * length
    return _Layout(
        length,
        lines * len(lengths),
        places,
        [(slot * size, (slot + 1) * size) for slot in range(len(lengths))],
    )


def _shared(lengths: Sequence[Sequence[int]], capacity: int) -> _Layout:
    """Slot after slot without a gap, each slot's rows by first fit from where the slot before ended."""
    places: list[list[tuple[int, int]]] = []
    segments: list[tuple[int, int]] = []
    line = start = 0
    for own in lengths:
        placed = _fill_lines(own, capacity, begin=start)
        places.append([(line + i, at) for i, at in placed])
        begin = line * capacity + start
        ends = [(line + i, at + n) for (i, at), n in zip(placed, own, strict=True)]
        if ends:
            line, start = max(ends)
        segments.append((begin, line * capacity + start))
    return _Layout(capacity, line + 1, places, segments)


def _fill_lines(lengths: Sequence[int], capacity: int, begin: int = 0) -> list[tuple[int, int]]:
    """(line, start) of each row by first fit, longest rows first; the first line is used up to ``begin``."""
    used: list[int] = [begin]
    placed = [(0, 0)] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        line = next((i for i, taken in enumerate(used) if taken + lengths[index] <= capacity), len(used))
        if line == len(used):
            used.append(0)
        placed[index] = (line, used[line])
        used[line] += lengths[index]
    return placed
