"""The history of runs keeps what it was given, through interruptions and damage."""

from __future__ import annotations

import math
import multiprocessing
import os
import sqlite3
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tuneahead.errors import StoreError, UnreadableRunError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.merging import merge_stores
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.history.storefile import is_store
from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Flatness, ProbeTrace, RowVisits, StepColumns, TraceInfo


def make_record(run_id: str = "r1", steps: int = 3) -> RunRecord:
    recipe = Recipe(max_steps=300, learning_rate=1e-3)
    info = TraceInfo(
        "lab", "f" * 16, "d" * 16, recipe, 300, 90, 10, 1000, ("layer 0", "layer 1"), "exam", ("a", "b"), 25.0
    )
    line = np.arange(steps, dtype=np.float32)
    columns = StepColumns(*([line] * 12), layer_grad_norm=np.ones((steps, 2), np.float32))
    visits = RowVisits(
        np.arange(steps, dtype=np.int32), np.arange(steps, dtype=np.int32), line, np.ones(steps, np.int32)
    )
    cue = Cue(0, 1.5, float("nan"), np.array([0.25, 0.5], np.float32), np.array([-1.0, 0.5], np.float32), 0.1)
    flat = Flatness(2, 1.0, np.array([0.05], np.float32), np.array([[1.25]], np.float32))
    trace = ProbeTrace(info, columns, visits, (cue,), flat, (("reference loss", "none given"),))
    return RunRecord(
        run_id,
        "t1",
        "d1",
        "clean",
        "lab",
        0,
        recipe,
        trace,
        {"exam": 55.5},
        {"exam": 40.0},
        {"exam": {"a": 50.0, "b": 61.0}},
        '{"seed": 1}',
        12.5,
        300,
    )


def test_a_run_comes_back_as_it_went_in(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "deep" / "runs.sqlite")
    record = make_record()
    assert store.add(record)
    found = store.get("r1")
    assert replace(found, trace=record.trace, created="") == record
    assert found.trace.info == record.trace.info
    assert found.trace.to_bytes() == record.trace.to_bytes()
    np.testing.assert_array_equal(found.trace.steps.grad_norm, record.trace.steps.grad_norm)
    assert found.created.endswith("+00:00")


