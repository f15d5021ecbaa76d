"""One run as it is kept: what was trained, its trace, its scores; and their cells in the history's tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuneahead.errors import TraceError
from tuneahead.recipe import Recipe, make_recipe
from tuneahead.trace import ProbeTrace, trace_from_bytes

COLUMNS = (
    "run_id, task_id, data_id, family, base, seed, recipe, trace, data_spec, seconds, steps, failure, "
    "origin, created"
)
_UNKNOWN_SECONDS = -1.0
"""Stored for an unknown length: SQLite turns NaN into NULL, which the column refuses."""


@dataclass(frozen=True)
class RunRecord:
    """One run: what was trained, its trace, and its scores in percentage points.

    ``base_scores`` are those of the plain base on the same benchmarks. ``data_spec`` is JSON from
    which generated data can be made again, or empty. ``origin`` says where the run was made
    (``lab``, ``assess``, ``trainer``, ``import``).
    """

    run_id: str
    task_id: str
    data_id: str
    family: str
    base: str
    seed: int
    recipe: Recipe
    trace: ProbeTrace
    scores: Mapping[str, float] = field(default_factory=dict)
    base_scores: Mapping[str, float] = field(default_factory=dict)
    subject_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    data_spec: str = ""
    seconds: float = float("nan")
    steps: int = 0
    failure: str = ""
    origin: str = "lab"
    created: str = ""


def run_row(record: RunRecord, created: str) -> tuple[object, ...]:
    """The run's cells in the order of ``COLUMNS``."""
    return (
        record.run_id, record.task_id, record.data_id, record.family, record.base, record.seed,
        record.recipe.model_dump_json(), record.trace.to_bytes(), record.data_spec,
        record.seconds if math.isfinite(record.seconds) else _UNKNOWN_SECONDS,
        record.steps, record.failure, record.origin, created,
    )  # fmt: skip


def score_rows(record: RunRecord, created: str) -> list[tuple[str, str, str, str, float, str]]:
    """The cells of its scores: run, benchmark, subject, kind, points, when; those not finite are left out."""
    rows = []
    for kind, scores in (("final", record.scores), ("base", record.base_scores)):
        rows += [
            (record.run_id, name, "", kind, float(pp), created)
            for name, pp in scores.items()
            if math.isfinite(pp)
        ]
    for name, subjects in record.subject_scores.items():
        rows += [
            (record.run_id, name, subject, "final", float(pp), created)
            for subject, pp in subjects.items()
            if math.isfinite(pp)
        ]
    return rows


def run_record(row: Sequence[object], scores: Sequence[tuple[str, str, str, float]]) -> RunRecord:
    """A run from its cells and those of its scores: benchmark, subject, kind, points.

    Raises :class:`TraceError`, :class:`RecipeError` or ValueError where a cell can't be read.
    """
    values = dict(zip(COLUMNS.replace(" ", "").split(","), row, strict=True))
    recipe = make_recipe(json.loads(str(values["recipe"])))
    blob = values["trace"]
    if not isinstance(blob, bytes):
        raise TraceError(f"the trace is of type {type(blob).__name__}, not bytes")
    seconds = float(str(values["seconds"]))
    subjects: dict[str, dict[str, float]] = {}
    for name, subject, kind, pp in scores:
        if subject and kind == "final":
            subjects.setdefault(name, {})[subject] = float(pp)
    return RunRecord(
        run_id=str(values["run_id"]),
        task_id=str(values["task_id"]),
        data_id=str(values["data_id"]),
        family=str(values["family"]),
        base=str(values["base"]),
        seed=int(str(values["seed"])),
        recipe=recipe,
        trace=trace_from_bytes(blob),
        scores={name: float(pp) for name, subject, kind, pp in scores if kind == "final" and not subject},
        base_scores={name: float(pp) for name, subject, kind, pp in scores if kind == "base"},
        subject_scores=subjects,
        data_spec=str(values["data_spec"]),
        seconds=seconds if seconds != _UNKNOWN_SECONDS else float("nan"),
        steps=int(str(values["steps"])),
        failure=str(values["failure"]),
        origin=str(values["origin"]),
        created=str(values["created"]),
    )
