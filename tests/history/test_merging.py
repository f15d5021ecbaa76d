"""Stores of several machines become one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from made_assessment import RECIPE, made_trace

from tuneahead.errors import StoreError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.merging import merge_stores
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore


def make_record(run_id: str = "r1") -> RunRecord:
    scores, base = {"exam": 55.5}, {"exam": 40.0}
    return RunRecord(run_id, "t1", "d1", "clean", "lab", 0, RECIPE, made_trace(5), scores, base)


def test_runs_scores_and_features_of_another_store_come_in_once(tmp_path: Path) -> None:
    mine, theirs = RunStore(tmp_path / "mine.sqlite"), RunStore(tmp_path / "theirs.sqlite")
    mine.add(replace(make_record("both"), scores={}))
    mine.add_static("d1", "lab", "v1", FeatureVector({"rows": 1.0}))
    theirs.add(make_record("both"))
    theirs.add(replace(make_record("new"), data_id="d2", task_id="t2", created="2026-01-02T03:04:05+00:00"))
    theirs.add_static("d1", "lab", "v1", FeatureVector({"rows": 9.0}))
    theirs.add_static("d2", "lab", "v1", FeatureVector({"rows": 2.0}, {"x": "not measured"}))

    found = merge_stores(theirs.path, mine.path)
    assert (found.added, found.present, found.scored, found.data_sets, found.tasks) == (1, 1, 2, 2, 2)
    ours, copied = theirs.get("new"), mine.get("new")
    assert (copied.created, copied.scores, copied.base_scores) == (
        ours.created,
        ours.scores,
        ours.base_scores,
    )
    assert copied.trace.to_bytes() == ours.trace.to_bytes()
    assert mine.get("both").scores == {"exam": 55.5}
    kept, new = mine.static("d1", "lab", "v1"), mine.static("d2", "lab", "v1")
    assert kept is not None and kept["rows"] == 1.0, "what is there stays"
    assert new is not None and new.absent == {"x": "not measured"}

    again = merge_stores(theirs.path, mine.path)
    assert (again.added, again.present, again.scored, again.unchanged) == (0, 2, 0, 0)


def test_a_score_that_is_there_stays_and_is_told(tmp_path: Path) -> None:
    mine, theirs = RunStore(tmp_path / "mine.sqlite"), RunStore(tmp_path / "theirs.sqlite")
    mine.add(make_record())
    theirs.add(make_record())
    theirs.record_score("r1", "exam", 70.0)
    found = merge_stores(theirs.path, mine.path)
    assert (found.scored, found.unchanged, mine.get("r1").scores) == (0, 1, {"exam": 55.5})


def test_runs_of_another_model_under_a_known_name_are_told(tmp_path: Path) -> None:
    mine, theirs = RunStore(tmp_path / "mine.sqlite"), RunStore(tmp_path / "theirs.sqlite")
    mine.add(make_record("mine"))
    for run_id, base, weights in (
        ("r2", "lab", "made anew"),
        ("r3", "other", "made anew"),
        ("r4", "lab", ""),
    ):
        trace = make_record().trace
        trace = replace(trace, info=replace(trace.info, base_fingerprint=weights))
        theirs.add(replace(make_record(run_id), base=base, task_id=run_id, trace=trace))
    assert merge_stores(theirs.path, mine.path).other_weights == ("lab",)
    theirs.forget("r2")
    # What came in last, with unknown weights, says nothing of those of the next.
    assert merge_stores(theirs.path, mine.path).other_weights == ()


def test_a_run_that_can_not_be_read_keeps_no_other_out(tmp_path: Path) -> None:
    mine, theirs = RunStore(tmp_path / "mine.sqlite"), RunStore(tmp_path / "theirs.sqlite")
    for name in ("r1", "r2"):
        theirs.add(make_record(name))
    with sqlite3.connect(theirs.path) as connection:
        connection.execute("UPDATE runs SET trace = x'00' WHERE run_id = 'r1'")
    found = merge_stores(theirs.path, mine.path)
    assert (found.added, mine.run_ids()) == (1, ["r2"])
    assert len(found.left_out) == 1 and "'r1'" in found.left_out[0]


def test_a_store_is_not_merged_with_itself(tmp_path: Path) -> None:
    mine = RunStore(tmp_path / "mine.sqlite")
    with pytest.raises(StoreError, match="is the store itself"):
        merge_stores(mine.path, tmp_path / "." / "mine.sqlite")
