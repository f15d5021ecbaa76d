"""Which stored runs make a task."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_store import make_record

from tuneahead.history.store import RunStore
from tuneahead.history.tables import table_from_store
from tuneahead.history.tasks import tasks_of


def test_a_run_probed_several_times_counts_once_and_by_the_latest_probe_of_this_benchmark(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    ours = replace(make_record("other", steps=100), origin="assess")
    other = replace(ours.trace, info=replace(ours.trace.info, benchmark="truth"))
    store.add(replace(ours, run_id="same"))
    store.add(replace(ours, trace=other))
    (task,) = tasks_of(store, "exam")
    assert [record.run_id for record in task.records] == ["same"]
    store.add(replace(ours, run_id="longer", trace=make_record(steps=120).trace))
    (task,) = tasks_of(store, "exam")
    assert [record.run_id for record in task.records] == ["longer"]
    assert table_from_store(store, benchmark="exam").seeds.tolist() == [1]
