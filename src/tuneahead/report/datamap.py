"""Which rows the model is sure of, wavers on, or hardly believes: a map of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.cartography import EASY, HARD, measured_visits, row_map
from tuneahead.trace import ProbeTrace

FEWEST_ROWS = 10
Kind = Literal["easy", "ambiguous", "hard"]


@dataclass(frozen=True)
class DataMap:
    """Visited training rows; all arrays ``(rows,)``.

    ``row`` is the index into the training rows, ``confidence`` the mean probability of the answer
    per token over the row's visits. ``across`` is the standard deviation over visits where rows
    came twice (``repeated``), else the optimiser step of the only visit. Source: data cartography
    (see ``features.cartography``); the map of single visits is ours.
    """

    row: NDArray[np.int32]
    confidence: NDArray[np.float64]
    across: NDArray[np.float64]
    repeated: bool

    @property
    def kinds(self) -> list[Kind]:
        """``easy``, ``hard``, or ``ambiguous`` in between, by each row's mean confidence."""
        return ["easy" if c >= EASY else "hard" if c <= HARD else "ambiguous" for c in self.confidence]

    def hardest(self, count: int = 20) -> list[int]:
        """Indices of the least believed hard rows, worst first.

        Single visits of the first half are passed over: at that time the model had learned little.
        """
        late = np.ones(len(self.row), bool) if self.repeated else self.across >= np.median(self.across)
        order = [
            i for i in np.argsort(self.confidence, kind="stable") if late[i] and self.confidence[i] <= HARD
        ]
        return [int(self.row[i]) for i in order[:count]]


def data_map(trace: ProbeTrace) -> DataMap | None:
    """The map of a trace, or None when fewer than ten rows have a measured visit."""
    visits = measured_visits(trace.visits)
    found = row_map(visits)
    again = found.visits >= 2
    if int(again.sum()) >= max(FEWEST_ROWS, len(found.row) // 2):
        return DataMap(found.row[again], found.confidence[again], found.variability[again], True)
    if len(found.row) < FEWEST_ROWS:
        return None
    _, first = np.unique(visits.row, return_index=True)
    steps = np.asarray(visits.step, float)[first] + 1
    return DataMap(found.row, found.confidence, steps, False)
