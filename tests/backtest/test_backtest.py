"""The backtest holds out what it says, pays for what it counts, and prints what it measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from damaged_records import NOT_RECORDS, damaged

from tuneahead.backtest import BacktestOptions, backtest, bases, read_result
from tuneahead.backtest.headline import headline_table
from tuneahead.backtest.protocols import judge, protocol_tables
from tuneahead.backtest.runs import Outcome, Plan, run_plans
from tuneahead.backtest.tables import Scored, Table, goal_note, metric_table, narrowed, show, worst_first
from tuneahead.errors import PredictorError
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS
from tuneahead.predictor.decisions import cautious_pp
from tuneahead.predictor.fingerprint import table_fingerprint
from tuneahead.predictor.intervals import MIN_SCALED_ROWS
from tuneahead.predictor.metrics import measure, noise_floor_pp, rmse
from tuneahead.predictor.splits import folds_for
from tuneahead.predictor.table import FeatureTable


def synthetic(rows: int = 120, seed: int = 0) -> FeatureTable:
    """Scores that follow the probe and one feature, two families, two recipes a data set."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 4))
    probe = 40.0 + 5.0 * values[:, 3]
    score = probe + 10.0 + 6.0 * values[:, 0] + rng.normal(size=rows)
    return FeatureTable(
        names=("wit", "noise", "rate", "cue"),
        values=values,
        score_pp=score,
        base_pp=np.full(rows, 35.0),
        probe_pp=probe,
        chance_pp=np.full(rows, 25.0),
        task_ids=tuple(f"t{i}" for i in range(rows)),
        data_ids=tuple(f"d{i // 2}" for i in range(rows)),
        families=tuple(f"family{(i // 2) % 2}" for i in range(rows)),
        seeds=np.where(np.arange(rows) % 2, 3.0, 1.0),
        seed_sd_pp=np.where(np.arange(rows) % 2, 1.0, np.nan),
        bases=("lab",) * rows,
        benchmarks=("exam",) * rows,
        groups=("static", "dynamic", "recipe", "cue"),
        extras={"final_steps": np.full(rows, 1000.0)},
    )


CHOSEN = ("mean", "persistence", "paper", "ours", "full_quick", "static_only", "proxy_lm", "selected")


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return synthetic()


@pytest.fixture(scope="module")
def result(table):
    second = {
        "outcome@truth|score_pp": table.score_pp / 2,
        "outcome@truth|base_pp": table.base_pp / 2,
        "outcome@truth|seeds": table.seeds,
        "outcome@truth|seed_sd_pp": table.seed_sd_pp / 2,
    }
    other = replace(synthetic(90, seed=1), bases=("small",) * 90)
    options = BacktestOptions(
        systems=CHOSEN,
        folds=3,
        probe_tables={100: table, 50: table.select(range(60))},
        other_bases={"small": other},
    )
    return backtest(replace(table, extras={**table.extras, **second}), options=options)


def test_every_protocol_has_its_tables_and_every_system_its_row(result):
    names = [table.name for table in result.tables]
    for protocol in ("grouped", "random", "family-out"):
        main = result.table(f"main {protocol}")
        assert [row[0] for row in main.rows][-1] == "Seed-noise floor"
        assert len(main.rows) == 6, "five systems and the floor"
        assert f"decisions {protocol}" in names and f"decision curve {protocol}" in names
    assert {"ablation grouped", "selection", "learning curve", "probe length"} <= set(names)


def test_errors_are_of_held_out_predictions_on_well_measured_tasks(result, table):
    ours = {p.task_id: p.predicted_pp for p in result.predictions["grouped"]}
    several = table.seeds >= 2
    predicted = np.array([ours[task] for task in table.task_ids])
    row = next(row for row in result.table("main grouped").rows if row[0] == "TuneAhead (default)")
    assert row[1] == pytest.approx(rmse(predicted[several], table.score_pp[several]))
    assert row[12] == int(several.sum())
    assert 0.9 < row[1] < 2.0, "near the noise of one point"
    assert "60 tasks of 120" in result.table("main grouped").note
    floor = result.table("main grouped").rows[-1][1]
    assert floor == pytest.approx(1.0 / math.sqrt(3.0))


