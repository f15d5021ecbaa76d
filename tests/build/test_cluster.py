"""Builds on a Ray cluster: runs come home as they end, and a lost worker loses none that has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuneahead.build import cluster as building
from tuneahead.build.builder import BuildProgress
from tuneahead.build.cluster import ClusterCrew, _connect, _MemoryStore
from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import TaskPlan, lab_plan, runs_of
from tuneahead.errors import BuildError, ModelError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.store import RunStore

ray = pytest.importorskip("ray")


def small_plan() -> list[TaskPlan]:
    """Three very short runs."""
    plan = [t for t in lab_plan(12, 2) if t.spec.family in ("clean", "too_few")][:3]
    return [TaskPlan(replace(t.spec, n_rows=60), t.recipe.replace(max_steps=10, batch_size=4)) for t in plan]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine with two processors, whose workers yield to nobody."""
    quiet = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, _system_config={"worker_niceness": 0}, **quiet)
    yield
    ray.shutdown()


def workers() -> list[int]:
    """Process ids of Ray's workers that make runs."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::_work_away" in line]


class WorkerKiller:
    """Kills the worker with SIGKILL when the build has its first run, once."""

    def __init__(self) -> None:
        self.killed = 0

    def __call__(self, progress: BuildProgress) -> None:
        if progress.runs_done == 1 and not self.killed:
            for worker in workers():
                os.kill(worker, signal.SIGKILL)
                self.killed += 1


def test_a_ray_that_is_there_and_cannot_be_loaded_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray.exceptions", None)
    with pytest.raises(BuildError, match=r"a cluster needs Ray: .*ray\.exceptions"):
        _connect("local")


def test_a_lost_worker_loses_no_finished_run(cluster: None, tmp_path: Path) -> None:
    store, killer = tmp_path / "runs.sqlite", WorkerKiller()
    plan = small_plan()
    options = BuildOptions(workers=1, width=1, cluster="auto")
    summary = execute(plan, store, options, killer)
    assert killer.killed == 1 and summary.stored == 3 and not summary.given_up
    (setback,) = summary.setbacks
    assert setback.startswith("the worker ended (WorkerCrashedError") and setback.endswith("begun anew: 2")
    records = list(RunStore(store).records())
    assert {record.run_id for record in records} == {run.run_id("lab-qwen2") for run in runs_of(plan)}
    assert all(record.trace.cues[-1].step == 10 for record in records)
    assert all(set(record.scores) == {"lab-exam", "lab-truth", "lab-generation"} for record in records)
    again = execute(plan, store, options)
    assert (again.stored, again.present) == (0, 3)


def test_a_base_that_the_machines_cannot_load_stops_the_build(cluster: None, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        execute(small_plan()[:1], tmp_path / "runs.sqlite", BuildOptions(str(base), 1, cluster="auto"))
    assert not workers()


def test_a_machine_with_another_version_stops_the_build(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = building.__version__
    monkeypatch.setattr(building, "__version__", "0.0.9")
    with pytest.raises(BuildError, match=f"has tuneahead {here}, and the builder 0.0.9") as caught:
        execute(small_plan()[:1], tmp_path / "runs.sqlite", BuildOptions(cluster="auto", workers=1))
    assert "same version" in caught.value.remedy


def test_a_run_that_came_home_and_was_not_taken_is_stored_in_the_end(cluster: None, tmp_path: Path) -> None:
    store, other = RunStore(tmp_path / "runs.sqlite"), RunStore(tmp_path / "made.sqlite")
    execute(small_plan()[:1], other.path, BuildOptions(workers=1))
    (record,) = other.records()
    crew = ClusterCrew(store, BuildOptions(cluster="auto"))
    crew.messages.box.put(("run", 0, (record, [])))
    crew.close()
    assert store.run_ids() == [record.run_id]


def test_a_desk_that_is_lost_is_an_error_that_says_what_to_do(cluster: None, tmp_path: Path) -> None:
    crew = ClusterCrew(RunStore(tmp_path / "runs.sqlite"), BuildOptions(cluster="auto"))
    assert crew.messages.empty()
    # Where a builder that is no part of the cluster leaves its desk.
    assert "node:__internal_head__" in ray.cluster_resources()
    ray.kill(crew._desk)
    with pytest.raises(BuildError, match="can't be reached any more") as caught:
        crew.messages.get(timeout=1)
    assert "start the build again" in caught.value.remedy
    crew.close()


def test_the_store_of_a_worker_on_the_cluster_needs_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = _MemoryStore()
    store.add_static("d1", "lab", "1", FeatureVector({"x": 1.5}))
    kept = store.static("d1", "lab", "1")
    assert kept is not None and kept["x"] == 1.5
    assert len(store) == 0 and not list(tmp_path.iterdir())


def test_an_address_from_outside_the_cluster_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(BuildError, match="needs Ray's client") as caught:
        _connect("ray://127.0.0.1:1")
    assert "ray[client]" in caught.value.remedy


def test_without_a_cluster_at_the_address_the_error_says_what_to_start(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(BuildError, match="no Ray cluster answers at '127.0.0.1:1'") as caught:
        execute(small_plan()[:1], tmp_path / "runs.sqlite", BuildOptions(cluster="127.0.0.1:1"))
    assert "ray start --head" in str(caught.value.remedy)
