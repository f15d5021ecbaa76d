"""What a step leaves behind: gradient statistics, cues and flatness, measured for all slots at once."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuneahead.benchmark.items import Benchmark
from tuneahead.kept import KeptTexts, content_key, digest
from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Flatness, RowVisits, StepColumns, stored_losses
from tuneahead.training.encode import Encoded
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base
from tuneahead.training.scoring import (
    EncodedBenchmark,
    encode_benchmark,
    reference_rows,
    score_stack,
    text_losses,
)

MEAN_DECAY = 0.9
SMALL_SHARE = 0.01
FLATNESS_RADII = (0.05, 0.2)
FLATNESS_DIRECTIONS = 3
FLATNESS_ROWS = 32
LARGE_BASE_FLATNESS_ROWS = 16
LARGE_BASE_HELDOUT_ROWS = 24
"""A large base reads fewer rows between steps: all of them would take longer than the probe's steps do."""


@dataclass(frozen=True)
class ProbeSettings:
    """What a trace records, and when. Steps are optimiser steps counted from the start of the run.

    With ``each_end`` a run that stops before the others is asked at its own last step too, and its flatness
    is taken there.
    """

    record_steps: int = 100
    cue_steps: tuple[int, ...] = (0, 10, 25, 50, 100)
    cue_benchmark: Benchmark | None = None
    reference_texts: tuple[str, ...] = ()
    flatness_at: int | None = 100
    each_end: bool = False

    def asks_at(self, step: int, stop: int) -> bool:
        """Whether a run that stops at ``stop`` has a cue at ``step``."""
        return step in self.cue_steps or (self.each_end and step == stop)

    def flatness_of(self, stop: int) -> int | None:
        """The step at which flatness of a run that stops at ``stop`` is taken."""
        return stop if self.each_end and self.flatness_at and stop < self.flatness_at else self.flatness_at


def flatness_rows(base: Base) -> int:
    """How many of the training rows flatness is measured on."""
    return LARGE_BASE_FLATNESS_ROWS if base.is_large else FLATNESS_ROWS


@dataclass
class StepRows:
    """The growing record of one run, turned into columns at the end."""

    scalars: list[tuple[float, ...]] = field(default_factory=list)
    layers: list[NDArray[np.float32]] = field(default_factory=list)
    visit_step: list[int] = field(default_factory=list)
    visit_row: list[int] = field(default_factory=list)
    visit_nll: list[float] = field(default_factory=list)
    visit_tokens: list[int] = field(default_factory=list)

    def visit(self, step: int, losses: Sequence[tuple[int, float]], rows: Sequence[Encoded]) -> None:
        """Note the rows that a step trained on: index and summed loss in nats of each."""
        for index, nll in losses:
            self.visit_step.append(step)
            self.visit_row.append(index)
            self.visit_nll.append(nll)
            self.visit_tokens.append(rows[index].answer_tokens)

    def forget_visits(self) -> None:
        """Take out every visit."""
        for column in (self.visit_step, self.visit_row, self.visit_nll, self.visit_tokens):
            column.clear()

    def columns(self, n_layers: int) -> StepColumns:
        """Scalars are in the order of :class:`StepColumns`' fields."""
        table = np.array(self.scalars, np.float32).reshape(len(self.scalars), 12)
        layers = np.array(self.layers, np.float32).reshape(len(self.scalars), n_layers)
        names = [f.name for f in fields(StepColumns) if f.name != "layer_grad_norm"]
        columns = {name: table[:, i] for i, name in enumerate(names)}
        return StepColumns(**columns, layer_grad_norm=layers)

    def visits(self) -> RowVisits:
        """Row visits as columns."""
        return RowVisits(
            np.array(self.visit_step, np.int32),
            np.array(self.visit_row, np.int32),
            # Rounded as it is stored, so that a trace in memory and one read back are the same.
            stored_losses(np.array(self.visit_nll, float)).astype(np.float32),
            np.array(self.visit_tokens, np.int32),
        )


