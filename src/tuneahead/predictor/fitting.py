"""From a feature table to fitted models: preparing the training rows, and fitting what was chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import PredictorError
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.explain import known_spec
from tuneahead.predictor.intervals import Calibration, Residuals, calibrate
from tuneahead.predictor.kernel import Kernel, mixed, same_kernel
from tuneahead.predictor.models import Component
from tuneahead.predictor.selection import TrailEntry
from tuneahead.predictor.splits import Fold, grouped_folds
from tuneahead.predictor.table import FeatureTable, Floats, Rows, group_index, join_tables
from tuneahead.predictor.tuning import (
    CONTEXT,
    PRESETS,
    Choice,
    Preset,
    Problem,
    anchor_points,
    choose,
    design,
    usable_anchors,
)

BASES_APART = 5.0
"""A column whose mean differs between bases by so many standard deviations within them is left out."""
FEW_DATA_SETS = 40
"""Below so many, what was chosen on residuals makes these too small to calibrate an interval with."""
NESTED_FOLDS = 10


@dataclass(frozen=True)
class Member:
    """One fitted model of the mixture, and which columns of the design it reads."""

    weight: float
    columns: tuple[int, ...]
    component: Component


def single_row(
    names: tuple[str, ...], vector: FeatureVector, base_pp: float, probe_pp: float, chance_pp: float
) -> FeatureTable:
    """A table of one task without outcome."""
    nan = np.array([math.nan])
    return FeatureTable(
        names=names,
        values=np.array([vector.aligned(names)], float),
        score_pp=nan,
        base_pp=np.array([base_pp]),
        probe_pp=np.array([probe_pp]),
        chance_pp=np.array([chance_pp]),
        task_ids=("task",),
        data_ids=("task",),
        families=("",),
        seeds=np.array([1.0]),
        seed_sd_pp=nan,
        bases=("",),
        benchmarks=("",),
        groups=tuple("other" for _ in names),
    )


def seed_weights(seeds: Floats) -> Floats:
    """Row weights from numbers of seeds, mean 1: inverse variances if seed noise equals the model's error."""
    weights = 1.0 / (1.0 + 1.0 / np.maximum(seeds, 1.0))
    return np.asarray(weights / weights.mean(), float)


def learnt_keys(rows: FeatureTable) -> tuple[str, ...]:
    """What a data set is called among those learnt from: its base and its identifier, one a row."""
    return tuple(map(learnt_key, rows.bases, rows.data_ids))


def learnt_key(base: str, data_id: str) -> str:
    """What one data set on one base is called among those learnt from."""
    return f"{base} {data_id}"


def find_preset(preset: str | Preset) -> Preset:
    """A preset by its name, or as it is; raises :class:`PredictorError` for an unknown name."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise PredictorError(f"unknown preset {preset!r}", remedy=f"use one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def paper_features(table: FeatureTable) -> tuple[str, ...]:
    """The paper's 24 and the recipe; all static, dynamic and recipe features if the table has none."""
    named = [name for name in table.names if (spec := known_spec(name)) is not None and spec.paper]
    recipe = table.of_group("recipe")
    if not named:
        return table.of_group("static", "dynamic", "recipe") or table.names
    return tuple(name for name in table.names if name in named or name in recipe)


