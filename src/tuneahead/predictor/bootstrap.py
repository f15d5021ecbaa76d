"""Bootstrap over whole data sets: how far a figure would move with other data sets of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tuneahead.predictor.table import Floats, group_index

DRAWS = 1000
Span = tuple[float, float]
NO_SPAN: Span = (float("nan"), float("nan"))


def group_spans(
    sums: Floats, groups: Sequence[str], figures: Callable[[Floats], Floats], *, seed: int = 0
) -> list[Span]:
    """95 % bootstrap interval of each figure.

    ``sums`` is ``(n, k)``: per task the quantities whose totals the figures are made of; ``figures``
    turns totals ``(draws, k)`` into ``(draws, f)``. Data sets are drawn with replacement, whole, for
    tasks of one data set are alike. NaN bounds with fewer than two data sets or where no draw gives a figure.
    """
    index = group_index(groups)
    count = int(index.max()) + 1 if len(index) else 0
    totals = np.zeros((count, sums.shape[1]))
    np.add.at(totals, index, sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        if count < 2:
            return [NO_SPAN] * figures(totals.sum(0, keepdims=True)).shape[1]
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
        found = figures(drawn @ totals)
    return [_span(column) for column in found.T]


def _span(values: Floats) -> Span:
    known = values[np.isfinite(values)]
    if not len(known):
        return NO_SPAN
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
