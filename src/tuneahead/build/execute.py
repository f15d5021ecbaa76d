"""Making the runs of a plan, here or on a cluster; every finished run is stored at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tuneahead.build.builder import Builder, BuildProgress, steps_of
from tuneahead.build.crew import Crew, LocalCrew
from tuneahead.build.plan import DataSpec, RunPlan, TaskPlan, rows_of, runs_of
from tuneahead.build.worker import (
    lab_data,
    lab_examples,
    lab_settings,
    record_of,
    run_chunk,
)
from tuneahead.errors import StoreError
from tuneahead.history.store import RunStore

__all__ = [
    "BuildOptions",
    "BuildProgress",
    "BuildSummary",
    "chunk_runs",
    "execute",
    "lab_data",
    "lab_examples",
    "lab_settings",
    "record_of",
    "run_chunk",
]

RUNS_AHEAD = 160
"""Runs looked at together when chunks are formed, so that runs of one batch size are stacked."""
RUNS_PER_CHUNK = 20
"""Runs handed to a worker at a time; fewer in a build that is to end in time, or has many workers."""


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is executed. ``width`` runs are stacked in each of ``workers`` processes.

    ``cluster`` is the address of a Ray cluster whose machines they run on, as in
    :class:`~tuneahead.build.cluster.ClusterCrew`; empty: on this machine, without Ray.

    Without ``probes`` the runs leave their final scores and no trace: all that ProxyLM needs of a
    proxy, at less than half the cost.
    """

    base: str = "lab"
    workers: int = 2
    width: int = 8
    probes: bool = True
    stop_seconds: float | None = None
    """No new chunk is begun after this time; running ones are finished."""
    runs_per_chunk: int = RUNS_PER_CHUNK
    runs_ahead: int = RUNS_AHEAD
    cluster: str = ""


@dataclass(frozen=True)
class BuildSummary:
    """What a build did: runs stored now, runs that were there or came from others, runs given up and why."""

    stored: int
    present: int
    given_up: dict[str, str] = field(default_factory=dict)
    setbacks: tuple[str, ...] = ()


def execute(
    plan: Sequence[TaskPlan],
    store_path: Path,
    options: BuildOptions = BuildOptions(),
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> BuildSummary:
    """Make every run of ``plan`` that the store does not hold yet.

    Without a cluster a script calls this below ``if __name__ == "__main__":``, for its workers load it too.
    Can be stopped at any point, by kill -9 too, and called again: finished runs are never lost
    and never made twice. Two builds may share a store; runs that both have in work at one time are
    made twice and stored once. A worker that dies is replaced and its chunk tried once more, then run by
    run; a run that can't be made is given up with the reason and stops no other. Raises
    :class:`StoreError` when the store can't be used, :class:`ModelError` when the base can't and
    :class:`BuildError` when the cluster can't.
    """
    from tuneahead.training.models import resolve_base

    shown, _ = resolve_base(options.base)
    store = RunStore(store_path)
    store.require_writable()
    done = store.done_ids()
    runs = runs_of(plan)
    pending = [run for run in runs if run.run_id(shown) not in done]
    if options.probes:
        _require_probes(store, [run.run_id(shown) for run in runs if run.run_id(shown) in done])
    if not pending:
        return BuildSummary(0, len(runs))
    crew: Crew
    if options.cluster:
        from tuneahead.build.cluster import ClusterCrew

        crew = ClusterCrew(store, options)
    else:
        crew = LocalCrew(store, options)
    builder = Builder(crew, store, options, shown, on_progress)
    # So few at a time that every worker has some: a stack with more runs gains less than another processor.
    per_chunk = min(options.runs_per_chunk, max(1, len(pending) // crew.most_workers))
    chunks = chunk_runs(pending, per_chunk, options.runs_ahead)
    given_up = builder.run(chunks, len(runs) - len(pending), len(runs))
    # Counted in the store: a worker killed between storing a run and saying so was never heard.
    done = store.done_ids()
    stored = sum(run.run_id(shown) in done - builder.elsewhere for run in pending)
    present = len(runs) - len(pending) + len(builder.elsewhere)
    return BuildSummary(stored, present, given_up, tuple(builder.setbacks))


def _require_probes(store: RunStore, run_ids: Sequence[str]) -> None:
    """Raise :class:`StoreError` for a stored run that was made without a probe: it would pass for done."""
    for record in store.records(run_ids):
        if not len(record.trace.steps) and not record.failure:
            raise StoreError(
                f"run {record.run_id} in {store.path} has final scores and no probe",
                remedy="build into another store, or without probes too (BuildOptions(probes=False))",
            )


def chunk_runs(
    pending: Sequence[RunPlan], runs_per_chunk: int = RUNS_PER_CHUNK, runs_ahead: int = RUNS_AHEAD
) -> list[list[RunPlan]]:
    """Split into chunks of like runs, longest first, keeping roughly the plan's order.

    Stacked runs of one batch size and similar row lengths waste little on filling, and starting
    long runs first leaves short ones to fill the slots at a chunk's end.
    """
    chunks: list[list[RunPlan]] = []
    for start in range(0, len(pending), runs_ahead):
        window = pending[start : start + runs_ahead]
        for size in sorted({run.task.recipe.batch_size for run in window}):
            same = [run for run in window if run.task.recipe.batch_size == size]
            same.sort(key=lambda run: row_characters(run.task.spec))
            parts = max(1, round(len(same) / runs_per_chunk))
            for part in range(parts):
                chunk = same[part * len(same) // parts : (part + 1) * len(same) // parts]
                chunks.append(sorted(chunk, key=lambda run: -steps_of(run)))
    return chunks


@lru_cache(maxsize=4096)
def row_characters(spec: DataSpec) -> float:
    """Mean length of a data set's first rows, in characters."""
    rows = rows_of(spec)[:200]
    return sum(len(row.prompt) + len(row.answer) for row in rows) / max(1, len(rows))