def prepare(
    table: FeatureTable, preset: Preset, helpers: FeatureTable | None = None
) -> tuple[Problem, FeatureTable, Rows]:
    """The training rows as the models see them, their table, and which of them are of ``table``.

    Raises :class:`PredictorError` for a table without scored rows or features, or with an impossible row.
    """
    rows = table.scored().with_repeats()
    if not len(rows):
        raise PredictorError("no row of the table has a score", remedy="finish some full runs first")
    own = np.ones(len(rows), bool)
    if helpers is not None:
        others = helpers.scored().with_repeats()
        rows, own = join_tables([rows, others]), np.append(own, np.zeros(len(others), bool))
    anchored = [np.isfinite(anchor_points(rows, anchor)) for anchor in preset.anchors]
    # A few runs without a probe score (it failed) must not cost the best anchor.
    for known in anchored:
        # Of the own runs too: those of other bases, which are many, don't decide how many of these are kept.
        if known.mean() >= 0.9 and known[own].mean() >= 0.9:
            rows, own = rows.select(np.flatnonzero(known)), own[known]
            break
    _require_sound(rows)
    names = paper_features(rows) if preset.paper_features else rows.names
    features = design(rows, names, context=preset.context)
    # To a model such a column is the base's name: all rows of the others lie far away in it.
    features = np.where(varies_by_base_alone(features, rows.bases), np.nan, features)
    problem = Problem(
        names=(*names, *CONTEXT) if preset.context else names,
        features=features,
        score_pp=rows.score_pp,
        anchor_pp={anchor: anchor_points(rows, anchor) for anchor in ("probe", "base", "raw")},
        headroom_pp=rows.headroom_pp,
        weights=seed_weights(rows.seeds),
        data_ids=rows.data_ids,
        recipe=rows.of_group("recipe"),
    )
    if not problem.names:
        raise PredictorError("the table has no features", remedy="extract features before fitting")
    return problem, rows, np.flatnonzero(own)


def _require_sound(rows: FeatureTable) -> None:
    bad = np.flatnonzero(~((rows.score_pp >= 0) & (rows.score_pp <= 100)))
    if len(bad):
        raise PredictorError(
            f"task {rows.task_ids[bad[0]]}: score {rows.score_pp[bad[0]]:g} is outside 0 to 100",
            remedy="give scores in percentage points, such as 61.2",
        )
    bad = np.flatnonzero(~(rows.headroom_pp > 0))
    if len(bad):
        raise PredictorError(
            f"task {rows.task_ids[bad[0]]}: the score of guessing is {rows.chance_pp[bad[0]]:g} points, "
            "which leaves nothing to gain",
            remedy="correct the chance level of its benchmark (0 to below 100 points)",
        )
    bad = np.flatnonzero(~(rows.seeds >= 1))
    if len(bad):
        raise PredictorError(
            f"task {rows.task_ids[bad[0]]} has {rows.seeds[bad[0]]:g} seeds",
            remedy="give every task the number of runs that its score is the mean of, at least 1",
        )


def varies_by_base_alone(features: Floats, bases: Sequence[str]) -> NDArray[np.bool_]:
    """Which columns of ``features`` ``(n, d)`` tell bases apart and rows of one base hardly, ``(d,)``."""
    index = group_index(bases)
    sums, squares, means = [], [], []
    for base in range(int(index.max(initial=0)) + 1):
        own = np.where(np.isfinite(features[index == base]), features[index == base], np.nan)
        known = ~np.isnan(own).all(0)
        mean = np.where(known, np.nanmean(np.where(known, own, 0.0), 0), np.nan)
        sums.append((~np.isnan(own)).sum(0))
        squares.append(np.nansum((own - mean) ** 2, 0))
        means.append(mean)
    within = np.sqrt(np.sum(squares, 0) / np.maximum(1, np.sum(sums, 0)))
    known = np.isfinite(means)
    between = np.where(known, means, -np.inf).max(0) - np.where(known, means, np.inf).min(0)
    tiny = 1e-9 * np.abs(np.where(known, means, 0.0)).max(0)
    return np.asarray((known.sum(0) > 1) & (between > BASES_APART * within + tiny), bool)


def fit_members(
    problem: Problem, choice: Choice, seed: int
) -> tuple[tuple[Member, ...], tuple[TrailEntry, ...]]:
    target = problem.target(choice.anchor)
    everything = tuple(range(len(problem.names)))
    kept = choice.selection.kept if choice.selection else problem.names
    selected = tuple(i for i, name in enumerate(problem.names) if name in set(kept))
    members = []
    for contestant, setting, weight in choice.members:
        columns = everything if contestant.pool == "all" else selected
        part = problem.features[:, list(columns)]
        for copy in range(contestant.copies):
            path = contestant.learner.fit(part, target, problem.weights, seed + copy)
            members.append(Member(weight / contestant.copies, columns, path.at(setting)))
    return _with_mixed_kernels(members), choice.selection.trail if choice.selection else ()


