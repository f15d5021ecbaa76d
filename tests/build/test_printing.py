"""A build's log."""

from __future__ import annotations

import pytest

from tuneahead.build import printing
from tuneahead.build.execute import BuildProgress
from tuneahead.build.printing import ProgressLines


def test_a_line_a_minute_and_setbacks_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(printing.time, "monotonic", lambda: now)
    lines = ProgressLines()
    lines(BuildProgress(1, 4, 0, 400, 5.0))
    now += 30
    lines(BuildProgress(1, 4, 100, 400, 35.0, ("a worker died",)))
    lines(BuildProgress(1, 4, 100, 400, 36.0, ("a worker died",)))
    now += 31
    lines(BuildProgress(2, 4, 200, 400, 120.0, ("a worker died", "another")))
    now += 61
    lines(BuildProgress(3, 4, 390, 400, 390.0, ("a worker died", "another")))
    told = ["1 of 4 runs, no step made yet", "a worker died", "another", "2 of 4 runs, 2 min left"]
    told.append("3 of 4 runs, 1 min left")
    assert capsys.readouterr().out.splitlines() == told
