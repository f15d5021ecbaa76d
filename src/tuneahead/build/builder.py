"""The builder: hands chunks of runs to workers, counts what they make, and replaces those that die."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneahead.build.crew import Crew, Worker
from tuneahead.build.plan import RunPlan
from tuneahead.build.tally import StepTally
from tuneahead.build.worker import REPORT_SECONDS, Outbox
from tuneahead.errors import ModelError, TuneAheadError
from tuneahead.history.store import RunStore

if TYPE_CHECKING:
    from tuneahead.build.execute import BuildOptions

ATTEMPTS = 2
"""How often a chunk whose worker died is tried before its runs are tried one by one."""
SILENT_SECONDS = 12 * 3600.0
"""A worker that has said nothing for so long hangs. Between two of its words it may measure a data set or
score a whole stack on a slow machine that has other work too, so this is generous."""
Waiting = list[tuple[int, list[RunPlan]]]
"""Chunks not yet begun, each with the number of the attempt."""


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


class Builder:
    """The parent: hands out chunks, counts, and replaces workers that die."""

    def __init__(
        self,
        crew: Crew,
        store: RunStore,
        options: BuildOptions,
        base: str,
        on_progress: Callable[[BuildProgress], None] | None,
    ) -> None:
        self.crew = crew
        self.store = store
        self.options = options
        self.base = base
        self.on_progress = on_progress
        self.stored: set[str] = set()
        self.elsewhere: set[str] = set()
        self.waiting: Waiting = []
        self.began = 0.0
        self.tally = StepTally({})
        self.tasks: dict[int, Outbox[list[RunPlan] | None]] = {}
        self.workers: dict[int, Worker] = {}
        self.held: dict[int, tuple[int, list[RunPlan]]] = {}
        self.ready: set[int] = set()
        self.silent_seconds: dict[int, float] = {}
        self.hung: set[int] = set()
        self.ever_ready = False
        self.lost_loading = 0
        self.given_up: dict[str, str] = {}
        self.setbacks: list[str] = []

    def run(self, chunks: list[list[RunPlan]], present: int, total: int) -> dict[str, str]:
        """Make the runs of all chunks; returns those given up, with the reason."""
        self.waiting = [(1, chunk) for chunk in chunks]
        steps = {run.run_id(self.base): steps_of(run) for chunk in chunks for run in chunk}
        self.tally = StepTally(steps)
        self.began = time.monotonic()
        try:
            for number in range(min(self.crew.most_workers, len(chunks))):
                self._start(number)
            while self.held:
                since = time.monotonic()
                self._receive()
                self._end_silent(time.monotonic() - since)
                self._bury()
                if self.on_progress is not None:
                    self.on_progress(self._progress(present, total))
        finally:
            self._close()
        return self.given_up

    def _progress(self, present: int, total: int) -> BuildProgress:
        seconds = time.monotonic() - self.began
        done = present + len(self.stored) + len(self.elsewhere)
        setbacks = tuple(self.setbacks)
        return BuildProgress(done, total, self.tally.done, self.tally.total, seconds, setbacks)

    def _start(self, number: int) -> None:
        self.workers[number], self.tasks[number] = self.crew.start(number)
        self.ready.discard(number)
        # A worker is started for a chunk: it gets one however long the start took.
        self._hand_out(number, late=False)

    def _hand_out(self, number: int, *, late: bool) -> None:
        self.tally.restart(number)
        while self.waiting and not late:
            attempt, chunk = self.waiting.pop(0)
            done = self.store.done_ids()
            self._pass_over({run.run_id(self.base) for run in chunk} & done)
            if left := [run for run in chunk if run.run_id(self.base) not in done]:
                self.held[number] = (attempt, left)
                self.tasks[number].put(left)
                return
        self.tasks[number].put(None)

    def _pass_over(self, run_ids: set[str]) -> None:
        """Count runs that were stored, and by no worker of this build."""
        for run_id in run_ids - self.stored:
            self.elsewhere.add(run_id)
            self.tally.drop(run_id)

    def _is_late(self) -> bool:
        limit = self.options.stop_seconds
        return limit is not None and time.monotonic() - self.began > limit

    def _receive(self) -> None:
        try:
            kind, number, content = self.crew.messages.get(timeout=REPORT_SECONDS)
        except queue.Empty:
            return
        self.silent_seconds[number] = 0.0
        if kind == "steps":
            self.tally.made(number, int(str(content)))
        elif kind == "again":
            self.tally.restart(number)
        elif kind == "ready":
            self.ready.add(number)
            self.ever_ready, self.lost_loading = True, 0
        elif kind == "stored":
            self._count_stored(number, str(content))
        elif kind == "known":
            self._pass_over({str(content)})
        elif kind == "failed" and isinstance(content, tuple):
            self._give_up(*content)
        elif kind == "chunk":
            _, chunk = self.held.pop(number, (0, []))
            self._pass_over({run.run_id(self.base) for run in chunk} - self.given_up.keys())
            self._hand_out(number, late=self._is_late())
        elif kind == "error" and isinstance(content, TuneAheadError):
            raise content

    def _count_stored(self, number: int, run_id: str) -> None:
        self.stored.add(run_id)
        self.tally.finish(number, run_id)

    def _give_up(self, run_id: str, reason: str) -> None:
        self.given_up[run_id] = reason
        self.tally.drop(run_id)

    def _end_silent(self, waited_seconds: float) -> None:
        """End workers that hang, to be buried like those that died.

        One that is not ready yet may wait for a place on a cluster, for as long as it takes.
        Of a wait longer than any is (the build was halted, or the machine slept) the rest does not count:
        nobody could say anything.
        """
        for number in self.held.keys() & self.ready:
            silent = self.silent_seconds.get(number, 0.0) + min(waited_seconds, 2 * REPORT_SECONDS)
            self.silent_seconds[number] = silent
            if silent > SILENT_SECONDS:
                self.silent_seconds[number] = 0.0
                self.hung.add(number)
                self.workers[number].stop(at_once=True)

    def _bury(self) -> None:
        for number, worker in list(self.workers.items()):
            if worker.is_alive() or number not in self.held or not self.crew.messages.empty():
                continue
            attempt, chunk = self.held.pop(number)
            ended = (
                f"the worker hung for {SILENT_SECONDS / 3600:g} hours"
                if number in self.hung
                else worker.ended()
            )
            self.hung.discard(number)
            left = self._left_of(number, chunk)
            if number in self.ready:
                self.lost_loading, again = 0, attempts_left(attempt, left)
            else:
                # Nothing of the chunk was begun: it is as good as new.
                self.lost_loading += 1
                again = [(attempt, left)] if left else []
            if self.lost_loading >= ATTEMPTS and not self.ever_ready and not self.held:
                raise ModelError(
                    f"{ended} before it had loaded {self.options.base!r}",
                    remedy="give the build fewer workers or more memory, or another base; a script calls "
                    'execute below: if __name__ == "__main__":',
                )
            self._go_on(number, ended, left, again)

    def _left_of(self, number: int, chunk: list[RunPlan]) -> list[RunPlan]:
        """Runs of a dead worker's chunk that are still to be made."""
        done = self.store.done_ids()
        # A worker killed between storing a run and saying so was never heard.
        for run_id in (run.run_id(self.base) for run in chunk):
            if run_id in done - self.stored:
                self._count_stored(number, run_id)
        self.tally.restart(number)
        return [run for run in chunk if run.run_id(self.base) not in done | self.given_up.keys()]

    def _go_on(self, number: int, ended: str, left: list[RunPlan], again: Waiting) -> None:
        """Replace a dead worker where that is of use, and say what becomes of the runs it left."""
        self.waiting[:0] = again
        late = self._is_late()
        # Where there is no room for another worker, those that have the base go on alone.
        replaced = self.lost_loading < ATTEMPTS and not late
        if left and not again:
            fate = "given up"
            for run in left:
                self._give_up(run.run_id(self.base), ended)
        else:
            fate = "begun anew" if replaced or (self.held and not late) else "left for the next build"
        self.setbacks.append(f"{ended}; runs {fate}: {len(left)}")
        if self.waiting and replaced:
            self._start(number)

    def _close(self) -> None:
        for worker in self.workers.values():
            worker.stop(at_once=bool(self.held))
        self.crew.close()


def attempts_left(attempt: int, left: list[RunPlan]) -> Waiting:
    """How to go on with the runs of a chunk whose worker died: together, then each alone, then not at all."""
    if not left:
        return []
    if attempt < ATTEMPTS:
        return [(attempt + 1, left)]
    return [(attempt, [run]) for run in left] if len(left) > 1 else []


def steps_of(run: RunPlan) -> int:
    """Length of a run, in steps."""
    return run.task.recipe.max_steps or 0