def test_random_protocol_predicts_only_the_held_out_share(result):
    assert len(result.predictions["random"]) == round(120 * 370 / 1300)


def test_a_system_without_data_has_an_empty_row_and_a_reason(result):
    main = result.table("main grouped")
    row = next(row for row in main.rows if row[0] == "ProxyLM")
    assert row[12] == 0 and math.isnan(row[1])
    assert "ProxyLM: not run, the proxy model was fine-tuned on 0 training tasks" in main.note


def test_systems_stand_in_the_order_of_their_errors_also_beside_one_that_was_not_run(result):
    """NaN is neither more nor less than a number: sorted by it, others changed places."""
    measured = np.zeros(3)
    errors = {"mean": 9.0, "persistence": 4.0, "proxy_lm": math.nan, "paper": 5.0, "ours": 2.0}
    systems = [Scored(name, name, measure(measured + error, measured)) for name, error in errors.items()]
    order = ["proxy_lm", "mean", "paper", "persistence", "ours"]
    assert [system.name for system in worst_first(systems)] == order
    for name in ("main grouped", "base small", "benchmark truth"):
        rows = result.table(name).rows[:-1]
        assert rows[0][0] == "ProxyLM"
        assert [row[1] for row in rows[1:]] == sorted((row[1] for row in rows[1:]), reverse=True)


def test_paper_figures_stand_beside_ours(result):
    rows = {row[0]: row for row in result.table("main random").rows}
    assert rows["TuneAhead (default)"][-1] == 1.47
    assert rows["ProxyLM"][-1] == 2.11
    assert "58.4 % saved" in result.table("decisions random").note
    theirs = {row[0]: row[1:] for row in result.table("paper random").rows}
    assert theirs["TuneAhead"] == (1.47, 0.99, 0.99, 50.0, 82.5, 95.1)
    assert result.table("paper random").columns[1:] == (
        *("RMSE", "R2", "r", "within 1 pp %", "within 2 pp %", "within 3 pp %"),
    )
    assert rows["ProxyLM"][-1] == theirs["ProxyLM"][0]


def test_goals_elsewhere_stand_beside_what_was_measured(result):
    assert goal_note("an RMSE of", 2.54, high=2.17) == " Goal: an RMSE of at most 2.17, missed (2.54)."
    assert goal_note("an R2 of", 0.91, low=0.91) == " Goal: an R2 of at least 0.91, met (0.91)."
    assert goal_note("an R2 of", math.nan, low=0.91) == ""
    r2 = next(row[3] for row in result.table("base small").rows if row[0] == "TuneAhead (default)")
    assert f"Goal: an R2 of at least 0.91, met ({r2:.3g})." in result.table("base small").note


def test_decisions_count_probes_of_a_hundred_steps_in_a_thousand(result, table):
    decisions = result.table("decisions grouped")
    several = table.seeds >= 2
    tau, rule, run, saved, *_ = next(row for row in decisions.rows if row[1] == "persistence")
    share = float(np.mean(table.probe_pp[several] >= tau))
    assert run == pytest.approx(100.0 * share)
    assert saved == pytest.approx(90.0 * (1.0 - share))


def held_out(table: FeatureTable, options: BacktestOptions) -> dict[str, Outcome]:
    systems = tuple(s for s in (*BASELINES, OURS, *ABLATIONS) if s.name in options.systems)
    plan = Plan(systems, folds_for(table, "family-out"))
    return run_plans(table, {"family-out": plan}, seed=0)["family-out"]


