"""Make one archived run again and compare: python scripts/rebuild_run.py [RUN] [--steps 50 | --full].

RUN is an identifier of meta/BASE (default: the first run). The probe is trained again from its stored
plan, or with --full the whole run, and set beside the stored trace. Made alone a run differs from one made
in a stack by rounding, which training amplifies; see docs/lab.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tuneahead.build.execute import lab_data, lab_settings
from tuneahead.build.plan import TaskPlan
from tuneahead.history.archive import read_archive
from tuneahead.history.runrecord import RunRecord
from tuneahead.lab.datasets import DatasetSpec
from tuneahead.lab.exam import lab_exam
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.models import load_base

META = Path(__file__).parents[1] / "meta"


def main() -> None:
    """Find the run, make it again, print what is the same and what is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="", help="identifier of the run")
    parser.add_argument("--base", default="lab-qwen2", help="whose archive")
    parser.add_argument("--steps", type=int, default=50, help="steps of the probe to make again")
    parser.add_argument("--full", action="store_true", help="the whole run and its final score")
    given = parser.parse_args()
    records = read_archive(META / given.base)
    record = next((r for r in records if not given.run or r.run_id == given.run), None)
    if record is None:
        sys.exit(f"the archive of {given.base} holds no run {given.run!r}")
    compare(record, given.base, None if given.full else given.steps)


def compare(record: RunRecord, base_name: str, steps: int | None) -> None:
    """Train ``steps`` steps of the run (None: all) and print stored and new figures side by side."""
    base = load_base("lab" if base_name == "lab-qwen2" else str(META / "bases" / base_name), device="cpu")
    task = TaskPlan(DatasetSpec.from_json(record.data_spec), record.recipe)
    data = lab_data(base, task)
    recipe = record.recipe if steps is None else record.recipe.probe(steps)
    settings = lab_settings()
    if steps is not None:
        cues = tuple(step for step in settings.cue_steps if step <= steps)
        flat = settings.flatness_at if settings.flatness_at and settings.flatness_at <= steps else None
        settings = replace(settings, cue_steps=cues, flatness_at=flat)
    job = Job(record.run_id, data, recipe, (lab_exam(),) if steps is None else ())
    made = next(iter(train_stack(base, [job], settings, width=1)))
    count = len(made.trace.steps.loss_sum_nats)
    stored = record.trace.truncate(count)
    print(f"{record.run_id}: {record.family}, {record.recipe.max_steps} steps, {count} compared")
    print(f"data      {'the same' if data.fingerprint == record.trace.info.data_fingerprint else 'OTHER'}")
    same = np.array_equal(made.trace.visits.row, stored.visits.row)
    print(f"row order {'the same' if same else 'OTHER'}")
    for name in ("loss_sum_nats", "grad_norm", "distance"):
        new, old = (getattr(trace.steps, name) for trace in (made.trace, stored))
        apart = np.abs(new - old) / np.maximum(np.abs(old), 1e-9)
        print(f"{name:<14} differs by {np.median(apart):.1e} (median), {apart.max():.1e} (largest), relative")
    for cue in made.trace.cues:
        before = next(c for c in stored.cues if c.step == cue.step)
        print(f"score at {cue.step:<4} {cue.accuracy_pp:6.2f}, stored {before.accuracy_pp:6.2f}")
    if steps is None:
        exam = lab_exam().name
        print(f"final score   {made.scores[exam]:6.2f}, stored {record.scores[exam]:6.2f}")


if __name__ == "__main__":
    main()
