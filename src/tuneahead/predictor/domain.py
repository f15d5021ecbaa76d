"""Where a predictor may be trusted: the region its training rows cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.predictor import fields
from tuneahead.predictor.table import Floats, Mask, Rows, group_index

MARGIN = 0.25
"""A feature may leave the training range by this share of the range."""
ROUNDING = 1e-6
SCORE_SLACK_PP = 1.0
"""Scores may always leave it by so much: on another device or in another precision some answers differ."""
_NO_VOTE = ("base_level", "base_score_headroom", "window_log2")
"""Features that have no part in the domain.

The first two say what ``base_score_pp`` says already: three votes for one fact would put a task outside by
themselves. A window that cuts nothing changes nothing: the lengths of the rows are features of their own,
and preflight tells of answers that are cut.
"""
NEIGHBOURS = 5
QUANTILE = 0.99
_MOST_AT_ONCE = 2_000
"""Rows whose distances to all points are held at a time."""
_FARTHEST = 8.0
"""Standardised coordinates are cut here, so that one wild feature does not decide the distance alone."""


@dataclass(frozen=True)
class Domain:
    """Ranges and neighbourhood of the training rows over ``d`` features; all learned from those rows.

    A row is outside when more features leave their widened range than ``most_outside``, or when its
    mean distance to the five nearest training rows exceeds ``far``. Both bounds are what 99 % of the
    training rows would pass when judged by the other data sets, that on the distance with a quarter to spare.
    """

    names: tuple[str, ...]
    low: Floats
    high: Floats
    always: Floats
    """1 where every training row had the feature: its absence is then unusual too."""
    centre: Floats
    scale: Floats
    points: Floats
    most_outside: float
    far: float

    @property
    def typical(self) -> Mapping[str, float]:
        """The training rows' median by feature, NaN where none had it."""
        known = np.where(np.isfinite(self.low), self.centre, np.nan)
        return dict(zip(self.names, known.tolist(), strict=True))

    def outside(self, features: Floats) -> Mask:
        """Which features leave their range, ``(n, d)``."""
        slack = _slack(self.names, self.low, self.high)
        absent = ~np.isfinite(features)
        beyond = (features < self.low - slack) | (features > self.high + slack)
        return np.where(absent, self.always > 0, beyond)

    def distance(self, features: Floats) -> Floats:
        """Mean distance to the nearest training rows, ``(n,)``, per square root of features."""
        return _nearest(self.standardised(features), self.points, None)

    def standardised(self, features: Floats) -> Floats:
        """Coordinates in which distances are taken, ``(n, d)``."""
        return _standardised(features, self.centre, self.scale)

    def contains(self, features: Floats, distance: Floats | None = None) -> Mask:
        """Whether each row lies in the region, ``(n,)``; ``distance`` is theirs, where it is known."""
        away = self.distance(features) if distance is None else distance
        few = self.outside(features).sum(1) <= self.most_outside
        return np.asarray(few & (away <= self.far), bool)

    def to_record(self) -> dict[str, object]:
        """Everything as JSON values; points are rounded to four digits."""
        record: dict[str, object] = {
            "names": list(self.names),
            "most_outside": self.most_outside,
            "far": self.far,
        }
        for name in ("low", "high", "always", "centre", "scale"):
            record[name] = getattr(self, name).tolist()
        record["points"] = self.points.tolist()
        return record


def learn_domain(names: Sequence[str], features: Floats, groups: Sequence[str]) -> tuple[Domain, Floats]:
    """The region of training ``features`` ``(n, d)``, whose rows belong to data sets ``groups``.

    And each row's mean distance to the nearest rows of other data sets, ``(n,)``, 0 where there are none.
    Columns without a vote have no part in it: see the names of what is returned.
    """
    kept = [i for i, name in enumerate(names) if name not in _NO_VOTE]
    names, features = [names[i] for i in kept], features[:, kept]
    finite = np.where(np.isfinite(features), features, np.nan)
    empty = np.isnan(finite).all(0)
    finite[:, empty] = 0.0
    low, high = np.nanmin(finite, 0), np.nanmax(finite, 0)
    # What no training row had says nothing of any value: no range, and no part in distances.
    low, high = np.where(empty, -np.inf, low), np.where(empty, np.inf, high)
    centre = np.nanmedian(finite, 0)
    spread = np.nanquantile(finite, 0.9, 0) - np.nanquantile(finite, 0.1, 0)
    spread = np.where(spread > 0, spread / 2.56, np.where(high > low, high - low, 1.0))  # inf if empty
    # Rounded as they are stored, so that a domain read back is the same one.
    points = np.round(_standardised(features, centre, spread), 4)
    index = group_index(groups)
    far = most = np.inf
    distances = _nearest(points, points, index)
    if index.max(initial=0) > 0:
        far = float(np.quantile(distances, QUANTILE)) * 1.25
        most = float(np.quantile(_outside_counts(names, finite, index), QUANTILE))
    always = (~np.isnan(finite).any(0) & ~empty).astype(float)
    domain = Domain(
        names=tuple(names),
        low=low,
        high=high,
        always=always,
        centre=centre,
        scale=spread,
        points=points,
        most_outside=max(1.0, most),
        far=far,
    )
    return domain, distances


