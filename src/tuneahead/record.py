"""Keeping a judged run in the history, so that the next predictor learns from it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.assessment import Assessment
from tuneahead.errors import StoreError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.features.vector import FeatureVector

if TYPE_CHECKING:
    from tuneahead.history.store import RunStore

_OF_A_TRAINER = (UNKNOWN_SETTING, "other weights")
"""Begin the names, among what is absent, of what a Trainer does and a recipe has no field for."""


def run_id(assessment: Assessment) -> str:
    """Identifier of base, data set, recipe with seed, benchmark and probe length; 12 hex digits.

    Two files of one name are two benchmarks. Of a Trainer's run it also tells what a recipe can't express.
    """
    task, trace = assessment.task, assessment.trace
    steps = task.probe_steps if trace is None else len(trace.steps)
    run = f"{task.base_fingerprint} {assessment.data.fingerprint} {assessment.recipe.fingerprint}"
    run += _beside_recipe(assessment)
    # The base's score and the cues are of one benchmark, and a longer probe is another measurement.
    items = f" {task.benchmark_fingerprint}" if task.benchmark_fingerprint else ""
    text = f"{run} {task.benchmark} {steps}{items}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _beside_recipe(assessment: Assessment) -> str:
    """What tells a Trainer's run from another of the same recipe; empty where nothing does."""
    trace = assessment.trace
    if trace is None or assessment.data.format != "trainer":
        return ""
    told = [f"{name}: {why}" for name, why in sorted(trace.absent) if name.startswith(_OF_A_TRAINER)]
    steps = trace.info.total_steps
    if steps != assessment.recipe.total_steps(trace.info.train_rows):
        # As where the last batch of an epoch is dropped.
        told.append(f"{steps} steps")
    return "".join(f" {one}" for one in told)


def record_run(assessment: Assessment, store: RunStore | str | Path) -> str:
    """Store a probed run with its static features, and its score if it was measured; returns its id.

    ``store`` is a file or an open one. A score measured elsewhere is added later with its ``record_score``.
    Raises :class:`StoreError` for a task that preflight stopped, which has no trace.
    """
    from tuneahead.features.catalogue import CATALOGUE_VERSION, names_of
    from tuneahead.history.runrecord import RunRecord
    from tuneahead.history.store import RunStore
    from tuneahead.history.tables import static_version

    if assessment.trace is None:
        raise StoreError(
            "a task without a probe can't be stored: " + assessment.verdict.reason,
            remedy="mend what preflight found, then assess again",
        )
    if not isinstance(store, RunStore):
        store = RunStore(store)
    task, recipe, name = assessment.task, assessment.recipe, run_id(assessment)
    info = replace(assessment.trace.info, benchmark_fingerprint=task.benchmark_fingerprint)
    one_seed = f"{assessment.data.fingerprint} {recipe.replace(seed=0).fingerprint}"
    one_seed += _beside_recipe(assessment)
    store.add(
        RunRecord(
            run_id=name,
            task_id=hashlib.sha256(one_seed.encode()).hexdigest()[:12],
            data_id=assessment.data.fingerprint,
            family=assessment.data.format,
            base=task.base,
            seed=recipe.seed,
            recipe=recipe,
            trace=replace(assessment.trace, info=info),
            base_scores={task.benchmark: assessment.counts_from_pp},
            seconds=assessment.costs.probe_seconds,
            steps=len(assessment.trace.steps),
            failure=assessment.trace.info.failure,
            origin="trainer" if assessment.data.format == "trainer" else "assess",
        )
    )
    static = names_of("static")
    vector = FeatureVector(
        {key: value for key, value in assessment.features.values.items() if key in static},
        {key: why for key, why in assessment.features.absent.items() if key in static},
    )
    named, exact = (static_version(task.benchmark, items) for items in ("", task.benchmark_fingerprint))
    for version in (CATALOGUE_VERSION, named, exact):
        store.add_static(assessment.data.fingerprint, task.base, version, vector)
    # A full run that failed has no score, and its probe is worth keeping all the same.
    if math.isfinite(assessment.final_pp):
        store.record_score(name, task.benchmark, assessment.final_pp)
    return name
