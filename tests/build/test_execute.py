"""Builds store every finished run, resume, survive kill -9 and give up only what can't be made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneahead.build import builder as building
from tuneahead.build.builder import Builder, BuildProgress
from tuneahead.build.execute import BuildOptions, BuildSummary, execute, run_chunk
from tuneahead.build.plan import RunPlan, TaskPlan, lab_plan, runs_of
from tuneahead.errors import ModelError, StoreError
from tuneahead.history.store import RunStore
from tuneahead.training.measure import ProbeSettings


def small_plan() -> list[TaskPlan]:
    """Four very short runs on two small data sets."""
    plan = [t for t in lab_plan(12, 2) if t.spec.family in ("clean", "too_few")][:4]
    return [TaskPlan(replace(t.spec, n_rows=60), t.recipe.replace(max_steps=10, batch_size=4)) for t in plan]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_execute import small_plan
from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import TaskPlan
if __name__ == "__main__":
    steps = [10, 4000]
    plan = [TaskPlan(t.spec, t.recipe.replace(max_steps=n)) for t, n in zip(small_plan(), steps)]
    execute(plan, Path({store!r}), BuildOptions(workers=1, width=2))
"""


@contextmanager
def started_build(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A build in a session of its own whose first run is stored and whose second has long to go."""
    store, script = folder / "runs.sqlite", folder / "build.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent), store=str(store)))
    command = [sys.executable, str(script)]
    # Into a file: a pipe would be read until the last worker has ended.
    with (folder / "stderr").open("w") as stderr:
        build = subprocess.Popen(command, start_new_session=True, stderr=stderr)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (store.exists() and len(RunStore(store))):
            time.sleep(0.2)
        yield build, store
    finally:
        build.kill()
        build.wait()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The store of a build that was killed when its first run was stored, and its session."""
    with started_build(tmp_path_factory.mktemp("killed")) as (build, store):
        assert _alive(build.pid), "its processes are seen"
    return store, build.pid


def test_kill_9_loses_no_finished_run_and_leaves_no_worker(killed: tuple[Path, int]) -> None:
    store, session = killed
    (record,) = RunStore(store).records()
    assert set(record.scores) == {"lab-exam", "lab-truth", "lab-generation"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _alive(session):
        time.sleep(0.2)
    assert not _alive(session), "workers must end with their parent"


def _alive(session: int) -> bool:
    return _processes(session) > 0


def _processes(session: int) -> int:
    """How many processes of a session there are, those apart that have ended and nobody asked how."""
    listed = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True).stdout
    return sum(not line.startswith("Z") for line in listed.split())


class WorkerKiller:
    """Kills the only worker with SIGKILL when the build has so many runs, once."""

    def __init__(self, runs_done: int) -> None:
        self.runs_done = runs_done
        self.killed = False
        self.last: BuildProgress | None = None

    def __call__(self, progress: BuildProgress) -> None:
        self.last = progress
        if progress.runs_done == self.runs_done and not self.killed:
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            self.killed = True


def test_a_build_goes_on_and_gives_up_only_the_run_that_cannot_be_made(killed: tuple[Path, int]) -> None:
    store, _ = killed
    plan, killer = small_plan(), WorkerKiller(2)
    plan[2] = TaskPlan(plan[2].spec, plan[2].recipe.replace(target_modules=("no_such_layer",)))
    summary = execute(plan, store, BuildOptions(workers=1, width=2), killer)
    assert killer.killed and (summary.stored, summary.present) == (2, 1)
    (bad,) = runs_of(plan[2:3])
    assert list(summary.given_up) == [bad.run_id("lab-qwen2")]
    assert "no_such_layer" in summary.given_up[bad.run_id("lab-qwen2")]
    assert killer.last is not None and (killer.last.runs_done, killer.last.runs_total) == (3, 4)
    (setback,) = killer.last.setbacks
    assert setback.startswith("the worker ended with -9: it was killed") and "begun anew" in setback
    assert summary.setbacks == (setback,)
    records = list(RunStore(store).records())
    assert {r.task_id for r in records} == {task.task_id for n, task in enumerate(plan) if n != 2}
    for record in records:
        assert set(record.scores) == set(record.base_scores) == {"lab-exam", "lab-truth", "lab-generation"}
        assert 0 < record.scores["lab-exam"] < 100
        assert [cue.step for cue in record.trace.cues] == [0, 10]
        assert record.trace.cues[0].accuracy_pp == pytest.approx(record.base_scores["lab-exam"])
        assert len(record.subject_scores["lab-exam"]) > 15
        assert np.isfinite(record.trace.steps.grad_norm).all()


def test_runs_of_one_chunk_read_their_rows_as_their_own_recipes_say() -> None:
    from tuneahead.training.models import load_base

    spec, recipe = small_plan()[0].spec, small_plan()[0].recipe.replace(max_steps=1)
    recipes = (recipe, recipe.replace(max_length=24, template="alpaca"))
    chunk = runs_of([TaskPlan(spec, recipe) for recipe in recipes])
    settings = ProbeSettings(record_steps=1, cue_steps=(0,), flatness_at=None)
    made = dict(run_chunk(load_base("lab", device="cpu"), chunk, 2, settings=settings))
    first, second = (made[run].trace.cues[0].heldout_loss_nats for run in chunk)
    # Before any training only the rows differ.
    assert first != pytest.approx(second, rel=0.01)


def test_a_run_whose_worker_died_too_often_is_given_up_and_made_again_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tuneahead.training.models import load_base

    monkeypatch.setattr(building, "ATTEMPTS", 1)
    store, killer = RunStore(tmp_path / "runs.sqlite"), WorkerKiller(1)
    plan = small_plan()[:2]
    summary = execute(plan, store.path, BuildOptions(workers=1, width=1), killer)
    (kept,) = (run for run in runs_of(plan) if run.run_id("lab-qwen2") in store.done_ids())
    (lost,) = (run for run in runs_of(plan) if run != kept)
    assert killer.killed and summary.stored == 1
    assert summary.given_up == {
        lost.run_id("lab-qwen2"): "the worker ended with -9: it was killed, often for want of memory"
    }
    torch.set_num_threads(1)
    ((_, again),) = run_chunk(load_base("lab"), [kept], 1)
    stored = store.get(kept.run_id("lab-qwen2")).trace
    # Alone the stack is as wide as its own rank: on some processors the last bit differs.
    np.testing.assert_allclose(again.trace.steps.loss_sum_nats, stored.steps.loss_sum_nats, rtol=1e-5)
    np.testing.assert_allclose(again.trace.cues[-1].margin_nats, stored.cues[-1].margin_nats, rtol=1e-3)


def test_runs_of_a_worker_that_dies_after_the_deadline_are_left_for_the_next_build(tmp_path: Path) -> None:
    store, killer = RunStore(tmp_path / "runs.sqlite"), WorkerKiller(1)
    options = BuildOptions(workers=1, width=1, stop_seconds=0.1)
    summary = execute(small_plan()[:2], store.path, options, killer)
    assert killer.killed and summary.stored == 1 and not summary.given_up
    assert summary.setbacks[0].endswith("runs left for the next build: 1")


def test_every_worker_gets_runs_where_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[list[int]] = []

    def run(self: Builder, chunks: list[list[RunPlan]], *counts: int) -> dict[str, str]:
        handed.append([len(chunk) for chunk in chunks])
        return {}

    monkeypatch.setattr(Builder, "run", run)
    for datasets, workers in ((40, 16), (4, 4), (200, 32), (2, 16)):
        execute(lab_plan(datasets, 1), tmp_path / "runs.sqlite", BuildOptions(workers=workers))
        assert sum(handed[-1]) == datasets and len(handed[-1]) >= min(workers, datasets)
        assert max(handed[-1]) <= 20
    execute(lab_plan(80, 1), tmp_path / "runs.sqlite", BuildOptions(workers=2))
    assert min(handed[-1]) > 8, "few workers have whole stacks"


def test_a_base_that_does_not_exist_stops_the_build_at_once(tmp_path: Path) -> None:
    options = BuildOptions(str(tmp_path / "no-base"), workers=1)
    with pytest.raises(ModelError, match="there is no folder"):
        execute(small_plan()[:1], tmp_path / "runs.sqlite", options)


def test_a_store_that_cannot_be_written_stops_the_build_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        execute(small_plan()[:1], tmp_path / "file" / "runs.sqlite", BuildOptions(workers=1))


def test_a_build_without_probes_leaves_scores_and_no_trace(tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    summary = execute(small_plan()[:2], store, BuildOptions(workers=1, width=2, probes=False))
    assert summary.stored == 2
    for record in RunStore(store).records():
        assert set(record.scores) == {"lab-exam", "lab-truth", "lab-generation"}
        assert len(record.trace.steps.grad_norm) == 0 and not record.trace.cues
        assert len(record.trace.to_bytes()) < 20_000
    with pytest.raises(StoreError, match="has final scores and no probe"):
        execute(small_plan()[:2], store, BuildOptions(workers=1))
    assert execute(small_plan()[:2], store, BuildOptions(workers=1, probes=False)).present == 2


def test_runs_that_another_build_stored_meanwhile_are_not_made_again(tmp_path: Path) -> None:
    store, plan = tmp_path / "runs.sqlite", small_plan()[:2]
    options = BuildOptions(workers=1, width=1, runs_per_chunk=1)
    others: list[BuildSummary] = []
    told: list[BuildProgress] = []

    def build_the_rest_elsewhere(progress: BuildProgress) -> None:
        told.append(progress)
        if progress.runs_done == 1 and not others:
            others.append(execute(plan, store, options))

    summary = execute(plan, store, options, build_the_rest_elsewhere)
    (other,) = others
    assert (other.stored, other.present) == (1, 1) == (summary.stored, summary.present)
    assert (told[-1].runs_done, told[-1].steps_done, told[-1].steps_total) == (2, 10, 10)


def test_a_run_that_another_build_stored_while_it_was_made_is_none_of_this_build(
    tmp_path: Path, killed: tuple[Path, int]
) -> None:
    store, (task, *_) = tmp_path / "runs.sqlite", small_plan()
    plan = [TaskPlan(task.spec, task.recipe.replace(max_steps=400))]
    ((run_id,), (record, *_)) = (
        [run.run_id("lab-qwen2") for run in runs_of(plan)],
        RunStore(killed[0]).records(),
    )
    told: list[BuildProgress] = []

    def store_it(progress: BuildProgress) -> None:
        told.append(progress)
        if progress.steps_done:
            RunStore(store).add(replace(record, run_id=run_id))

    summary = execute(plan, store, BuildOptions(workers=1), store_it)
    assert summary == BuildSummary(stored=0, present=1) and RunStore(store).run_ids() == [run_id]
    assert (told[-1].runs_done, told[-1].steps_total) == (1, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_build_that_is_told_to_end_ends_its_workers_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tuneahead", "build", "--store", str(tmp_path / "runs.sqlite")]
    with (tmp_path / "stderr").open("w") as stderr:
        build = subprocess.Popen([*command, "--datasets", "1"], start_new_session=True, stderr=stderr)
    try:
        deadline = time.monotonic() + 120
        # The builder, multiprocessing's tracker and two workers, which are not ready yet.
        while time.monotonic() < deadline and _processes(build.pid) < 4:
            time.sleep(0.1)
        build.send_signal(signal.SIGTERM)
        assert build.wait(timeout=60) == 143
        assert _processes(build.pid) <= 1, "the tracker may be on its way out"
    finally:
        build.kill()
    said = (tmp_path / "stderr").read_text()
    assert "stopped with 0 runs in" in said and "the same command goes on from there" in said
    assert "Traceback" not in said and "leaked" not in said


def test_ctrl_c_ends_a_build_and_its_workers_say_nothing(tmp_path: Path) -> None:
    with started_build(tmp_path) as (build, store):
        assert len(RunStore(store)) == 1
        os.killpg(build.pid, signal.SIGINT)
        build.wait(timeout=60)
    said = (tmp_path / "stderr").read_text()
    assert said.count("Traceback") == 1 and "Process" not in said, "the builder's own alone"
