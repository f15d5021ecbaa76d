"""Held-out rows: every one once, no data set on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneahead.errors import PredictorError
from tuneahead.predictor.splits import draw_data_sets, family_folds, folds_for, grouped_folds, random_fold


def test_grouped_folds_hold_every_task_out_once_and_cut_no_data_set(make_table):
    table = make_table(100, 8)
    folds = grouped_folds(table.data_ids, k=5, seed=3)
    assert len(folds) == 5
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(100))
    for fold in folds:
        train, test = ({table.data_ids[i] for i in rows} for rows in (fold.train, fold.test))
        assert not train & test
        assert len(fold.train) + len(fold.test) == 100
        assert 15 <= len(fold.test) <= 25


def test_repeats_hold_every_task_out_once_each_and_differ(make_table):
    folds = grouped_folds(make_table(60, 8).data_ids, k=4, repeats=2, seed=0)
    assert len(folds) == 8
    first, second = (np.concatenate([f.test for f in part]) for part in (folds[:4], folds[4:]))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(60))
    assert any(a.test.tolist() != b.test.tolist() for a, b in zip(folds[:4], folds[4:], strict=True))


def test_fewer_groups_than_folds_give_one_fold_a_group():
    assert len(grouped_folds(["a", "a", "b"], k=5)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_data_set_is_dealt_first(seed):
    # Dealt last, the six rows would lie on top of half of the others.
    folds = grouped_folds([*"abcdef", *"gggggg"], k=2, seed=seed)
    assert [len(fold.test) for fold in folds] == [6, 6]


def test_every_split_follows_its_seed(make_table):
    table = make_table(60, 8)
    alike = replace(table, seeds=np.ones(60))
    splits = {
        "grouped": lambda seed: grouped_folds(table.data_ids, seed=seed)[0].test,
        "random": lambda seed: random_fold(alike, seed=seed).test,
        "drawn": lambda seed: draw_data_sets(table, np.arange(60), 20, seed),
    }
    for name, split in splits.items():
        assert split(1).tolist() == split(1).tolist() != split(2).tolist(), name


def test_data_sets_are_drawn_whole_and_only_the_last_is_cut(make_table):
    table = make_table(60, 8)
    rows = np.arange(0, 60, 2)
    drawn = draw_data_sets(table, rows, 20, seed=0)
    assert len(set(drawn.tolist())) == 20 and set(drawn.tolist()) <= set(rows.tolist())
    last = table.data_ids[drawn[-1]]
    for data_id in {table.data_ids[i] for i in drawn} - {last}:
        assert [i for i in drawn if table.data_ids[i] == data_id] == [
            i for i in rows if table.data_ids[i] == data_id
        ]


def test_one_data_set_can_not_be_split():
    with pytest.raises(PredictorError, match="can't be split by data set"):
        grouped_folds(["a", "a"])


def test_random_fold_has_the_papers_share_and_takes_well_measured_tasks_first(make_table):
    table = make_table(130, 8)
    fold = random_fold(table, seed=1)
    assert len(fold.test) == 37 and len(fold.train) == 93
    several = int((table.seeds > 1).sum())
    assert int((table.seeds[fold.test] > 1).sum()) == min(37, several)
    assert len(random_fold(replace(table, seeds=np.ones(130)), held_out=40).test) == 40


def test_the_papers_count_is_held_out_of_the_papers_number_of_tasks(make_table):
    assert len(random_fold(make_table(1300, 8), seed=0).test) == 370


def test_family_folds_leave_each_family_out_once(make_table):
    table = make_table(48, 8)
    folds = family_folds(table.families)
    assert [fold.name for fold in folds] == ["family0", "family1", "family2", "family3"]
    for fold in folds:
        assert {table.families[i] for i in fold.test} == {fold.name}
        assert fold.name not in {table.families[i] for i in fold.train}


def test_unknown_protocol_names_the_known_ones(make_table):
    with pytest.raises(PredictorError, match="use random, grouped or family-out"):
        folds_for(make_table(12, 8), "leave-one-out")
