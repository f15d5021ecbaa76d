"""The predictor learns from training rows only, admits doubt, and survives the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneahead.errors import PredictorError
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.chances import sd_between_recipes
from tuneahead.predictor.fitting import (
    FEW_DATA_SETS,
    judged_out_of_fold_pp,
    paper_features,
    prepare,
    seed_weights,
    varies_by_base_alone,
)
from tuneahead.predictor.linear import Ridge
from tuneahead.predictor.metrics import measure, rmse
from tuneahead.predictor.models import GREEDY_TREES, Boosting
from tuneahead.predictor.predictor import Predictor, load_predictor
from tuneahead.predictor.splits import grouped_folds
from tuneahead.predictor.table import FeatureTable, join_tables
from tuneahead.predictor.tuning import (
    DEFAULT,
    QUICK,
    Contestant,
    Preset,
    _fold_selections,
    _out_of_fold,
    choose,
    mixture,
)


def corrupted(table: FeatureTable, rows: np.ndarray) -> FeatureTable:
    """The same table with nonsense in every feature, score and extra of some rows."""
    rng = np.random.default_rng(99)
    values, changed = table.values.copy(), {}
    values[rows] = 1e4 * rng.normal(size=(len(rows), values.shape[1]))
    for name in ("score_pp", "base_pp", "probe_pp", "chance_pp", "seeds", "seed_sd_pp"):
        changed[name] = getattr(table, name).copy()
        changed[name][rows] = rng.uniform(1, 90, len(rows))
    extras = {name: column.copy() for name, column in table.extras.items()}
    for column in extras.values():
        column[rows] = -5.0
    return replace(table, values=values, extras=extras, **changed)


@pytest.fixture(scope="module")
def table(make_table):
    return make_table(150, 10)


@pytest.fixture(scope="module")
def fitted(table):
    return Predictor.fit(table)


def saved_bytes(predictor: Predictor, folder: Path) -> dict[str, bytes]:
    predictor.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_forecast_is_the_same_whatever_it_is_made_beside(make_table, preset):
    table = make_table(130, 8)
    fold = grouped_folds(table.data_ids, k=5, seed=0)[0]
    one = Predictor.fit(table.select(fold.train), preset=preset)
    clean = table.select(fold.test)
    alone = one.predict_table(clean.select([0]))
    among = one.predict_table(corrupted(clean, np.arange(1, len(clean))))
    assert alone.score_pp[0] == pytest.approx(among.score_pp[0], abs=1e-9)
    assert alone.high_pp[0] == pytest.approx(among.high_pp[0], abs=1e-9)


def test_out_of_fold_predictions_never_saw_their_own_data_sets(make_table):
    """``choose`` as a whole: spoiling the rows of an inner fold changes no prediction of that fold."""
    problem, _, _ = prepare(make_table(130, 8), DEFAULT)
    learner = Boosting("trees", GREEDY_TREES, (40,))
    preset = Preset("one", (Contestant(learner, "selected"),), anchors=("probe",), folds=4)
    fold = grouped_folds(problem.data_ids, k=4, seed=1)[0]
    labels = problem.score_pp.copy()
    labels[fold.test] = 100.0 - labels[fold.test]
    one = choose(problem, preset, 0).out_of_fold_pp
    two = choose(replace(problem, score_pp=labels), preset, 0).out_of_fold_pp
    np.testing.assert_array_equal(one[fold.test], two[fold.test])
    assert not np.array_equal(one[fold.train], two[fold.train]), "the other folds learn from those rows"


def test_residuals_for_calibration_never_saw_their_own_data_set(table):
    """The inner folds: spoiling a fold's labels and features changes nothing that predicts that fold."""
    problem, _, _ = prepare(table, DEFAULT)
    fold = grouped_folds(table.data_ids, k=4, seed=1)[0]
    labels, features = problem.score_pp.copy(), problem.features.copy()
    labels[fold.test] = 0.0
    features[fold.test] = 1e4
    spoiled = replace(problem, score_pp=labels)
    wild = replace(spoiled, features=features)
    chosen = _fold_selections(problem, "probe", [fold], 0)
    assert chosen == _fold_selections(wild, "probe", [fold], 0)
    one = _out_of_fold(problem, "probe", Ridge(), [fold], chosen, 0)[fold.test]
    two = _out_of_fold(spoiled, "probe", Ridge(), [fold], chosen, 0)[fold.test]
    np.testing.assert_array_equal(one, two)


