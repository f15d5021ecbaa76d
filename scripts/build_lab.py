"""Make the lab's meta-data set: python scripts/build_lab.py STORE [--datasets 220 --recipes 6 --hours 2].

Resumes where it stopped; the same plan gives the same runs. The tasks that errors are measured on get
three seeds, after all tasks have one (``--one-seed`` leaves the second and third out).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.plan import lab_plan, with_test_seeds
from tuneahead.build.printing import ProgressLines


def main() -> None:
    """Execute the plan and print a line a minute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--datasets", type=int, default=220)
    parser.add_argument("--recipes", type=int, default=6)
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
    plan = lab_plan(given.datasets, given.recipes)
    # Every data set comes once before any comes twice: an unfinished history is the wider for it.
    plan = [task for first in range(given.recipes) for task in plan[first :: given.recipes]]
    plan = plan if given.one_seed else with_test_seeds(plan)
    print(execute(plan, given.store, options, ProgressLines()), file=sys.stderr)


if __name__ == "__main__":
    main()
