"""Archives hold a store's runs and grow without touching what is there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_store import make_record

from tuneahead.errors import StoreError
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


def test_missing_and_damaged_archives_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no archive of runs"):
        list(read_archive(tmp_path))
    (tmp_path / "part-000.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match="can't be read"):
        list(read_archive(tmp_path))