def test_corrupt_held_out_rows_change_no_prediction_of_the_others():
    """One family spoiled: its own fold predicts nonsense, but the models fitted without it are unchanged."""
    # Enough rows on either side for feature selection and for intervals of varying width.
    table = synthetic(2 * MIN_SCALED_ROWS + 40)
    options = BacktestOptions(systems=("ours", "paper", "ridge", "svr", "selected"))
    before = held_out(table, options)
    assert before["ours"].trail, "features were selected"
    assert np.ptp(before["ours"].high_pp - before["ours"].low_pp) > 0.1, "widths vary"
    rows = np.flatnonzero(np.array(table.families) == "family0")
    score, values = table.score_pp.copy(), table.values.copy()
    score[rows] = 99.0
    # Half of the held-out rows have other features too, which nothing fitted without them may know.
    kept, spoilt = rows[::2], rows[1::2]
    values[spoilt] = 50.0 - 3.0 * values[spoilt]
    spoiled = replace(table, score_pp=score, values=values)
    after = held_out(spoiled, options)
    for name, outcome in before.items():
        np.testing.assert_allclose(outcome.score_pp[kept], after[name].score_pp[kept], 1e-9, err_msg=name)
        np.testing.assert_allclose(outcome.high_pp[kept], after[name].high_pp[kept], 1e-9, err_msg=name)
        others = np.setdiff1d(np.arange(len(table)), rows)
        assert not np.allclose(outcome.score_pp[others], after[name].score_pp[others])


def test_two_processes_find_what_one_finds(table):
    options = BacktestOptions(systems=("ridge", "persistence"), ablations=False, learning_curve=False)
    one = backtest(table, protocols=("grouped",), options=options)
    two = backtest(table, protocols=("grouped",), options=replace(options, workers=2))
    assert one.to_json() == two.to_json()


def test_more_past_runs_help():
    easy = synthetic()
    # Bent and crossed, so that a straight line through few rows can't be enough.
    wit, noise, rate, _ = easy.values.T
    table = replace(easy, score_pp=easy.probe_pp + 6.0 * np.sin(2.0 * wit) + 4.0 * noise * rate)
    rows = backtest(table, options=BacktestOptions(systems=("ours",), folds=3)).table("learning curve").rows
    assert [row[0] for row in rows][:2] == [25, 50]
    assert rows[-1][1] < 0.9 * rows[0][1]


def test_headline_figures_stand_beside_their_goals_and_say_whether_they_are_met(result):
    rows = {row[0]: row for row in result.table("headline grouped").rows}
    main = {row[0]: row for row in result.table("main grouped").rows}
    error = main["TuneAhead (default)"][1]
    assert rows["RMSE, points"][1:] == (error, main["TuneAhead (default)"][2], "at most 1.47", "yes", 1.47)
    best = min(main[name][1] for name in ("Persistence (score at the probe)", "Mean of the training scores"))
    best = min(best, main["Paper preset (24 features + recipe)"][1])
    assert rows["RMSE below the best baseline's, %"][1] == pytest.approx(100 * (1 - error / best))
    over = rows["RMSE over the seed-noise floor"]
    assert over[1] == pytest.approx(error * math.sqrt(3.0))
    low, high = (float(end) for end in over[2].split(" to "))
    assert low < over[1] < high
    main_low, main_high = (float(end) for end in main["TuneAhead (default)"][2].split(" to "))
    # All of these tasks are as noisy as each other, so that the floor is the same in every draw.
    assert (low, high) == pytest.approx((main_low * math.sqrt(3.0), main_high * math.sqrt(3.0)), rel=0.01)
    assert all(row[4] in ("yes", "no") for row in rows.values() if row[3] is not None)
    below = rows["RMSE below the best baseline's, %"]
    low, high = (float(end) for end in below[2].split(" to "))
    assert low < below[1] < high
    ablation = {row[0]: row[1] for row in result.table("ablation grouped").rows}
    ratio = rows["RMSE of static + recipe over that of all groups"][1]
    assert ratio == pytest.approx(ablation["Static + recipe"] / ablation["All groups"])
    # Beside the tasks with several seeds stand all that were held out.
    assert {"RMSE over all 120 tasks, points", "90 % intervals cover, all 120 tasks, %"} <= set(rows)


def test_the_ablation_has_what_the_selection_leaves_beside_all_groups(result):
    rows = {row[0]: row for row in result.table("ablation grouped").rows}
    assert set(rows) == {"All groups", "Static + recipe", "The 24 best by the selection", "Seed-noise floor"}
    # Of four features those that matter stay: nothing is lost.
    assert rows["The 24 best by the selection"][1] == pytest.approx(rows["All groups"][1], rel=0.2)


