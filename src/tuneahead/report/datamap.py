"""Which rows the model learns at once, wavers on, or never believes: a map of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.cartography import EASY, HARD, row_map
from tuneahead.trace import ProbeTrace

FEWEST_ROWS = 10
Kind = Literal["easy", "ambiguous", "hard"]


@dataclass(frozen=True)
class DataMap:
    """Rows visited twice or more; all arrays ``(rows,)``, with the meaning of ``RowMap``'s.

    ``row`` is the index into the training rows.
    """

    row: NDArray[np.int32]
    confidence: NDArray[np.float64]
    variability: NDArray[np.float64]

    @property
    def kinds(self) -> list[Kind]:
        """``easy``, ``hard``, or ``ambiguous`` in between, by each row's mean confidence."""
        return ["easy" if c >= EASY else "hard" if c <= HARD else "ambiguous" for c in self.confidence]

    def hardest(self, count: int = 20) -> list[int]:
        """Indices of the least believed hard rows, worst first."""
        order = np.argsort(self.confidence, kind="stable")[:count]
        return [int(self.row[i]) for i in order if self.confidence[i] <= HARD]


def data_map(trace: ProbeTrace) -> DataMap | None:
    """The map of a trace, or None when fewer than ten rows were visited twice."""
    found = row_map(trace.visits)
    again = found.visits >= 2
    if int(again.sum()) < FEWEST_ROWS:
        return None
    return DataMap(found.row[again], found.confidence[again], found.variability[again])
