"""The training loop: K runs at once on one frozen base, each with its own recipe and data.

A slot whose run has ended takes the next run. K = 1 is the plain case and the same code.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from tuneahead.benchmark.items import Benchmark
from tuneahead.errors import DataError, MemoryShortError
from tuneahead.recipe import Recipe
from tuneahead.training.activations import PassSize, fit_runs, keep_layers, pass_size
from tuneahead.training.allowed import obeys_masks
from tuneahead.training.checkpoint import read_checkpoint
from tuneahead.training.hardware import is_out_of_memory
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import (
    CueMeter,
    GradientMeter,
    ProbeSettings,
    flatness_rows,
    measure_flatness,
    peak_memory_mb,
)
from tuneahead.training.models import Base
from tuneahead.training.passes import Losses, StepPlan, TrainingPasses
from tuneahead.training.runs import Job, RunResult, Slot, restore, store_run, trace_of
from tuneahead.training.scoring import EncodedBenchmark, encode_benchmark, score_stack

__all__ = ["Job", "RunResult", "train_stack"]

# Adapters live in flat rows on purpose; torch would rather have every matrix on its own.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


def train_stack(
    base: Base,
    jobs: Iterable[Job],
    settings: ProbeSettings,
    *,
    width: int = 8,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[RunResult]:
    """Train all ``jobs``, at most ``width`` at a time, and yield each run as it ends.

    ``on_step`` is called after every pass with the number of optimiser steps just made over all
    slots. So many runs as don't fit into memory together are trained fewer at a time. Raises
    :class:`DataError` for a job without a trainable row, ModelError when the recipe's target modules do not
    exist and MemoryShortError when not even one run fits, or memory runs out while they train.
    """
    waiting = list(jobs)
    for job in waiting:
        if not job.data.train:
            raise DataError(
                f"run {job.job_id}: no row has a trainable answer",
                remedy="check for empty answers, and that prompts leave room in max_length",
            )
    if waiting:
        yield from _Trainer(base, waiting, settings, width).run(on_step)


@contextmanager
def _room(base: Base, runs: int) -> Iterator[None]:
    """Turn running out of memory into a :class:`MemoryShortError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        why = (str(error).splitlines() or ["no more can be had"])[0]
        remedy = "lower batch_size or max_length, or rank fewer recipes at once"
        if not base.device.startswith("mps"):
            remedy += ", or use precision 4bit"
        raise MemoryShortError(
            f"{runs} run(s) on {base.name!r} ran out of memory: {why}", remedy=remedy
        ) from None


class _Trainer:
    def __init__(self, base: Base, waiting: list[Job], settings: ProbeSettings, width: int) -> None:
        self.base = base
        self.waiting = waiting
        self.settings = settings
        rank = max(job.recipe.lora_rank for job in waiting)
        names = sorted({name for job in waiting for name in job.recipe.target_modules})
        # Both ask the plain base and may refuse: before adapters are attached.
        obeys_masks(base)
        self.cues = CueMeter(base, settings)
        sizes = [pass_size(job.data.train, job.recipe.batch_size) for job in waiting]
        width = min(width, len(waiting))
        while not self._attach(width, rank, names, sizes):
            width //= 2
        self.passes = TrainingPasses(base, self.stack)
        self.slots: list[Slot] = []
        self._encoded: dict[str, EncodedBenchmark] = {}

    def _attach(self, width: int, rank: int, names: Sequence[str], sizes: Sequence[PassSize]) -> bool:
        """Room for ``width`` runs on the base; False when so many don't fit and fewer might."""
        try:
            with _room(self.base, width):
                self.stack = AdapterStack(self.base, width, rank, names)
                try:
                    fit_runs(self.stack, sizes, width)
                    self.meter = GradientMeter(self.stack)
                except BaseException:
                    self._release()
                    del self.stack
                    raise
        except MemoryShortError:
            if width == 1:
                raise
            return False
        return True

    def run(self, on_step: Callable[[int], None] | None) -> Iterator[RunResult]:
        try:
            with _room(self.base, self.stack.capacity):
                while self.waiting and len(self.slots) < self.stack.capacity:
                    self._admit(len(self.slots), self.waiting.pop(0))
                while self.slots:
                    self._observe()
                    ended = [s for s in range(len(self.slots)) if self._is_over(self.slots[s])]
                    for slot in reversed(ended):
                        yield self._finish(slot)
                        self._refill(slot)
                    if not ended:
                        self._step()
                        if on_step is not None:
                            on_step(len(self.slots))
        finally:
            self._release()

    def _release(self) -> None:
        keep_layers(self.stack)
        self.stack.detach()

    # ------ slots

    def _admit(self, place: int, job: Job) -> None:
        recipe = job.recipe
        total = recipe.total_steps(len(job.data.train))
        self.stack.initialise(place, recipe)
        self.meter.start(place, recipe)
        slot = Slot(
            job,
            total,
            min(total, recipe.stop_after or total),
            self._optimizer(place, recipe),
            torch.Generator(self.base.device).manual_seed(recipe.seed + 1),
        )
        if place < len(self.slots):
            self.slots[place] = slot
        else:
            self.slots.append(slot)
        if job.resume_from is not None:
            restore(slot, place, self.stack, self.meter, read_checkpoint(job.resume_from))
        self.stack.resize(len(self.slots))

    def _optimizer(self, place: int, recipe: Recipe) -> torch.optim.Optimizer:
        row = self.stack.values[place].detach().requires_grad_()
        row.grad = self.stack.grads[place]
        return torch.optim.AdamW(
            [row],
            lr=recipe.learning_rate,
            betas=(recipe.adam_beta1, recipe.adam_beta2),
            eps=recipe.adam_epsilon,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def _refill(self, place: int) -> None:
        if self.waiting:
            self._admit(place, self.waiting.pop(0))
            return
        # No run is left: the last slot moves here, and the passes get narrower.
        last = len(self.slots) - 1
        if place != last:
            moved = self.slots[last]
            state = moved.optimizer.state_dict()
            self.stack.move(last, place)
            self.meter.move(last, place)
            moved.optimizer = self._optimizer(place, moved.job.recipe)
            moved.optimizer.load_state_dict(state)
            self.slots[place] = moved
        self.slots.pop()
        self.stack.resize(len(self.slots))

    @staticmethod
    def _is_over(slot: Slot) -> bool:
        return slot.step >= slot.stop or bool(slot.failure)

    # ------ one step

    def _observe(self) -> None:
        due = [
            i
            for i, slot in enumerate(self.slots)
            if self.settings.asks_at(slot.step, slot.stop)
            and not slot.failure
            and not any(cue.step == slot.step for cue in slot.cues)
        ]
        if due:
            rows = [self.slots[i].job.data.heldout for i in due]
            steps = [self.slots[i].step for i in due]
            for i, cue in zip(due, self.cues.take(self.stack, due, steps, rows), strict=True):
                self.slots[i].cues.append(cue)
        flat = [
            i
            for i, slot in enumerate(self.slots)
            if slot.step == self.settings.flatness_of(slot.stop)
            and slot.flatness is None
            and not slot.failure
        ]
        if flat:
            chosen = [self.slots[i] for i in flat]
            measured = measure_flatness(
                self.base,
                self.stack,
                flat,
                [s.job.recipe for s in chosen],
                [s.job.data.train[: flatness_rows(self.base)] for s in chosen],
                [s.step for s in chosen],
            )
            for slot, flatness in zip(chosen, measured, strict=True):
                slot.flatness = flatness

    def _step(self) -> None:
        began = time.perf_counter()
        plans = [StepPlan.of(slot) for slot in self.slots]
        losses, norm = self.passes.gradients(self.slots, plans)
        recording = [i for i, s in enumerate(self.slots) if s.step < self.settings.record_steps]
        stats, layers = (
            self.meter.gradients(recording, norm) if recording else (torch.zeros(0, 4), torch.zeros(0, 0))
        )
        norms = norm.tolist()
        sums = [sum(nll for _, nll in own) for own in losses]
        for i, slot in enumerate(self.slots):
            self._update(i, slot, norms[i], sums[i])
        moved = self.meter.updates(recording) if recording else torch.zeros(0, 2)
        share = (time.perf_counter() - began) / len(self.slots)
        tokens = [float(plan.answer_tokens) for plan in plans]
        self._record(recording, losses, [sums, norms, tokens], (stats, layers, moved), share)
        for slot in self.slots:
            slot.step += 1
            slot.seconds += share
            slot.widths.append(len(self.slots))

    def _update(self, place: int, slot: Slot, norm: float, loss: float) -> None:
        if not (np.isfinite(norm) and np.isfinite(loss)):
            what = "loss" if not np.isfinite(loss) else "gradient norm"
            slot.failure = f"the {what} was not finite at step {slot.step}"
            return
        recipe = slot.job.recipe
        if recipe.max_grad_norm is not None and norm > recipe.max_grad_norm:
            self.stack.grads[place].mul_(recipe.max_grad_norm / (norm + 1e-6))
        slot.optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(slot.step, slot.total_steps)
        slot.optimizer.step()

    def _record(
        self,
        recording: Sequence[int],
        losses: Sequence[Losses],
        per_slot: Sequence[Sequence[float]],
        measured: tuple[Tensor, Tensor, Tensor],
        seconds: float,
    ) -> None:
        sums, norms, tokens = per_slot
        memory = peak_memory_mb(self.base.device)
        # Fetched together: each fetch from a GPU waits for it.
        widths = [tensor.shape[1] for tensor in measured]
        stats, layers, moved = (x.numpy() for x in torch.split(torch.cat(measured, 1).cpu(), widths, 1))
        for place, i in enumerate(recording):
            slot = self.slots[i]
            slot.rows.visit(slot.step, losses[i], slot.job.data.train)
            rate = slot.job.recipe.learning_rate_at(slot.step, slot.total_steps)
            dot_previous, dot_mean, mean_norm, small = (float(x) for x in stats[place])
            if slot.step == 0:
                # There is no previous gradient: absent, not 0.
                dot_previous = dot_mean = mean_norm = float("nan")
            update, distance = (float(x) for x in moved[place])
            slot.rows.scalars.append(
                (
                    sums[i],
                    tokens[i],
                    rate,
                    norms[i],
                    dot_previous,
                    dot_mean,
                    mean_norm,
                    small,
                    update,
                    distance,
                    seconds,
                    memory,
                )
            )
            slot.rows.layers.append(layers[place].astype(np.float32))

    # ------ the end of a run

    def _finish(self, place: int) -> RunResult:
        slot = self.slots[place]
        job = slot.job
        scores: dict[str, float] = {}
        subjects: dict[str, dict[str, float]] = {}
        began = time.perf_counter()
        if not slot.failure:
            for benchmark in job.finals:
                score = score_stack(self.base, self._encode(benchmark), self.stack, [place])[0]
                scores[benchmark.name] = score.score_pp
                subjects[benchmark.name] = score.subject_pp
        scoring = time.perf_counter() - began
        trace = trace_of(slot, self.base, self.stack, self.meter, self.settings)
        trace = store_run(slot, place, self.stack, self.meter, trace)
        cost = slot.seconds + scoring + sum(cue.seconds for cue in slot.cues)
        width = float(np.mean(slot.widths or [1]))
        return RunResult(job.job_id, trace, scores, subjects, slot.step, cost, slot.failure, width)

    def _encode(self, benchmark: Benchmark) -> EncodedBenchmark:
        cues = self.cues.benchmark
        if cues is not None and benchmark is cues.benchmark:
            return cues
        key = benchmark.fingerprint
        if key not in self._encoded:
            # What the base allows is asked of the base alone.
            with self.stack.base_only():
                self._encoded[key] = encode_benchmark(self.base, benchmark)
        return self._encoded[key]