def test_kinds_of_data_never_seen_have_their_own_figures(result, table):
    rows = {row[0]: row for row in result.table("kinds family-out").rows}
    assert set(rows) == {"family0", "family1"} and sum(row[1] for row in rows.values()) == 120
    assert all(row[2] > 0 and 0 <= row[4] <= 100 for row in rows.values())


def test_headline_figures_over_nothing_are_unknown(table):
    """Every seed gave the same score, and a baseline knows it all: no error to divide by."""
    exact = replace(table, score_pp=table.probe_pp, seed_sd_pp=np.where(table.seeds > 1, 0.0, np.nan))
    options = BacktestOptions(systems=("persistence", "ours", "static_only"), folds=3, learning_curve=False)
    found = backtest(exact, protocols=("grouped",), options=options)
    rows = {row[0]: row for row in found.table("headline grouped").rows}
    for figure in ("RMSE over the seed-noise floor", "RMSE below the best baseline's, %"):
        assert math.isnan(rows[figure][1]) and rows[figure][4] is None


def test_a_baseline_that_predicts_more_tasks_than_ours_is_still_a_rival(table):
    """Without a probe score ours makes no forecast; the mean needs none, and may not be passed over."""
    rows = len(table)
    gap = np.where(np.arange(rows) == 1, np.nan, 0.0)
    unknown = np.full(rows, np.nan)
    forecasts = {
        "ours": table.score_pp + 2.0 + gap,
        "persistence": table.score_pp + 5.0 + gap,
        "mean": table.score_pp + 3.0 + np.where(np.isnan(gap), 50.0, 0.0),
        "base": table.score_pp + np.where(np.arange(rows) == 3, np.nan, 1.0),
    }
    systems = {system.name: system for system in (*BASELINES, OURS)}
    found = {name: Outcome(systems[name], score, unknown, unknown) for name, score in forecasts.items()}
    headline = headline_table(judge(table, "grouped", found, 0))
    rows_of = {row[0]: row for row in headline.rows}
    assert rows_of["RMSE below the best baseline's, %"][1] == pytest.approx(100 / 3)
    assert headline.note == (
        "Best baseline: Mean of the training scores, 3.00; over all tasks Mean of the training scores, 3.00."
        " Measured on fewer tasks and no candidate: Base score."
    )


def foretold(table: FeatureTable, errors: dict[str, np.ndarray]) -> dict[str, Outcome]:
    systems = {system.name: system for system in (*BASELINES, OURS)}
    score = table.score_pp
    return {
        name: Outcome(systems[name], score + error, score + error - 3.0, score + error + 3.0)
        for name, error in errors.items()
    }


def test_over_all_tasks_the_best_baseline_is_the_best_of_all_tasks(table):
    several = table.seeds >= 2
    errors = {
        "ours": np.full(len(table), 2.0),
        "persistence": np.where(several, 4.0, 8.0),
        "mean": np.full(len(table), 5.0),
    }
    headline = headline_table(judge(table, "grouped", foretold(table, errors), 0))
    rows = {row[0]: row for row in headline.rows}
    assert rows["RMSE below the best baseline's, %"][1] == pytest.approx(50.0)
    assert rows["RMSE below the best baseline's, all 120 tasks, %"][1] == pytest.approx(60.0)
    assert headline.note == (
        "Best baseline: Persistence (score at the probe), 4.00;"
        " over all tasks Mean of the training scores, 5.00."
    )


