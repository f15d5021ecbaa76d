"""Making the runs of a plan in local worker processes; every finished run is stored at once."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.build.plan import RunPlan, TaskPlan, runs_of
from tuneahead.dataset import Example
from tuneahead.errors import StoreError
from tuneahead.history.store import RunRecord, RunStore

if TYPE_CHECKING:
    from tuneahead.lab.datasets import DatasetSpec
    from tuneahead.training.encode import RunData
    from tuneahead.training.loop import RunResult
    from tuneahead.training.measure import ProbeSettings
    from tuneahead.training.models import Base

RUNS_AHEAD = 160
"""Runs looked at together when chunks are formed, so that runs of one batch size are stacked."""
RUNS_PER_CHUNK = 20
ROWS_PER_PASS = 32
REPORT_SECONDS = 2.0
ATTEMPTS = 2
"""How often a chunk whose worker died is tried before its runs are given up."""


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is executed. ``width`` runs are stacked in each of ``workers`` processes."""

    base: str = "lab"
    workers: int = 2
    width: int = 8
    stop_seconds: float | None = None
    """No new chunk is begun after this time; running ones are finished."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is. ``seconds_left`` is NaN until there is a speed to judge by."""

    runs_done: int
    runs_total: int
    steps_done: int
    steps_total: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Time left at the speed so far."""
        if not self.steps_done:
            return float("nan")
        return self.seconds / self.steps_done * max(0, self.steps_total - self.steps_done)


@dataclass(frozen=True)
class BuildSummary:
    """What a build did: runs stored now, runs that were there before, runs given up with the reason."""

    stored: int
    present: int
    given_up: dict[str, str] = field(default_factory=dict)


def execute(
    plan: Sequence[TaskPlan],
    store_path: Path,
    options: BuildOptions = BuildOptions(),
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> BuildSummary:
    """Make every run of ``plan`` that the store does not hold yet.

    Can be stopped at any point, by kill -9 too, and called again: finished runs are never lost
    and never made twice. A worker that dies is replaced and its chunk tried once more. Raises
    :class:`StoreError` when the store can't be used.
    """
    from tuneahead.training.models import resolve_base

    shown, _ = resolve_base(options.base)
    store = RunStore(store_path)
    done = store.done_ids()
    runs = runs_of(plan)
    pending = [run for run in runs if run.run_id(shown) not in done]
    builder = _Builder(store_path, options, shown, on_progress)
    given_up = builder.run(chunk_runs(pending), len(runs) - len(pending), len(runs))
    return BuildSummary(builder.stored, len(runs) - len(pending), given_up)


def chunk_runs(pending: Sequence[RunPlan]) -> list[list[RunPlan]]:
    """Split into chunks of like runs, longest first, keeping roughly the plan's order.

    Stacked runs of one batch size and similar row lengths waste little on filling, and starting
    long runs first leaves short ones to fill the slots at a chunk's end.
    """
    chunks: list[list[RunPlan]] = []
    for start in range(0, len(pending), RUNS_AHEAD):
        window = pending[start : start + RUNS_AHEAD]
        for size in sorted({run.task.recipe.batch_size for run in window}):
            same = [run for run in window if run.task.recipe.batch_size == size]
            same.sort(key=lambda run: row_characters(run.task.spec))
            parts = max(1, round(len(same) / RUNS_PER_CHUNK))
            for part in range(parts):
                chunk = same[part * len(same) // parts : (part + 1) * len(same) // parts]
                chunks.append(sorted(chunk, key=lambda run: -_steps(run)))
    return chunks


@lru_cache(maxsize=4096)
def row_characters(spec: DatasetSpec) -> float:
    """Mean length of a generated data set's first rows, in characters."""
    from tuneahead.lab.datasets import generate

    rows = generate(spec)[:200]
    return sum(len(row.prompt) + len(row.answer) for row in rows) / max(1, len(rows))


