"""Own runs beside the packaged ones: none is dropped, and none counts twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneahead.errors import PredictorError
from tuneahead.predictor.packaged import beside_packaged, packaged_runs, shipped_history
from tuneahead.predictor.table import join_tables


def named(table, base: str, first: int = 0, benchmark: str = "exam"):
    rows = len(table)
    tasks = tuple(f"t{first + i}" for i in range(rows))
    return replace(table, bases=(base,) * rows, task_ids=tasks, benchmarks=(benchmark,) * rows)


def test_packaged_runs_on_the_own_base_and_benchmark_join_the_own_ones_once(make_table):
    packaged = named(make_table(30, 8), "known")
    packaged = replace(packaged, repeats=packaged.select(range(6)))
    others = named(make_table(12, 8, seed=1), "other")
    own = named(make_table(6, 8, seed=2), "known", first=27)
    own = replace(own, score_pp=np.append(own.score_pp[:5], np.nan))
    table, helpers = beside_packaged(own, join_tables([packaged, others]))
    assert sorted(table.task_ids) == sorted(f"t{i}" for i in range(32))
    np.testing.assert_array_equal(table.score_pp[:5], own.score_pp[:5])
    assert set(table.bases) == {"known"} and table.repeats is not None and len(table.repeats) == 6
    assert helpers is not None and helpers.bases == others.bases


def test_packaged_runs_of_the_own_base_help_on_another_benchmark_and_beside_several_bases(make_table):
    packaged = named(make_table(30, 8), "known")
    elsewhere = named(make_table(6, 8, seed=2), "known", benchmark="their exam")
    mixed = join_tables([named(make_table(6, 8, seed=2), "known", first=40), named(elsewhere, "new")])
    for own in (elsewhere, mixed):
        table, helpers = beside_packaged(own, packaged)
        assert table.task_ids == own.task_ids
        assert helpers is not None and helpers.task_ids == packaged.task_ids


def test_own_runs_without_a_score_take_no_packaged_ones_for_own(make_table):
    packaged, own = named(make_table(30, 8), "known"), named(make_table(6, 8), "known")
    table, helpers = beside_packaged(replace(own, score_pp=np.full(6, np.nan)), packaged)
    assert len(table) == 0 and helpers is not None and len(helpers) == 30


@pytest.mark.parametrize("steps", [50, 200])
def test_packaged_runs_of_another_length_are_on_one_base_with_those_of_the_others_to_help(steps: int):
    own, helpers = packaged_runs("lab-llama", steps)
    assert helpers is not None and own.probe_steps == helpers.probe_steps == steps
    assert set(own.bases) == {"lab-llama"} and "lab-llama" not in helpers.bases
    assert set(helpers.bases) == {"lab-qwen2", "lab-gemma3", *(["smollm2"] if steps == 50 else [])}
    assert shipped_history(probe_steps=steps).probe_steps == steps


def test_the_labs_main_base_needs_no_help():
    for name in ("lab-qwen2", "lab"):
        own, helpers = packaged_runs(name)
        assert set(own.bases) == {"lab-qwen2"} and helpers is None


def test_a_length_that_the_package_has_no_runs_of_is_refused_with_those_that_it_has():
    with pytest.raises(PredictorError, match="no runs after 75 steps") as caught:
        shipped_history(probe_steps=75)
    assert "50, 100 and 200 steps" in caught.value.remedy
