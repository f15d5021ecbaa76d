"""Baselines do what they are called, and none of them reads a held-out outcome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import SVR

from tuneahead.features.catalogue import CATALOGUE
from tuneahead.predictor import baselines
from tuneahead.predictor.baselines import OURS, WITH_PROXY, Estimate
from tuneahead.predictor.metrics import rmse
from tuneahead.predictor.table import FeatureTable, outcome_column, proxy_column

SYSTEMS = {system.name: system for system in baselines.SYSTEMS}


def enriched(table: FeatureTable, seed: int = 0) -> FeatureTable:
    """With everything a baseline may ask for: named features, embedding, similarity and a proxy's score."""
    rng = np.random.default_rng(seed)
    rows = len(table)
    names = (*baselines.LOSS_CURVE[:2], *baselines.CARTOGRAPHY[:2], *table.names)
    quality = (table.score_pp - 45.0) / 10.0
    hints = [quality + rng.normal(size=rows) for _ in range(4)]
    extras = {
        **table.extras,
        "similarity@benchmark": quality + rng.normal(size=rows),
        "embedding@0": quality + rng.normal(size=rows),
        "embedding@1": rng.normal(size=rows),
        "proxy_pp": 0.6 * table.score_pp + 2.0 * rng.normal(size=rows),
    }
    values = np.column_stack([*hints, table.values])
    groups = ("dynamic",) * 4 + table.groups
    return replace(table, names=names, values=values, groups=groups, extras=extras)


@pytest.fixture(scope="module")
def train(make_table) -> FeatureTable:
    return enriched(make_table(90, 8))


@pytest.fixture(scope="module")
def test(make_table) -> FeatureTable:
    return enriched(make_table(60, 8, seed=5), seed=5)


@pytest.fixture(scope="module")
def estimates(train, test) -> dict[str, Estimate]:
    return {name: system.run(train, test, 0) for name, system in SYSTEMS.items()}


def test_every_system_predicts_every_row_on_the_scale(estimates, test):
    for name, found in estimates.items():
        assert found.score_pp.shape == (60,), name
        assert ((found.score_pp >= 0) & (found.score_pp <= 100)).all(), (name, found.reason)


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - {"ours"}))
def test_no_system_reads_a_held_out_outcome(name, train, test, estimates):
    blind = replace(test, score_pp=np.full(60, np.nan), seed_sd_pp=np.full(60, np.nan), seeds=np.ones(60))
    found = SYSTEMS[name].run(train, blind, 0)
    np.testing.assert_array_equal(found.score_pp, estimates[name].score_pp)


def test_regressors_beat_the_mean_when_their_hint_is_informative(estimates, test):
    def error(name: str) -> float:
        return rmse(estimates[name].score_pp, test.score_pp)

    for name in ("domain_proxy", "early_dynamics", "cartography", "cosmos_like", "proxy_lm", "ridge", "svr"):
        assert error(name) < 0.9 * error("mean"), name
    assert error("proxy_lm") < error("domain_proxy")
    assert error("full_quick") < error("static_only")
    assert error("ours") < error("paper")


def test_rules_are_what_they_say(train, test, estimates):
    np.testing.assert_array_equal(estimates["base"].score_pp, test.base_pp)
    np.testing.assert_array_equal(estimates["persistence"].score_pp, test.probe_pp)
    gain = float((train.score_pp - train.probe_pp).mean())
    np.testing.assert_allclose(estimates["persistence_gain"].score_pp, np.clip(test.probe_pp + gain, 0, 100))
    assert np.ptp(estimates["mean"].score_pp) == 0.0


def test_early_stop_recovers_a_saturating_curve(make_table):
    table = make_table(40, 8)
    rng = np.random.default_rng(0)
    top, amplitude = rng.uniform(40, 70, 40), rng.uniform(5, 30, 40)
    curve = {f"cue_pp@{step}": top - amplitude * np.exp(-step / 80.0) for step in (0, 25, 50, 100)}
    final = top - amplitude * np.exp(-table.extra("final_steps") / 80.0)
    table = replace(table, score_pp=final, extras={**table.extras, **curve})
    found = baselines.early_stop(table.select(np.arange(20)), table.select(np.arange(20, 40)), 0)
    np.testing.assert_allclose(found.score_pp, final[20:], atol=1e-6)


