"""The models a predictor is made of: linear ones (``linear``), kernel ridge (``kernel``) and boosted trees.

All give exact additive contributions, are saved without pickle, and learn every median, bound,
mean and scale from the rows they are fitted on. Fitting yields a *path*: predictions at several
settings (penalties, tree counts) for the price of one fit, so that tuning is cheap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tuneahead.predictor import fields
from tuneahead.predictor.kernel import kernel_from_record
from tuneahead.predictor.linear import linear_from_record
from tuneahead.predictor.table import Floats

if TYPE_CHECKING:
    import lightgbm

ROUNDS = (25, 50, 75, 100, 150, 200, 250)
TREE_COMMON: Mapping[str, object] = {
    "objective": "l2",
    "num_threads": 1,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
    "max_bin": 63,
}
MIN_BAGGED_ROWS = 10
PAPER_TREES: Mapping[str, object] = {"learning_rate": 0.05, "num_leaves": 4}
"""The paper's configuration (notes, "Loss & Training")."""


class Component(Protocol):
    """A fitted additive model of ``d`` features."""

    def predict(self, features: Floats) -> Floats:
        """Predictions, ``(n,)``, for ``features`` ``(n, d)``."""

    @property
    def feature_count(self) -> int:
        """The number of features, d."""

    def contributions(self, features: Floats) -> Floats:
        """``(n, d + 1)``: one share per feature, then the constant; rows sum to the prediction."""

    def to_record(self) -> dict[str, object]:
        """Everything needed to restore the model, as JSON values."""


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees, held as LightGBM's own text."""

    text: str
    rounds: int

    @property
    def feature_count(self) -> int:
        """See :class:`Component`; raises ValueError when the text does not say."""
        found = re.search(r"^max_feature_idx=(\d+)$", self.text, re.MULTILINE)
        if found is None:
            raise ValueError("the text of boosted trees does not say how many features they read")
        return int(found[1]) + 1

    def booster(self) -> lightgbm.Booster:
        """The loaded LightGBM model."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def predict(self, features: Floats) -> Floats:
        """See :class:`Component`."""
        found = _loaded(self.text).predict(features, num_iteration=self.rounds, num_threads=1)
        return np.asarray(found, float).reshape(len(features))

    def contributions(self, features: Floats) -> Floats:
        """See :class:`Component`; TreeSHAP, exact."""
        booster = _loaded(self.text)
        found = booster.predict(features, num_iteration=self.rounds, pred_contrib=True, num_threads=1)
        return np.asarray(found, float).reshape(len(features), features.shape[1] + 1)

    def to_record(self) -> dict[str, object]:
        """See :class:`Component`; the text itself goes to a file of its own."""
        return {"kind": "trees", "rounds": self.rounds}


@dataclass(frozen=True)
class TreePath:
    """One boosted model, read at the tree counts of ``ROUNDS``."""

    booster: lightgbm.Booster
    rounds: Sequence[int]

    def predict_all(self, features: Floats) -> Floats:
        """Predictions at every setting, ``(n, settings)``."""
        found = [self.booster.predict(features, num_iteration=count, num_threads=1) for count in self.rounds]
        return np.column_stack([np.asarray(column, float) for column in found])

    def at(self, setting: int) -> Trees:
        """The model at one setting."""
        count = self.rounds[setting]
        return Trees(self.booster.model_to_string(num_iteration=count), count)


@dataclass(frozen=True)
class Boosting:
    """Learner of boosted trees with given LightGBM parameters."""

    name: str
    parameters: Mapping[str, object]
    rounds: tuple[int, ...] = ROUNDS

    @property
    def settings(self) -> int:
        """How many tree counts the path holds."""
        return len(self.rounds)

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> TreePath:
        """Fit on ``features`` ``(n, d)``; absent values stay absent, the trees know NaN."""
        import lightgbm

        rows = len(target)
        given: dict[str, object] = {
            # LightGBM's 20 rows a leaf would leave a short history without any split.
            "min_data_in_leaf": max(2, min(20, rows // 15)),
            "min_data_in_bin": 1 if rows < 100 else 3,
            "seed": seed,
            **TREE_COMMON,
            **self.parameters,
        }
        if rows < MIN_BAGGED_ROWS:
            # A share of one or two rows is none, which LightGBM refuses.
            given["bagging_fraction"] = 1.0
        # On few rows more trees only learn the noise, and take their time over it.
        rounds = tuple(min(count, rows) for count in self.rounds)
        data = lightgbm.Dataset(features, target, weight=weights, params=given)
        return TreePath(lightgbm.train(given, data, num_boost_round=max(rounds)), rounds)


class Path(Protocol):
    """Fitted models at several settings."""

    def predict_all(self, features: Floats) -> Floats:
        """``(n, settings)``."""

    def at(self, setting: int) -> Component:
        """The model at one setting."""


class Learner(Protocol):
    """Something that fits a :class:`Path`."""

    @property
    def name(self) -> str:
        """Short name, unique among the learners compared."""

    @property
    def settings(self) -> int:
        """Number of settings on its path."""

    def fit(self, features: Floats, target: Floats, weights: Floats, seed: int) -> Path:
        """Fit on ``(n, d)`` features."""


GREEDY_TREES: Mapping[str, object] = {
    "learning_rate": 0.1,
    "num_leaves": 8,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 3.0,
}
RANDOM_TREES: Mapping[str, object] = {
    **GREEDY_TREES,
    "feature_fraction": 0.5,
    "num_leaves": 24,
    "extra_trees": True,
}
"""Thresholds drawn at random, as in extremely randomised trees: smoother, better with few rows."""


def component_from_record(record: Mapping[str, object], text: str = "") -> Component:
    """Restore what ``to_record`` gave; raises as :mod:`tuneahead.predictor.fields` on anything else.

    LightGBM crashes on a damaged ``text``: only give one that is known to be whole.
    """
    if record["kind"] == "trees":
        return Trees(text, fields.whole(record["rounds"], "rounds", least=1))
    if record["kind"] == "kernel":
        return kernel_from_record(record)
    if record["kind"] != "linear":
        raise ValueError(f"model kind {record['kind']!r:.60}")
    return linear_from_record(record)


_CACHE: dict[int, tuple[str, object]] = {}


def _loaded(text: str) -> lightgbm.Booster:
    # Parsing a model takes longer than one prediction; texts are long, so the cache stays small.
    import lightgbm

    known = _CACHE.get(hash(text))
    if known is not None and known[0] == text and isinstance(known[1], lightgbm.Booster):
        return known[1]
    if len(_CACHE) > 16:
        _CACHE.clear()
    booster = lightgbm.Booster(model_str=text)
    _CACHE[hash(text)] = (text, booster)
    return booster
