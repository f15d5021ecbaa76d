"""Make the lab's meta-data set: python scripts/build_lab.py STORE [--datasets 883 --tasks 1320 --hours 2].

Resumes where it stopped; the same plan gives the same runs. The tasks that errors are measured on get
three seeds, after all tasks have one (``--one-seed`` leaves the second and third out). With
``--tasks-of OTHER`` only tasks are made that the store OTHER holds runs of: their further seeds where
it is STORE itself, the proxies of its tasks with ``--base FOLDER --one-seed --scores-only``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import TaskPlan, lab_plan, recipe_rounds, task_id_of, with_test_seeds
from tuneahead.build.printing import ProgressLines
from tuneahead.history.store import RunStore


def planned(datasets: int, recipes: int, most: int | None, store: Path | None) -> Sequence[TaskPlan]:
    """The tasks to be made, at most ``most``, or those among all that ``store`` holds runs of.

    Every data set comes once before any comes twice: an unfinished history is the wider for it, and
    further data sets lower the error where further recipes on the same ones hardly do.
    """
    rounds = recipe_rounds(lab_plan(datasets, recipes), recipes)
    if store is None:
        return rounds[:most]
    held = {task_id_of(run_id) for run_id in RunStore(store).done_ids()}
    return [task for task in rounds if task.task_id in held]


def main() -> None:
    """Execute the plan and print a line a minute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--datasets", type=int, default=883)
    parser.add_argument("--recipes", type=int, default=6, help="recipes of a data set, at most")
    parser.add_argument("--tasks", type=int, default=1320, help="how many tasks, data set after data set")
    parser.add_argument("--tasks-of", type=Path, metavar="OTHER", help="the tasks of this store instead")
    parser.add_argument("--base", default="lab")
    parser.add_argument("--one-seed", action="store_true")
    parser.add_argument("--scores-only", action="store_true", help="no probes: for ProxyLM's proxy base")
    parser.add_argument("--width", type=int, default=8, help="runs stacked in one process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hours", type=float)
    given = parser.parse_args()
    options = BuildOptions(
        given.base,
        given.workers,
        given.width,
        probes=not given.scores_only,
        stop_seconds=given.hours and given.hours * 3600,
    )
    plan = planned(given.datasets, given.recipes, given.tasks, given.tasks_of)
    plan = plan if given.one_seed else with_test_seeds(plan)
    print(execute(plan, given.store, options, ProgressLines()), file=sys.stderr)


if __name__ == "__main__":
    main()
