"""What the systems of a backtest learn from; its processes end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from predictor.conftest import build_table

from tuneahead.backtest import runs
from tuneahead.predictor.baselines import BASELINES
from tuneahead.predictor.splits import grouped_folds


def test_further_seeds_are_learnt_from_where_their_task_is_not_held_out() -> None:
    table = replace(build_table(12, 8), seeds=np.ones(12))
    again = replace(table, score_pp=table.score_pp + 30.0)
    (mean,) = (system for system in BASELINES if system.name == "mean")
    plan = {"grouped": runs.Plan((mean,), grouped_folds(table.data_ids, k=2))}
    found = runs.run_plans(replace(table, repeats=again), plan, seed=0)["grouped"]["mean"]
    for fold in plan["grouped"].folds:
        # Each training task counts with both of its seeds, and those that are held out with neither.
        expected = table.score_pp[fold.train].mean() + 15.0
        assert found.score_pp[fold.test].tolist() == pytest.approx([expected] * len(fold.test))


SCRIPT = """
import multiprocessing, time
from predictor.conftest import build_table
from tuneahead.backtest import runs
if __name__ == "__main__":
    with runs._pool(2, build_table(6, 8)) as pool:
        waiting = [pool.submit(time.sleep, 600) for _ in range(6)]
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(600)
"""


def test_work_that_is_broken_off_is_not_waited_for() -> None:
    others, began = set(multiprocessing.active_children()), time.monotonic()
    with pytest.raises(KeyboardInterrupt), runs._pool(2, build_table(6, 8)) as pool:
        for _ in range(6):
            pool.submit(time.sleep, 60)
        raise KeyboardInterrupt
    while set(multiprocessing.active_children()) - others:
        assert time.monotonic() - began < 50, "the work goes on"
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_processes_end_with_a_backtest_that_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stdout is not None
        workers = [int(word) for word in started.stdout.readline().split()]
        started.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(map(_alive, workers)):
        assert time.monotonic() < deadline, "a process outlives the backtest"
        time.sleep(0.2)


def _alive(process_id: int) -> bool:
    # One that has ended stays listed until somebody asks how.
    command = ["ps", "-o", "stat=", "-p", str(process_id)]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    return bool(listed.strip()) and not listed.startswith("Z")
