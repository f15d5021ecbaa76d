"""Answers that stand one row off in part of the rows, by sentence vectors of rows that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneahead.examples import Example
from tuneahead.features.semantic import PairVectors, Vectors

_DOUBT = 0.05
"""By how much the neighbour's answer has to be nearer, in similarity, to speak for a move."""
_SURE = 4.0
"""Similarity that the rows of a run have to gain together; 40 public data sets as they are come to 2.1."""
_ROWS = 5


@dataclass(frozen=True)
class Moved:
    """Rows whose prompts are nearer to the answer of the row before or after than to their own."""

    rows: NDArray[np.int64]
    after: bool


def find_moved(rows: Sequence[Example], pairs: PairVectors, every_row: NDArray[np.int64]) -> Moved | None:
    """The run of ``rows`` whose answers are surely one row off; None where there is none.

    ``rows``, of the vectors ``pairs``, are drawn from a data set whose row numbers are ``every_row``: only
    those that follow each other there are compared, which of 2,000 drawn from many are few.
    """
    if len(rows) <= _ROWS or np.any(np.diff(every_row) <= 0):
        return None
    numbers = np.array([row.row for row in rows], np.int64)
    places = np.searchsorted(every_row, numbers)
    own = _likeness(pairs.prompts, pairs.answers)
    best: Moved | None = None
    most = _SURE
    for after in (True, False):
        here, there = np.arange(len(rows) - 1), np.arange(1, len(rows))
        if not after:
            here, there = there, here
        gain = _likeness(pairs.prompts[here], pairs.answers[there]) - own[here] - _DOUBT
        # Of a conversation whose turns are rows of their own the prompt holds what was answered before.
        neighbours = zip(here.tolist(), there.tolist(), strict=True)
        told = np.array([rows[b].answer.strip() in rows[a].prompt for a, b in neighbours])
        gain[(np.abs(places[here] - places[there]) != 1) | told | ~np.isfinite(gain)] = 0.0
        begin, end, total = _run(gain)
        if total >= most and end - begin >= _ROWS:
            best, most = Moved(numbers[here[begin:end]], after), total
    return best


def _likeness(one: Vectors, other: Vectors) -> NDArray[np.float64]:
    return np.asarray((one * other).sum(axis=1), np.float64)


def _run(gain: NDArray[np.float64]) -> tuple[int, int, float]:
    """The run with the largest sum, as begin, end and sum (Kadane)."""
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    over = sums - np.minimum.accumulate(sums)
    end = int(over.argmax())
    return int(sums[: end + 1].argmin()), end, float(over[end])
