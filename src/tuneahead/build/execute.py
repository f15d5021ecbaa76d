"""Making the runs of a plan, here or on a cluster; every finished run is stored at once."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tuneahead.build.crew import Crew, LocalCrew, Worker
from tuneahead.build.plan import DataSpec, RunPlan, TaskPlan, rows_of, runs_of
from tuneahead.build.worker import (
    REPORT_SECONDS,
    Outbox,
    lab_data,
    lab_examples,
    lab_settings,
    record_of,
    run_chunk,
)
from tuneahead.errors import ModelError, TuneAheadError
from tuneahead.history.store import RunStore

__all__ = [
    "BuildOptions",
    "BuildProgress",
    "BuildSummary",
    "chunk_runs",
    "execute",
    "lab_data",
    "lab_examples",
    "lab_settings",
    "record_of",
    "run_chunk",
]

RUNS_AHEAD = 160
"""Runs looked at together when chunks are formed, so that runs of one batch size are stacked."""
RUNS_PER_CHUNK = 20
"""Runs handed to a worker at a time; a build that is to end in time hands out fewer."""
ATTEMPTS = 2
"""How often a chunk whose worker died is tried before its runs are tried one by one."""
Waiting = list[tuple[int, list[RunPlan]]]
"""Chunks not yet begun, each with the number of the attempt."""


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is executed. ``width`` runs are stacked in each of ``workers`` processes.

    ``cluster`` is the address of a Ray cluster whose machines they run on, as in
    :class:`~tuneahead.build.cluster.ClusterCrew`; empty: on this machine, without Ray.

    Without ``probes`` the runs leave their final scores and no trace: all that ProxyLM needs of a
    proxy, at less than half the cost.
    """

    base: str = "lab"
    workers: int = 2
    width: int = 8
    probes: bool = True
    stop_seconds: float | None = None
    """No new chunk is begun after this time; running ones are finished."""
    runs_per_chunk: int = RUNS_PER_CHUNK
    runs_ahead: int = RUNS_AHEAD
    cluster: str = ""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is. ``seconds_left`` is NaN until there is a speed to judge by."""

    runs_done: int
    runs_total: int
    steps_done: int
    steps_total: int
    seconds: float
    setbacks: tuple[str, ...] = ()
    """Of each worker that died: how, and how many of its runs were begun anew or given up."""

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
    setbacks: tuple[str, ...] = ()


def execute(
    plan: Sequence[TaskPlan],
    store_path: Path,
    options: BuildOptions = BuildOptions(),
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> BuildSummary:
    """Make every run of ``plan`` that the store does not hold yet.

    Can be stopped at any point, by kill -9 too, and called again: finished runs are never lost
    and never made twice. A worker that dies is replaced and its chunk tried once more, then run by
    run; a run that can't be made is given up with the reason and stops no other. Raises
    :class:`StoreError` when the store can't be used, :class:`ModelError` when the base can't and
    :class:`BuildError` when the cluster can't.
    """
    from tuneahead.training.models import resolve_base

    shown, _ = resolve_base(options.base)
    store = RunStore(store_path)
    done = store.done_ids()
    runs = runs_of(plan)
    pending = [run for run in runs if run.run_id(shown) not in done]
    if not pending:
        return BuildSummary(0, len(runs))
    crew: Crew
    if options.cluster:
        from tuneahead.build.cluster import ClusterCrew

        crew = ClusterCrew(store_path, options)
    else:
        crew = LocalCrew(store_path, options)
    builder = _Builder(crew, store_path, options, shown, on_progress)
    chunks = chunk_runs(pending, options.runs_per_chunk, options.runs_ahead)
    given_up = builder.run(chunks, len(runs) - len(pending), len(runs))
    # Counted in the store: a worker killed between storing a run and saying so was never heard.
    done = store.done_ids()
    stored = sum(run.run_id(shown) in done for run in pending)
    return BuildSummary(stored, len(runs) - len(pending), given_up, tuple(builder.setbacks))


def chunk_runs(
    pending: Sequence[RunPlan], runs_per_chunk: int = RUNS_PER_CHUNK, runs_ahead: int = RUNS_AHEAD
) -> list[list[RunPlan]]:
    """Split into chunks of like runs, longest first, keeping roughly the plan's order.

    Stacked runs of one batch size and similar row lengths waste little on filling, and starting
    long runs first leaves short ones to fill the slots at a chunk's end.
    """
    chunks: list[list[RunPlan]] = []
    for start in range(0, len(pending), runs_ahead):
        window = pending[start : start + runs_ahead]
        for size in sorted({run.task.recipe.batch_size for run in window}):
            same = [run for run in window if run.task.recipe.batch_size == size]
            same.sort(key=lambda run: row_characters(run.task.spec))
            parts = max(1, round(len(same) / runs_per_chunk))
            for part in range(parts):
                chunk = same[part * len(same) // parts : (part + 1) * len(same) // parts]
                chunks.append(sorted(chunk, key=lambda run: -_steps(run)))
    return chunks


@lru_cache(maxsize=4096)
def row_characters(spec: DataSpec) -> float:
    """Mean length of a data set's first rows, in characters."""
    rows = rows_of(spec)[:200]
    return sum(len(row.prompt) + len(row.answer) for row in rows) / max(1, len(rows))


