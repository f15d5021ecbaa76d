"""A predictor of other bases' runs, corrected by the few runs of a new base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tuneahead.errors import PredictorError
from tuneahead.predictor.domain import Domain
from tuneahead.predictor.explain import weighted_mean
from tuneahead.predictor.fitting import learnt_keys, seed_weights
from tuneahead.predictor.intervals import Calibration
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable, Floats, group_index

SHRINKAGE = 3.0
"""The correction is drawn towards nothing as if this many data sets had shown no deviation."""


def adapt(predictor: Predictor, own: FeatureTable) -> Predictor:
    """``predictor`` for the base and benchmark of ``own``, whose scored rows correct it.

    One number is learned, the shift of this base's scores against the prediction: the mean over
    data sets, shrunk. The interval comes from the own rows alone, each judged by a shift that its
    data set had no part in; with fewer than nine data sets a 90 % interval is the whole scale. Rows of
    data sets that ``predictor`` was fitted to on the same base are left out: its errors there are no
    errors of forecasts. The domain grows by the own rows. What comes back is no predictor for the bases it
    was fitted on. Raises :class:`PredictorError` when no row has a score, all have been learnt from, or they
    were probed for another number of steps.
    Source: method.md, "From one base and benchmark to another".
    """
    rows = own.scored().with_repeats()
    if not len(rows):
        raise PredictorError("no run of the new base has a score", remedy="finish one full run first")
    if rows.probe_steps != predictor.origin.probe_steps:
        raise PredictorError(
            f"the predictor knows probes of {predictor.origin.probe_steps} steps, the runs were probed for "
            f"{rows.probe_steps}",
            remedy="derive the table from probes of the predictor's length",
        )
    # Before the limits: the shift is added there, and what a limit cuts off says nothing of the base.
    raw = replace(predictor, shift_pp=0.0).unlimited_pp(rows)
    known = np.isfinite(raw)
    rows, raw = rows.select(known), raw[known]
    if not len(rows):
        raise PredictorError(
            f"no run of the new base has a {predictor.anchor} score",
            remedy="score the cue items in the probe",
        )
    fresh = [key not in predictor.origin.learnt for key in learnt_keys(rows)]
    if not any(fresh):
        raise PredictorError(
            "the predictor was fitted to all of these runs, so they can't correct it",
            remedy="fit anew to all runs (leave --start out)",
        )
    rows, raw = rows.select(np.array(fresh)), raw[fresh]
    index = group_index(rows.data_ids)
    means = np.bincount(index, weights=rows.score_pp - raw) / np.bincount(index)
    total, count = float(means.sum()), len(means)
    without = (total - means) / (count - 1 + SHRINKAGE)
    judged = np.clip(raw + without[index], 0.0, 100.0)
    origin = replace(
        predictor.origin,
        bases=tuple(sorted(set(rows.bases))),
        benchmarks=tuple(sorted(set(rows.benchmarks))),
        benchmark_fingerprints=tuple(sorted(set(rows.benchmark_fingerprints) - {""})),
        own_rows=len(set(rows.task_ids)),
    )
    return replace(
        predictor,
        shift_pp=total / (count + SHRINKAGE),
        calibration=Calibration(np.abs(rows.score_pp - judged), rows.data_ids).of_places(rows.places),
        domain=_extended(predictor.domain, predictor.domain_inputs(rows)),
        # Without a score of guessing it learnt shares of the whole scale, and so the shift is counted.
        chance_pp=predictor.chance_pp
        if np.isnan(predictor.chance_pp)
        else weighted_mean(rows.chance_pp, seed_weights(rows.seeds)),
        origin=origin,
    )


def _extended(domain: Domain, features: Floats) -> Domain:
    # Of rows that an earlier correction added: a second copy would count as another neighbour.
    held = {tuple(point) for point in domain.points.tolist()}
    points = domain.standardised(features)
    fresh = np.array([tuple(point) not in held for point in points.tolist()], bool)
    finite = np.where(np.isfinite(features), features, np.nan)
    filled = np.where(np.isnan(finite).all(0), domain.centre, finite)
    return replace(
        domain,
        low=np.fmin(domain.low, np.nanmin(filled, 0)),
        high=np.fmax(domain.high, np.nanmax(filled, 0)),
        always=domain.always * np.isfinite(features).all(0),
        points=np.vstack([domain.points, points[fresh]]),
    )
