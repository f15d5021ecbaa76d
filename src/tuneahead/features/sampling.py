"""What a random sample says of the whole data set: its size, and how far off an estimate may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.featurespec import Value
from tuneahead.features.vector import FeatureVector

Places = NDArray[np.int64]

GROUPS = 20
GROUP_SEED = 31
# Student's t with 19 degrees of freedom, 97.5 %.
_T = 2.093
_Z = 1.96


@dataclass(frozen=True)
class Sample:
    """A figure that was taken from ``rows`` random rows of ``total``.

    ``error`` is half the width of its 95 % confidence interval, in the figure's own unit; NaN
    where the figure describes the sample itself, such as a share of distinct words, and is no
    estimate of the same figure over all rows.
    """

    rows: int
    total: int
    error: float = math.nan


@dataclass(frozen=True)
class Measured:
    """Features by name (a value or the reason for none), and which of them come from a sample."""

    values: Mapping[str, Value]
    samples: Mapping[str, Sample]


@dataclass(frozen=True)
class StaticFeatures:
    """Static features, and for those that come from a sample its size and the resulting error."""

    features: FeatureVector
    samples: Mapping[str, Sample]


def mean_error(deviation: float, rows: int, total: int) -> float:
    """95 % error of a mean over ``rows`` of ``total`` rows whose values have this standard deviation."""
    return _Z * deviation / math.sqrt(rows) * _left(rows, total)


def share_error(share: float, rows: int, total: int) -> float:
    """95 % error of a share of ``rows`` of ``total`` rows; above 0 even where none or all have it.

    Source: Agresti and Coull 1998.
    """
    adjusted = (share * rows + 2) / (rows + 4)
    return _Z * math.sqrt(adjusted * (1 - adjusted) / (rows + 4)) * _left(rows, total)


def group_errors(
    measure: Callable[[Places], Mapping[str, Value]], names: Iterable[str], rows: int, total: int
) -> dict[str, float]:
    """95 % errors of estimates that ``measure`` makes from any subset of the sampled rows, by name.

    The sample is cut into 20 random groups; how much the estimates of the groups differ says how
    far off that of all of them may be. Fits means, ratios of means and quantiles. Source: random
    groups (Wolter 2007, chapter 2). NaN where a group has no value or all groups agree: what the
    sample has none of may still be somewhere in the data.
    """
    order = np.random.default_rng(GROUP_SEED).permutation(rows)
    parts = [measure(np.sort(part)) for part in np.array_split(order, min(GROUPS, rows))]
    errors = {}
    for name in names:
        values = [value for part in parts if isinstance(value := part[name], float)]
        spread = float(np.std(values, ddof=1)) if len(values) == GROUPS else math.nan
        errors[name] = math.nan if spread == 0 else _T * spread / math.sqrt(GROUPS) * _left(rows, total)
    return errors


def _left(rows: int, total: int) -> float:
    """Finite population correction: nothing is left to chance once every row is in the sample."""
    return math.sqrt(max(0.0, 1 - rows / total)) if total > 1 else 0.0
