"""The builder counts rightly and goes on sensibly, whatever becomes of its workers."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneahead.build.builder import Builder, BuildProgress, attempts_left
from tuneahead.build.crew import Chunk
from tuneahead.build.execute import BuildOptions
from tuneahead.build.plan import TaskPlan, lab_plan, runs_of
from tuneahead.build.worker import Message
from tuneahead.errors import ModelError
from tuneahead.history.store import RunStore

RUNS = runs_of([TaskPlan(task.spec, task.recipe.replace(max_steps=10)) for task in lab_plan(1, 2)])
"""Two runs of ten steps."""
FIRST, SECOND = (run.run_id("lab") for run in RUNS)

Life = Callable[["ToldWorker"], None]


class ToldWorker:
    """A worker without a process, which does on its first chunk what its life says."""

    def __init__(self, number: int, life: Life, messages: queue.Queue[Message]) -> None:
        self.number = number
        self.life = life
        self.messages = messages
        self.alive = True

    def put(self, chunk: Chunk | None) -> None:
        if chunk is None:
            self.alive = False
        else:
            self.life(self)

    def say(self, *messages: tuple[str, object]) -> None:
        for kind, content in messages:
            self.messages.put((kind, self.number, content))

    def is_alive(self) -> bool:
        return self.alive

    def ended(self) -> str:
        return "the worker ended"

    def stop(self, *, at_once: bool) -> None:
        self.alive = False


class ToldCrew:
    """Workers with these lives, one after the other."""

    def __init__(self, *lives: Life, most_workers: int = 1) -> None:
        self.lives = list(lives)
        self.messages: queue.Queue[Message] = queue.Queue()
        self.most_workers = most_workers

    def start(self, number: int) -> tuple[ToldWorker, ToldWorker]:
        worker = ToldWorker(number, self.lives.pop(0), self.messages)
        return worker, worker

    def close(self) -> None:
        pass


def dies_loading(worker: ToldWorker) -> None:
    worker.alive = False


def dies_after_15_steps(worker: ToldWorker) -> None:
    worker.say(("ready", None), ("steps", 15))
    worker.alive = False


def makes_both(worker: ToldWorker) -> None:
    worker.say(("ready", None), ("steps", 12), ("stored", FIRST), ("steps", 8), ("stored", SECOND))
    worker.say(("chunk", None))


def build(crew: ToldCrew, folder: Path) -> tuple[Builder, list[BuildProgress]]:
    told: list[BuildProgress] = []
    builder = Builder(crew, RunStore(folder / "runs.sqlite"), BuildOptions(), "lab", told.append)
    builder.run([RUNS], 0, len(RUNS))
    return builder, told


def test_steps_of_a_worker_that_died_are_not_counted_twice(tmp_path: Path) -> None:
    _, told = build(ToldCrew(dies_after_15_steps, makes_both), tmp_path)
    assert [one.steps_done for one in told] == [0, 0, 0, 12, 12, 20, 20, 20]
    assert {one.steps_total for one in told} == {20}
    assert told[4].seconds_left > 0 == told[-1].seconds_left


def test_steps_of_a_chunk_that_failed_as_a_whole_are_counted_anew(tmp_path: Path) -> None:
    def fails_together(worker: ToldWorker) -> None:
        worker.say(("ready", None), ("steps", 18), ("again", None), ("failed", (FIRST, "no room")))
        worker.say(("steps", 5), ("steps", 5), ("stored", SECOND), ("chunk", None))

    builder, told = build(ToldCrew(fails_together), tmp_path)
    assert [one.steps_done for one in told] == [0, 18, 0, 0, 5, 10, 10, 10]
    assert told[-1].steps_total == 10, "a run that is given up is none of the work"
    assert builder.given_up == {FIRST: "no room"}


def test_a_replacement_that_dies_while_it_loads_is_replaced_in_its_turn(tmp_path: Path) -> None:
    builder, told = build(ToldCrew(dies_after_15_steps, dies_loading, makes_both), tmp_path)
    assert told[-1].runs_done == 2 and not builder.given_up
    assert [setback.endswith("begun anew: 2") for setback in builder.setbacks] == [True, True]


def test_a_build_that_can_start_no_further_worker_leaves_its_runs_to_the_next(tmp_path: Path) -> None:
    builder, _ = build(ToldCrew(dies_after_15_steps, dies_loading, dies_loading), tmp_path)
    assert builder.setbacks[-1] == "the worker ended; runs left for the next build: 2"
    assert not builder.given_up


def test_a_base_that_no_worker_can_load_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)the worker ended before it had loaded 'lab'.* __name__ == "):
        build(ToldCrew(dies_loading, dies_loading), tmp_path)


def test_a_worker_that_hangs_is_ended_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(worker: ToldWorker) -> None:
        worker.say(("ready", None), ("steps", 15))

    monkeypatch.setattr("tuneahead.build.builder.REPORT_SECONDS", 0.01)
    monkeypatch.setattr("tuneahead.build.builder.SILENT_SECONDS", 0.05)
    builder, told = build(ToldCrew(hangs, makes_both), tmp_path)
    (setback,) = builder.setbacks
    assert setback.startswith("the worker hung for ") and setback.endswith("hours; runs begun anew: 2")
    assert told[-1].runs_done == 2 and not builder.given_up


def test_a_worker_that_waits_for_a_place_or_was_halted_with_the_build_is_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneahead.build.builder.SILENT_SECONDS", 60.0)
    builder = Builder(
        ToldCrew(lambda _: None), RunStore(tmp_path / "runs.sqlite"), BuildOptions(), "lab", None
    )
    builder.waiting = [(1, RUNS)]
    builder._start(0)
    for _ in range(100):
        builder._end_silent(1.0)
    assert builder.workers[0].is_alive(), "it still loads"
    builder.ready.add(0)
    builder._end_silent(1e6)
    assert builder.workers[0].is_alive(), "the build was halted"
    for _ in range(100):
        builder._end_silent(1.0)
    assert not builder.workers[0].is_alive()


def test_runs_of_a_chunk_that_keeps_killing_its_worker_are_tried_alone_once() -> None:
    left = RUNS
    assert attempts_left(1, left) == [(2, left)]
    assert attempts_left(2, left) == [(2, [run]) for run in left]
    assert attempts_left(2, left[:1]) == attempts_left(1, []) == []
