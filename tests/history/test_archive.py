"""Archives hold a store's runs and grow without touching what is there."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_store import make_record

from tuneahead.errors import StoreError
from tuneahead.features.vector import FeatureVector
from tuneahead.history import archive
from tuneahead.history.archive import read_archive, restore, write_archive
from tuneahead.history.store import RunStore


def test_an_archive_gives_the_store_back_and_only_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RUNS_PER_PART", 2)
    store, folder = RunStore(tmp_path / "runs.sqlite"), tmp_path / "meta"
    for number in range(3):
        store.add(make_record(f"r{number}"))
    assert write_archive(store, folder) == 3
    first = (folder / "part-000.parquet").read_bytes()
    assert write_archive(store, folder) == 0
    for number in range(3, 6):
        store.add(make_record(f"r{number}"))
    assert write_archive(store, folder) == 3
    assert (folder / "part-000.parquet").read_bytes() == first
    assert [record.run_id for record in read_archive(folder)] == [f"r{n}" for n in range(6)]
    other = RunStore(tmp_path / "other.sqlite")
    assert restore(folder, other) == 6 and restore(folder, other) == 0
    for record in store.records():
        again = other.get(record.run_id)
        assert replace(again, trace=record.trace) == record
        assert again.trace.to_bytes() == record.trace.to_bytes()


def test_an_archive_grows_from_another_store_than_it_was_written_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RUNS_PER_PART", 2)
    folder = tmp_path / "meta"
    first, second = RunStore(tmp_path / "first.sqlite"), RunStore(tmp_path / "second.sqlite")
    for number in range(3):
        first.add(make_record(f"r{number}"))
    for number in (1, 7, 8):
        second.add(make_record(f"r{number}"))
    assert (write_archive(first, folder), write_archive(second, folder)) == (3, 2)
    assert [record.run_id for record in read_archive(folder)] == ["r0", "r1", "r2", "r7", "r8"]
    assert sorted(path.name for path in folder.iterdir()) == [f"part-00{n}.parquet" for n in range(3)]


def test_part_numbers_go_on_from_the_last_file_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RUNS_PER_PART", 2)
    store, folder = RunStore(tmp_path / "runs.sqlite"), tmp_path / "meta"
    for number in range(4):
        store.add(make_record(f"r{number}"))
    write_archive(store, folder)
    # Part 0 is kept elsewhere and part 1 has got a name beyond three digits.
    (folder / "part-000.parquet").unlink()
    (folder / "part-001.parquet").rename(folder / "part-1000.parquet")
    assert write_archive(store, folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["part-1000.parquet", "part-1001.parquet"]
    assert [record.run_id for record in read_archive(folder)] == ["r2", "r3", "r0", "r1"]


def test_missing_and_damaged_archives_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no archive of runs"):
        list(read_archive(tmp_path))
    (tmp_path / "part-000.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match="can't be read"):
        list(read_archive(tmp_path))
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record())
    with pytest.raises(StoreError, match="can't be read"):
        write_archive(store, tmp_path)
    assert (tmp_path / "part-000.parquet").read_bytes() == b"torn"
    (tmp_path / "part-last.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match="is no part of an archive"):
        list(read_archive(tmp_path))


@pytest.mark.parametrize(
    ("column", "cell"),
    [("scores", "{broken"), ("scores", "[61.2]"), ("base_scores", '{"exam": "high"}'), ("steps", None)]
    + [("recipe", '{"lora_rank": -1}'), ("trace", b"nothing")],
)
def test_a_run_that_was_edited_badly_is_named_with_its_part(
    tmp_path: Path, column: str, cell: object
) -> None:
    store, folder = RunStore(tmp_path / "runs.sqlite"), tmp_path / "meta"
    for number in range(2):
        store.add(make_record(f"r{number}"))
    write_archive(store, folder)
    (part,) = folder.glob("part-*.parquet")
    table = pq.read_table(part)
    cells = table.column(column).to_pylist()
    edited = pa.array([cells[0], cell], table.schema.field(column).type)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, edited), part)
    with pytest.raises(StoreError, match=r"run 'r1' in .*part-000\.parquet can't be read: ") as raised:
        restore(folder, RunStore(tmp_path / "other.sqlite"))
    assert "fetch the file again" in str(raised.value)


def test_a_run_of_unknown_length_goes_through_an_archive(tmp_path: Path) -> None:
    store, other = RunStore(tmp_path / "runs.sqlite"), RunStore(tmp_path / "other.sqlite")
    store.add(replace(make_record(), seconds=float("nan")))
    write_archive(store, tmp_path / "meta")
    assert restore(tmp_path / "meta", other) == 1 and math.isnan(other.get("r1").seconds)


def test_features_of_data_sets_that_nobody_can_make_again_go_along(tmp_path: Path) -> None:
    store, other = RunStore(tmp_path / "runs.sqlite"), RunStore(tmp_path / "other.sqlite")
    store.add(make_record())
    store.add(replace(make_record("r2"), data_id="questions", data_spec='{"source": "PIQA"}'))
    vector = FeatureVector({"examples": 60.0}, {"parse_depth_mean": "no words"})
    for data_id in ("d1", "questions"):
        store.add_static(data_id, "lab", "1", vector)
    folder = tmp_path / "meta"
    assert (write_archive(store, folder), restore(folder, other)) == (2, 2)
    assert other.static("questions", "lab", "1") == vector
    assert other.static("d1", "lab", "1") is None, "measured again from its spec"
    written = (folder / "features.parquet").read_bytes()
    assert write_archive(other, folder) == 0 and (folder / "features.parquet").read_bytes() == written
    again = FeatureVector({"examples": 61.0, "parse_depth_mean": math.nan}, {"parse_depth_mean": "no words"})
    other.add_static("questions", "lab", "1", again)
    write_archive(other, folder)
    third = RunStore(tmp_path / "third.sqlite")
    restore(folder, third)
    kept = third.static("questions", "lab", "1")
    assert kept is not None and kept.values["examples"] == 61.0, "measured again, archived again"
    (folder / "features.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match="can't be read"):
        restore(folder, other)