def test_of_a_random_split_figures_and_goals_are_those_of_the_held_out_tasks_alone(table):
    held = (table.seeds >= 2) & (np.arange(len(table)) < 100)
    score = np.where(held, table.score_pp, table.score_pp + 40.0)
    rows = replace(table, score_pp=score)
    errors = {"ours": np.where(held, 2.0, np.nan), "mean": np.where(held, 4.0, np.nan)}
    judged = judge(rows, "random", foretold(rows, errors), 0)
    assert "Measured on the 50 tasks of 120 that were forecast and whose score is a mean" in judged.note
    headline = headline_table(judged)
    figures = [row[0] for row in headline.rows]
    assert not any("all 50 tasks" in figure for figure in figures), "the measured tasks are all there are"
    assert headline.note == "Best baseline: Mean of the training scores, 4.00."
    goal = round(float(np.quantile(score[held], 2 / 3)), 1)
    assert sum(f"at a goal of {goal:g}," in figure for figure in figures) == 6


def test_the_gates_rule_stops_a_run_only_where_its_whole_interval_ends_below_the_goal(table):
    found = foretold(table, {"ours": np.full(len(table), -2.0)})
    judged = judge(table, "grouped", found, 0)
    rows = {row[0]: row[1] for row in headline_table(judged).rows}
    score = judged.rows.score_pp
    goal = float(f"{round(float(np.quantile(score, 2 / 3)), 1):g}")
    assert not any("seconds" in figure for figure in rows)
    for rule, ahead in (
        ("by the prediction (the paper's rule)", -2.0),
        ("by the upper end (the gate's rule)", 1.0),
    ):
        run = score + ahead >= goal
        saved, kept = (
            f"{name} at a goal of {goal:g}, {rule}, %" for name in ("compute saved", "good runs kept")
        )
        assert rows[saved] == pytest.approx(90.0 * np.mean(~run))
        assert rows[kept] == pytest.approx(100.0 * np.mean(run[score >= goal]))


def test_where_kinds_are_held_out_whole_intervals_are_drawn_over_kinds(table):
    # Two kinds that differ: drawn by data set the interval would be narrow.
    error = np.where(np.array(table.families) == "family0", 1.0, 9.0)
    found = foretold(table, {"ours": error, "mean": error + 3.0})
    kinds, sets = (judge(table, protocol, found, 0) for protocol in ("family-out", "grouped"))
    assert kinds.scored["ours"].metrics.spans["rmse_pp"] == pytest.approx((1.0, 9.0))
    low, high = sets.scored["ours"].metrics.spans["rmse_pp"]
    assert 1.0 < low < high < 9.0
    below = next(row for row in headline_table(kinds).rows if row[0] == "RMSE below the best baseline's, %")
    assert below[2] == "25.0 to 75.0"
    assert "drawn over kinds" in kinds.note


def test_kinds_held_out_are_measured_each_by_itself_and_stand_worst_first(table):
    error = np.where(np.array(table.families) == "family0", 1.0, 9.0)
    judged = judge(table, "family-out", foretold(table, {"ours": error}), 0)
    tables = {one.name: one for one in protocol_tables(judged, BacktestOptions())}
    worst, best = tables["kinds family-out"].rows
    assert (worst[0], best[0]) == ("family1", "family0")
    assert worst[1:5] == pytest.approx((60, 9.0, 9.0, 0.0)) and best[1:5] == pytest.approx(
        (60, 1.0, 1.0, 100.0)
    )


def test_each_rule_of_the_decision_table_goes_by_its_own_bound(table):
    judged = judge(table, "grouped", foretold(table, {"ours": np.full(len(table), -2.0)}), 0)
    found = {one.name: one for one in protocol_tables(judged, BacktestOptions(taus_pp=(48.0,)))}
    shares = {row[1]: row[2] for row in found["decisions grouped"].rows}
    score, sets = judged.rows.score_pp, judged.rows.data_ids
    bounds = {
        "default, prediction": score - 2.0,
        "default, upper end": score + 1.0,
        "default, cautious": cautious_pp(score - 2.0, score, 48.0, sets),
    }
    assert shares == pytest.approx({rule: 100.0 * np.mean(pp >= 48.0) for rule, pp in bounds.items()})
    assert len(set(shares.values())) == 3


