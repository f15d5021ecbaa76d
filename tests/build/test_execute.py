"""Builds store every finished run, resume, and survive kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneahead.build.execute import BuildOptions, BuildProgress, execute
from tuneahead.build.plan import TaskPlan, lab_plan
from tuneahead.errors import StoreError
from tuneahead.history.store import RunStore


def small_plan() -> list[TaskPlan]:
    """Four very short runs on two small data sets."""
    plan = [t for t in lab_plan(12, 2) if t.spec.family in ("clean", "too_few")][:4]
    return [TaskPlan(replace(t.spec, n_rows=60), t.recipe.replace(max_steps=12, batch_size=4)) for t in plan]


def test_a_build_makes_each_run_once_and_resumes(tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    options = BuildOptions(workers=1, width=2)
    first = execute(small_plan()[:2], tmp_path / "runs.sqlite", options)
    assert (first.stored, first.present, first.given_up) == (2, 0, {})
    second = execute(small_plan(), tmp_path / "runs.sqlite", options, seen.append)
    assert (second.stored, second.present) == (2, 2)
    assert seen[-1].runs_done == seen[-1].runs_total == 4
    records = list(RunStore(tmp_path / "runs.sqlite").records())
    assert len(records) == 4
    for record in records:
        assert set(record.scores) == set(record.base_scores) == {"lab-exam", "lab-truth", "lab-generation"}
        assert 0 < record.scores["lab-exam"] < 100
        assert [cue.step for cue in record.trace.cues] == [0, 10]
        assert record.trace.cues[0].accuracy_pp == pytest.approx(record.base_scores["lab-exam"])
        assert len(record.subject_scores["lab-exam"]) > 15
        assert np.isfinite(record.trace.steps.grad_norm).all()


def test_a_run_made_again_gives_the_stored_trace(tmp_path: Path) -> None:
    plan = small_plan()[:1]
    traces = []
    for name in "ab":
        execute(plan, tmp_path / name, BuildOptions(workers=1, width=1))
        traces.append(next(RunStore(tmp_path / name).records()).trace)
    np.testing.assert_array_equal(traces[0].steps.loss_sum_nats, traces[1].steps.loss_sum_nats)
    np.testing.assert_array_equal(traces[0].cues[-1].margin_nats, traces[1].cues[-1].margin_nats)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_execute import small_plan
from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import TaskPlan
if __name__ == "__main__":
    steps = [12, 4000, 4000, 4000]
    plan = [TaskPlan(t.spec, t.recipe.replace(max_steps=n)) for t, n in zip(small_plan(), steps)]
    execute(plan, Path({store!r}), BuildOptions(workers=1, width=4))
"""


def test_kill_9_loses_no_finished_run_and_leaves_no_worker(tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    script = tmp_path / "build.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent), store=str(store)))
    build = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (store.exists() and len(RunStore(store))):
            time.sleep(0.5)
    finally:
        os.kill(build.pid, signal.SIGKILL)
        build.wait()
    assert len(RunStore(store)) == 1
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _alive(build.pid):
        time.sleep(0.5)
    assert not _alive(build.pid), "workers must end with their parent"
    summary = execute(small_plan()[:2], store, BuildOptions(workers=1, width=2))
    assert (summary.stored, summary.present) == (1, 1)


def _alive(session: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True).stdout
    return any(not line.startswith("Z") for line in listed.split())


def test_a_store_that_cannot_be_written_stops_the_build_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        execute(small_plan()[:1], tmp_path / "file" / "runs.sqlite", BuildOptions(workers=1))