class GradientMeter:
    """Statistics of the slots' gradients before clipping, and of the updates that follow.

    Holds the previous gradient and the running mean of each slot: (capacity, parameters). On a processor
    slot by slot and without fresh memory, which costs more than the sums themselves; elsewhere, where
    every operation costs the time to ask for it, all slots at once.
    """

    def __init__(self, stack: AdapterStack) -> None:
        self.stack = stack
        self.slot_by_slot = stack.base.device == "cpu"
        self.previous = torch.zeros_like(stack.values)
        self.mean = torch.zeros_like(stack.values)
        self.before = torch.zeros_like(stack.values)
        self.scratch = torch.zeros_like(stack.values[0] if self.slot_by_slot else stack.values[0, :0])
        self.active = torch.zeros(stack.capacity, device=stack.values.device)
        self.slices = stack.layer_slices()

    def start(self, slot: int, recipe: Recipe) -> None:
        """Forget what the slot's last run left."""
        self.previous[slot].zero_()
        self.mean[slot].zero_()
        self.active[slot] = self.stack.active_mask(recipe).sum()

    def move(self, source: int, destination: int) -> None:
        """Follow a slot to another place."""
        for tensor in (self.previous, self.mean, self.active):
            tensor[destination] = tensor[source]

    def gradients(self, slots: Sequence[int], norm: Tensor) -> tuple[Tensor, Tensor]:
        """Before clipping, (S, 4): dots with previous and mean, norm of mean, small entries; (S, layers)."""
        if self.slot_by_slot:
            found = torch.stack([self._layer_sums(slot, norm[slot]) for slot in slots])
        else:
            found = self._all_layer_sums(max(slots) + 1, norm)[list(slots)]
        layers = found[:, :, 4].sqrt()
        totals = found[:, :, :4].sum(1)
        totals[:, 2].sqrt_()
        # Entries an adapter does not have are exact zeros and always below: not counted. Without a
        # gradient, or with one that is not a number, there is no share of small entries.
        totals[:, 3] -= self.stack.parameters - self.active[list(slots)]
        totals[:, 3].masked_fill_(~(norm[list(slots)] > 0), float("nan"))
        return totals, layers

    def _layer_sums(self, slot: int, norm: Tensor) -> Tensor:
        """Sums over each layer's entries, (layers, 5): with previous, with mean, of mean, small, squared.

        Remembers the gradient and the values. Layer by layer, so that what is read stays in the cache.
        """
        bound = SMALL_SHARE * norm / self.active[slot].sqrt()
        layers = []
        for _, spans in self.slices:
            sums = torch.zeros(5, device=norm.device)
            for start, stop in spans:
                grad, previous, mean = (
                    tensor[slot, start:stop] for tensor in (self.stack.grads, self.previous, self.mean)
                )
                # Ones and zeros as numbers: booleans are summed several times as slowly.
                small = torch.abs(grad, out=self.scratch[start:stop]).lt_(bound).sum()
                dots = [torch.dot(*pair) for pair in ((grad, previous), (grad, mean), (mean, mean))]
                sums += torch.stack([*dots, small, torch.dot(grad, grad)])
                previous.copy_(grad)
                mean.lerp_(grad, 1 - MEAN_DECAY)
                self.before[slot, start:stop].copy_(self.stack.values[slot, start:stop])
            layers.append(sums)
        return torch.stack(layers)

    def _all_layer_sums(self, count: int, norm: Tensor) -> Tensor:
        """What :meth:`_layer_sums` finds, of the first ``count`` slots: (count, layers, 5)."""
        grads, previous, mean = (tensor[:count] for tensor in (self.stack.grads, self.previous, self.mean))
        bound = (SMALL_SHARE * norm[:count] / self.active[:count].sqrt()).unsqueeze(1)
        layers = []
        for _, spans in self.slices:
            sums = torch.zeros(count, 5, device=norm.device)
            for start, stop in spans:
                g, p, m = (tensor[:, start:stop] for tensor in (grads, previous, mean))
                dots = [torch.linalg.vecdot(*pair) for pair in ((g, p), (g, m), (m, m))]
                small = (g.abs() < bound).sum(1)
                sums += torch.stack([*dots, small, torch.linalg.vecdot(g, g)], 1)
            layers.append(sums)
        previous.copy_(grads)
        mean.lerp_(grads, 1 - MEAN_DECAY)
        self.before[:count].copy_(self.stack.values[:count])
        return torch.stack(layers, 1)

    def updates(self, slots: Sequence[int]) -> Tensor:
        """After the optimiser's step: (S, 2) norm of the update and distance from the start."""
        if self.slot_by_slot:
            return torch.stack([self._moved(slot) for slot in slots])
        count = max(slots) + 1
        values, origins = self.stack.values[:count], (self.before[:count], self.stack.initial[:count])
        moved = [torch.linalg.vector_norm(values - origin, dim=1) for origin in origins]
        return torch.stack(moved, 1)[list(slots)]

    def _moved(self, slot: int) -> Tensor:
        sums = torch.zeros(2, device=self.scratch.device)
        for start, stop in (span for _, spans in self.slices for span in spans):
            values, scratch = self.stack.values[slot, start:stop], self.scratch[start:stop]
            parts = []
            for origin in (self.before, self.stack.initial):
                torch.sub(values, origin[slot, start:stop], out=scratch)
                parts.append(torch.dot(scratch, scratch))
            sums += torch.stack(parts)
        return sums.sqrt_()


