"""The worker's side of a build: make a chunk's runs, store each, say what could not be made and why."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from tuneahead.build.plan import DataSpec, RunPlan, TaskPlan, rows_of
from tuneahead.build.questions import QuestionSpec
from tuneahead.dataset import Example
from tuneahead.errors import StoreError, TuneAheadError
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.build.execute import BuildOptions
    from tuneahead.training.encode import RunData
    from tuneahead.training.loop import RunResult
    from tuneahead.training.measure import ProbeSettings
    from tuneahead.training.models import Base

ROWS_PER_PASS = 32
REPORT_SECONDS = 2.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""A worker's environment: one thread each, and waiting threads must not spin."""
Message = tuple[str, int, object]
"""Kind, the worker's number, and: nothing (ready, chunk, again), a count (steps), a run's identifier
(stored; known: another build stored it meanwhile), the identifier and the reason (failed), or the exception
that ends the build (error)."""
Received = TypeVar("Received", covariant=True)
Sent = TypeVar("Sent", contravariant=True)


class Inbox(Protocol[Received]):
    """The end of a queue that items are taken from."""

    def get(self, *, timeout: float) -> Received:
        """The next item; raises :class:`queue.Empty` when ``timeout`` seconds brought none."""

    def empty(self) -> bool:
        """Whether nothing is waiting."""


class Outbox(Protocol[Sent]):
    """The end of a queue that items are put into."""

    def put(self, item: Sent, /) -> None:
        """Add an item."""


def work(
    number: int,
    tasks: Inbox[list[RunPlan] | None],
    messages: Outbox[Message],
    store: RunStore,
    options: BuildOptions,
) -> None:
    """A worker's life: load the base once, then make chunk after chunk until None comes."""
    import torch

    from tuneahead.training.models import load_base

    torch.set_num_threads(1)
    try:
        base = load_base(options.base)
        meter = _StepMeter(number, messages)
        maker = _Maker(base, store, options, meter)
        messages.put(("ready", number, None))
        while (chunk := _next(tasks)) is not None:
            maker.make(chunk)
            meter.flush()
            messages.put(("chunk", number, None))
    except TuneAheadError as error:
        # A wrong base, a full disk or a locked store stops the build: no other run would fare better.
        messages.put(("error", number, error))


def _next(tasks: Inbox[list[RunPlan] | None]) -> list[RunPlan] | None:
    while True:
        with suppress(queue.Empty):
            return tasks.get(timeout=REPORT_SECONDS)


class _Maker:
    """Makes and stores the runs of chunks on one base."""

    def __init__(self, base: Base, store: RunStore, options: BuildOptions, meter: _StepMeter) -> None:
        self.base = base
        self.store = store
        self.width = options.width
        self.settings = None if options.probes else score_settings()
        self.meter = meter
        self.base_scores = _base_scores(base)

    def make(self, chunk: Sequence[RunPlan]) -> None:
        """Make a chunk's runs that are not stored yet together; if that fails, one by one.

        A run that fails alone is reported with the reason. Raises :class:`StoreError` only.
        """
        # Another build may have made them while the base was loaded.
        done = self.store.done_ids()
        chunk = [run for run in chunk if run.run_id(self.base.name) not in done]
        if not chunk:
            return
        try:
            # Before the runs: while they train, their adapters would answer for the base.
            for run in chunk:
                self._keep_static(run)
            made = run_chunk(self.base, chunk, self.width, self.meter.count, settings=self.settings)
            for run, result in made:
                is_new = self.store.add(record_of(self.base, run, result, self.base_scores))
                self.meter.report("stored" if is_new else "known", run.run_id(self.base.name))
            return
        except StoreError:
            raise
        except (TuneAheadError, MemoryError) as error:
            reason = str(error) or "out of memory"
        # Outside the handler, whose traceback would keep the failed stack in memory.
        if len(chunk) == 1:
            self.meter.report("failed", (chunk[0].run_id(self.base.name), reason))
            return
        self.meter.restart()
        for run in chunk:
            self.make([run])

    def _keep_static(self, run: RunPlan) -> None:
        """Measure real questions now: later they can't be made again from their spec."""
        from tuneahead.history.tables import has_static, keep_static
        from tuneahead.lab.exam import lab_exam

        data_id, name = run.task.data_id, self.base.name
        if isinstance(run.task.spec, QuestionSpec) and not has_static(self.store, data_id, name):
            keep_static(self.store, data_id, self.base, lab_examples(run.task.spec), lab_exam())


