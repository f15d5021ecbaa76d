"""The predictor: from a feature vector to a forecast with an interval and reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tuneahead.errors import PredictorError
from tuneahead.features.catalogue import names_of
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.chances import sd_of_own_or_all
from tuneahead.predictor.domain import Domain, learn_domain
from tuneahead.predictor.explain import Parts, Typical, explain_parts, weighted_mean
from tuneahead.predictor.fitting import (
    Counter,
    Member,
    calibration_of,
    find_preset,
    fit_members,
    judged_out_of_fold_pp,
    learnt_key,
    learnt_keys,
    mixture_of,
    prepare,
    single_row,
)
from tuneahead.predictor.intervals import Calibration
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.predictor.selection import TrailEntry
from tuneahead.predictor.table import FeatureTable, Floats, Rows
from tuneahead.predictor.tuning import (
    CONTEXT,
    Anchor,
    CandidateFigure,
    Preset,
    anchor_points,
    choose,
    design,
)
from tuneahead.verdict import Attribution, Forecast

_RECIPE_FEATURES = frozenset(names_of("recipe"))


@dataclass(frozen=True)
class Predictions:
    """Predictions for ``n`` tasks, all ``(n,)`` in points; NaN where the score they build on is absent."""

    score_pp: Floats
    low_pp: Floats
    high_pp: Floats
    in_distribution: Floats
    """1 inside the region of the training rows, else 0."""


@dataclass(frozen=True)
class Origin:
    """What a predictor was fitted on and how it came to be; no forecast is computed with it.

    ``bases`` and ``benchmarks`` are those it is for, whatever other runs it learnt from.
    """

    preset: str
    rows: int
    data_sets: int
    seed: int
    bases: tuple[str, ...]
    benchmarks: tuple[str, ...]
    figures: tuple[CandidateFigure, ...] = field(repr=False)
    trail: tuple[TrailEntry, ...] = field(repr=False)
    own_rows: int = 0
    """How many of the rows are tasks of the predictor's own base, where other bases' runs helped."""
    learnt: tuple[str, ...] = field(default=(), repr=False)
    """Every data set that the models were fitted to, each as its base and its identifier."""
    probe_steps: int = PROBE_STEPS
    """Length of the probes whose features it reads, in optimiser steps."""
    benchmark_fingerprints: tuple[str, ...] = ()
    """Of those benchmarks that share their name with others; empty where it is not known which they were."""


@dataclass(frozen=True)
class Predictor:
    """Predicts the final score of a fine-tune from the features of its data and probe.

    Fit with :meth:`fit`, keep with :meth:`save`, restore with :func:`load_predictor`. The score is
    ``anchor + head-room * mixture(features)``, limited to 0..100, where the anchor (probe score, base
    score or chance), the models and their weights were chosen by cross-validation over data sets.

    >>> predictor = Predictor.fit(read_table("history.parquet"))        # doctest: +SKIP
    >>> predictor.predict(vector, base_pp=41.0, probe_pp=47.5).score_pp  # doctest: +SKIP
    """

    names: tuple[str, ...] = field(repr=False)
    context: bool
    anchor: Anchor
    members: tuple[Member, ...] = field(repr=False)
    calibration: Calibration = field(repr=False)
    domain: Domain = field(repr=False)
    typical: Typical
    chance_pp: float
    """Score of guessing on the benchmark it is for; NaN where no training row of it had one."""
    level: float
    origin: Origin
    shift_pp: float = 0.0
    recipe_sd_pp: float = math.nan
    """Standard deviation of the errors among recipes of one data set, in points; NaN where not known."""

    @classmethod
    def fit(
        cls,
        table: FeatureTable,
        *,
        preset: str | Preset = "default",
        seed: int = 0,
        level: float = 0.9,
        helpers: FeatureTable | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Predictor:
        """Fit on the rows of ``table`` that have a score.

        ``preset`` is ``default`` (whatever earns it in cross-validation over the data sets), ``paper``
        (LightGBM with the paper's configuration and features, raw score), ``quick``, or a
        :class:`Preset`. Rows count by their number of seeds, and those of further seeds are learnt from
        too. ``helpers`` are runs of other bases or benchmarks, from which the models learn beside those of
        ``table``; the intervals come from the rows of ``table`` alone, for whose base and benchmark the
        predictor is; of several, each one's from its own. ``progress`` is called with how many models were
        compared and how many there are. Raises :class:`PredictorError` when nothing can be learnt.
        """
        chosen = find_preset(preset)
        _require_probability(level)
        problem, rows, own = prepare(table, chosen, helpers)
        compared = Counter(problem, chosen, progress)
        choice = choose(problem, chosen, seed, compared)
        members, pool = fit_members(problem, choice, seed)
        judged = judged_out_of_fold_pp(problem, chosen, choice, seed, compared)
        used = sorted({column for member in members for column in member.columns})
        weights = problem.weights
        gain = rows.probe_pp - rows.base_pp
        names = [problem.names[i] for i in used]
        domain, distance = learn_domain(names, problem.features[:, used], rows.data_ids)
        scaled = chosen.scaled_intervals
        calibration = calibration_of(problem, judged, own, distance, level=level, seed=seed, scaled=scaled)
        return cls(
            names=problem.names[: len(problem.names) - (len(CONTEXT) if chosen.context else 0)],
            context=chosen.context,
            anchor=choice.anchor,
            members=members,
            calibration=calibration.of_places(rows.select(own).places),
            domain=domain,
            typical=Typical(
                weighted_mean(rows.base_pp, weights),
                weighted_mean(gain, weights),
                weighted_mean(problem.anchor_pp[choice.anchor], weights),
                weighted_mean(problem.headroom_pp, weights),
            ),
            chance_pp=weighted_mean(rows.chance_pp[own], weights[own]),
            level=level,
            origin=Origin(
                preset=chosen.name,
                rows=len(set(zip(rows.bases, rows.task_ids, strict=True))),
                data_sets=len(set(rows.data_ids)),
                seed=seed,
                bases=tuple(sorted({rows.bases[i] for i in own})),
                benchmarks=tuple(sorted({rows.benchmarks[i] for i in own})),
                figures=choice.figures,
                trail=pool,
                own_rows=0 if helpers is None else len({rows.task_ids[i] for i in own}),
                learnt=tuple(sorted(set(learnt_keys(rows)))),
                probe_steps=rows.probe_steps,
                benchmark_fingerprints=tuple(sorted({rows.benchmark_fingerprints[i] for i in own} - {""})),
            ),
            recipe_sd_pp=_recipe_sd_pp(rows, judged, own),
        )

    def predict_table(self, table: FeatureTable, *, level: float | None = None) -> Predictions:
        """Predictions for every row of ``table``; features it lacks count as absent.

        Raises :class:`PredictorError` for a ``level`` that is no probability.
        """
        if level is not None:
            _require_probability(level)
        matrix, anchor, room = self._inputs(table)
        score = np.clip(self._unlimited(matrix, anchor, room), 0.0, 100.0)
        judged = matrix[:, self._domain_columns()]
        distance = self.domain.distance(judged)
        asked = self.level if level is None else level
        half = self.calibration.half_width_pp(matrix, distance, asked, table.places)
        low, high = np.clip(score - half, 0.0, 100.0), np.clip(score + half, 0.0, 100.0)
        inside = self.domain.contains(judged, distance)
        return Predictions(score, low, high, inside.astype(float))

    def unlimited_pp(self, table: FeatureTable) -> Floats:
        """Predictions for every row of ``table`` before they are limited to 0..100, ``(n,)`` points."""
        return self._unlimited(*self._inputs(table))

    def predict(
        self,
        vector: FeatureVector,
        base_pp: float,
        probe_pp: float,
        *,
        chance_pp: float | None = None,
        level: float | None = None,
        place: tuple[str, str] = ("", ""),
    ) -> Forecast:
        """Forecast for one task; scores in percentage points.

        ``base_pp`` and ``probe_pp`` are the benchmark scores before training and at the probe's end.
        ``chance_pp`` is the score of guessing (default: that of the training rows); a predictor whose
        training rows had none does without it. ``place`` names the task's base and benchmark: of a
        predictor for several it gets the interval of its own one's runs, else that of all. Raises
        :class:`PredictorError` when the score that the predicted gain is added to is NaN.
        """
        table = self._one_row(vector, base_pp, probe_pp, chance_pp)
        table = replace(table, bases=(place[0],), benchmarks=(place[1],))
        found = self.predict_table(table, level=level)
        matrix = self.domain_inputs(table)
        names = [
            name for name, out in zip(self.domain.names, self.domain.outside(matrix)[0], strict=True) if out
        ]
        return Forecast(
            score_pp=float(found.score_pp[0]),
            low_pp=float(found.low_pp[0]),
            high_pp=float(found.high_pp[0]),
            level=self.level if level is None else level,
            base_pp=base_pp,
            probe_pp=probe_pp,
            in_distribution=bool(found.in_distribution[0]),
            # What the user can change stands first.
            outside=tuple(sorted(names, key=lambda name: name not in _RECIPE_FEATURES)),
            recipe_sd_pp=self.recipe_sd_pp,
        )

    def has_learnt(self, base: str, data_id: str) -> bool:
        """Whether the models were fitted to runs on this data set on this base."""
        return learnt_key(base, data_id) in self.origin.learnt

    def explain(
        self, vector: FeatureVector, base_pp: float, probe_pp: float, *, chance_pp: float | None = None
    ) -> tuple[float, tuple[Attribution, ...]]:
        """Baseline in points and attributions, largest first, which sum to the predicted score."""
        table = self._one_row(vector, base_pp, probe_pp, chance_pp)
        matrix, anchor, room = self._inputs(table)
        shares = np.zeros(matrix.shape[1])
        constant = 0.0
        for member in self.members:
            part = member.component.contributions(matrix[:, list(member.columns)])[0]
            shares[list(member.columns)] += member.weight * part[:-1]
            constant += member.weight * float(part[-1])
        parts = Parts(
            names=self._columns(),
            values=matrix[0],
            shares=shares,
            constant=constant,
            anchor=self.anchor,
            anchor_pp=float(anchor[0]),
            base_pp=base_pp,
            probe_pp=probe_pp,
            headroom_pp=float(room[0]),
            shift_pp=self.shift_pp,
            absent=vector.absent,
        )
        return explain_parts(parts, self.typical)

    def save(self, folder: str | Path) -> None:
        """Write ``predictor.json`` and a text file for each boosted model into ``folder``; raises OSError."""
        from tuneahead.predictor.saved import write_predictor

        write_predictor(self, Path(folder))

    def domain_inputs(self, table: FeatureTable) -> Floats:
        """The columns that the domain judges, for every row of ``table``."""
        return self._inputs(table)[0][:, self._domain_columns()]

    def _columns(self) -> tuple[str, ...]:
        return (*self.names, *CONTEXT) if self.context else self.names

    def _domain_columns(self) -> list[int]:
        place = {name: i for i, name in enumerate(self._columns())}
        return [place[name] for name in self.domain.names]

    def _inputs(self, table: FeatureTable) -> tuple[Floats, Floats, Floats]:
        table = replace(table, repeats=None)
        known = set(table.names)
        missing = [name for name in self.names if name not in known]
        if missing:
            blank = np.full((len(table), len(missing)), np.nan)
            names = (*table.names, *missing)
            groups = (*table.groups, *("other" for _ in missing))
            table = replace(table, names=names, groups=groups, values=np.hstack([table.values, blank]))
        if math.isnan(self.chance_pp):
            # Learnt as shares of the whole scale: shares of a smaller head-room would be other points.
            table = replace(table, chance_pp=np.full(len(table), np.nan))
        return (
            design(table, self.names, context=self.context),
            anchor_points(table, self.anchor),
            table.headroom_pp,
        )

    def _unlimited(self, matrix: Floats, anchor: Floats, room: Floats) -> Floats:
        return np.asarray(anchor + room * mixture_of(self.members, matrix) + self.shift_pp, float)

    def _one_row(
        self, vector: FeatureVector, base_pp: float, probe_pp: float, chance_pp: float | None
    ) -> FeatureTable:
        needed = {"probe": probe_pp, "base": base_pp}.get(self.anchor, 0.0)
        if not math.isfinite(needed):
            raise PredictorError(
                f"the {self.anchor} score is {needed}, and this predictor adds its gain to it",
                remedy="score the benchmark's cue items before training and at the probe's end",
            )
        chance = self.chance_pp if chance_pp is None else chance_pp
        return single_row(self.names, vector, base_pp, probe_pp, chance)


def _require_probability(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise PredictorError(f"level {level} is not a probability", remedy="use 0.9 for 90 %")


def _recipe_sd_pp(rows: FeatureTable, judged_pp: Floats, own: Rows) -> float:
    is_own = np.isin(np.arange(len(rows)), own)
    return sd_of_own_or_all(rows.score_pp - judged_pp, rows.data_keys, rows.task_ids, is_own)


def load_predictor(folder: str | Path) -> Predictor:
    """Restore a saved predictor.

    Raises :class:`PredictorError` when the folder holds none of this schema, or a file of it is missing or
    damaged.
    """
    from tuneahead.predictor.saved import read_predictor

    return read_predictor(Path(folder))