def test_the_note_says_what_proxy_lm_learnt_from_and_how_ours_errs_where_it_is_measured(table):
    with_proxy = np.arange(len(table)) < 80
    rows = replace(table, extras={**table.extras, "proxy_pp": np.where(with_proxy, table.score_pp, np.nan)})
    errors = {"ours": np.where(with_proxy, 2.0, 7.0), "proxy_lm": np.where(with_proxy, 3.0, np.nan)}
    note = judge(rows, "grouped", foretold(rows, errors), 0).note
    assert "ProxyLM learns from those of 80 tasks with a proxy run" in note
    assert "on the 40 that it is measured on TuneAhead (default) errs by 2.00." in note


def test_a_second_benchmark_is_predicted_without_its_cue_scores(result):
    rows = {row[0]: row for row in result.table("benchmark truth").rows}
    assert set(rows) == {
        *("Mean of the training scores", "ProxyLM", "Paper preset (24 features + recipe)"),
        *("TuneAhead (default)", "Seed-noise floor"),
    }
    # Scores of half the spread: half the error of the first benchmark, if the features say it all.
    assert rows["TuneAhead (default)"][1] < 1.2
    assert rows["Seed-noise floor"][1] == pytest.approx(0.5 / math.sqrt(3.0))
    assert all(row[-1] is None for row in rows.values()), "the paper has no figure for this benchmark"


def test_another_base_is_predicted_from_scratch_and_from_few_rows(result):
    main = {row[0]: row for row in result.table("base small").rows}
    assert main["TuneAhead (default)"][1] < main["Persistence (score at the probe)"][1]
    assert all(row[-1] is None for row in main.values()), "the paper's errors are of another base"
    rows = result.table("transfer small").rows
    assert [row[0] for row in rows] == [0, 10, 25, 50, 60], "the last is all that a fold has to train on"
    own, scratch, warm = rows[0][:3]
    # The tasks follow one law on both bases: without any own run the known base says nearly all.
    assert own == 0 and math.isnan(scratch) and warm < 2.0
    assert rows[1][1] > rows[1][2], "ten own runs alone tell less than ten and the known base"


def test_few_tasks_on_another_base_are_all_tested(table, monkeypatch):
    class Planned(Exception):
        """Raised in place of fitting anything."""

    plans = {}

    def note(both, planned, **given):
        plans.update(planned)
        raise Planned

    monkeypatch.setattr(bases, "run_plans", note)
    other = replace(table.select(np.arange(36)), bases=("small",) * 36)
    with pytest.raises(Planned):
        bases._few_rows(table, other, "small", BacktestOptions(), 0)
    folds = plans["10"].folds
    assert sorted(np.concatenate([fold.test for fold in folds]) - len(table)) == list(range(36))
    all_of_a_fold = min(36 - len(fold.test) for fold in folds)
    assert list(plans) == ["0", "10", "25", str(all_of_a_fold)]


@pytest.mark.parametrize(("tasks", "folds"), [(300, 5), (245, 6), (205, 5)])
def test_more_folds_are_made_where_only_these_leave_two_hundred_own_runs(tasks, folds):
    found = bases._transfer_folds(synthetic(tasks), 5, 0)
    assert len(found) == 3 and all(abs(len(fold.test) - tasks / folds) < 2.5 for fold in found)


def test_a_stored_result_is_read_back_and_known_to_belong_to_its_table(result, tmp_path):
    path = tmp_path / "backtest.json"
    path.write_text(result.to_json())
    back = read_result(path)
    assert back.to_markdown() == result.to_markdown() and back.to_json() == result.to_json()
    with pytest.raises(PredictorError, match="holds no backtest"):
        read_result(tmp_path / "none.json")


def test_one_protocols_result_holds_its_tables_and_predictions_alone(result):
    random = result.of_protocols(["random"])
    assert [table.name for table in random.tables] == [
        *("headline random", "main random", "decisions random", "decision curve random", "selection"),
        "paper random",
    ]
    assert set(random.predictions) == {"random"}
    assert random.table("selection").title == "Feature selection, random split"
    grouped = {table.name for table in result.of_protocols(["grouped"]).tables}
    assert {"learning curve", "probe length", "base small", "transfer small", "benchmark truth"} <= grouped
    assert {table.protocol for table in result.tables} == {"grouped", "random", "family-out"}