def judged(table: FeatureTable) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that intervals are calibrated with, and those that models were chosen on, in points."""
    problem, _, _ = prepare(table, QUICK)
    choice = choose(problem, QUICK, 0)
    return judged_out_of_fold_pp(problem, QUICK, choice, 0), choice.out_of_fold_pp


def test_in_a_short_history_no_score_has_a_part_in_what_judges_it(make_table):
    table = make_table(36, 8)
    score_pp = table.score_pp.copy()
    score_pp[:3] = 95.0  # One data set's three recipes.
    changed = replace(table, score_pp=score_pp)
    assert set(table.data_ids[:3]) == {table.data_ids[0]} != {table.data_ids[3]}
    before, after = judged(table)[0], judged(changed)[0]
    np.testing.assert_array_equal(before[:3], after[:3])
    assert not np.array_equal(before[3:], after[3:])


def test_in_a_short_history_the_error_between_recipes_is_that_of_what_judges_it(make_table):
    """Residuals that the models were chosen on are too small: chances from them would be too sure."""
    table = make_table(36, 8)
    nested, chosen_on = (
        sd_between_recipes(table.score_pp - found, table.data_ids, table.task_ids) for found in judged(table)
    )
    assert Predictor.fit(table, preset=QUICK).recipe_sd_pp == pytest.approx(nested)
    assert nested > 1.02 * chosen_on


def test_the_models_compared_are_counted_to_the_last_of_each_fold(make_table):
    short, long = [], []
    Predictor.fit(make_table(36, 8), preset=QUICK, progress=lambda *step: short.append(step))
    Predictor.fit(make_table(3 * FEW_DATA_SETS, 8), preset=QUICK, progress=lambda *step: long.append(step))
    assert short == [(done, 22) for done in range(1, 23)]  # Two models, for all rows and for ten folds.
    assert long == [(1, 2), (2, 2)]


def test_in_a_long_history_the_predictions_chosen_on_judge(make_table):
    long = make_table(3 * FEW_DATA_SETS, 8)
    np.testing.assert_array_equal(*judged(long))
    short = long.select(np.arange(3 * FEW_DATA_SETS - 3))
    assert not np.array_equal(*judged(short))


def test_it_beats_persistence_and_the_paper_preset_on_unseen_data_sets(table, fitted, make_table):
    test = make_table(300, 10, seed=7)
    ours = rmse(fitted.predict_table(test).score_pp, test.score_pp)
    paper = rmse(Predictor.fit(table, preset="paper").predict_table(test).score_pp, test.score_pp)
    assert ours < 0.6 * rmse(test.probe_pp, test.score_pp)
    assert ours < paper


def test_ninety_percent_intervals_cover_about_ninety_percent(fitted, make_table):
    test = make_table(900, 10, seed=8)
    found = fitted.predict_table(test)
    m = measure(found.score_pp, test.score_pp, low=found.low_pp, high=found.high_pp)
    assert 0.84 <= m.coverage <= 0.96
    wide = fitted.predict_table(test, level=0.97)
    assert (wide.high_pp - wide.low_pp).mean() > m.width_pp


def test_few_data_sets_make_the_interval_the_whole_scale(table):
    rows = table.select(np.arange(12))  # four data sets
    found = Predictor.fit(rows, preset="quick").predict_table(table)
    assert found.low_pp.max() == 0.0 and found.high_pp.min() == 100.0
    half = Predictor.fit(rows, preset="quick", level=0.5).predict_table(table)
    assert (half.high_pp - half.low_pp).max() < 100.0


def test_a_constant_gain_is_learnt_from_enough_rows_to_select_on(table):
    rows = table.select(np.arange(90))
    flat = replace(rows, score_pp=rows.probe_pp + 5.0, groups=("static",) * len(rows.names))
    found = Predictor.fit(flat).predict_table(flat)
    np.testing.assert_allclose(found.score_pp, flat.score_pp, atol=0.1)


def test_one_row_gives_its_own_gain_and_no_certainty(table):
    one = table.select([0])
    found = Predictor.fit(one).predict_table(one)
    assert found.score_pp[0] == pytest.approx(one.score_pp[0], abs=0.5)
    assert (found.low_pp[0], found.high_pp[0]) == (0.0, 100.0)


def test_saving_and_loading_changes_nothing(table, fitted, tmp_path):
    fitted.save(tmp_path)
    back = load_predictor(tmp_path)
    for name in ("score_pp", "low_pp", "high_pp", "in_distribution"):
        np.testing.assert_allclose(
            getattr(back.predict_table(table), name), getattr(fitted.predict_table(table), name), atol=1e-9
        )
    assert back.origin == fitted.origin
    assert not any(path.suffix in (".pkl", ".npy") for path in tmp_path.iterdir())


def test_a_folder_without_predictor_is_named(tmp_path):
    with pytest.raises(PredictorError, match="holds no predictor"):
        load_predictor(tmp_path)
    (tmp_path / "predictor.json").write_text('{"schema": 99}')
    with pytest.raises(PredictorError, match="schema 99"):
        load_predictor(tmp_path)


def test_the_origin_tells_what_was_compared_and_selected(fitted, table):
    weights = sum(figure.weight for figure in fitted.origin.figures)
    assert weights == pytest.approx(1.0)
    assert {figure.target for figure in fitted.origin.figures} == {"probe", "base"}
    assert {entry.feature for entry in fitted.origin.trail} >= set(table.names)
    assert (fitted.origin.rows, fitted.origin.data_sets) == (150, 50)


def test_inputs_outside_the_training_range_are_named(fitted, table):
    values = dict(zip(table.names, np.nan_to_num(table.values[0]).tolist(), strict=True))
    usual = fitted.predict(FeatureVector(values), 30.0, 40.0)
    assert usual.in_distribution
    odd = fitted.predict(FeatureVector({**values, "f0": 80.0, "f2": -80.0, "f6": 80.0}), 30.0, 40.0)
    assert not odd.in_distribution
    assert {"f0", "f2", "f6"} <= set(odd.outside)


def test_what_the_recipe_can_change_is_named_first_of_what_lies_outside(table):
    named = replace(table, names=(*table.names[:-1], "learning_rate_log10"))
    odd = FeatureVector(dict.fromkeys(named.names, 1e6))
    outside = Predictor.fit(named, preset="quick").predict(odd, 30.0, 40.0).outside
    assert outside[0] == "learning_rate_log10" and len(outside) > 2


def test_a_missing_probe_score_is_an_error_that_says_what_to_do(fitted, table):
    assert fitted.anchor == "probe"
    with pytest.raises(PredictorError, match=r"probe score is nan[\s\S]*cue items"):
        fitted.predict(FeatureVector({}), 30.0, float("nan"))


def test_without_a_score_of_guessing_in_training_a_later_one_changes_nothing(make_table):
    """Imported runs may not say it; the benchmark of the next task does."""
    table = make_table(60, 6)
    silent = replace(table, chance_pp=np.full(60, np.nan))
    predictor = Predictor.fit(silent, preset="quick")
    assert np.isnan(predictor.chance_pp)
    expected = predictor.predict_table(silent).score_pp
    np.testing.assert_array_equal(predictor.predict_table(table).score_pp, expected)
    vector = FeatureVector(dict(zip(table.names, table.values[0].tolist(), strict=True)))
    base, probe = float(table.base_pp[0]), float(table.probe_pp[0])
    found = predictor.predict(vector, base, probe, chance_pp=25.0)
    assert found.score_pp == pytest.approx(expected[0])
    baseline, reasons = predictor.explain(vector, base, probe, chance_pp=25.0)
    assert baseline + sum(one.contribution_pp for one in reasons) == pytest.approx(expected[0])


def test_features_a_table_lacks_count_as_absent(fitted, table):
    blank = table.values.copy()
    blank[:, 3:] = np.nan
    lacking = fitted.predict_table(table.with_features(table.names[:3]))
    np.testing.assert_allclose(lacking.score_pp, fitted.predict_table(replace(table, values=blank)).score_pp)


def test_rows_without_probe_score_do_not_cost_the_others_their_anchor(table):
    probe = table.probe_pp.copy()
    probe[:5] = np.nan
    predictor = Predictor.fit(replace(table, probe_pp=probe), preset="quick")
    assert predictor.anchor == "probe" and predictor.origin.rows == 145
    assert np.isnan(predictor.predict_table(replace(table, probe_pp=probe)).score_pp[:5]).all()


def test_gain_target_serves_several_bases_where_raw_scores_do_not(make_table):
    low, high = make_table(120, 8), make_table(120, 8, seed=1)
    shift = 30.0
    parts = {
        "score_pp": high.score_pp + shift,
        "base_pp": high.base_pp + shift,
        "probe_pp": high.probe_pp + shift,
    }
    predictor = Predictor.fit(low, preset="quick")
    other = replace(high, **parts)
    raw = Predictor.fit(low, preset=replace(QUICK, anchors=("raw",), context=False))
    ours, theirs = (rmse(p.predict_table(other).score_pp, other.score_pp) for p in (predictor, raw))
    assert ours < 0.5 * theirs


def test_more_seeds_weigh_more_but_not_without_bound():
    weights = seed_weights(np.array([1.0, 3.0, 1000.0]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(1.5)
    assert weights[2] / weights[0] < 2.0


def test_models_that_err_nearly_as_little_as_the_best_are_averaged():
    rng = np.random.default_rng(0)
    target, ones = rng.normal(size=300), np.ones(300)
    good, same, bad = (target + size * rng.normal(size=300) for size in (0.5, 0.51, 0.9))
    assert mixture(np.column_stack([bad, good, same]), target, ones).tolist() == [0.0, 0.5, 0.5]
    # Rows count by their weights: where those of the first half count alone, the other model is best.
    early = np.repeat([1.0, 0.0], 150)
    late = np.where(early > 0, target, bad)
    assert mixture(np.column_stack([good, late]), target, early).tolist() == [0.0, 1.0]


def test_paper_features_are_the_catalogues_24_and_the_recipe(table):
    from tuneahead.features.catalogue import names_of

    names = names_of()
    wide = replace(table.select([0]), names=names, values=np.zeros((1, len(names))), groups=(), extras={})
    found = paper_features(wide)
    assert set(found) == set(names_of("static", "dynamic", paper=True)) | set(names_of("recipe"))


def test_a_benchmark_without_head_room_and_a_task_without_seeds_are_named(table):
    chance = np.where(np.arange(len(table)) == 3, 100.0, 25.0)
    with pytest.raises(PredictorError, match=rf"task {table.task_ids[3]}: the score of guessing is 100"):
        Predictor.fit(replace(table, chance_pp=chance), preset="quick")
    seeds = np.where(np.arange(len(table)) == 5, np.nan, 1.0)
    with pytest.raises(PredictorError, match=rf"task {table.task_ids[5]} has nan seeds"):
        Predictor.fit(replace(table, seeds=seeds), preset="quick")


def test_a_score_that_is_no_percentage_is_named_with_its_task(table):
    for score in (101.5, -0.5):
        score_pp = table.score_pp.copy()
        score_pp[7] = score
        with pytest.raises(PredictorError, match=f"task t7: score {score:g} is outside 0 to 100"):
            Predictor.fit(replace(table, score_pp=score_pp), preset="quick")


def test_a_level_that_is_no_probability_is_refused(fitted, table):
    with pytest.raises(PredictorError, match="level 90"):
        fitted.predict_table(table, level=90)


def test_bad_presets_levels_and_empty_tables_are_refused(table):
    with pytest.raises(PredictorError, match="use one of paper, default, quick"):
        Predictor.fit(table, preset="best")
    with pytest.raises(PredictorError, match="level 90"):
        Predictor.fit(table, level=90)
    with pytest.raises(PredictorError, match="no row of the table has a score"):
        Predictor.fit(replace(table, score_pp=np.full(150, np.nan)))


def test_same_seed_same_predictor(table, tmp_path):
    one, two = (Predictor.fit(table, preset="quick", seed=4) for _ in range(2))
    assert saved_bytes(one, tmp_path / "one") == saved_bytes(two, tmp_path / "two")


def test_other_bases_runs_help_a_few_own_ones(make_table):
    helpers = make_table(150, 8)
    few, test = make_table(12, 8, seed=3), make_table(300, 8, seed=4)
    few = replace(few, bases=("other",) * len(few), benchmarks=("their exam",) * len(few))
    few = replace(few, chance_pp=np.full(len(few), 10.0))
    alone = Predictor.fit(few, preset="quick").predict_table(test)
    helped = Predictor.fit(few, preset="quick", helpers=helpers)
    found = helped.predict_table(test)
    assert rmse(found.score_pp, test.score_pp) < 0.8 * rmse(alone.score_pp, test.score_pp)
    assert helped.origin.bases == ("other",) and helped.origin.benchmarks == ("their exam",)
    assert helped.origin.rows == 162 and helped.origin.own_rows == 12
    assert helped.chance_pp == pytest.approx(10.0), "the score of guessing is that of the own benchmark"
    assert set(helped.calibration.groups) == set(few.data_ids), "intervals are those of the own runs"


def test_of_several_bases_each_gets_the_interval_of_its_own_runs(make_table, tmp_path):
    """One run on a base bounds nothing there, however many others were made elsewhere."""
    home, known, new = make_table(90, 8), make_table(60, 8, seed=1), make_table(1, 8, seed=2)
    known = replace(known, bases=("known",) * 60, score_pp=known.score_pp + np.tile([-9.0, 9.0], 30))
    new = replace(new, bases=("new",), task_ids=("first",), data_ids=("first",))
    Predictor.fit(join_tables([home, known, new]), preset="quick").save(tmp_path)
    predictor = load_predictor(tmp_path)

    def width(*place: str) -> float:
        given = {"place": place} if place else {}
        found = predictor.predict(FeatureVector({}), 30.0, 45.0, **given)
        return found.high_pp - found.low_pp

    assert width("new", "exam") == 100.0
    assert 0.0 < width("lab", "exam") < width() < width("known", "exam") < 100.0
    asked = join_tables([home.select([0]), known.select([0]), new])
    found = predictor.predict_table(asked)
    widths = (found.high_pp - found.low_pp).tolist()
    assert widths[0] < widths[1] < widths[2] == 100.0


def test_a_column_that_only_tells_bases_apart_is_left_out():
    draw = np.random.default_rng(0)
    bases = ("home",) * 60 + ("new",) * 6
    apart = np.repeat([0.0, 1.0], (60, 6))
    absent = np.where(apart > 0, np.nan, draw.normal(size=66))
    features = np.column_stack(
        [apart, apart * 30 + draw.normal(size=66), apart + draw.normal(size=66), absent, np.ones(66)]
    )
    assert varies_by_base_alone(features, bases).tolist() == [True, True, False, False, False]
    assert not varies_by_base_alone(features, ("home",) * 66).any()


@pytest.mark.parametrize("probed", [0, 4])
def test_own_runs_without_a_probe_score_are_not_thrown_away_for_the_helpers(make_table, probed):
    """The many runs of other bases have one: that decides nothing for those that the predictor is for."""
    own = make_table(40, 8, seed=3)
    own = replace(own, bases=("other",) * 40, probe_pp=np.where(np.arange(40) < probed, own.probe_pp, np.nan))
    helped = Predictor.fit(own, preset="quick", helpers=make_table(150, 8))
    assert helped.anchor == "base" and helped.origin.own_rows == 40
    assert set(helped.calibration.groups) == set(own.data_ids)


def test_helpers_without_an_own_run_make_no_predictor(make_table):
    few = make_table(6, 8, seed=3)
    with pytest.raises(PredictorError, match="no row of the table has a score"):
        Predictor.fit(replace(few, score_pp=np.full(6, np.nan)), preset="quick", helpers=make_table(150, 8))
