"""The feature table keeps rows, columns and extras together, and survives the disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_records import NOT_RECORDS, damaged

from tuneahead.errors import PredictorError
from tuneahead.predictor.splits import folds_for
from tuneahead.predictor.table import (
    FeatureTable,
    group_index,
    join_tables,
    outcome_column,
    read_table,
    write_table,
)


def test_select_takes_every_column_of_the_rows_asked_for(make_table):
    table = make_table(12, 8)
    part = table.select([5, 2])
    assert part.task_ids == ("t5", "t2") and part.data_ids == ("d1", "d0")
    np.testing.assert_array_equal(part.values, table.values[[5, 2]])
    np.testing.assert_array_equal(part.extras["final_steps"], table.extras["final_steps"][[5, 2]])
    assert len(table.select([])) == 0
    assert table.select(table.seeds > 1).task_ids == tuple(
        name for name, seeds in zip(table.task_ids, table.seeds, strict=True) if seeds > 1
    )


def test_with_features_keeps_order_and_groups(make_table):
    table = make_table(6, 8).with_features(["f3", "f0"])
    assert table.names == ("f3", "f0") and table.groups == ("cue", "static")
    assert table.of_group("cue") == ("f3",)
    with pytest.raises(PredictorError, match="no feature 'nonsense'"):
        table.with_features(["nonsense"])


def test_parquet_gives_back_the_same_table(make_table, tmp_path: Path):
    table = make_table(15, 8)
    write_table(table, tmp_path / "table.parquet")
    back = read_table(tmp_path / "table.parquet")
    assert (back.names, back.groups, back.task_ids, back.sources) == (
        table.names,
        table.groups,
        table.task_ids,
        table.sources,
    )
    np.testing.assert_array_equal(back.values, table.values.astype(np.float32))
    np.testing.assert_array_equal(back.seed_sd_pp, table.seed_sd_pp)
    assert back.cue_steps == (0, 25, 50, 100)
    np.testing.assert_array_equal(back.extra("cue_pp@50"), table.extra("cue_pp@50"))


def test_outcomes_on_a_second_benchmark_take_the_place_of_the_first(make_table):
    table = make_table(6, 8)
    second = {
        "outcome@truth|score_pp": np.arange(6.0),
        "outcome@truth|base_pp": np.full(6, 33.0),
        "outcome@truth|seeds": np.ones(6),
        "outcome@truth|seed_sd_pp": np.full(6, np.nan),
        "proxy_pp": np.full(6, 1.0),
        "proxy_pp@truth": np.full(6, 2.0),
    }
    both = replace(table, extras={**table.extras, **second})
    assert both.further_benchmarks == ("truth",)
    truth = both.of_benchmark("truth")
    assert truth.score_pp.tolist() == [0, 1, 2, 3, 4, 5] and set(truth.base_pp) == {33.0}
    assert set(truth.benchmarks) == {"truth"} and truth.extra("proxy_pp").tolist() == [2.0] * 6
    # What was measured on the first benchmark during the probe says nothing of points on the second.
    assert np.isnan(truth.probe_pp).all() and truth.cue_steps == () and truth.further_benchmarks == ()
    np.testing.assert_array_equal(truth.values, table.values)
    with pytest.raises(PredictorError, match="no task was scored on 'mmlu'"):
        both.of_benchmark("mmlu")


def test_a_second_benchmark_may_have_bars_in_its_name(make_table):
    table, name = make_table(6, 8), "leaderboard|truth|5"
    outcome = {outcome_column(name, key): getattr(table, key) for key in ("score_pp", "seeds")}
    both = replace(table, extras={**table.extras, **outcome})
    assert both.further_benchmarks == (name,)
    np.testing.assert_array_equal(both.of_benchmark(name).score_pp, table.score_pp)


def test_joined_tables_keep_their_rows_and_lack_what_they_lacked(make_table):
    one, two = make_table(6, 8), replace(make_table(4, 8, seed=1), bases=("other",) * 4, extras={})
    both = join_tables([one, two])
    assert len(both) == 10 and both.bases == (*one.bases, *two.bases)
    np.testing.assert_array_equal(both.values[6:], two.values)
    assert np.isnan(both.extra("final_steps")[6:]).all()
    np.testing.assert_array_equal(both.extra("final_steps")[:6], one.extra("final_steps"))
    with pytest.raises(PredictorError, match="other features"):
        join_tables([one, two.with_features(("f1",))])


def test_a_foreign_file_is_refused_with_its_name(tmp_path: Path):
    path = tmp_path / "notes.parquet"
    path.write_text("not parquet")
    with pytest.raises(PredictorError, match="notes.parquet is not a feature table"):
        read_table(path)


def rewritten(path: Path, *, header: Any = None, column: str = "", values: Any = None) -> None:
    """The table in the file with another header or another column."""
    arrow = pq.read_table(path)
    metadata = dict(arrow.schema.metadata)
    if column:
        arrow = arrow.set_column(arrow.column_names.index(column), column, values)
    if header is not None:
        metadata[b"tuneahead"] = header if isinstance(header, bytes) else json.dumps(header).encode()
    pq.write_table(arrow.replace_schema_metadata(metadata), path)


def test_a_damaged_header_is_refused_or_read(make_table, tmp_path: Path):
    whole, path = tmp_path / "whole.parquet", tmp_path / "table.parquet"
    write_table(make_table(9, 8), whole)
    header = json.loads(pq.read_schema(whole).metadata[b"tuneahead"])
    refused = 0
    others = ((repr(content[:9]), content) for content in NOT_RECORDS)
    for where, record in chain(damaged(header), others):
        shutil.copy(whole, path)
        rewritten(path, header=record)
        try:
            assert len(read_table(path).with_repeats()) == 9, where
        except PredictorError as error:
            assert "is not a feature table" in str(error) and error.remedy, where
            refused += 1
    assert refused > 70


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("data_ids", pa.nulls(9, pa.string()), "an entry of data_ids is None"),
        ("task_ids", [1] * 9, "an entry of task_ids is 1"),
        ("score_pp", ["40.5"] * 9, "column 'score_pp' holds string"),
        ("f:f0", [True] * 9, "column 'f:f0' holds bool"),
        ("x:final_steps", [[1.0]] * 9, "column 'x:final_steps' holds list"),
    ],
)
def test_a_column_of_another_kind_is_refused(make_table, tmp_path: Path, column, values, message):
    path = tmp_path / "table.parquet"
    write_table(make_table(9, 8), path)
    rewritten(path, column=column, values=pa.array(values) if isinstance(values, list) else values)
    with pytest.raises(PredictorError, match=f"table.parquet is not a feature table[\\s\\S]*{message}"):
        read_table(path)


def test_more_tasks_than_rows_and_cues_of_no_step_are_refused(make_table, tmp_path: Path):
    path = tmp_path / "table.parquet"
    table = make_table(9, 8)
    write_table(table, path)
    header = json.loads(pq.read_schema(path).metadata[b"tuneahead"])
    rewritten(path, header={**header, "tasks": 10})
    with pytest.raises(PredictorError, match="10 tasks in 9 rows"):
        read_table(path)
    write_table(replace(table, extras={"cue_pp@last": table.base_pp}), path)
    with pytest.raises(PredictorError, match="names no step"):
        read_table(path)


def test_a_table_of_other_feature_formulas_is_refused(make_table, tmp_path: Path):
    path = tmp_path / "table.parquet"
    write_table(make_table(9, 8), path)
    header = json.loads(pq.read_schema(path).metadata[b"tuneahead"])
    rewritten(path, header={**header, "catalogue": "1"})
    with pytest.raises(
        PredictorError, match="table.parquet [\\s\\S]*its features are of catalogue version '1'"
    ):
        read_table(path)
    del header["catalogue"]  # As earlier versions wrote it.
    rewritten(path, header=header)
    assert len(read_table(path)) == 9


def test_columns_of_another_length_and_double_names_are_refused(make_table):
    table = make_table(6, 8)
    with pytest.raises(PredictorError, match="'base_pp' has 5 entries for 6 tasks"):
        replace(table, base_pp=np.zeros(5))
    with pytest.raises(PredictorError, match="'f0' occurs twice"):
        replace(table, names=("f0", *table.names[:-1]))


def test_groups_come_from_the_catalogue_never_from_the_name():
    names = ("initial_loss_nats", "learning_rate_log10", "initial_loss_of_my_own")
    one = np.zeros(1)
    text = ("x",)
    table = FeatureTable(names, np.zeros((1, 3)), one, one, one, one, text, text, text, one, one, text, text)
    assert table.groups == ("dynamic", "recipe", "other")


def test_unscored_rows_are_left_out_of_scored(make_table):
    table = make_table(6, 8)
    score = table.score_pp.copy()
    score[2] = np.nan
    assert replace(table, score_pp=score).scored().task_ids == ("t0", "t1", "t3", "t4", "t5")


def test_absent_extras_are_nan_not_zero(make_table):
    assert np.isnan(make_table(6, 8).extra("proxy_pp")).all()


def test_group_index_counts_from_zero_in_order_of_appearance():
    assert group_index(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def repeated(make_table) -> FeatureTable:
    """Twelve tasks, of which t2 was run under two further seeds and t5 under one."""
    table = make_table(12, 8)
    further = table.select([2, 2, 5])
    return replace(table, repeats=replace(further, values=further.values + 1.0))


def test_rows_of_further_seeds_go_where_their_task_goes(make_table):
    table = repeated(make_table)
    assert len(table) == 12 and len(table.with_repeats()) == 15
    part = table.select([5, 7])
    assert part.repeats is not None and part.repeats.task_ids == ("t5",)
    assert part.with_repeats().task_ids == ("t5", "t7", "t5") and part.with_repeats().repeats is None
    assert len(table.select([0, 1]).with_repeats()) == 2
    assert table.with_features(["f3"]).with_repeats().values.shape == (15, 1)
    other = replace(table, bases=("other",) * 12)
    assert other.select([2]).repeats is not None and len(other.select([2]).repeats) == 0, "another base's"


def test_a_held_out_task_has_no_row_of_any_seed_in_training(make_table):
    table = repeated(make_table)
    for protocol in ("grouped", "random", "family-out"):
        for fold in folds_for(table, protocol, k=3):
            train, test = table.select(fold.train).with_repeats(), table.select(fold.test)
            assert not set(train.task_ids) & set(test.task_ids)


def test_rows_of_further_seeds_survive_the_disk_and_joining(make_table, tmp_path: Path):
    table = repeated(make_table)
    write_table(table, tmp_path / "table.parquet")
    back = read_table(tmp_path / "table.parquet")
    assert len(back) == 12 and back.repeats is not None and back.repeats.task_ids == ("t2", "t2", "t5")
    np.testing.assert_array_equal(back.repeats.values, table.repeats.values.astype(np.float32))
    both = join_tables([back, make_table(4, 8)])
    assert len(both) == 16 and len(both.with_repeats()) == 19


def test_a_table_that_is_not_there_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match="there is no file"):
        read_table(tmp_path / "none.parquet")
