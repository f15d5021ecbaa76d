"""Errors of samples: they cover the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuneahead.examples import Example
from tuneahead.features import rows as rows_module
from tuneahead.features.rows import draw
from tuneahead.features.sampling import group_errors, mean_error, share_error


def test_a_mean_error_by_hand() -> None:
    # 1.96 x 2 / sqrt(100), times sqrt(1 - 100 / 400).
    assert mean_error(2.0, 100, 400) == pytest.approx(1.96 * 0.2 * math.sqrt(0.75))
    assert mean_error(2.0, 400, 400) == 0.0


def test_a_share_error_by_hand() -> None:
    # (0.5 x 96 + 2) / 100 = 0.5: 1.96 x 0.5 / 10.
    assert share_error(0.5, 96, 10**9) == pytest.approx(0.098, rel=1e-3)
    assert share_error(0.0, 96, 10**9) > 0.01


def test_what_the_sample_has_none_of_has_no_error() -> None:
    errors = group_errors(lambda at: {"x": 0.0, "y": "absent"}, ("x", "y"), 100, 1_000)
    assert all(map(math.isnan, errors.values()))


@pytest.mark.parametrize("kind", ["mean", "ratio", "median", "share"])
def test_the_interval_covers_the_truth_in_about_95_of_100_samples(kind: str) -> None:
    rng = np.random.default_rng(5)
    whole = rng.gamma(2.0, 3.0, (4_000, 2))

    def value(rows: np.ndarray) -> float:
        if kind == "mean":
            return float(rows[:, 0].mean())
        if kind == "ratio":
            return float(rows[:, 0].sum() / rows[:, 1].sum())
        return float(np.median(rows[:, 0])) if kind == "median" else float((rows[:, 0] > 15).mean())

    covered = 0
    for _ in range(300):
        sample = whole[rng.choice(len(whole), 1_000, replace=False)]
        if kind == "share":
            error = share_error(value(sample), 1_000, len(whole))
        else:
            error = group_errors(lambda at, s=sample: {"x": value(s[at])}, ("x",), 1_000, len(whole))["x"]
        covered += abs(value(sample) - value(whole)) <= error
    assert 0.91 <= covered / 300 <= 0.985


def test_of_very_long_rows_fewer_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example("p" * 40, "a" * 60, row) for row in range(1_000)]
    assert len(draw(examples, 1_000).texts) == 1_000
    monkeypatch.setattr(rows_module, "TEXT_CHARACTERS", 30_000)
    drawn = draw(iter(examples), 1_000)
    assert (drawn.total, len(drawn.texts), len(drawn.vectors)) == (1_000, 300, 1_000)
    assert len({id(row) for row in drawn.texts}) == 300
    monkeypatch.setattr(rows_module, "TEXT_CHARACTERS", 1)
    assert len(draw(examples, 1_000).texts) == rows_module.ANSWER_ROWS
