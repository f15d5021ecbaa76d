"""Curves that baselines extrapolate: scores over steps, scores over data size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tuneahead.predictor.table import CUE_PREFIX, DATA_ROWS, FINAL_STEPS, FeatureTable, Floats, Rows

Shape = Callable[[Floats], Floats]


def _exponential(steps: Floats, scale: float) -> Floats:
    return np.exp(-steps / scale)


def _power(steps: Floats, scale: float, power: float) -> Floats:
    return np.asarray((1.0 + steps / scale) ** -power, float)


def saturating_shapes() -> list[Shape]:
    """Decays from 1 to 0 over the steps: exponentials and powers of several time scales."""
    scales = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
    shapes: list[Shape] = [partial(_exponential, scale=scale) for scale in scales]
    return shapes + [partial(_power, scale=scale, power=power) for scale in scales for power in (0.5, 1.0)]


def extrapolate(table: FeatureTable, steps: Floats, shape: Shape) -> Floats:
    """Score at each row's last step, ``(n,)`` points: ``a + b * shape(step)`` through its cue scores.

    NaN for rows with fewer than two cue scores or an unknown number of steps.
    """
    scores = np.column_stack([table.extra(f"{CUE_PREFIX}{int(step)}") for step in steps])
    final = table.extra(FINAL_STEPS)
    decay, at_end = shape(steps), shape(final)
    known = np.isfinite(scores)
    count = known.sum(1)
    safe = np.maximum(count, 1)
    filled = np.where(known, scores, 0.0)
    mean_decay = (known * decay).sum(1) / safe
    mean_score = filled.sum(1) / safe
    deviation = (decay - mean_decay[:, None]) * known
    spread = (deviation**2).sum(1)
    slope = (deviation * filled).sum(1) / np.where(spread > 0, spread, 1.0)
    found = np.clip(mean_score + slope * (at_end - mean_decay), 0.0, 100.0)
    return np.where((count >= 2) & np.isfinite(final), found, np.nan)


class SizeLaw:
    """``a - b / (d0 + rows ** beta)`` for one (d0, beta): a and b per source, or over all rows."""

    def __init__(self, train: FeatureTable, offset: float, power: float) -> None:
        self.train, self.offset, self.power = train, offset, power
        self.everywhere = self._line(np.arange(len(train)))
        self.own: dict[str, tuple[float, float]] = {}
        sources = np.array(train.sources)
        for source in set(train.sources):
            rows = np.flatnonzero(sources == source)
            if len(np.unique(train.extra(DATA_ROWS)[rows])) >= 3:
                self.own[source] = self._line(rows)

    def _term(self, table: FeatureTable) -> Floats:
        return np.asarray(1.0 / (self.offset + table.extra(DATA_ROWS) ** self.power), float)

    def _line(self, rows: Rows) -> tuple[float, float]:
        x, y = self._term(self.train)[rows], self.train.score_pp[rows]
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * y).sum()) / spread if spread > 0 else 0.0
        slope = min(slope, 0.0)
        return float(y.mean() - slope * x.mean()), slope

    def predict(self, table: FeatureTable) -> Floats:
        """Scores of all rows of ``table``, ``(n,)`` points."""
        lines = np.array([self.own.get(source, self.everywhere) for source in table.sources])
        return np.asarray(np.clip(lines[:, 0] + lines[:, 1] * self._term(table), 0.0, 100.0), float)
