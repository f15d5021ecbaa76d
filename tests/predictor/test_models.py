"""The additive models: right solutions, exact contributions, no memory of anything but training rows."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from tuneahead.predictor import kernel
from tuneahead.predictor.kernel import (
    KERNEL_PENALTIES,
    MARGIN,
    MARGIN_COSTS,
    PLAIN,
    SHAPED,
    KernelRidge,
    KernelShape,
    SupportVectors,
    _few_centres,
    _slopes,
    mixed,
    same_kernel,
)
from tuneahead.predictor.linear import PENALTIES, ElasticNet, Ridge, learn_columns
from tuneahead.predictor.models import GREEDY_TREES, RANDOM_TREES, Boosting, component_from_record

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(80, 5))
TARGET = 2.0 * FEATURES[:, 0] - FEATURES[:, 1] + 0.1 * RNG.normal(size=80)
WEIGHTS = RNG.uniform(0.5, 1.5, 80)


def test_ridge_is_the_closed_form_solution():
    path = Ridge().fit(FEATURES, TARGET, WEIGHTS, 0)
    low, high = np.quantile(FEATURES, [0.01, 0.99], axis=0)
    clipped = np.clip(FEATURES, low, high)
    scaled = clipped / clipped.std(0)
    centre = WEIGHTS @ scaled / WEIGHTS.sum()
    mean = WEIGHTS @ TARGET / WEIGHTS.sum()
    x, w = scaled - centre, np.diag(WEIGHTS)
    for setting, penalty in ((0, PENALTIES[0]), (5, PENALTIES[5])):
        inner = x.T @ w @ x + penalty * WEIGHTS.sum() * np.eye(5)
        beta = np.linalg.solve(inner, x.T @ w @ (TARGET - mean))
        np.testing.assert_allclose(path.predict_all(FEATURES)[:, setting], mean + x @ beta, atol=1e-9)


@pytest.mark.parametrize(
    "learner",
    [
        Ridge(),
        Ridge("bent ridge", "hinge"),
        ElasticNet(),
        KernelRidge(),
        SupportVectors(),
        Boosting("greedy", GREEDY_TREES, (20,)),
        Boosting("random", RANDOM_TREES, (20,)),
    ],
    ids=lambda learner: learner.name,
)
def test_contributions_sum_to_the_prediction_and_survive_json(learner):
    holes = np.where(RNG.random(FEATURES.shape) < 0.1, np.nan, FEATURES)
    model = learner.fit(holes, TARGET, WEIGHTS, 0).at(0)
    fresh = np.vstack([holes[:10], 50.0 * FEATURES[:5], np.full((1, 5), np.nan)])
    parts = model.contributions(fresh)
    assert parts.shape == (16, 6)
    np.testing.assert_allclose(parts.sum(1), model.predict(fresh), atol=1e-9)
    text = getattr(model, "text", "")
    back = component_from_record(json.loads(json.dumps(model.to_record())), text)
    np.testing.assert_allclose(back.predict(fresh), model.predict(fresh), atol=1e-12)


def test_paths_agree_with_the_models_taken_from_them():
    for learner in (Ridge(), KernelRidge(), SupportVectors(), Boosting("trees", GREEDY_TREES, (5, 20))):
        path = learner.fit(FEATURES, TARGET, WEIGHTS, 0)
        for setting in (0, 1):
            np.testing.assert_allclose(
                path.at(setting).predict(FEATURES), path.predict_all(FEATURES)[:, setting], atol=1e-9
            )


def test_a_straight_line_stops_at_the_training_range():
    model = Ridge().fit(FEATURES, TARGET, WEIGHTS, 0).at(0)
    edge, far = np.zeros((1, 5)), np.zeros((1, 5))
    edge[0, 0], far[0, 0] = FEATURES[:, 0].max(), 1e6
    np.testing.assert_allclose(model.predict(far), model.predict(edge))


def test_bent_ridge_follows_a_bend_that_ridge_can_not():
    x = np.linspace(-2, 2, 200)[:, None]
    y = np.maximum(x[:, 0], 0.0)
    ones = np.ones(200)
    straight = Ridge().fit(x, y, ones, 0).at(0).predict(x)
    bent = Ridge("bent", "hinge").fit(x, y, ones, 0).at(0).predict(x)
    assert np.abs(bent - y).mean() < 0.35 * np.abs(straight - y).mean()


def test_ridge_finds_the_same_solution_with_more_columns_than_rows():
    wide = np.random.default_rng(5).normal(size=(30, 40))
    path = Ridge().fit(wide, TARGET[:30], WEIGHTS[:30], 0)
    columns = learn_columns(wide, "linear")
    x = columns.apply(wide)
    x = x - WEIGHTS[:30] @ x / WEIGHTS[:30].sum()
    mean = WEIGHTS[:30] @ TARGET[:30] / WEIGHTS[:30].sum()
    w = np.diag(WEIGHTS[:30])
    inner = x.T @ w @ x + PENALTIES[4] * WEIGHTS[:30].sum() * np.eye(40)
    beta = np.linalg.solve(inner, x.T @ w @ (TARGET[:30] - mean))
    np.testing.assert_allclose(path.predict_all(wide)[:, 4], mean + x @ beta, atol=1e-8)


def test_kernel_ridge_is_the_closed_form_solution():
    path = KernelRidge(shape=KernelShape(reach=0.5)).fit(FEATURES, TARGET, WEIGHTS, 0)
    x = learn_columns(FEATURES, "linear").apply(FEATURES)
    alike = np.exp(-0.1 * ((x[:, None] - x[None]) ** 2).sum(-1))
    mean = WEIGHTS @ TARGET / WEIGHTS.sum()
    for setting in (1, 4):
        alpha = np.linalg.solve(alike + KERNEL_PENALTIES[setting] * np.diag(1 / WEIGHTS), TARGET - mean)
        np.testing.assert_allclose(path.predict_all(FEATURES)[:, setting], mean + alike @ alpha, atol=1e-5)


def test_kernel_contributions_are_shapley_values_over_every_order_of_the_features():
    model = KernelRidge(shape=KernelShape(reach=2.0)).fit(FEATURES, TARGET, WEIGHTS, 0).at(1)
    row = FEATURES[:1]
    middle = model.columns.mean  # the mean training row, at which every standardised column is 0
    order_values = np.zeros(5)
    orders = list(permutations(range(5)))
    for order in orders:
        point = middle.copy()
        before = model.predict(point[None])[0]
        for feature in order:
            point[feature] = row[0, feature]
            after = model.predict(point[None])[0]
            order_values[feature] += (after - before) / len(orders)
            before = after
    np.testing.assert_allclose(model.contributions(row)[0, :5], order_values, atol=1e-9)


def test_few_nodes_are_enough_for_contributions_of_many_columns():
    random = np.random.default_rng(5)
    features = random.normal(size=(60, 240))
    model = KernelRidge(shape=KernelShape(reach=5.0)).fit(features, features[:, 0], np.ones(60), 0).at(0)
    rows = np.vstack([features[:3], 40.0 * random.normal(size=(2, 240))])
    found = model.contributions(rows)
    np.testing.assert_allclose(found.sum(1), model.predict(rows), atol=1e-12)
    assert np.abs(found[:, :-1]).max() > 0.01


def test_with_every_row_as_a_centre_few_centres_are_the_full_kernel_ridge():
    x = learn_columns(FEATURES, "linear").apply(FEATURES)
    alike = np.exp(-0.1 * ((x[:, None] - x[None]) ** 2).sum(-1))
    root, mean = np.sqrt(WEIGHTS), WEIGHTS @ TARGET / WEIGHTS.sum()
    weights = _few_centres(x, root[:, None] * alike, 0.1, root * (TARGET - mean))
    path = KernelRidge(shape=KernelShape(reach=0.5)).fit(FEATURES, TARGET, WEIGHTS, 0)
    np.testing.assert_allclose(mean + alike @ weights.T, path.predict_all(FEATURES), atol=1e-5)


@pytest.mark.parametrize("shape", [PLAIN, SHAPED], ids=["plain", "shaped"])
def test_a_long_history_has_few_centres_and_is_learnt_from_whole(monkeypatch, shape):
    random = np.random.default_rng(4)
    features = random.normal(size=(700, 4))
    target = np.sin(features[:, 0]) + 0.3 * random.normal(size=700)
    fresh = random.normal(size=(400, 4))
    learner, weights = KernelRidge(shape=shape), np.ones(700)

    def error(path):
        return np.sqrt(((path.predict_all(fresh) - np.sin(fresh[:, :1])) ** 2).mean(0)).min()

    full = error(learner.fit(features, target, weights, 0))
    monkeypatch.setattr(kernel, "MOST_CENTRES", 100)
    path = learner.fit(features, target, weights, 0)
    assert path.centres.shape == (100, 4)
    assert error(path) < 1.15 * full
    # A hundred rows alone teach less than a hundred centres for all of them.
    assert error(path) < 0.8 * error(learner.fit(features[:100], target[:100], weights[:100], 0))
    np.testing.assert_array_equal(path.weights, learner.fit(features, target, weights, 0).weights)


def test_of_a_long_history_support_vectors_learn_from_a_draw(monkeypatch):
    monkeypatch.setattr(kernel, "MOST_VECTORS", 50)
    path = SupportVectors().fit(FEATURES, TARGET, WEIGHTS, 0)
    assert path.centres.shape == (50, 5)
    assert np.corrcoef(path.predict_all(FEATURES)[:, 1], TARGET)[0, 1] > 0.85


def test_a_shaped_kernel_finds_the_columns_that_matter():
    random = np.random.default_rng(3)
    features = random.normal(size=(150, 30))
    target = np.sin(2 * features[:, 0]) + features[:, 1] * features[:, 2]
    train, test = features[:100], features[100:]
    errors = {}
    for rounds in (0, 5):
        path = KernelRidge("kernel", KernelShape(1.0, rounds)).fit(train, target[:100], np.ones(100), 0)
        errors[rounds] = np.sqrt(np.mean((path.predict_all(test) - target[100:, None]) ** 2, axis=0)).min()
    assert errors[5] < 0.6 * errors[0]
    stretch = learn_columns(train, "linear").scale / path.columns.scale
    assert set(np.argsort(-stretch)[:3]) == {0, 1, 2}
    assert np.sqrt(np.mean(stretch**2)) == pytest.approx(1.0)
    model = path.at(2)
    shares = model.contributions(test[:4])
    np.testing.assert_allclose(shares.sum(1), model.predict(test[:4]), atol=1e-9)
    back = component_from_record(json.loads(json.dumps(model.to_record())))
    np.testing.assert_array_equal(back.predict(test), model.predict(test))


def test_support_vectors_meet_the_optimality_conditions_of_their_problem():
    path = SupportVectors().fit(FEATURES, 0.1 * TARGET, WEIGHTS, 0)
    for setting, cost in enumerate(MARGIN_COSTS):
        dual = path.weights[setting] / MARGIN
        error = (0.1 * TARGET - path.predict_all(FEATURES)[:, setting]) / MARGIN
        most = cost * WEIGHTS
        assert dual.sum() == pytest.approx(0.0, abs=1e-6 * np.abs(dual).sum())
        assert (np.abs(dual) <= most + 1e-9).all()
        # Within the margin a row pulls nothing, on it somewhat, beyond it as much as it may.
        assert (np.abs(error[dual == 0]) <= 1.01).all()
        between = (dual != 0) & (np.abs(dual) < most - 1e-9)
        np.testing.assert_allclose(error[between], np.sign(dual[between]), atol=0.01)
        full = np.abs(dual) >= most - 1e-9
        assert (error[full] * np.sign(dual[full]) >= 0.99).all()
        assert between.any()
        assert len(path.at(setting).weights) == np.count_nonzero(dual)


def test_models_with_one_kernel_mix_into_one():
    ridge, vectors = (
        learner.fit(FEATURES, TARGET, WEIGHTS, 0).at(1) for learner in (KernelRidge(), SupportVectors())
    )
    other = KernelRidge(shape=KernelShape(reach=2.0)).fit(FEATURES, TARGET, WEIGHTS, 0).at(1)
    assert same_kernel(ridge, vectors) and not same_kernel(ridge, other)
    both = mixed([(0.25, ridge), (0.75, vectors)])
    assert len(both.centres) == 80, "the rows of the one are those of the other"
    for method in ("predict", "contributions"):
        parts = [getattr(model, method)(FEATURES[:5]) for model in (ridge, vectors)]
        np.testing.assert_allclose(
            getattr(both, method)(FEATURES[:5]), 0.25 * parts[0] + 0.75 * parts[1], atol=1e-12
        )


def test_support_vectors_follow_one_far_row_less_than_kernel_ridge():
    far = TARGET.copy()
    far[7] += 50.0
    moved = {}
    for learner in (KernelRidge(), SupportVectors()):
        models = [learner.fit(FEATURES, 0.1 * target, WEIGHTS, 0).at(1) for target in (TARGET, far)]
        near, other = (model.predict(FEATURES) for model in models)
        moved[learner.name] = np.abs(np.delete(other - near, 7)).mean()
    assert moved["support vectors"] < 0.5 * moved["kernel ridge"]


def test_slopes_of_a_kernel_are_its_derivatives():
    random = np.random.default_rng(4)
    points, dual, width = random.normal(size=(12, 3)), random.normal(size=12), 0.3

    def predicted(at):
        return np.exp(-width * ((at[:, None] - points) ** 2).sum(-1)) @ dual

    gram = np.exp(-width * ((points[:, None] - points) ** 2).sum(-1))
    for column in range(3):
        step = 1e-6 * np.eye(3)[column]
        numeric = (predicted(points + step) - predicted(points - step)) / 2e-6
        np.testing.assert_allclose(_slopes(points, gram, dual, width)[:, column], numeric, atol=1e-7)


@pytest.mark.parametrize("learner", [KernelRidge, SupportVectors])
def test_a_constant_target_leaves_the_kernel_unshaped(learner):
    path = learner(shape=KernelShape(rounds=3)).fit(FEATURES, np.ones(80), WEIGHTS, 0)
    np.testing.assert_allclose(path.predict_all(FEATURES), 1.0)
    model = path.at(0)
    back = component_from_record(json.loads(json.dumps(model.to_record())))
    np.testing.assert_allclose(back.predict(FEATURES), 1.0)
    np.testing.assert_allclose(back.contributions(FEATURES[:2])[:, :5], 0.0, atol=1e-12)


def test_elastic_net_leaves_out_what_does_not_matter():
    noise = np.random.default_rng(6).normal(size=(80, 20))
    model = ElasticNet().fit(np.hstack([FEATURES, noise]), TARGET, WEIGHTS, 0).at(2)
    assert set(np.flatnonzero(np.abs(model.coefficients) > 0.05)) == {0, 1}
    constant = ElasticNet().fit(FEATURES, np.ones(80), WEIGHTS, 0).at(0)
    np.testing.assert_allclose(constant.predict(FEATURES), 1.0)


def test_absent_values_and_constant_columns_get_no_scale_from_nowhere():
    features = np.column_stack([np.full(10, np.nan), np.full(10, 3.0), np.arange(10.0)])
    features[0, 2] = np.nan
    columns = learn_columns(features, "linear")
    applied = columns.apply(np.array([[7.0, 99.0, np.nan]]))
    assert applied[0, :2].tolist() == [0.0, 0.0]
    assert columns.median[2] == 5.0
    assert np.isfinite(applied).all()


def test_medians_bounds_and_scales_come_from_the_fitted_rows_only():
    before = learn_columns(FEATURES[:50], "hinge")
    assert vars(before).keys() == vars(learn_columns(FEATURES, "hinge")).keys()
    model = Ridge("bent", "hinge").fit(FEATURES[:50], TARGET[:50], WEIGHTS[:50], 0).at(2)
    alone = model.predict(FEATURES[50:51])
    among = model.predict(np.vstack([FEATURES[50:51], 1e3 * FEATURES[51:]]))[:1]
    np.testing.assert_allclose(alone, among, rtol=1e-12)


def test_same_seed_same_trees():
    learner = Boosting("random", RANDOM_TREES, (10,))
    one, two = (learner.fit(FEATURES, TARGET, WEIGHTS, 3).at(0) for _ in range(2))
    assert one.text == two.text
