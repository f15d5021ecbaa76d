"""Predicting on a new base from the runs of a known one and few or none of its own.

Each system gets training rows of both bases and test rows of the new one, and tells them apart by
the rows' base. Source: method.md, "From one base and benchmark to another".
"""

from __future__ import annotations

import numpy as np

from tuneahead.predictor.baselines import Estimate, System, not_run, persistence
from tuneahead.predictor.fingerprint import table_fingerprint
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable
from tuneahead.predictor.tuning import DEFAULT

MIN_SCRATCH_ROWS = 8
_FITTED: dict[tuple[str, int], Predictor] = {}


def own_rows(train: FeatureTable, test: FeatureTable) -> tuple[FeatureTable, FeatureTable]:
    """The training rows of other bases, and those of the test rows' own base."""
    new = set(test.bases)
    own = np.array([base in new for base in train.bases], bool)
    return train.select(~own), train.select(own)


def scratch(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The predictor fitted to the new base's own rows alone."""
    _, own = own_rows(train, test)
    if len(own) < MIN_SCRATCH_ROWS:
        return not_run(test, f"{len(own)} runs of its own, it needs {MIN_SCRATCH_ROWS}")
    found = Predictor.fit(own, preset=DEFAULT, seed=seed).predict_table(test)
    return Estimate(found.score_pp, found.low_pp, found.high_pp)


def warm_start(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The predictor fitted to the rows of both bases; without own rows to the known base's alone."""
    home, own = own_rows(train, test)
    predictor = (
        Predictor.fit(own, preset=DEFAULT, seed=seed, helpers=home) if len(own) else _fitted(home, seed)
    )
    found = predictor.predict_table(test)
    return Estimate(found.score_pp, found.low_pp, found.high_pp)


def _fitted(home: FeatureTable, seed: int) -> Predictor:
    # One fit serves every number of own rows.
    key = (table_fingerprint(home), seed)
    if key not in _FITTED:
        _FITTED.clear()
        _FITTED[key] = Predictor.fit(home, preset=DEFAULT, seed=seed)
    return _FITTED[key]


TRANSFERS: tuple[System, ...] = (
    System("transfer_persistence", "Persistence", "rule", persistence),
    System("scratch", "From scratch", "ours", scratch),
    System("warm_start", "Warm start", "ours", warm_start),
)
