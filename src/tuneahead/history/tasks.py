"""Which stored runs make a task that can be learnt from, and why others don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.counts import counted
from tuneahead.errors import StoreError
from tuneahead.history.loggedrun import GAPPED_STEPS
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore

_PROBED = ("assess", "trainer")
"""Origins of runs that a probe of ours recorded for as many steps as it was asked for."""


@dataclass(frozen=True)
class Task:
    """All stored seeds of one task on one base, first seed first."""

    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """The run whose probe is looked at: a user has one probe, not the mean of several."""
        return self.records[0]


def tasks_of(store: RunStore, benchmark: str, probe_steps: int = 0) -> list[Task]:
    """Tasks with at least one score on ``benchmark``, in the order they were stored.

    Left out are probes of ours and logs of every step that hold fewer than ``probe_steps`` steps of a run
    that has more, those that were asked ``benchmark`` at other steps only, and runs that were over when
    the probe was: nothing was left to foretell. Raises :class:`StoreError` where they were asked different
    benchmarks of that name.
    """
    grouped: dict[tuple[str, str], list[RunRecord]] = {}
    for record in store.records():
        if benchmark not in record.scores or record.failure or _tells_nothing(record, probe_steps):
            continue
        asked = _steps_asked(record, benchmark)
        if not (probe_steps and asked) or probe_steps in asked:
            grouped.setdefault((record.base, record.task_id), []).append(record)
    _require_one_benchmark(store, [record for own in grouped.values() for record in own], benchmark)
    return [Task(_seeds(records, benchmark)) for records in grouped.values()]


def fingerprint_of(record: RunRecord, benchmark: str) -> str:
    """Which of the benchmarks of that name a run was asked; empty where it is not known."""
    info = record.trace.info
    return info.benchmark_fingerprint if info.benchmark == benchmark else ""


def _tells_nothing(record: RunRecord, probe_steps: int) -> bool:
    if not probe_steps:
        return False
    recorded = len(record.trace.steps)
    is_told = record.origin in _PROBED or recorded == GAPPED_STEPS or _has_every_step(record)
    return (is_told and recorded < probe_steps) or record.trace.info.total_steps <= probe_steps


def _has_every_step(record: RunRecord) -> bool:
    """Whether an imported log holds a measurement of each of its steps.

    It then ends where training did or where it stood at the import, while features of one with gaps are
    absent anyway.
    """
    columns = record.trace.steps
    measured = np.isfinite(columns.loss_sum_nats) | np.isfinite(columns.grad_norm)
    return record.origin == "import" and bool(measured.any())


def _steps_asked(record: RunRecord, benchmark: str) -> set[int]:
    """Steps of training after which the run was asked the benchmark's items; of a log, none."""
    if record.trace.info.benchmark != benchmark:
        return set()
    return {cue.step for cue in record.trace.cues if cue.step > 0 and len(cue.margin_nats)}


def _seeds(records: Sequence[RunRecord], benchmark: str) -> tuple[RunRecord, ...]:
    """First seed first; a run that was probed several times counts once, by a probe of this benchmark.

    By the latest of these: where the weights behind a base's name have changed, the new ones are meant.
    """

    def of_this(record: RunRecord) -> bool:
        return record.trace.info.benchmark == benchmark

    kept: dict[int | str, RunRecord] = {}
    for record in sorted(records, key=of_this):
        # Two logs with equal settings and no seed are two runs; two probes with one seed are one.
        kept[record.seed if record.origin in _PROBED else record.run_id] = record
    return tuple(sorted(kept.values(), key=lambda r: (r.seed, not of_this(r))))


def _require_one_benchmark(store: RunStore, records: Sequence[RunRecord], benchmark: str) -> None:
    asked: dict[str, list[str]] = {}
    for record in records:
        asked.setdefault(fingerprint_of(record, benchmark), []).append(record.run_id)
    asked.pop("", None)
    if len(asked) > 1:
        shown = "; ".join(
            f"{name} {counted(len(runs), 'run')} ({', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''})"
            for name, runs in asked.items()
        )
        raise StoreError(
            f"the runs in {store.path} with a score on {benchmark!r} were asked {len(asked)} benchmarks of "
            f"that name, whose items or metric differ: {shown}",
            remedy="keep the runs of each in a store of its own, or give each file a name of its own and "
            f"assess again; what should not be there is deleted with: {store.command('forget RUN')}",
        )


def no_probe(store: RunStore, tasks: Sequence[Task], benchmark: str, probe_steps: int) -> StoreError:
    """Why none of the tasks, which have scores, has a probe of ``probe_steps`` steps."""
    asked = [_steps_asked(task.first, benchmark) for task in tasks]
    ends = min(task.first.trace.info.total_steps for task in tasks)
    shared = sorted(step for step in set.intersection(*asked) if step < ends) if all(asked) else []
    lengths = f"all were asked at {', '.join(map(str, shared))}" if shared else "such as 50"
    return StoreError(
        f"every run in {store.path} with a score on {benchmark!r} was probed for fewer than {probe_steps} "
        f"steps, not asked the benchmark at step {probe_steps}, or over by then",
        remedy=f"assess with --probe-steps {probe_steps}, or fit with --probe-steps of another length "
        f"({lengths})",
    )
