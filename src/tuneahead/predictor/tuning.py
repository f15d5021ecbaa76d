"""Which target and which models: decided by grouped cross-validation on the training rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tuneahead.errors import PredictorError
from tuneahead.predictor.kernel import SHAPED, KernelRidge, SupportVectors
from tuneahead.predictor.linear import ElasticNet, Ridge
from tuneahead.predictor.models import GREEDY_TREES, PAPER_TREES, RANDOM_TREES, Boosting, Learner
from tuneahead.predictor.selection import Selection, TrainingRows, select_features
from tuneahead.predictor.splits import Fold, grouped_folds
from tuneahead.predictor.table import FeatureTable, Floats, Rows

Anchor = Literal["probe", "base", "raw"]
Pool = Literal["all", "selected"]

CONTEXT = ("base_level", "probe_level", "gain_level")
"""Columns appended to the features: base, probe and probe minus base, over the benchmark's head-room."""
MIN_SELECTION_ROWS = 80
ANCHOR_MARGIN = 0.95
"""Another anchor must err less than the probe's score by this factor: on a known base they are level."""
NEAR_BEST = 1.06
"""Models whose RMSE is within this factor of the best one's are averaged."""
_QUICK: tuple[Learner, ...] = (Ridge(), Boosting("trees", {**GREEDY_TREES, "learning_rate": 0.15}, (30, 60)))


@dataclass(frozen=True)
class Contestant:
    """A learner and the features it gets; ``copies`` under other seeds are averaged."""

    learner: Learner
    pool: Pool = "all"
    copies: int = 1


@dataclass(frozen=True)
class Preset:
    """What a predictor may choose from. ``paper_features`` keeps the paper's 24 and the recipe only.

    ``folds`` are those of the inner cross-validation; ``scaled_intervals`` allows widths that vary
    with a task's difficulty.
    """

    name: str
    contestants: tuple[Contestant, ...]
    anchors: tuple[Anchor, ...] = ("probe", "base", "raw")
    paper_features: bool = False
    context: bool = True
    folds: int = 4
    scaled_intervals: bool = False

    def entrants(self, rows: int) -> tuple[Contestant, ...]:
        """The contestants worth fitting on so many rows: selection among few rows picks noise."""
        if rows >= MIN_SELECTION_ROWS:
            return self.contestants
        return tuple(contestant for contestant in self.contestants if contestant.pool == "all")


PAPER = Preset(
    "paper",
    (Contestant(Boosting("boosting", PAPER_TREES, (50, 100, 200, 300, 500))),),
    anchors=("raw",),
    paper_features=True,
    context=False,
)
_COPIES = 3
"""Trees with random thresholds differ by their seed; the mean of three errs less than any of them."""
_GREEDY, _RANDOM = Boosting("greedy trees", GREEDY_TREES), Boosting("random trees", RANDOM_TREES)
DEFAULT = Preset(
    "default",
    (
        Contestant(Ridge()),
        Contestant(Ridge("bent ridge", "hinge")),
        Contestant(ElasticNet()),
        Contestant(KernelRidge()),
        Contestant(KernelRidge("shaped kernel ridge", SHAPED)),
        Contestant(SupportVectors()),
        Contestant(SupportVectors("shaped support vectors", SHAPED)),
        Contestant(_GREEDY),
        Contestant(_RANDOM, copies=_COPIES),
        Contestant(_GREEDY, "selected"),
        Contestant(_RANDOM, "selected", copies=_COPIES),
        Contestant(KernelRidge(), "selected"),
    ),
    scaled_intervals=True,
)
QUICK = Preset(
    "quick", (Contestant(Ridge()), Contestant(Boosting("trees", GREEDY_TREES, (50, 100, 150)))), folds=3
)
"""A cheap subset of the default for ablations, where many fits are compared with each other."""
PRESETS = {preset.name: preset for preset in (PAPER, DEFAULT, QUICK)}


@dataclass(frozen=True)
class Problem:
    """Training rows as the models see them: ``features`` ``(n, d)`` with the context columns last."""

    names: tuple[str, ...]
    features: Floats
    score_pp: Floats
    anchor_pp: dict[Anchor, Floats]
    headroom_pp: Floats
    weights: Floats
    data_ids: tuple[str, ...]
    recipe: tuple[str, ...]

    def target(self, anchor: Anchor) -> Floats:
        """What models learn: the gain over the anchor as a share of the head-room, ``(n,)``."""
        return np.asarray((self.score_pp - self.anchor_pp[anchor]) / self.headroom_pp, float)

    def of_rows(self, rows: Rows) -> Problem:
        """The same problem with the rows ``rows`` alone."""
        return replace(
            self,
            features=self.features[rows],
            score_pp=self.score_pp[rows],
            anchor_pp={anchor: points[rows] for anchor, points in self.anchor_pp.items()},
            headroom_pp=self.headroom_pp[rows],
            weights=self.weights[rows],
            data_ids=tuple(self.data_ids[i] for i in rows),
        )

    def training_rows(self, anchor: Anchor, rows: Rows) -> TrainingRows:
        """The part that feature selection gets, with its target in points."""
        target = self.score_pp - self.anchor_pp[anchor]
        ids = tuple(self.data_ids[i] for i in rows)
        return TrainingRows(self.names, self.features[rows], target[rows], self.weights[rows], ids)