class _Builder:
    """The parent: hands out chunks, counts, and replaces workers that die."""

    def __init__(
        self,
        crew: Crew,
        store_path: Path,
        options: BuildOptions,
        base: str,
        on_progress: Callable[[BuildProgress], None] | None,
    ) -> None:
        self.crew = crew
        self.store_path = store_path
        self.options = options
        self.base = base
        self.on_progress = on_progress
        self.stored = 0
        self.steps = 0
        self.tasks: dict[int, Outbox[list[RunPlan] | None]] = {}
        self.workers: dict[int, Worker] = {}
        self.held: dict[int, tuple[int, list[RunPlan]]] = {}
        self.ready: set[int] = set()
        self.given_up: dict[str, str] = {}
        self.setbacks: list[str] = []

    def run(self, chunks: list[list[RunPlan]], present: int, total: int) -> dict[str, str]:
        waiting: Waiting = [(1, chunk) for chunk in chunks]
        steps_total = sum(_steps(run) for chunk in chunks for run in chunk)
        began = time.monotonic()
        try:
            for number in range(min(self.crew.most_workers, len(waiting))):
                self._start(number, waiting)
            while self.held:
                self._receive(waiting, began)
                self._bury(waiting, began)
                if self.on_progress is not None:
                    spent = time.monotonic() - began
                    done, setbacks = present + self.stored, tuple(self.setbacks)
                    self.on_progress(BuildProgress(done, total, self.steps, steps_total, spent, setbacks))
        finally:
            self._close()
        return self.given_up

    def _start(self, number: int, waiting: Waiting) -> None:
        self.workers[number], self.tasks[number] = self.crew.start(number)
        self.ready.discard(number)
        self._hand_out(number, waiting, None)

    def _hand_out(self, number: int, waiting: Waiting, began: float | None) -> None:
        self.held.pop(number, None)
        if waiting and (began is None or not self._is_late(began)):
            self.held[number] = waiting.pop(0)
            self.tasks[number].put(self.held[number][1])
        else:
            self.tasks[number].put(None)

    def _is_late(self, began: float) -> bool:
        limit = self.options.stop_seconds
        return limit is not None and time.monotonic() - began > limit

    def _receive(self, waiting: Waiting, began: float) -> None:
        try:
            kind, number, content = self.crew.messages.get(timeout=REPORT_SECONDS)
        except queue.Empty:
            return
        if kind == "steps":
            self.steps += int(str(content))
        elif kind == "ready":
            self.ready.add(number)
        elif kind == "stored":
            self.stored += 1
        elif kind == "failed" and isinstance(content, tuple):
            run_id, reason = content
            self.given_up[run_id] = reason
        elif kind == "chunk":
            self._hand_out(number, waiting, began)
        elif kind == "error" and isinstance(content, TuneAheadError):
            raise content

    def _bury(self, waiting: Waiting, began: float) -> None:
        for number, worker in list(self.workers.items()):
            if worker.is_alive() or number not in self.held or not self.crew.messages.empty():
                continue
            attempt, chunk = self.held.pop(number)
            ended = worker.ended()
            if number not in self.ready and attempt >= ATTEMPTS:
                raise ModelError(
                    f"{ended} before it had loaded {self.options.base!r}",
                    remedy="give the build fewer workers or more memory, or another base",
                )
            done = RunStore(self.store_path).done_ids() | set(self.given_up)
            left = [run for run in chunk if run.run_id(self.base) not in done]
            again = attempts_left(attempt, left)
            waiting[:0] = again
            if not again:
                self.given_up.update({run.run_id(self.base): ended for run in left})
            # A worker may have died when all its runs were stored: then there is none to begin or give up.
            late = self._is_late(began)
            fate = "given up" if left and not again else "left for the next build" if late else "begun anew"
            self.setbacks.append(f"{ended}; runs {fate}: {len(left)}")
            if waiting and not late:
                self._start(number, waiting)

    def _close(self) -> None:
        for worker in self.workers.values():
            worker.stop(at_once=bool(self.held))


def attempts_left(attempt: int, left: list[RunPlan]) -> Waiting:
    """How to go on with the runs of a chunk whose worker died: together, then each alone, then not at all."""
    if not left:
        return []
    if attempt < ATTEMPTS:
        return [(attempt + 1, left)]
    return [(attempt, [run]) for run in left] if len(left) > 1 else []


def _steps(run: RunPlan) -> int:
    return run.task.recipe.max_steps or 0