class _Builder:
    """The parent: hands out chunks, counts, and replaces workers that die."""

    def __init__(
        self,
        store_path: Path,
        options: BuildOptions,
        base: str,
        on_progress: Callable[[BuildProgress], None] | None,
    ) -> None:
        self.store_path = store_path
        self.options = options
        self.base = base
        self.on_progress = on_progress
        self.stored = 0
        self.steps = 0
        self.context = multiprocessing.get_context("spawn")
        self.messages: multiprocessing.Queue[tuple[str, int, object]] = self.context.Queue()
        self.tasks: dict[int, multiprocessing.Queue[list[RunPlan] | None]] = {}
        self.workers: dict[int, BaseProcess] = {}
        self.held: dict[int, tuple[int, list[RunPlan]]] = {}

    def run(self, chunks: list[list[RunPlan]], present: int, total: int) -> dict[str, str]:
        waiting = [(1, chunk) for chunk in chunks]
        steps_total = sum(_steps(run) for chunk in chunks for run in chunk)
        given_up: dict[str, str] = {}
        began = time.monotonic()
        try:
            for number in range(min(self.options.workers, len(waiting))):
                self._start(number, waiting)
            while self.held:
                self._receive(waiting, began)
                self._bury(waiting, given_up)
                if self.on_progress is not None:
                    spent = time.monotonic() - began
                    self.on_progress(
                        BuildProgress(present + self.stored, total, self.steps, steps_total, spent)
                    )
        finally:
            self._close()
        return given_up

    def _start(self, number: int, waiting: list[tuple[int, list[RunPlan]]]) -> None:
        # Children inherit these; one thread each, and waiting threads must not spin.
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="false")
        self.tasks[number] = self.context.Queue()
        arguments = (number, self.tasks[number], self.messages, self.store_path, self.options, os.getpid())
        worker = self.context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        self.workers[number] = worker
        self._hand_out(number, waiting, None)

    def _hand_out(self, number: int, waiting: list[tuple[int, list[RunPlan]]], began: float | None) -> None:
        self.held.pop(number, None)
        limit = self.options.stop_seconds
        late = limit is not None and began is not None and time.monotonic() - began > limit
        if waiting and not late:
            self.held[number] = waiting.pop(0)
            self.tasks[number].put(self.held[number][1])
        else:
            self.tasks[number].put(None)

    def _receive(self, waiting: list[tuple[int, list[RunPlan]]], began: float) -> None:
        try:
            kind, number, content = self.messages.get(timeout=REPORT_SECONDS)
        except queue.Empty:
            return
        if kind == "steps":
            self.steps += int(str(content))
        elif kind == "stored":
            self.stored += 1
        elif kind == "chunk":
            self._hand_out(number, waiting, began)
        elif kind == "error":
            raise StoreError(str(content), remedy="mend the cause and start the build again: it goes on")

    def _bury(self, waiting: list[tuple[int, list[RunPlan]]], given_up: dict[str, str]) -> None:
        for number, worker in list(self.workers.items()):
            if worker.is_alive() or number not in self.held or not self.messages.empty():
                continue
            attempt, chunk = self.held.pop(number)
            done = RunStore(self.store_path).done_ids()
            left = [run for run in chunk if run.run_id(self.base) not in done]
            if attempt < ATTEMPTS:
                waiting.insert(0, (attempt + 1, left))
            else:
                given_up.update({r.run_id(self.base): f"worker ended with {worker.exitcode}" for r in left})
            if waiting:
                self._start(number, waiting)

    def _close(self) -> None:
        for worker in self.workers.values():
            if self.held and worker.is_alive():
                worker.terminate()
            worker.join(timeout=30)


def _steps(run: RunPlan) -> int:
    return run.task.recipe.max_steps or 0


# ------ the worker's side


def lab_settings() -> ProbeSettings:
    """What runs of the lab record: enough for every probe length that is swept."""
    from tuneahead.lab.exam import lab_exam, reference_statements
    from tuneahead.training.measure import ProbeSettings

    return ProbeSettings(
        record_steps=200,
        cue_steps=(0, 10, 25, 50, 100, 200),
        cue_benchmark=lab_exam(),
        reference_texts=tuple(reference_statements()),
        flatness_at=100,
    )