def design(table: FeatureTable, names: Sequence[str], *, context: bool) -> Floats:
    """Feature columns ``names`` of ``table``, then the context columns if wanted, ``(n, d)``."""
    values = table.with_features(names).values
    if not context:
        return values
    room, chance = table.headroom_pp, np.nan_to_num(table.chance_pp)
    base, probe = (table.base_pp - chance) / room, (table.probe_pp - chance) / room
    return np.column_stack([values, base, probe, probe - base])


def anchor_points(table: FeatureTable, anchor: Anchor) -> Floats:
    """The score that the predicted gain is added to, ``(n,)`` points."""
    if anchor == "raw":
        return np.nan_to_num(table.chance_pp)
    return table.probe_pp if anchor == "probe" else table.base_pp


@dataclass(frozen=True)
class CandidateFigure:
    """Cross-validated RMSE of one candidate on the training rows, and its weight in what was chosen."""

    target: Anchor
    model: str
    pool: Pool
    setting: int
    rmse_pp: float
    weight: float


@dataclass(frozen=True)
class Choice:
    """The winner of the comparison: ``weights`` over ``members``, each a contestant with its setting."""

    anchor: Anchor
    members: tuple[tuple[Contestant, int, float], ...]
    out_of_fold_pp: Floats
    figures: tuple[CandidateFigure, ...]
    selection: Selection | None


def choose(problem: Problem, preset: Preset, seed: int, compared: Callable[[], None] | None = None) -> Choice:
    """Pick target, models, settings and weights by grouped cross-validation on ``problem`` only.

    Selection, imputation and scaling are redone within each fold. Target, settings and weights are
    chosen on the out-of-fold predictions that come back, so their errors are smaller than those on new
    data sets, most of all on few rows. ``compared`` is called after each contestant.
    Raises :class:`PredictorError` without any usable anchor.
    """
    anchors = usable_anchors(problem, preset)
    folds = _inner_folds(problem.data_ids, preset.folds, seed)
    if not folds:
        return _without_comparison(problem, anchors[0])
    figures = _compare_anchors(problem, anchors, folds, seed) if len(anchors) > 1 else []
    anchor = _best_anchor(figures, anchors)
    entrants = preset.entrants(len(problem.score_pp))
    selects = any(contestant.pool == "selected" for contestant in entrants)
    selected = _fold_selections(problem, anchor, folds, seed) if selects else None
    columns, settings = [], []
    for contestant in entrants:
        pool = selected if contestant.pool == "selected" else None
        path = _mean_out_of_fold(problem, anchor, contestant, folds, pool, seed)
        setting, _ = _best_setting(problem, anchor, path)
        settings.append(setting)
        columns.append(path[:, setting])
        if compared is not None:
            compared()
    predictions = np.column_stack(columns)
    weights = mixture(predictions, problem.target(anchor), problem.weights * problem.headroom_pp**2)
    found = list(zip(entrants, settings, weights.tolist(), strict=True))
    for (contestant, setting, weight), column in zip(found, columns, strict=True):
        error = _error_pp(problem, anchor, column)
        figures.append(
            CandidateFigure(anchor, contestant.learner.name, contestant.pool, setting, error, weight)
        )
    out = np.clip(problem.anchor_pp[anchor] + problem.headroom_pp * (predictions @ weights), 0.0, 100.0)
    selection = None
    if selects:
        rows = problem.training_rows(anchor, np.arange(len(out)))
        selection = select_features(rows, keep=problem.recipe, seed=seed)
    members = tuple(member for member in found if member[2] > 0)
    return Choice(anchor, members, out, tuple(figures), selection)


def usable_anchors(problem: Problem, preset: Preset) -> list[Anchor]:
    """Those of the preset's anchors that all rows have; raises :class:`PredictorError` if none is."""
    anchors = [anchor for anchor in preset.anchors if np.isfinite(problem.anchor_pp[anchor]).all()]
    if not anchors:
        raise PredictorError(
            f"preset {preset.name!r} needs {' or '.join(preset.anchors)} scores, and the table lacks some",
            remedy="record the base and probe scores of every run",
        )
    if {"base", "raw"} <= set(anchors):
        apart = np.ptp(problem.anchor_pp["base"] - problem.anchor_pp["raw"])
        if apart < 1e-9:
            anchors.remove("raw")  # With one base score the two differ by a constant.
    return anchors