def _with_mixed_kernels(members: Sequence[Member]) -> tuple[Member, ...]:
    """The same mixture with one model for all that share a kernel: explaining one costs most of the time."""
    kept: list[Member] = []
    for member in members:
        kernel = member.component
        at = [i for i, one in enumerate(kept) if isinstance(kernel, Kernel) and _shares_kernel(one, member)]
        if not at or not isinstance(kernel, Kernel):
            kept.append(member)
            continue
        before = kept[at[0]]
        assert isinstance(before.component, Kernel)
        weight = before.weight + member.weight
        parts = [(before.weight / weight, before.component), (member.weight / weight, kernel)]
        kept[at[0]] = Member(weight, member.columns, mixed(parts))
    return tuple(kept)


def _shares_kernel(one: Member, other: Member) -> bool:
    a, b = one.component, other.component
    return (
        isinstance(a, Kernel) and isinstance(b, Kernel) and one.columns == other.columns and same_kernel(a, b)
    )


class Counter:
    """Tells ``report(done, total)`` after each model that a fit compares; silent without one."""

    def __init__(self, problem: Problem, preset: Preset, report: Callable[[int, int], None] | None) -> None:
        self._report, self._done = report, 0
        self._total = (1 + len(_outer_folds(problem))) * len(preset.entrants(len(problem.score_pp)))

    def __call__(self) -> None:
        """Count one more. A fold of few rows may have fewer entrants than all rows: the rest is skipped."""
        self._done = min(self._done + 1, self._total)
        if self._report is not None:
            self._report(self._done, self._total)


def judged_out_of_fold_pp(
    problem: Problem, preset: Preset, choice: Choice, seed: int, compared: Callable[[], None] | None = None
) -> Floats:
    """Predictions for the training rows ``(n,)`` in points, each by what its data set had no part in.

    With few data sets that means the choice of anchor, models and settings as well as the fits: all of it
    is made anew for each fold of data sets (nested cross-validation; Varma and Simon, BMC
    Bioinformatics 7, 91). With more, one choice among a dozen models hardly fits any single row, and the
    out-of-fold predictions that it was made on serve.
    """
    folds = _outer_folds(problem, seed)
    if not folds:
        return choice.out_of_fold_pp
    # An anchor that only the rows held out lack could not carry their predictions.
    preset = replace(preset, anchors=tuple(usable_anchors(problem, preset)))
    found = np.empty(len(problem.score_pp))
    for fold in folds:
        part = problem.of_rows(fold.train)
        inner = choose(part, preset, seed, compared)
        members, _ = fit_members(part, inner, seed)
        share = mixture_of(members, problem.features[fold.test])
        anchor_pp = problem.anchor_pp[inner.anchor][fold.test]
        found[fold.test] = anchor_pp + problem.headroom_pp[fold.test] * share
    return np.clip(found, 0.0, 100.0)


def _outer_folds(problem: Problem, seed: int = 0) -> tuple[Fold, ...]:
    """Those of the nested cross-validation; none of one data set, nor of so many that it is not needed."""
    if not 1 < len(set(problem.data_ids)) < FEW_DATA_SETS:
        return ()
    return grouped_folds(problem.data_ids, k=NESTED_FOLDS, seed=seed + 2)


def mixture_of(members: Sequence[Member], features: Floats) -> Floats:
    """What the mixture predicts for ``features`` ``(n, d)``: shares of the head-room, ``(n,)``."""
    total = np.zeros(len(features))
    for member in members:
        total += member.weight * member.component.predict(features[:, list(member.columns)])
    return total


def calibration_of(
    problem: Problem,
    out_of_fold_pp: Floats,
    own: Rows,
    distance: Floats,
    *,
    level: float,
    seed: int,
    scaled: bool,
) -> Calibration:
    """Intervals from the out-of-fold residuals of the rows ``own``; ``distance`` is that of all rows."""
    residual = (problem.score_pp - out_of_fold_pp)[own]
    if not len(residual) or not np.isfinite(residual).all():
        return Calibration(np.zeros(0), ())
    data_ids = tuple(problem.data_ids[i] for i in own)
    if not scaled:
        return Calibration(np.abs(residual), data_ids)
    return calibrate(
        Residuals(residual, problem.features[own], data_ids, distance[own]), level=level, seed=seed
    )
