"""Which rows the model learns at once, wavers on, or never believes: a map of the training data.

Source: data cartography (confidence and variability of each row over the visits of the probe).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneahead.trace import ProbeTrace, RowVisits

EASY_CONFIDENCE = 0.6
HARD_CONFIDENCE = 0.3


@dataclass(frozen=True)
class DataMap:
    """Rows with two visits or more; all arrays ``(rows,)``.

    ``confidence`` is the mean over visits of the answer's probability per token (geometric
    mean), ``variability`` its standard deviation. ``row`` is the index into the training rows.
    """

    row: NDArray[np.int64]
    confidence: NDArray[np.float64]
    variability: NDArray[np.float64]

    @property
    def kind(self) -> list[str]:
        """``easy``, ``ambiguous`` or ``hard`` for each row, by its confidence."""
        return [
            "easy" if c >= EASY_CONFIDENCE else "hard" if c < HARD_CONFIDENCE else "ambiguous"
            for c in self.confidence
        ]

    def hardest(self, count: int = 20) -> list[int]:
        """Indices of the least believed hard rows, worst first."""
        order = np.argsort(self.confidence, kind="stable")
        return [int(self.row[i]) for i in order[:count] if self.confidence[i] < HARD_CONFIDENCE]


def data_map(trace: ProbeTrace) -> DataMap | None:
    """The map of a trace, or None when fewer than ten rows were visited twice."""
    visits = trace.visits
    rows, index, visited = np.unique(visits.row, return_inverse=True, return_counts=True)
    keep = visited >= 2
    if int(keep.sum()) < 10:
        return None
    probability = _token_probability(visits)
    mean = np.bincount(index, probability) / visited
    square = np.bincount(index, (probability - mean[index]) ** 2) / visited
    return DataMap(rows[keep].astype(np.int64), mean[keep], np.sqrt(square[keep]))


def _token_probability(visits: RowVisits) -> NDArray[np.float64]:
    return np.exp(-visits.nll_nats.astype(float) / np.maximum(visits.tokens, 1))