def test_early_stop_leaves_out_rows_with_a_single_checkpoint(make_table):
    table = make_table(40, 8)
    extras = {name: column.copy() for name, column in table.extras.items()}
    for step in (25, 50, 100):
        extras[f"cue_pp@{step}"][30] = np.nan
    table = replace(table, extras=extras)
    found = baselines.early_stop(table.select(np.arange(20)), table.select(np.arange(20, 40)), 0)
    assert np.flatnonzero(np.isnan(found.score_pp)).tolist() == [10]


def test_scaling_law_uses_other_sizes_of_the_same_source(make_table):
    table = make_table(60, 8)
    size = np.tile([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0], 10)
    source = np.repeat(np.arange(10), 6)
    score = 70.0 - source - (200.0 + 20.0 * source) / (10.0 + size**0.5)
    table = replace(
        table,
        score_pp=score,
        sources=tuple(f"s{i}" for i in source),
        extras={"data_rows": size},
    )
    largest = size == 3200.0
    found = baselines.scaling_law(
        table.select(np.flatnonzero(~largest)), table.select(np.flatnonzero(largest)), 0
    )
    np.testing.assert_allclose(found.score_pp, score[largest], atol=1e-6)
    assert found.reason == ""


def test_what_has_no_data_says_so_instead_of_guessing(make_table):
    plain = replace(make_table(40, 8), extras={})
    for name in ("early_stop", "scaling_law", "domain_proxy", "early_dynamics", "cosmos_like", "proxy_lm"):
        found = SYSTEMS[name].run(plain, plain, 0)
        assert np.isnan(found.score_pp).all() and found.reason, name


def test_proxy_rows_that_were_not_run_stay_empty_and_say_so(train, test):
    proxy = test.extra("proxy_pp").copy()
    proxy[:7] = np.nan
    found = baselines.proxy_lm(train, replace(test, extras={**test.extras, "proxy_pp": proxy}), 0)
    assert np.flatnonzero(np.isnan(found.score_pp)).tolist() == list(range(7))
    assert found.reason == "tasks without a proxy run are left out", "a fold knows only its own number"


def test_with_a_proxy_ours_learns_what_its_full_runs_say_of_each_task(train, test):
    """A proxy that scores as the runs will leaves little to err about; a task without one is left out."""
    told, shown = (replace(t, extras={**t.extras, "proxy_pp": t.score_pp - 20.0}) for t in (train, test))
    shown.extras["proxy_pp"][:7] = np.nan
    alone = rmse(OURS.run(train, test, 0).score_pp[7:], test.score_pp[7:])
    found = WITH_PROXY.run(told, shown, 0)
    assert rmse(found.score_pp[7:], test.score_pp[7:]) < 0.7 * alone
    assert np.isnan(found.score_pp[:7]).all() and found.reason == "tasks without a proxy run are left out"


def test_with_a_proxy_ours_reads_its_scores_on_further_benchmarks_too(train, test):
    def told(table: FeatureTable) -> FeatureTable:
        further = {outcome_column("other", "score_pp"): table.base_pp, proxy_column("other"): table.score_pp}
        return replace(table, extras={**table.extras, "proxy_pp": table.base_pp, **further})

    found = WITH_PROXY.run(told(train), told(test), 0).score_pp
    assert rmse(found, test.score_pp) < 0.7 * rmse(OURS.run(train, test, 0).score_pp, test.score_pp)


def test_ablations_do_not_see_what_they_are_said_to_lack(train, test, estimates):
    blank = replace(test, probe_pp=np.full(60, np.nan))
    for name, hidden in (
        ("static_only", ("dynamic", "cue")),
        ("without_cues", ("cue",)),
        ("dynamic_only", ("static", "cue")),
    ):
        values = blank.values.copy()
        values[:, [group in hidden for group in blank.groups]] = 1e6
        found = SYSTEMS[name].run(train, replace(blank, values=values), 0)
        np.testing.assert_array_equal(found.score_pp, estimates[name].score_pp)


