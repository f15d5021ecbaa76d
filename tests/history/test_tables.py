"""Stored runs become a table whose probe scores are on the same scale as the final ones."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_store import make_record

from tuneahead.history.store import RunRecord, RunStore
from tuneahead.predictor.table import CUE_PREFIX
from tuneahead.report.curves import curves
from tuneahead.trace import Cue


def record_scored_by(metric: str) -> RunRecord:
    """A run with two cues: accuracy 50 then 100 %, probability of the right options 25 then 62.5 %."""
    record = make_record()
    margins = [np.array([-1, 1], np.float32), np.array([1, 2], np.float32)]
    shares = [np.array([0.25, 0.25], np.float32), np.array([0.5, 0.75], np.float32)]
    cues = tuple(Cue(at, 1.5, 2.0, s, m) for at, s, m in zip((0, 10), shares, margins, strict=True))
    info = replace(record.trace.info, metric=metric)
    return replace(record, trace=replace(record.trace, info=info, cues=cues))


@pytest.mark.parametrize(("metric", "before", "after"), [("accuracy", 50.0, 100.0), ("mc2", 25.0, 62.5)])
def test_every_probe_score_is_in_the_benchmark_s_own_metric(
    tmp_path: Path, metric: str, before: float, after: float
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(record_scored_by(metric))
    table = store.table(benchmark="exam")
    assert table.probe_pp.tolist() == [after]
    assert [table.extra(f"{CUE_PREFIX}{step}").tolist() for step in (0, 10)] == [[before], [after]]
    features = dict(zip(table.names, table.values[0], strict=True))
    assert features["probe_score_pp"] == features["score_at_10_pp"] == after
    assert features["base_score_pp"] == before
    assert features["score_gain_pp"] == features["late_gain_pp"] == after - before
    assert features["probe_score_headroom"] == pytest.approx((after - 25) / 75)


def test_the_page_draws_the_cue_in_the_benchmark_s_own_metric() -> None:
    drawn = "".join(curves(record_scored_by("mc2").trace))
    assert "25.0 % at step 0, 62.5 % at step 10" in drawn and "MC2" in drawn
