"""The map of training rows: how likely their answers were whenever the probe came by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.featurespec import Value
from tuneahead.trace import ProbeTrace, RowVisits

EASY = 0.75
HARD = 0.25
AMBIGUOUS_SD = 0.2

_CONFIDENCE = ("confidence_mean", "confidence_end", "easy_rows_fraction", "hard_rows_fraction")
_REPEATED = ("variability_mean", "ambiguous_rows_fraction", "revisit_gain")
_SPREAD = (
    "row_loss_cv",
    "row_loss_p10_nats",
    "row_loss_p90_nats",
    "token_loss_slope_nats",
    "answer_start_nats",
)
_SEEN = ("epochs_seen", "rows_seen_fraction", "revisit_fraction")


@dataclass(frozen=True)
class RowMap:
    """One entry per visited training row, ``(rows,)``, in ascending order of ``row``.

    ``confidence`` is the mean over visits of the probability of the answer per token (geometric
    mean over its tokens), ``variability`` the standard deviation over visits (0 for a single one).
    Source: Swayamdipta et al. 2020 (arXiv 2009.10795), at the grain of visits instead of epochs.
    """

    row: NDArray[np.int32]
    confidence: NDArray[np.float64]
    variability: NDArray[np.float64]
    visits: NDArray[np.int64]


def visit_confidence(visits: RowVisits) -> NDArray[np.float64]:
    """Probability of the answer per token at each visit, ``(visits,)``."""
    tokens = np.maximum(np.asarray(visits.tokens, float), 1)
    confidence: NDArray[np.float64] = np.exp(-np.asarray(visits.nll_nats, float) / tokens)
    return confidence


def row_map(visits: RowVisits) -> RowMap:
    """Confidence and variability of every visited row."""
    row, place, count = np.unique(visits.row, return_inverse=True, return_counts=True)
    seen = visit_confidence(visits)
    mean = np.bincount(place, seen, len(row)) / count
    variance = np.bincount(place, (seen - mean[place]) ** 2, len(row)) / count
    return RowMap(row.astype(np.int32), mean, np.sqrt(variance), count)


def measured_visits(visits: RowVisits) -> RowVisits:
    """The visits whose loss is finite and that have an answer to be confident of."""
    known = np.isfinite(visits.nll_nats) & (visits.tokens > 0)
    return RowVisits(visits.step[known], visits.row[known], visits.nll_nats[known], visits.tokens[known])


def row_features(trace: ProbeTrace) -> dict[str, Value]:
    """Shares of easy, ambiguous and hard rows, spread over rows, and how much of the data was seen."""
    visits, steps = measured_visits(trace.visits), len(trace.steps)
    names = _CONFIDENCE + _REPEATED + _SPREAD + _SEEN
    if not len(visits.row):
        return dict.fromkeys(names, "the visits of training rows were not recorded")
    by_row, seen = row_map(visits), visit_confidence(visits)
    last = {int(row): at for at, row in enumerate(visits.row)}
    latest = seen[list(last.values())]
    ending = visits.step >= steps - max(1, steps // 5)
    rows = max(1, trace.info.train_rows)
    out: dict[str, Value] = {
        "confidence_mean": float(by_row.confidence.mean()),
        "confidence_end": float(seen[ending].mean()) if ending.any() else "no row was visited at the end",
        "easy_rows_fraction": float(np.mean(latest >= EASY)),
        "hard_rows_fraction": float(np.mean(latest <= HARD)),
        "epochs_seen": len(visits.row) / rows,
        "rows_seen_fraction": min(1.0, len(by_row.row) / rows),
        "revisit_fraction": 1.0 - len(by_row.row) / len(visits.row),
    }
    return {**out, **_repeated(visits, by_row, seen), **_spread(visits)}


def _repeated(visits: RowVisits, by_row: RowMap, seen: NDArray[np.float64]) -> dict[str, Value]:
    again = by_row.visits > 1
    if not again.any():
        return dict.fromkeys(_REPEATED, "no row was visited twice")
    spread = by_row.variability[again]
    first = {int(row): at for at, row in reversed(list(enumerate(visits.row)))}
    last = {int(row): at for at, row in enumerate(visits.row)}
    rows = [int(row) for row in by_row.row[again]]
    gain = seen[[last[row] for row in rows]] - seen[[first[row] for row in rows]]
    return {
        "variability_mean": float(spread.mean()),
        "ambiguous_rows_fraction": float(np.mean(spread > AMBIGUOUS_SD)),
        "revisit_gain": float(gain.mean()),
    }


def _spread(visits: RowVisits) -> dict[str, Value]:
    """Spread over the rows visited in the second half of the visits."""
    half = len(visits.row) // 2
    nll, tokens = np.asarray(visits.nll_nats, float)[half:], np.asarray(visits.tokens, float)[half:]
    if len(nll) < 4:
        return dict.fromkeys(_SPREAD, f"needs 4 visits in the second half, the probe has {len(nll)}")
    per_token = nll / tokens
    low, high = np.quantile(per_token, [0.1, 0.9])
    out: dict[str, Value] = {
        "row_loss_cv": float(per_token.std() / per_token.mean()) if per_token.any() else "every loss is 0",
        "row_loss_p10_nats": float(low),
        "row_loss_p90_nats": float(high),
    }
    centred = tokens - tokens.mean()
    power = float(centred @ centred)
    if power == 0:
        return {**out, **dict.fromkeys(_SPREAD[3:], "every answer has the same number of tokens")}
    rate = float(centred @ nll) / power
    return {
        **out,
        "token_loss_slope_nats": rate,
        "answer_start_nats": float(nll.mean() - rate * tokens.mean()),
    }