def _slack(names: Sequence[str], low: Floats, high: Floats) -> Floats:
    # Stored tables round to 32 bits: a constant feature must not leave its range by the rounding.
    slack = MARGIN * (high - low) + ROUNDING * np.maximum(np.abs(low), np.abs(high)) + 1e-9
    is_score = np.array([name.endswith("_pp") for name in names], bool)
    return np.where(is_score, np.maximum(slack, SCORE_SLACK_PP), slack)


def _standardised(features: Floats, centre: Floats, scale: Floats) -> Floats:
    filled = np.where(np.isfinite(features), features, centre)
    return np.asarray(np.clip((filled - centre) / scale, -_FARTHEST, _FARTHEST), float)


def _nearest(queries: Floats, points: Floats, groups: Rows | None) -> Floats:
    """Mean distance of each query to its nearest points, ``(n,)``; to those of other ``groups`` if given."""
    found = np.empty(len(queries))
    for at in range(0, len(queries), _MOST_AT_ONCE):
        part = slice(at, at + _MOST_AT_ONCE)
        same = None if groups is None else groups[part, None] == groups
        found[part] = _nearest_of(queries[part], points, same)
    return found


def _nearest_of(queries: Floats, points: Floats, same: Mask | None) -> Floats:
    squares = (queries**2).sum(1)[:, None] + (points**2).sum(1) - 2.0 * queries @ points.T
    distances = np.sqrt(np.maximum(squares, 0.0) / max(1, points.shape[1]))
    if same is not None:
        distances[same] = np.inf
    k = min(NEIGHBOURS, points.shape[0])
    nearest = np.partition(distances, k - 1, axis=1)[:, :k]
    finite = np.isfinite(nearest)
    return np.asarray(np.where(finite, nearest, 0.0).sum(1) / np.maximum(finite.sum(1), 1), float)


def _outside_counts(names: Sequence[str], finite: Floats, index: Rows) -> Floats:
    """How many features of each row leave the range of the other groups' rows, ``(n,)``."""
    absent = np.isnan(finite)
    low = _least_of_others(np.where(absent, np.inf, finite), index)
    high = -_least_of_others(np.where(absent, np.inf, -finite), index)
    empty = np.isinf(low)
    low, high = np.where(empty, 0.0, low), np.where(empty, 0.0, high)
    slack = _slack(names, low, high)
    beyond = ((finite < low - slack) | (finite > high + slack)) & ~empty
    return np.asarray(beyond.sum(1), float)


def _least_of_others(values: Floats, index: Rows) -> Floats:
    """For each entry of ``values`` ``(n, d)`` the least of its column in rows of other groups, ``(n, d)``."""
    least = np.full((int(index.max()) + 1, values.shape[1]), np.inf)
    np.minimum.at(least, index, values)
    owner = least.argmin(0)
    first = least.min(0)
    least[owner, np.arange(len(owner))] = np.inf
    return np.asarray(np.where(index[:, None] == owner, least.min(0), first), float)


def domain_from_record(record: Mapping[str, object]) -> Domain:
    """Restore what :meth:`Domain.to_record` gave; raises as :mod:`tuneahead.predictor.fields` otherwise."""
    names = fields.texts(record["names"], "names of the domain")
    # A feature that no training row had has no range: its bounds and its scale are infinite.
    low, high, scale = (
        fields.floats(record[name], name, len(names), infinite=True) for name in ("low", "high", "scale")
    )
    always, centre = (fields.floats(record[name], name, len(names)) for name in ("always", "centre"))
    points = fields.floats(record["points"], "points", None, len(names))
    if not len(points) or not (scale > 0).all():
        raise ValueError("the domain has no points, or a scale that is not above 0")
    most, far = (fields.number(record[name], name, infinite=True) for name in ("most_outside", "far"))
    return Domain(names, low, high, always, centre, scale, points, most, far)