def test_a_result_knows_the_tables_of_other_bases_that_it_was_made_from(result, table, tmp_path):
    other = replace(synthetic(90, seed=1), bases=("small",) * 90)
    assert result.base_fingerprints == {"small": table_fingerprint(other)}
    path = tmp_path / "backtest.json"
    path.write_text(result.to_json())
    assert read_result(path).base_fingerprints == result.base_fingerprints


def test_the_learning_curve_states_the_seed_noise_of_its_own_tasks(result, table):
    curve = result.table("learning curve")
    test = np.concatenate([fold.test for fold in folds_for(table, "grouped", k=3)[:2]])
    floor = noise_floor_pp(table.select(test))
    assert {row[curve.columns.index("seed-noise floor")] for row in curve.rows} == {floor}
    assert f"seed-noise floor there: {floor:.2f}" in curve.note
    assert floor > result.table("main grouped").rows[-1][1], "half of these tasks were run under one seed"


def test_a_damaged_result_is_refused_or_printed(result, tmp_path):
    path = tmp_path / "backtest.json"
    kept = (result.table("main grouped"), result.table("selection"))
    small = replace(result, tables=kept, predictions={"grouped": result.predictions["grouped"][:2]})
    refused = 0
    for where, record in damaged(json.loads(small.to_json())):
        path.write_text(json.dumps(record))
        try:
            found = read_result(path)
        except PredictorError as error:
            assert "holds no backtest" in str(error) and error.remedy, where
            refused += 1
            continue
        assert found.to_markdown() and found.of_protocols(("grouped",)).to_json(), where
    assert refused > 300
    for content in NOT_RECORDS:
        path.write_bytes(content)
        with pytest.raises(PredictorError, match="holds no backtest"):
            read_result(path)


def test_a_tables_fingerprint_follows_its_values_not_its_precision(table):
    assert table_fingerprint(table) == table_fingerprint(
        replace(table, values=table.values.astype(np.float32).astype(float))
    )
    assert table_fingerprint(table) != table_fingerprint(replace(table, score_pp=table.score_pp + 0.1))


def test_a_tables_fingerprint_knows_everything_that_a_backtest_reads(table):
    changed = [
        *(replace(table, **{name: getattr(table, name) + 1.0}) for name in ("chance_pp", "seed_sd_pp")),
        *(replace(table, **{name: ("other",) * len(table)}) for name in ("sources", "benchmarks")),
        replace(table, extras={"data_rows": table.extras["final_steps"]}),
        replace(table.select(range(119)), repeats=table.select([119])),
    ]
    assert len({table_fingerprint(one) for one in (table, *changed)}) == 1 + len(changed)


def test_probe_lengths_are_in_order(result):
    assert [row[0] for row in result.table("probe length").rows] == [50, 100]
    assert {row[1].split(", ")[1] for row in result.table("looks").rows} == {"at 100", "at 50 and 100"}


def test_json_is_strict_and_holds_our_predictions(result, table):
    record = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert record["tasks"] == 120 and record["data_sets"] == 60
    assert len(record["predictions"]["grouped"]) == 120
    task, measured, predicted, low, high = record["predictions"]["grouped"][0]
    assert task == "t0" and measured == pytest.approx(table.score_pp[0], abs=1e-3)
    assert low <= predicted <= high


def test_markdown_has_a_heading_and_a_row_for_everything(result):
    text = result.to_markdown()
    for table in result.tables:
        assert f"### {table.title}" in text
    assert "| TuneAhead (default) |" in text and "nan" not in text


def test_tables_print_dashes_for_what_was_not_measured():
    table = Table(
        "t", "Title", ("system", "RMSE"), (("a|b", 1.234), ("c", math.nan), ("d", None), ("e", 12.34))
    )
    assert table.to_markdown().splitlines() == [
        "### Title",
        "",
        "| system | RMSE |",
        "| --- | ---: |",
        "| a\\|b | 1.23 |",
        "| c | – |",
        "| d | – |",
        "| e | 12.3 |",
    ]
    assert table.to_record()["rows"] == [["a|b", 1.234], ["c", None], ["d", None], ["e", 12.34]]
    assert show(7) == "7"