@pytest.mark.parametrize(
    ("name", "features", "groups", "extras"),
    [
        ("early_dynamics", baselines.LOSS_CURVE, (), ()),
        ("cartography", baselines.CARTOGRAPHY, (), ()),
        ("domain_proxy", (), (), ("similarity@",)),
        ("cosmos_like", baselines.LOSS_CURVE, ("recipe",), ("embedding@",)),
        ("proxy_lm", (), ("static", "recipe"), ("proxy_pp",)),
        # Of the paper's features the table holds these two.
        ("paper_features", baselines.LOSS_CURVE[:2], ("recipe",), ()),
    ],
)
def test_a_baseline_reads_what_it_is_said_to_and_nothing_else(
    name: str,
    features: tuple[str, ...],
    groups: tuple[str, ...],
    extras: tuple[str, ...],
    test,
    train,
    estimates,
) -> None:
    """Above all not the benchmark scores of the probe, of which the published system knows none."""
    known = [n in features or g in groups for n, g in zip(test.names, test.groups, strict=True)]

    def changed(*, what_it_reads: bool) -> FeatureTable:
        values = np.where(np.array(known) == what_it_reads, test.values[::-1] + 1.0, test.values)
        further = {
            key: column[::-1] + 1.0 if key.startswith(extras or "/") == what_it_reads else column
            for key, column in test.extras.items()
        }
        probe_pp = test.probe_pp if what_it_reads else np.full(60, np.nan)
        return replace(test, values=values, extras=further, probe_pp=probe_pp)

    found = SYSTEMS[name].run(train, changed(what_it_reads=False), 0)
    np.testing.assert_array_equal(found.score_pp, estimates[name].score_pp)
    other = SYSTEMS[name].run(train, changed(what_it_reads=True), 0)
    assert np.mean(np.abs(other.score_pp - found.score_pp) > 0.1) > 0.5


def test_what_baselines_read_by_name_is_in_the_catalogue() -> None:
    """A feature under a new name would be left out of its baseline without a word."""
    named = {*baselines.LOSS_CURVE, *baselines.SIMILARITY, *baselines.CARTOGRAPHY}
    assert named <= {spec.name for spec in CATALOGUE}


def test_the_selected_two_dozen_hold_what_matters_among_many_that_do_not(make_table, monkeypatch) -> None:
    table = make_table(240, 80)
    train, test = table.select(np.arange(180)), table.select(np.arange(180, 240))
    read: list[tuple[str, ...]] = []
    regress = baselines.regress

    def noted(train, test, names, preset, seed):
        read.append(tuple(names))
        return regress(train, test, names, preset, seed)

    monkeypatch.setattr(baselines, "regress", noted)
    found = SYSTEMS["selected"].run(train, test, 0)
    (names,) = read
    assert len(names) == baselines.SELECTED and {"f0", "f2"} <= set(names) <= set(table.names)
    assert rmse(found.score_pp, test.score_pp) < 0.6 * float(np.std(test.score_pp))


def test_support_vectors_find_the_width_of_a_smooth_function_of_many_columns(make_table):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(180, 20))
    score = 50.0 + values @ rng.normal(size=20)
    names = tuple(f"column{i}" for i in range(20))
    whole = replace(
        make_table(180, 8), names=names, values=values, groups=("static",) * 20, score_pp=score, repeats=None
    )
    train, test = whole.select(np.arange(120)), whole.select(np.arange(120, 180))
    found = rmse(baselines.svr(train, test, 0).score_pp, test.score_pp)
    usual = [
        SVR(C=cost, epsilon=0.5, gamma="scale").fit(train.values, train.score_pp).predict(test.values)
        for cost in (1.0, 10.0, 100.0)
    ]
    assert found < 0.7 * min(rmse(predicted, test.score_pp) for predicted in usual)