def _work(
    number: int,
    tasks: multiprocessing.Queue[list[RunPlan] | None],
    messages: multiprocessing.Queue[tuple[str, int, object]],
    store_path: Path,
    options: BuildOptions,
    parent: int,
) -> None:
    import torch

    from tuneahead.training.models import load_base

    torch.set_num_threads(1)
    try:
        base = load_base(options.base)
        store = RunStore(store_path)
        base_scores = _base_scores(base)
        while (chunk := tasks.get()) is not None:
            meter = _StepMeter(number, messages, parent)
            for run, result in run_chunk(base, chunk, options.width, meter.count):
                store.add(record_of(base, run, result, base_scores))
                messages.put(("stored", number, run.run_id(base.name)))
            meter.flush()
            messages.put(("chunk", number, None))
    except StoreError as error:
        # A full disk or a locked store stops the build with a message instead of a retry.
        messages.put(("error", number, str(error)))


class _StepMeter:
    """Counts steps, tells the parent now and then, and ends the worker when the parent is gone."""

    def __init__(
        self, number: int, messages: multiprocessing.Queue[tuple[str, int, object]], parent: int
    ) -> None:
        self.number = number
        self.messages = messages
        self.parent = parent
        self.steps = 0
        self.last = time.monotonic()

    def count(self, steps: int) -> None:
        self.steps += steps
        if time.monotonic() - self.last > REPORT_SECONDS:
            if os.getppid() != self.parent:
                raise SystemExit(1)
            self.flush()

    def flush(self) -> None:
        self.messages.put(("steps", self.number, self.steps))
        self.steps, self.last = 0, time.monotonic()


def _base_scores(base: Base) -> dict[str, float]:
    from tuneahead.lab.exam import lab_exam, lab_generation, lab_truth
    from tuneahead.training.scoring import score_benchmark

    return {b.name: score_benchmark(base, b).score_pp for b in (lab_exam(), lab_truth(), lab_generation())}


def run_chunk(
    base: Base, chunk: Sequence[RunPlan], width: int, on_step: Callable[[int], None] | None = None
) -> Iterator[tuple[RunPlan, RunResult]]:
    """Train a chunk's runs in one stack; yields each run with its result as it ends."""
    from tuneahead.lab.exam import lab_generation, lab_truth
    from tuneahead.training.loop import Job, train_stack

    # Beyond some 32 rows a pass the activations leave the processor's cache and stacking gains nothing.
    width = max(1, min(width, ROWS_PER_PASS // chunk[0].task.recipe.batch_size)) if chunk else width
    settings = lab_settings()
    assert settings.cue_benchmark is not None
    finals = (settings.cue_benchmark, lab_truth(), lab_generation())
    prepared: dict[str, RunData] = {}
    jobs = []
    for run in chunk:
        if run.task.data_id not in prepared:
            prepared[run.task.data_id] = lab_data(base, run.task)
        jobs.append(Job(run.run_id(base.name), prepared[run.task.data_id], run.recipe, finals))
    by_id = {run.run_id(base.name): run for run in chunk}
    for result in train_stack(base, jobs, settings, width=width, on_step=on_step):
        yield by_id[result.job_id], result


def lab_examples(spec: DatasetSpec) -> list[Example]:
    """The rows of a generated data set."""
    from tuneahead.lab.datasets import generate

    return [Example(row.prompt, row.answer, number) for number, row in enumerate(generate(spec), start=1)]


def lab_data(base: Base, task: TaskPlan) -> RunData:
    """A generated data set, encoded and split."""
    from tuneahead.training.probe import prepare_data

    return prepare_data(base, lab_examples(task.spec), task.recipe)


def record_of(base: Base, run: RunPlan, result: RunResult, base_scores: dict[str, float]) -> RunRecord:
    """What is stored of a run."""
    return RunRecord(
        run_id=result.job_id,
        task_id=run.task.task_id,
        data_id=run.task.data_id,
        family=run.task.spec.family,
        base=base.name,
        seed=run.seed,
        recipe=run.recipe,
        trace=result.trace,
        scores=result.scores,
        base_scores=base_scores,
        subject_scores=result.subject_scores,
        data_spec=run.task.spec.to_json(),
        seconds=result.seconds,
        steps=result.steps,
        failure=result.failure,
    )
