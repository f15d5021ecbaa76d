"""A new base: a shift learned from its own runs, and intervals as wide as those few runs demand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneahead.errors import PredictorError
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.explain import OWN_RUNS_TERM
from tuneahead.predictor.metrics import measure, rmse
from tuneahead.predictor.predictor import Predictor, load_predictor
from tuneahead.predictor.table import join_tables
from tuneahead.predictor.warmstart import adapt
from tuneahead.workbench import find_predictor


@pytest.fixture(scope="module")
def general(make_table):
    return Predictor.fit(make_table(150, 8), preset="quick")


def other_base(make_table, rows: int, seed: int = 3):
    table = make_table(rows, 8, seed=seed)
    return replace(table, score_pp=table.score_pp + 8.0, bases=("other",) * rows)


def test_a_few_own_runs_remove_most_of_the_shift(general, make_table):
    adapted = adapt(general, other_base(make_table, 30))
    test = other_base(make_table, 300, seed=4)
    before, after = (rmse(p.predict_table(test).score_pp, test.score_pp) for p in (general, adapted))
    assert after < 0.6 * before
    assert 4.0 < adapted.shift_pp < 8.0, "ten data sets, shrunk by three"
    assert adapted.origin.own_rows == 30


def test_a_corrected_predictor_is_for_the_new_base_alone(general, make_table, tmp_path):
    own = other_base(make_table, 30)
    own = replace(own, benchmarks=("their exam",) * 30, chance_pp=np.full(30, 20.0))
    adapted = adapt(general, own)
    assert adapted.origin.bases == ("other",) and adapted.origin.benchmarks == ("their exam",)
    assert adapted.chance_pp == pytest.approx(20.0)
    adapted.save(tmp_path)
    assert find_predictor(load_predictor(tmp_path), "other", "their exam")[0] is not None
    for base, benchmark in (("lab", "their exam"), ("other", "exam")):
        found, why = find_predictor(load_predictor(tmp_path), base, benchmark)
        assert found is None and "has seen no run" in why
    hint = find_predictor(load_predictor(tmp_path), "other", "his exam", "my runs.sqlite")[1]
    assert "fit --store 'my runs.sqlite' --benchmark 'his exam' --start shipped'" in hint
    # Without it the shipped predictor would be asked again.
    assert hint.endswith("then assess with --predictor predictor")


def test_another_name_of_the_known_base_s_folder_is_told_apart_from_a_new_base(
    general, make_table, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("my-model").mkdir()
    own = other_base(make_table, 30)
    adapt(general, replace(own, bases=("./my-model",) * 30)).save(tmp_path / "mine")
    for name in ("my-model", "./my-model/", str(tmp_path / "my-model")):
        found, why = find_predictor(load_predictor("mine"), name, own.benchmarks[0])
        assert found is None
        assert why.endswith(
            "(it knows ./my-model), which is the same folder: name the base ./my-model, as its runs do"
        )
    assert "keep your runs" in find_predictor(load_predictor("mine"), "elsewhere", own.benchmarks[0])[1]


def test_a_predictor_forecasts_for_no_other_benchmark_of_the_same_name(general, make_table, tmp_path):
    own = other_base(make_table, 30)
    adapted = adapt(general, replace(own, benchmark_fingerprints=("sums",) * 30))
    adapted.save(tmp_path)
    name = own.benchmarks[0]
    found, why = find_predictor(load_predictor(tmp_path), "other", name, fingerprint="products")
    assert found is None and why.startswith(f"the predictor knows another benchmark named {name}")
    for known in ("sums", ""):
        assert find_predictor(load_predictor(tmp_path), "other", name, fingerprint=known)[0] is not None


def test_the_shift_is_that_of_the_scores_before_their_limits(general, make_table):
    own = other_base(make_table, 120)
    own = replace(own, probe_pp=own.probe_pp + 50.0)
    raw = general.unlimited_pp(own)
    assert (raw > 100.0).mean() > 0.2
    own = replace(own, score_pp=raw - 30.0)
    adapted = adapt(general, own)
    assert adapted.shift_pp == pytest.approx(-30.0 * 40 / 43)
    assert rmse(adapted.predict_table(own).score_pp, own.score_pp) < 3.0


def test_intervals_are_those_of_the_scores_within_their_limits(general, make_table):
    own = other_base(make_table, 60)
    own = replace(own, probe_pp=own.probe_pp + 52.0)
    own = replace(own, score_pp=np.clip(general.unlimited_pp(own) - 5.0, 0.0, 100.0))
    adapted = adapt(general, own)
    beyond = (own.score_pp == 100.0) & (adapted.unlimited_pp(own) > 102.0)
    assert beyond.sum() >= 5
    assert adapted.calibration.scores[beyond].max() == 0.0


def test_intervals_come_from_the_own_runs_and_cover_them(general, make_table):
    test = other_base(make_table, 600, seed=4)
    few = adapt(general, other_base(make_table, 18)).predict_table(test)
    assert few.low_pp.max() == 0.0 and few.high_pp.min() == 100.0
    found = adapt(general, other_base(make_table, 120)).predict_table(test)
    metrics = measure(found.score_pp, test.score_pp, low=found.low_pp, high=found.high_pp)
    assert metrics.coverage > 0.85 and metrics.width_pp < 40.0


def test_the_shift_is_one_of_the_reasons_and_survives_the_disk(general, make_table, tmp_path):
    adapted = adapt(general, other_base(make_table, 30))
    adapted.save(tmp_path)
    back = load_predictor(tmp_path)
    vector = FeatureVector(dict.fromkeys(general.names, 0.0))
    baseline, found = back.explain(vector, 30.0, 40.0)
    own = next(one for one in found if one.feature == OWN_RUNS_TERM)
    assert own.contribution_pp == adapted.shift_pp
    total = baseline + sum(one.contribution_pp for one in found)
    assert total == pytest.approx(adapted.predict(vector, 30.0, 40.0).score_pp, abs=1e-6)


def test_the_domain_grows_by_the_own_runs(general, make_table):
    far = other_base(make_table, 30)
    values = far.values.copy()
    values[:, 2] += 40.0
    far = replace(far, values=values)
    assert general.predict_table(far).in_distribution.mean() < 0.2
    assert adapt(general, far).predict_table(far).in_distribution.mean() == 1.0


def test_a_second_correction_by_the_same_runs_leaves_the_domain_as_it_is(general, make_table, tmp_path):
    own = other_base(make_table, 12)
    once = adapt(general, own)
    once.save(tmp_path)
    twice = adapt(load_predictor(tmp_path), own)
    assert len(once.domain.points) == len(general.domain.points) + 12
    np.testing.assert_array_equal(twice.domain.points, once.domain.points)


def test_runs_that_a_predictor_was_fitted_to_do_not_vouch_for_its_intervals(make_table):
    """It errs little on them: intervals from such errors would be too narrow for any other run."""
    table = make_table(150, 8)
    more = make_table(60, 8, seed=3)
    more = replace(more, data_ids=tuple(f"later {name}" for name in more.data_ids))
    fitted = Predictor.fit(table, preset="quick")
    both, new = adapt(fitted, join_tables([table, more])), adapt(fitted, more)
    assert both.calibration.groups == new.calibration.groups and both.shift_pp == new.shift_pp
    np.testing.assert_array_equal(both.calibration.scores, new.calibration.scores)
    with pytest.raises(PredictorError, match="fitted to all of these runs"):
        adapt(fitted, table)
    with pytest.raises(PredictorError, match="probes of 100 steps"):
        adapt(fitted, replace(more, probe_steps=50))


def test_a_predictor_without_a_score_of_guessing_goes_on_without_it(make_table):
    unknown = replace(make_table(150, 8), chance_pp=np.full(150, np.nan))
    own = other_base(make_table, 60)
    own = replace(own, chance_pp=np.full(60, 25.0))
    adapted = adapt(Predictor.fit(unknown, preset="quick"), own)
    found = adapted.predict_table(own).score_pp - own.score_pp
    means = np.array([found[np.array(own.data_ids) == name].mean() for name in sorted(set(own.data_ids))])
    count = len(means)
    # What shrinkage leaves of the shift, and no more, is the mean error on the rows it came from.
    assert means.mean() == pytest.approx(-adapted.shift_pp * 3 / count, abs=0.05)


def test_without_a_finished_run_there_is_nothing_to_adapt_to(general, make_table):
    table = other_base(make_table, 6)
    with pytest.raises(PredictorError, match="no run of the new base has a score"):
        adapt(general, replace(table, score_pp=np.full(6, np.nan)))