class _StepMeter:
    """Counts steps and tells the builder now and then."""

    def __init__(self, number: int, messages: Outbox[Message]) -> None:
        self.number = number
        self.messages = messages
        self.steps = 0
        self.last = time.monotonic()

    def count(self, steps: int) -> None:
        self.steps += steps
        if time.monotonic() - self.last > REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.report("steps", self.steps)
        self.steps, self.last = 0, time.monotonic()

    def restart(self) -> None:
        """Say that what was made of unfinished runs is void."""
        self.steps = 0
        self.report("again", None)

    def report(self, kind: str, content: object) -> None:
        self.messages.put((kind, self.number, content))


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


def score_settings() -> ProbeSettings:
    """Nothing recorded: for runs of which only the final scores are wanted."""
    from tuneahead.training.measure import ProbeSettings

    return ProbeSettings(record_steps=0, cue_steps=(), flatness_at=None)


def large_base_settings(base: Base) -> ProbeSettings:
    """What runs on a real model record: fewer questions and fewer cues, which cost as much as training."""
    from tuneahead.lab.exam import lab_exam
    from tuneahead.workbench import cue_items, cue_steps

    settings = lab_settings()
    return replace(
        settings, record_steps=100, cue_steps=cue_steps(base), cue_benchmark=cue_items(lab_exam(), base)
    )


def final_benchmarks(base: Base) -> tuple[Benchmark, ...]:
    """What finished runs are scored on; a real model on the whole lab-exam alone, for the cost."""
    from tuneahead.lab.exam import lab_exam, lab_generation, lab_truth

    return (lab_exam(),) if base.is_large else (lab_exam(), lab_truth(), lab_generation())


def _base_scores(base: Base) -> dict[str, float]:
    from tuneahead.training.scoring import score_benchmark

    return {b.name: score_benchmark(base, b).score_pp for b in final_benchmarks(base)}


def run_chunk(
    base: Base,
    chunk: Sequence[RunPlan],
    width: int,
    on_step: Callable[[int], None] | None = None,
    *,
    settings: ProbeSettings | None = None,
) -> Iterator[tuple[RunPlan, RunResult]]:
    """Train a chunk's runs in one stack; yields each run with its result as it ends.

    ``settings`` say what is recorded (default: :func:`large_base_settings` or :func:`lab_settings`).
    """
    from tuneahead.training.loop import Job, train_stack

    if chunk and base.device == "cpu":
        # Beyond some 32 rows a pass the activations leave the processor's cache and stacking gains nothing.
        width = max(1, min(width, ROWS_PER_PASS // chunk[0].task.recipe.batch_size))
    recorded = settings or (large_base_settings(base) if base.is_large else lab_settings())
    finals = final_benchmarks(base)
    prepared: dict[tuple[str, str, int], RunData] = {}
    jobs = []
    for run in chunk:
        key = (run.task.data_id, run.recipe.template, run.recipe.max_length)
        if key not in prepared:
            prepared[key] = lab_data(base, run.task)
        jobs.append(Job(run.run_id(base.name), prepared[key], run.recipe, finals))
    by_id = {run.run_id(base.name): run for run in chunk}
    for result in train_stack(base, jobs, recorded, width=width, on_step=on_step):
        yield by_id[result.job_id], result


def lab_examples(spec: DataSpec) -> list[Example]:
    """The rows of a plan's data set."""
    return [Example(row.prompt, row.answer, number) for number, row in enumerate(rows_of(spec), start=1)]


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
