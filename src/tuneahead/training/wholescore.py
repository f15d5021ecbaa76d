"""What a plain base scores on a whole benchmark, kept by content."""

from __future__ import annotations

import math

from tuneahead.benchmark.items import Benchmark
from tuneahead.kept import KeptTexts, content_key
from tuneahead.training.models import Base
from tuneahead.training.scoring import encode_benchmark, score_stack


def whole_score_pp(base: Base, benchmark: Benchmark) -> float:
    """Score of the plain base on every item, in points; looked up where it was asked before.

    Raises :class:`~tuneahead.errors.BenchmarkError` when an item does not fit the window.
    """
    key = content_key(base.stamp, benchmark.fingerprint)
    kept = KeptTexts("base-scores")
    if (text := kept.load(key)) is not None:
        return float(text)
    score_pp = score_stack(base, encode_benchmark(base, benchmark), None, [0])[0].score_pp
    if math.isfinite(score_pp):
        kept.store(key, repr(float(score_pp)))
    return float(score_pp)
