"""Which of several recipes on one data set ends best, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneahead.predictor.table import Floats, Mask, group_index

LEAST_DIFFERENCES = 20
"""Fewer recipes beyond each data set's first say too little of how far their errors lie apart."""
_QUANTILES = 512


def sd_between_recipes(residual_pp: Floats, data: Sequence[str], tasks: Sequence[str]) -> float:
    """Standard deviation of forecast errors within a data set, in points; NaN with under 20 differences.

    ``residual_pp`` is ``(n,)``, with the rows' data sets and tasks: rows of one task, its seeds, count
    once. What all recipes of a data set have in common does not bear on which of them is best.
    """
    known = np.flatnonzero(np.isfinite(residual_pp)).tolist()
    pairs = [(data[i], tasks[i]) for i in known]
    task = group_index([" ".join(pair) for pair in pairs])
    counts = np.bincount(task)
    mean = np.bincount(task, weights=residual_pp[known]) / np.maximum(counts, 1)
    first = np.unique(task, return_index=True)[1].tolist()
    group = group_index([pairs[i][0] for i in first])
    sizes = np.bincount(group)
    differences = len(mean) - len(sizes)
    if differences < LEAST_DIFFERENCES:
        return float("nan")
    centre = np.bincount(group, weights=mean) / np.maximum(sizes, 1)
    return float(np.sqrt(np.sum((mean - centre[group]) ** 2) / differences))


def chances_of_best(score_pp: Floats, sd_pp: Floats) -> Floats:
    """Probability that each of ``n`` recipes ends best, ``(n,)``; they sum to 1.

    ``score_pp`` are forecasts and ``sd_pp`` the standard deviations of their errors, normal and
    independent; 0 for a score that is known. Found by the midpoint rule over each one's quantiles.
    """
    from scipy.special import ndtri

    steps = ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    won = np.array([_wins(i, score_pp, sd_pp, steps) for i in range(len(score_pp))])
    return np.asarray(won / won.sum(), float)


def _wins(place: int, score_pp: Floats, sd_pp: Floats, steps: Floats) -> float:
    others = np.arange(len(score_pp)) != place
    at = score_pp[place] + sd_pp[place] * steps
    below = np.array([_share_below(at, *pair) for pair in zip(score_pp[others], sd_pp[others], strict=True)])
    return float(below.prod(0).mean()) if len(below) else 1.0


def _share_below(at: Floats, score_pp: float, sd_pp: float) -> Floats:
    from scipy.special import ndtr

    if sd_pp > 0:
        return np.asarray(ndtr((at - score_pp) / sd_pp), float)
    # Equal scores share the win.
    return np.asarray((np.sign(at - score_pp) + 1) / 2, float)


def sd_of_own_or_all(residual_pp: Floats, data: Sequence[str], tasks: Sequence[str], own: Mask) -> float:
    """:func:`sd_between_recipes` of the rows ``own`` where they suffice, else of all rows."""
    rows = np.flatnonzero(own).tolist()
    found = sd_between_recipes(residual_pp[rows], [data[i] for i in rows], [tasks[i] for i in rows])
    return found if np.isfinite(found) else sd_between_recipes(residual_pp, data, tasks)