def _compare_anchors(
    problem: Problem, anchors: Sequence[Anchor], folds: Sequence[Fold], seed: int
) -> list[CandidateFigure]:
    figures = []
    for anchor in anchors:
        for learner in _QUICK:
            path = _out_of_fold(problem, anchor, learner, folds, None, seed)
            setting, error = _best_setting(problem, anchor, path)
            figures.append(CandidateFigure(anchor, f"{learner.name} (target)", "all", setting, error, 0.0))
    return figures


def _best_anchor(figures: Sequence[CandidateFigure], anchors: Sequence[Anchor]) -> Anchor:
    """The first of ``anchors``, which serves a new base best, unless another errs clearly less."""
    if not figures:
        return anchors[0]
    errors = {a: min(figure.rmse_pp for figure in figures if figure.target == a) for a in anchors}
    best = min(anchors, key=lambda a: errors[a])
    return best if errors[best] < ANCHOR_MARGIN * errors[anchors[0]] else anchors[0]


def _without_comparison(problem: Problem, anchor: Anchor) -> Choice:
    """One data set allows no comparison: little more than its mean gain over the anchor can be learnt."""
    learner = Ridge()
    setting = learner.settings - 1
    unknown = np.full(len(problem.score_pp), np.nan)
    figure = CandidateFigure(anchor, learner.name, "all", setting, float("nan"), 1.0)
    return Choice(anchor, ((Contestant(learner), setting, 1.0),), unknown, (figure,), None)


def mixture(predictions: Floats, target: Floats, weights: Floats) -> Floats:
    """Equal weights for the columns of ``predictions`` ``(n, m)`` that err nearly as little as the best.

    Weights fitted to the same rows err no less on data sets they were not fitted to, change with the
    folds, and with them the reasons that a user is given.
    """
    errors = np.sqrt(np.average((predictions - target[:, None]) ** 2, axis=0, weights=weights))
    near = errors <= NEAR_BEST * errors.min()
    return np.asarray(near / near.sum(), float)


def _inner_folds(data_ids: Sequence[str], wanted: int, seed: int) -> tuple[Fold, ...]:
    if len(set(data_ids)) < 2:
        return ()
    # Few rows are cheap to refit on, and each fold needs most of them.
    few = len(data_ids) <= 60
    return grouped_folds(data_ids, k=10 if few else wanted, seed=seed + 1)


def _fold_selections(problem: Problem, anchor: Anchor, folds: Sequence[Fold], seed: int) -> list[list[int]]:
    place = {name: i for i, name in enumerate(problem.names)}
    found = []
    for fold in folds:
        rows = problem.training_rows(anchor, fold.train)
        kept = select_features(rows, keep=problem.recipe, seed=seed, most_checks=15).kept
        found.append([place[name] for name in kept])
    return found


def _mean_out_of_fold(
    problem: Problem,
    anchor: Anchor,
    contestant: Contestant,
    folds: Sequence[Fold],
    columns: Sequence[Sequence[int]] | None,
    seed: int,
) -> Floats:
    paths = [
        _out_of_fold(problem, anchor, contestant.learner, folds, columns, seed + copy)
        for copy in range(contestant.copies)
    ]
    return np.asarray(np.mean(paths, axis=0), float)


def _out_of_fold(
    problem: Problem,
    anchor: Anchor,
    learner: Learner,
    folds: Sequence[Fold],
    columns: Sequence[Sequence[int]] | None,
    seed: int,
) -> Floats:
    target = problem.target(anchor)
    found = np.empty((len(target), learner.settings))
    for i, fold in enumerate(folds):
        part = problem.features if columns is None else problem.features[:, list(columns[i])]
        path = learner.fit(part[fold.train], target[fold.train], problem.weights[fold.train], seed)
        found[fold.test] = path.predict_all(part[fold.test])
    return found


def _error_pp(problem: Problem, anchor: Anchor, column: Floats) -> float:
    error = problem.headroom_pp * (column - problem.target(anchor))
    return float(np.sqrt(np.average(error**2, weights=problem.weights)))


def _best_setting(problem: Problem, anchor: Anchor, path: Floats) -> tuple[int, float]:
    errors = [_error_pp(problem, anchor, path[:, i]) for i in range(path.shape[1])]
    best = int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0
    return best, errors[best]
