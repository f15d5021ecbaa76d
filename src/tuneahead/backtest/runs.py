"""Running every system on every fold, in one process or several."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import active_children

import numpy as np

from tuneahead.orphans import end_with_parent
from tuneahead.predictor.baselines import SYSTEMS, Estimate, System
from tuneahead.predictor.selection import TrailEntry
from tuneahead.predictor.splits import Fold
from tuneahead.predictor.table import FeatureTable, Floats
from tuneahead.predictor.transfer import TRANSFERS


@dataclass(frozen=True)
class Plan:
    """Systems to fit and score on each of some folds."""

    systems: tuple[System, ...]
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class Outcome:
    """Held-out predictions of one system, ``(n,)`` over all tasks in points; NaN where not held out."""

    system: System
    score_pp: Floats
    low_pp: Floats
    high_pp: Floats
    reason: str = ""
    trail: tuple[TrailEntry, ...] = ()
    """What the feature selection did in the first fold."""

    @property
    def has_interval(self) -> bool:
        """Whether the system gives intervals."""
        return bool(np.isfinite(self.low_pp).any())

    def select(self, rows: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Outcome:
        """The predictions of some rows, by index or mask."""
        index = np.asarray(rows)
        return replace(
            self, score_pp=self.score_pp[index], low_pp=self.low_pp[index], high_pp=self.high_pp[index]
        )


_SHARED: list[FeatureTable] = []


def _share(rows: FeatureTable) -> None:
    _SHARED[:] = [rows]


def _start_worker(rows: FeatureTable) -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    end_with_parent()
    # A process that was forked has what its parent does when it is told to end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Each process has a core to itself: more threads would only wait for each other.
    threadpool_limits(1)
    _share(rows)


@contextmanager
def _pool(workers: int, rows: FeatureTable) -> Iterator[ProcessPoolExecutor]:
    """Processes that have ``rows``; what breaks off the work ends them at once."""
    others = set(active_children())
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(rows,)) as pool:
        try:
            yield pool
        except BaseException:
            # Leaving the pool would wait until every job is done.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _one(job: tuple[str, Fold, int]) -> Estimate:
    # Workers get names: the systems themselves hold closures, which can't be sent.
    name, fold, seed = job
    rows = _SHARED[0]
    known = (*SYSTEMS, *TRANSFERS)
    system = next(system for system in known if system.name == name)
    # Further seeds are learnt from and not measured on.
    test = replace(rows.select(fold.test), repeats=None)
    return system.run(rows.select(fold.train).with_repeats(), test, seed)


def run_plans(
    rows: FeatureTable, plans: Mapping[str, Plan], *, seed: int, workers: int = 1
) -> dict[str, dict[str, Outcome]]:
    """Outcomes by plan, then by system name. ``workers`` processes share the jobs."""
    jobs = [
        (key, system, fold) for key, plan in plans.items() for system in plan.systems for fold in plan.folds
    ]
    work = [(system.name, fold, seed) for _, system, fold in jobs]
    if workers > 1:
        with _pool(workers, rows) as pool:
            estimates = list(pool.map(_one, work))
    else:
        _share(rows)
        estimates = [_one(job) for job in work]
    found: dict[str, dict[str, Outcome]] = {key: {} for key in plans}
    for (key, system, fold), estimate in zip(jobs, estimates, strict=True):
        score, low, high = (np.full(len(rows), np.nan) for _ in range(3))
        outcome = found[key].setdefault(system.name, Outcome(system, score, low, high))
        outcome.score_pp[fold.test] = estimate.score_pp
        if estimate.low_pp is not None and estimate.high_pp is not None:
            outcome.low_pp[fold.test], outcome.high_pp[fold.test] = estimate.low_pp, estimate.high_pp
        found[key][system.name] = replace(
            outcome, reason=outcome.reason or estimate.reason, trail=outcome.trail or estimate.trail
        )
    return found