def test_a_narrow_terminal_gets_the_telling_columns_and_is_told_of_the_others(result):
    main = result.table("main grouped")
    narrow = narrowed(main, 90)
    assert narrow.columns[0] == "system" and {"RMSE", "R2", "within 3 pp %"} <= set(narrow.columns)
    assert "bias" not in narrow.columns and "bias" in narrow.note
    assert all(len(row) == len(narrow.columns) for row in narrow.rows)
    assert narrow.rows[0][narrow.columns.index("RMSE")] is main.rows[0][1]
    assert narrowed(main, 400) is main


def test_unknown_tables_systems_and_protocols_name_the_known_ones(result, table):
    with pytest.raises(PredictorError, match="it has headline grouped, main grouped"):
        result.table("nothing")
    with pytest.raises(PredictorError, match="use some of mean, base"):
        backtest(table, options=BacktestOptions(systems=("magic",)))
    with pytest.raises(PredictorError, match="use random, grouped or family-out"):
        backtest(table, protocols=("leave-one-out",))


def test_every_system_learns_from_further_seeds_and_is_measured_on_tasks_alone(table):
    extras = {
        **table.extras,
        "similarity@a": table.values[:, 0],
        "embedding@00": table.values[:, 1],
        "proxy_pp": table.score_pp - 5.0,
        "data_rows": np.arange(len(table)) + 50.0,
        **{f"cue_pp@{step}": table.probe_pp for step in (0, 50, 100)},
    }
    rows = replace(table, extras=extras).select(range(60))
    rows = replace(rows, repeats=rows.select(rows.seeds > 1))
    plan = Plan(BASELINES, folds_for(rows, "grouped", k=2))
    found = run_plans(rows, {"grouped": plan}, seed=0)["grouped"]
    for name, outcome in found.items():
        assert len(outcome.score_pp) == 60
        assert outcome.reason or np.isfinite(outcome.score_pp).all(), name


@pytest.mark.parametrize("scored", [1, 2, 4])
def test_a_further_benchmark_with_few_runs_is_passed_over_with_a_note(table, scored, tmp_path):
    some = np.where(np.arange(len(table)) < scored, table.score_pp / 2, np.nan)
    extras = {**table.extras, "outcome@truth|score_pp": some}
    for name in ("base_pp", "seeds", "seed_sd_pp"):
        extras[f"outcome@truth|{name}"] = getattr(table, name)
    options = BacktestOptions(systems=("mean", "ours"), ablations=False, learning_curve=False)
    found = backtest(replace(table, extras=extras), protocols=("grouped",), options=options)
    assert found.table("main grouped").rows
    note = found.table("benchmark truth")
    if scored < 3:
        ((name, tasks, why),) = note.rows
        assert (name, tasks) == ("truth", scored) and "1 data set(s) can't be split" in why
        assert "Not measured on truth" in found.to_markdown()
        (tmp_path / "found.json").write_text(found.to_json())
        assert read_result(tmp_path / "found.json").table("benchmark truth") == note


def test_a_system_that_ran_on_some_folds_alone_is_not_set_beside_the_others_without_a_word():
    """Of a dozen own runs some folds leave nine to learn from, others ten: the tasks are not the same."""
    measured = np.array([40.0, 50.0, 60.0])
    whole, part = measure(measured + 4, measured), measure(np.array([41.0, np.nan, np.nan]), measured)
    systems = [Scored("persistence", "Persistence", whole), Scored("ridge", "Ridge", part, "it needs 10")]
    note = metric_table("main", "Held-out error", systems, math.nan, "Held out.").note
    assert note == (
        "Held out. Ridge: on 1 of the 3 tasks alone, so that its figures can't be set beside the others' "
        "(it needs 10)."
    )
    systems = [systems[0], Scored("law", "Law", whole, "all sources follow one law")]
    assert metric_table("main", "", systems, math.nan, "").note == " Law: all sources follow one law."