def test_the_same_run_is_stored_once_and_never_edited(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    assert store.add(make_record())
    assert not store.add(replace(make_record(), scores={"exam": 99.0}))
    assert len(store) == 1 and store.get("r1").scores == {"exam": 55.5}


def test_a_score_can_be_recorded_later(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(replace(make_record(), scores={}))
    store.record_score("r1", "mmlu", 61.2)
    assert store.get("r1").scores == {"mmlu": 61.2}
    with pytest.raises(StoreError, match="no run 'r2'"):
        store.record_score("r2", "mmlu", 61.2)
    with pytest.raises(StoreError, match=r"score 612.0 is outside 0 to 100"):
        store.record_score("r1", "mmlu", 612.0)


def test_a_run_of_unknown_length_or_score_is_stored_all_the_same(tmp_path: Path) -> None:
    store, nan = RunStore(tmp_path / "runs.sqlite"), float("nan")
    record = replace(
        make_record(),
        seconds=nan,
        scores={"exam": nan, "truth": 30.0},
        base_scores={"exam": float("inf")},
        subject_scores={"exam": {"a": nan, "b": 61.0}},
    )
    assert store.add(record) and not store.add(record)
    found = store.get("r1")
    assert math.isnan(found.seconds)
    assert (found.scores, found.base_scores) == ({"truth": 30.0}, {})
    assert found.subject_scores == {"exam": {"b": 61.0}}


def test_a_row_that_the_file_refuses_is_an_error_not_a_silent_loss(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    with pytest.raises(StoreError, match="NOT NULL"):
        store.add(replace(make_record(), family=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("score_pp", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, score_pp: float) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record())
    with pytest.raises(StoreError, match="not a number") as caught:
        store.record_score("r1", "mmlu", score_pp)
    assert "leave a score that was not measured out" in caught.value.remedy


def test_static_features_are_kept_by_data_base_and_version(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add_static("d1", "lab", "1", FeatureVector({"x": 1.5, "y": float("nan")}, {"y": "no parser"}))
    found = store.static("d1", "lab", "1")
    assert found is not None and found["x"] == 1.5 and found.absent == {"y": "no parser"}
    assert store.static("d1", "lab", "2") is None


def _add_many(path: Path, prefix: str) -> None:
    store = RunStore(path)
    for number in range(10):
        store.add(make_record(f"{prefix}{number}"))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    workers = [multiprocessing.get_context("spawn").Process(target=_add_many, args=(path, p)) for p in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(RunStore(path)) == 20


def test_files_that_are_no_stores_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is not a database, " * 100)
    with pytest.raises(StoreError, match="not a database"):
        RunStore(tmp_path / "text.sqlite")
    with pytest.raises(StoreError):
        RunStore(tmp_path / "text.sqlite" / "below")


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE meta (key TEXT, value TEXT); CREATE TABLE notes (text TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        RunStore(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_store_is_opened_and_read_without_writing_to_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    RunStore(path).add(make_record())
    writer = sqlite3.connect(path)
    # While another holds the only right to write, a write would have to wait.
    writer.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert [record.run_id for record in RunStore(path).records()] == ["r1"]
    assert time.monotonic() - began < 30
    writer.close()


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "odd name?#%.sqlite"
    path.touch()
    assert RunStore(path).add(make_record())
    assert len(RunStore(path)) == 1 and path.stat().st_size > 0


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.5, other.rollback)
    later.start()
    assert RunStore(path).add(make_record())
    later.join()
    other.close()


def test_a_store_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreError, match="schema 99, this version reads 1"):
        RunStore(store.path)


def test_a_run_is_found_by_the_beginning_of_its_id_if_it_is_the_only_one(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for name in ("abc1", "abc2", "abc", "xyz"):
        store.add(make_record(name))
    assert [store.find_id(begin) for begin in ("x", "abc", "abc1")] == ["xyz", "abc", "abc1"]
    with pytest.raises(StoreError, match="3 runs in .* begin with 'ab': abc, abc1, abc2"):
        store.find_id("ab")
    for none in ("", "q", "%"):
        with pytest.raises(StoreError, match="no run") as caught:
            store.find_id(none)
        assert f"tuneahead runs list --store {store.path}" in caught.value.remedy


def test_a_score_or_a_run_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record("r1"))
    store.add(make_record("r2"))
    store.record_score("r1", "mmlu", 61.2)
    assert store.benchmarks() == ("exam", "mmlu")
    with pytest.raises(StoreError, match="run 'r2' has no score on 'mmlu'"):
        store.forget("r2", "mmlu")
    store.forget("r1", "exam")
    found = store.get("r1")
    assert (found.scores, found.subject_scores, found.base_scores) == ({"mmlu": 61.2}, {}, {"exam": 40.0})
    store.forget("r1")
    assert store.done_ids() == {"r2"} and store.benchmarks() == ("exam",)
    with pytest.raises(StoreError, match="no run 'r1'"):
        store.forget("r1")
    # It may come in again, without what was forgotten.
    assert store.add(replace(make_record("r1"), scores={}, subject_scores={}))
    assert store.get("r1").scores == {}


@pytest.mark.parametrize(
    ("column", "cell", "why"),
    [
        ("trace", "text", "type str, not bytes"),
        ("trace", b"no trace", "not a probe trace of schema 1"),
        ("recipe", "{", "Expecting property name"),
        ("recipe", '{"of_later": 1}', "of_later"),
        ("seed", "text", "invalid literal"),
        ("family", b"\xff", "Could not decode"),
    ],
)
def test_a_run_that_can_not_be_read_is_named_and_can_be_forgotten(
    column: str, cell: object, why: str, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for name in ("r1", "r2"):
        store.add(make_record(name))
    with sqlite3.connect(store.path) as connection:
        as_text = "CAST(? AS TEXT)" if column == "family" else "?"
        connection.execute(f"UPDATE runs SET {column} = {as_text} WHERE run_id = 'r1'", (cell,))
    with pytest.raises(UnreadableRunError, match=why) as caught:
        list(store.records())
    assert caught.value.run_id == "r1" and f"run 'r1' in {store.path}" in caught.value.message
    assert f"tuneahead runs forget r1 --store {store.path}" in caught.value.remedy
    assert store.forget("r1", "exam") == 55.5
    store.forget("r1")
    assert [record.run_id for record in store.records()] == ["r2"]


def test_a_score_that_is_no_number_makes_its_run_unreadable(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record())
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE scores SET score_pp = 'high' WHERE kind = 'base'")
    with pytest.raises(UnreadableRunError, match="could not convert string to float: 'high'"):
        store.get("r1")


def test_of_a_damaged_file_the_runs_that_can_be_read_come_into_another(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "it's.sqlite")
    for name in ("r1", "r2", "r3"):
        store.add(make_record(name, steps=200))
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(store.path.read_bytes())
    # Each page that a long cell goes on to begins with the number of the next one.
    page = content.index(store.get("r1").trace.to_bytes()[6000:6100]) // 4096 * 4096
    content[page : page + 4] = b"\xff\xff\xff\xff"
    store.path.write_bytes(content)
    with pytest.raises(UnreadableRunError, match="run 'r1' in .* can't be read: database disk image is mal"):
        list(store.records())
    with pytest.raises(StoreError) as caught:
        store.forget("r1")
    assert "tuneahead runs import" in caught.value.remedy and "--store new.sqlite" in caught.value.remedy
    rescued = RunStore(tmp_path / "new.sqlite")
    found = merge_stores(store.path, rescued.path)
    assert rescued.run_ids() == ["r2", "r3"] and len(found.left_out) == 1


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_where_no_store_can_be_made_the_remedy_is_another_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="unable to open") as caught:
            RunStore(tmp_path / "runs.sqlite")
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.remedy == "name a store in a folder that you can write to"


def test_a_file_that_was_cut_short_is_not_sent_to_an_import_that_can_not_open_it_either(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for name in ("r1", "r2"):
        store.add(make_record(name, steps=200))
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = store.path.read_bytes()
    store.path.write_bytes(content[: len(content) // 2])
    # 'runs import' asks the second what the file is, and would look for a Trainer's log in it.
    for use in (RunStore, is_store, lambda path: merge_stores(path, tmp_path / "new.sqlite")):
        with pytest.raises(StoreError, match="malformed") as caught:
            use(store.path)
        assert caught.value.remedy == "the file is damaged or was cut short: put a copy of it back"


@pytest.mark.parametrize("cell", ['{"values": {', '{"values": 3}', "[]", "null"])
def test_features_that_can_not_be_read_are_named_and_keep_no_run_out(cell: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record())
    for version in ("v1", "v2"):
        store.add_static("d1", "lab", version, FeatureVector({"rows": 1.0}))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE statics SET vector = ? WHERE version = 'v1'", (cell,))
    with pytest.raises(StoreError, match=r"features of data set d1 \(v1\) in .* can't be read"):
        store.static("d1", "lab", "v1")
    found = merge_stores(store.path, tmp_path / "new.sqlite")
    rescued = RunStore(tmp_path / "new.sqlite")
    assert rescued.static("d1", "lab", "v1") is None and rescued.static("d1", "lab", "v2") is not None
    assert (found.added, len(found.left_out)) == (1, 1)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder, not a store"):
        RunStore(tmp_path)


@pytest.mark.parametrize(
    ("mode", "read_only", "closed"), [(0o555, False, True), (0o755, False, False), (0o755, True, True)]
)
def test_only_a_store_that_nobody_writes_to_is_read_as_one_that_never_changes(
    mode: int, read_only: bool, closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared"
    store = RunStore(folder / "runs.sqlite")
    store.add(make_record())
    assert "immutable" not in store._address()
    flags = SimpleNamespace(f_flag=os.ST_RDONLY if read_only else 0)
    monkeypatch.setattr(os, "statvfs", lambda path: flags)
    # Who runs the tests may be allowed to write anywhere.
    monkeypatch.setattr(os, "access", lambda path, wanted: False)
    store.path.chmod(mode & 0o666)
    folder.chmod(mode)
    try:
        assert store._address().endswith("?immutable=1") == closed
        assert not closed or len(store) == 1
        with pytest.raises(StoreError, match="readonly") if closed else nullcontext():
            store.require_writable()
    finally:
        folder.chmod(0o755)
