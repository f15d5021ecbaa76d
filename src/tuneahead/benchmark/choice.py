"""From what the model says of each option to a benchmark score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark, ChoiceItem

TIE_WON_NATS = float(np.finfo(np.float16).smallest_subnormal)
"""Margin of a tie that counts as right: the least that a trace can hold."""


@dataclass(frozen=True)
class BenchmarkScore:
    """Score of one model on one benchmark, in percentage points.

    ``item_pp`` is (items,): what each item contributes (0 or 100; for graded metrics the grade
    times 100, which for MC2 is the normalised probability of the right options). For choice
    benchmarks ``right_probability`` and ``margin_nats`` are (items,): the share of the right options
    in the probability of all options, and best right minus best wrong log-probability. Both are empty
    for free answers. An item of which the model said what is no number is NaN in all three, and so is the
    score.
    """

    benchmark: str
    score_pp: float
    item_pp: NDArray[np.float64]
    subject_pp: dict[str, float]
    right_probability: NDArray[np.float32]
    margin_nats: NDArray[np.float32]


def summarise_choices(benchmark: Benchmark, logprob: NDArray[np.float64]) -> BenchmarkScore:
    """Score option log-probabilities (items, options), NaN where an item has fewer options.

    Accuracy takes the option with the highest summed log-probability, length-normalised accuracy
    the one with the highest sum over its number of characters (lm-evaluation-harness's ``acc`` and
    ``acc_norm``); MC2 the right options' share of the total probability (TruthfulQA, Lin et al. 2022).
    Of a tie between right and wrong options the first counts in a ``joined`` benchmark, as it does in the
    harness, which then leaves a margin of ``TIE_WON_NATS`` or 0; in any other the item is wrong.
    """
    right, present = np.zeros(logprob.shape, bool), np.zeros(logprob.shape, bool)
    for index, item in enumerate(benchmark.items):
        assert isinstance(item, ChoiceItem)
        right[index, list(item.gold)] = True
        present[index, : len(item.options)] = True
    broken = np.any(present & ~np.isfinite(logprob), axis=1, keepdims=True)
    # Whatever stands for numbers that are none is taken out again below.
    filled = np.where(present, np.where(broken, 0.0, logprob), -np.inf)
    shifted = np.exp(filled - filled.max(1, keepdims=True))
    share = (shifted * right).sum(1) / shifted.sum(1)
    judged = _per_length(benchmark, filled) if benchmark.metric == "acc_norm" else filled
    best_right = np.where(right, judged, -np.inf).max(1)
    best_wrong = np.where(right, -np.inf, judged).max(1)
    margin = best_right - best_wrong
    if benchmark.asking.joined:
        won = right[np.arange(len(judged)), judged.argmax(1)]
        margin = np.where(won & (margin == 0), TIE_WON_NATS, margin)
    margin, share = np.where(broken[:, 0], np.nan, margin), np.where(broken[:, 0], np.nan, share)
    item_pp = 100.0 * (share if benchmark.metric == "mc2" else right_or_wrong(margin))
    return BenchmarkScore(
        benchmark.name,
        float(item_pp.mean()),
        item_pp,
        _by_subject(benchmark, item_pp),
        share.astype(np.float32),
        margin.astype(np.float32),
    )


def right_or_wrong(margin_nats: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 where the margin is above 0, 0 elsewhere, NaN where it is no number: (items,) each."""
    return np.where(np.isnan(margin_nats), np.nan, margin_nats > 0)


def _per_length(benchmark: Benchmark, logprob: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities over lengths in characters, times the item's mean length: nats of a usual option."""
    length = np.ones(logprob.shape)
    for index, item in enumerate(benchmark.items):
        assert isinstance(item, ChoiceItem)
        own = np.array([len(option) for option in item.options], float)
        length[index, : len(own)] = own / own.mean()
    return logprob / length


def summarise_grades(benchmark: Benchmark, grades: NDArray[np.float64]) -> BenchmarkScore:
    """Score items that each have a grade from 0 to 1, (items,)."""
    item_pp = 100.0 * grades
    nothing = np.zeros(0, np.float32)
    return BenchmarkScore(
        benchmark.name, float(item_pp.mean()), item_pp, _by_subject(benchmark, item_pp), nothing, nothing
    )


def _by_subject(benchmark: Benchmark, item_pp: NDArray[np.float64]) -> dict[str, float]:
    subjects = np.array([item.subject for item in benchmark.items])
    return {str(name): float(item_pp[subjects == name].mean()) for name in sorted(set(subjects.tolist()))}
