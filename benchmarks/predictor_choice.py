"""Which regressor to forecast with: grouped cross-validation on the training rows of the shipped table.

The 28 % of tasks that the random protocol holds out are left out first: nothing is chosen on test rows.
All predict the gain over the probe score from the same features, absent ones filled and all scaled on the
training folds where a model needs it; the rule of the paper, raw score from its own features, is its preset.
CatBoost takes part where it is installed. Writes benchmarks/results/predictor_choice.json.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.svm import SVR

from tuneahead.predictor.kernel import SHAPED, KernelRidge, SupportVectors
from tuneahead.predictor.linear import ElasticNet, Ridge, learn_columns
from tuneahead.predictor.metrics import measure
from tuneahead.predictor.models import GREEDY_TREES, PAPER_TREES, RANDOM_TREES, Boosting, Learner
from tuneahead.predictor.packaged import shipped_table
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.splits import grouped_folds, random_fold
from tuneahead.predictor.table import FeatureTable, Floats, read_table

RESULT = Path(__file__).parent / "results" / "predictor_choice.json"
Fit = Callable[[FeatureTable, FeatureTable], Floats]


def scaled(train: FeatureTable, test: FeatureTable) -> tuple[Floats, Floats]:
    """Filled and standardised features of both, learnt on the training rows."""
    columns = learn_columns(train.values, "linear")
    return columns.apply(train.values), columns.apply(test.values)


def gain(table: FeatureTable) -> Floats:
    """The target: points between the score at the probe and the final one."""
    return np.asarray(table.score_pp - table.probe_pp)


def with_scikit(make: Callable[[int], object]) -> Fit:
    """A scikit-learn-like regressor, made for a number of columns, on scaled features."""

    def fit(train: FeatureTable, test: FeatureTable) -> Floats:
        known, asked = scaled(train, test)
        model = make(known.shape[1])
        model.fit(known, gain(train))  # type: ignore[attr-defined]
        return test.probe_pp + np.asarray(model.predict(asked))  # type: ignore[attr-defined]

    return fit


def with_learner(learner: Learner, setting: int) -> Fit:
    """One of our own learners at one setting; its target is the gain as a share of the head-room."""

    def fit(train: FeatureTable, test: FeatureTable) -> Floats:
        path = learner.fit(train.values, gain(train) / train.headroom_pp, np.ones(len(train)), 0)
        return test.probe_pp + test.headroom_pp * path.predict_all(test.values)[:, setting]

    return fit


def with_preset(preset: str) -> Fit:
    """A whole predictor, which chooses its own settings within the training rows."""
    return lambda train, test: Predictor.fit(train, preset=preset).predict_table(test).score_pp


def gaussian_process(columns: int) -> object:
    """RBF and noise, their scales by marginal likelihood."""
    kernel = ConstantKernel(10.0) * RBF(columns**0.5, (1.0, 1e3)) + WhiteKernel(5.0)
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)


def contestants() -> dict[str, Fit]:
    """Every regressor by name."""
    found: dict[str, Fit] = {
        "persistence": lambda train, test: test.probe_pp,
        "paper preset (LightGBM, raw score, 24 features)": with_preset("paper"),
        "LightGBM, paper's configuration, gain": with_learner(Boosting("paper", PAPER_TREES, (300,)), 0),
        "LightGBM, tuned": with_learner(Boosting("greedy", GREEDY_TREES, (100,)), 0),
        "LightGBM, random thresholds": with_learner(Boosting("random", RANDOM_TREES, (250,)), 0),
        "ExtraTrees": with_scikit(
            lambda _: ExtraTreesRegressor(400, max_features=0.5, min_samples_leaf=2, random_state=0, n_jobs=1)
        ),
        "ridge": with_learner(Ridge(), 5),
        "elastic net": with_learner(ElasticNet(), 4),
        "SVR": with_scikit(lambda columns: SVR(C=30.0, epsilon=0.5, gamma=0.3 / columns)),
        "kernel ridge": with_learner(KernelRidge(), 2),
        "kernel ridge, shaped": with_learner(KernelRidge(shape=SHAPED), 3),
        "support vectors": with_learner(SupportVectors(), 2),
        "support vectors, shaped": with_learner(SupportVectors(shape=SHAPED), 1),
        "Gaussian process": with_scikit(gaussian_process),
        "TuneAhead default (mixture chosen within the training folds)": with_preset("default"),
    }
    try:
        from catboost import CatBoostRegressor
    except ImportError:
        return found
    options = {"iterations": 400, "learning_rate": 0.05, "depth": 4, "rsm": 0.3, "verbose": 0}
    found["CatBoost"] = with_scikit(lambda _: CatBoostRegressor(**options, thread_count=1, random_seed=0))
    return found


def main() -> None:
    """Compare, print and write."""
    warnings.simplefilter("ignore")
    table = read_table(shipped_table()).scored()
    rows = table.select(random_fold(table).train)
    folds = grouped_folds(rows.data_ids, k=5, seed=1)
    results = {}
    for name, fit in contestants().items():
        found = np.full(len(rows), np.nan)
        for fold in folds:
            found[fold.test] = fit(rows.select(fold.train), rows.select(fold.test))
        m = measure(found, rows.score_pp, groups=rows.data_ids)
        low, high = m.spans["rmse_pp"]
        results[name] = {"rmse_pp": round(m.rmse_pp, 3), "low_pp": round(low, 3), "high_pp": round(high, 3)}
        results[name]["within_3"] = round(m.within_3, 3)
        print(f"{m.rmse_pp:6.2f} ({low:.2f} to {high:.2f})  {100 * m.within_3:5.1f} %  {name}", flush=True)
    record = {"tasks": len(rows), "data_sets": len(set(rows.data_ids)), "systems": results}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
