"""The feature table keeps rows, columns and extras together, and survives the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneahead.errors import PredictorError
from tuneahead.predictor.table import FeatureTable, group_index, read_table, write_table


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
    np.testing.assert_array_equal(back.values, table.values)
    np.testing.assert_array_equal(back.seed_sd_pp, table.seed_sd_pp)
    assert back.cue_steps == (0, 25, 50, 100)
    np.testing.assert_array_equal(back.extra("cue_pp@50"), table.extra("cue_pp@50"))


def test_a_foreign_file_is_refused_with_its_name(tmp_path: Path):
    path = tmp_path / "notes.parquet"
    path.write_text("not parquet")
    with pytest.raises(PredictorError, match="notes.parquet is not a feature table"):
        read_table(path)


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