def peak_memory_mb(device: str) -> float:
    """Highest memory so far: of the device on CUDA, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource  # Windows has none
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class CueMeter:
    """Takes cues: benchmark, held-out loss and reference loss of several slots in one pass.

    What a large base answers untrained is kept for its next tasks, where the plain base can be had.
    """

    def __init__(self, base: Base, settings: ProbeSettings) -> None:
        self.base = base
        self.keeps = base.is_large and not base.in_training
        benchmark = settings.cue_benchmark
        self.benchmark: EncodedBenchmark | None = encode_benchmark(base, benchmark) if benchmark else None
        self.reference = reference_rows(base, settings.reference_texts)
        self._zero: tuple[NDArray[np.float32], NDArray[np.float32], float] | None = None

    def take(
        self,
        stack: AdapterStack,
        slots: Sequence[int],
        steps: Sequence[int],
        heldout: Sequence[Sequence[Encoded]],
    ) -> list[Cue]:
        """One cue for each of ``slots``; at step 0 the benchmark is that of the plain base, scored once."""
        began = time.perf_counter()
        if self.base.is_large:
            heldout = [rows[:LARGE_BASE_HELDOUT_ROWS] for rows in heldout]
        losses = text_losses(self.base, heldout, stack, slots)
        fresh = [i for i, step in enumerate(steps) if step > 0]
        scored = self._score(stack, [slots[i] for i in fresh]) if fresh else []
        by_place = dict(zip(fresh, scored, strict=True))
        seconds = (time.perf_counter() - began) / len(slots)
        cues = []
        for place, step in enumerate(steps):
            share, margin, reference = by_place.get(place) or self._base_scores(stack)
            share, margin = (x.astype(np.float16).astype(np.float32) for x in (share, margin))
            cues.append(Cue(step, float(losses[place]), reference, share, margin, seconds))
        return cues

    def _base_scores(self, stack: AdapterStack) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        if self._zero is None:
            # Only a large base takes longer to ask than to look up.
            kept, key = KeptTexts("base-cues"), self._key() if self.keeps else ""
            self._zero = _read_zero(kept.load(key))
            if self._zero is None:
                with stack.base_only():
                    self._zero = self._score(None, [0])[0]
                share, margin, reference = self._zero
                kept.store(key, json.dumps([share.tolist(), margin.tolist(), reference]))
        return self._zero

    def _key(self) -> str:
        asked = self.benchmark
        if asked is not None and asked.benchmark.harness is not None:
            return ""
        reads = "" if asked is None else f"{asked.benchmark.fingerprint} {digest(repr(asked.trees))}"
        return content_key(self.base.stamp, reads, digest(repr(self.reference)))

    def _score(
        self, stack: AdapterStack | None, slots: Sequence[int]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], float]]:
        nothing = np.zeros(0, np.float32)
        pairs = [(nothing, nothing)] * len(slots)
        if self.benchmark is not None:
            scores = score_stack(self.base, self.benchmark, stack, slots)
            pairs = [
                (score.right_probability, score.margin_nats)
                if len(score.margin_nats)
                else ((score.item_pp / 100).astype(np.float32), (score.item_pp / 50 - 1).astype(np.float32))
                for score in scores
            ]
        reference = np.full(len(slots), np.nan)
        if self.reference:
            reference = text_losses(self.base, [self.reference] * len(slots), stack, slots)
        return [(*pair, float(loss)) for pair, loss in zip(pairs, reference, strict=True)]


def _read_zero(text: str | None) -> tuple[NDArray[np.float32], NDArray[np.float32], float] | None:
    if text is None:
        return None
    share, margin, reference = json.loads(text)
    return np.array(share, np.float32), np.array(margin, np.float32), float(reference)


@torch.no_grad()
def measure_flatness(
    base: Base,
    stack: AdapterStack,
    slots: Sequence[int],
    recipes: Sequence[Recipe],
    rows: Sequence[Sequence[Encoded]],
    steps: Sequence[int],
) -> list[Flatness]:
    """Loss of each slot's own rows under random directions, each matrix perturbed in proportion to its norm.

    Normalising per matrix makes radii comparable between layers and ranks (the filter
    normalisation of Li et al. 2018, arXiv 1712.09913, at the grain of LoRA's matrices).
    """
    centre = text_losses(base, rows, stack, slots)
    kept = stack.values.clone()
    losses = np.full((len(slots), len(FLATNESS_RADII), FLATNESS_DIRECTIONS), np.nan)
    device = stack.values.device
    generators = [torch.Generator(device).manual_seed(recipe.seed * 7919 + 17) for recipe in recipes]
    for direction in range(FLATNESS_DIRECTIONS):
        draws = [
            [
                (
                    torch.randn(a.shape, generator=g, device=device),
                    torch.randn(b.shape, generator=g, device=device),
                )
                for _, a, b in stack.matrices(slot, recipe)
            ]
            for slot, recipe, g in zip(slots, recipes, generators, strict=True)
        ]
        for place, radius in enumerate(FLATNESS_RADII):
            for slot, recipe, drawn in zip(slots, recipes, draws, strict=True):
                stack.values[slot].copy_(kept[slot])
                for (_, a, b), (da, db) in zip(stack.matrices(slot, recipe), drawn, strict=True):
                    # Scaled where they lie: a number fetched from a GPU is waited for.
                    a.addcmul_(da, radius * a.norm() / da.norm())
                    b.addcmul_(db, radius * b.norm() / db.norm())
            losses[:, place, direction] = text_losses(base, rows, stack, slots)
    stack.values.copy_(kept)
    radii = np.array(FLATNESS_RADII, np.float32)
    return [
        Flatness(step, float(centre[i]), radii, losses[i].astype(np.float32)) for i, step in enumerate(steps)
    ]
