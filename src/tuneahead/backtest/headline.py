"""The figures that matter, each beside its interval, its goal and what the paper reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuneahead.backtest.protocols import Judged, drawn_groups, success_tau_pp
from tuneahead.backtest.runs import Outcome
from tuneahead.backtest.tables import Aim, Cell, Table, span_text
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS
from tuneahead.predictor.bootstrap import Span, group_spans
from tuneahead.predictor.decisions import cautious_pp, decisions, task_costs
from tuneahead.predictor.metrics import noise_variances_pp2
from tuneahead.predictor.table import FeatureTable, Floats

ALL_GROUPS = "full_quick"
"""The ablations' own yardstick: the cheap models on all groups of features."""
COLUMNS = ("figure", "measured", "95 % interval", "goal", "met", "paper")


def headline_table(judged: Judged) -> Table:
    """Our figures under one protocol against the project's goals, which are the paper's figures and ours."""
    ours = judged.scored[OURS.name].metrics
    spans = ours.spans
    rows = [
        Aim(high=1.47).row("RMSE, points", ours.rmse_pp, span_text(spans.get("rmse_pp")), 1.47),
        Aim(low=95.1).row(
            "within 3 points, %", 100 * ours.within_3, span_text(spans.get("within_3"), 100), 95.1
        ),
        Aim(low=0.91).row("R2", ours.r2, span_text(spans.get("r2")), 0.99),
        _floor_row(judged),
        *_below_rows(judged),
        Aim(88, 92).row(
            "90 % intervals cover, %", 100 * ours.coverage, span_text(spans.get("coverage"), 100)
        ),
        *_whole_rows(judged),
        *_ablation_rows(judged),
        *_decision_rows(judged),
    ]
    return Table(
        f"headline {judged.protocol}",
        f"Headline figures, {judged.protocol}",
        COLUMNS,
        tuple(rows),
        _note(judged),
    )


@dataclass(frozen=True)
class _Field:
    """Tasks, every system's held-out predictions of them, and the groups that intervals are drawn over."""

    rows: FeatureTable
    outcomes: Mapping[str, Outcome]
    groups: tuple[str, ...]

    def best(self) -> tuple[str, float]:
        """The baseline with the least error on the tasks that ours predicts; no name where there is none."""
        errors = [(system.name, self.error_pp(system.name)) for system in BASELINES]
        known = [(name, error) for name, error in errors if error is not None]
        return min(known, key=lambda pair: pair[1], default=("", math.nan))

    def error_pp(self, name: str) -> float | None:
        """RMSE of a system on the tasks that ours predicts; None where it leaves one of them out.

        Ours itself leaves out tasks without the score that it builds on, which most baselines do without.
        """
        if name not in self.outcomes:
            return None
        ours, own = (self.outcomes[key].score_pp - self.rows.score_pp for key in (OURS.name, name))
        error = own[np.isfinite(ours)]
        return float(np.sqrt(np.mean(error**2))) if len(error) and np.isfinite(error).all() else None

    def ratio(self, name: str, other: str) -> tuple[float, Span | None]:
        """RMSE of one system over another's on the same tasks, with its interval over groups."""
        return self._ratio(self._squares(name), self._squares(other))

    def over_noise(self, name: str) -> tuple[float, Span | None]:
        """RMSE of a system over the seed-noise floor of the same tasks, with its interval over groups."""
        return self._ratio(self._squares(name), noise_variances_pp2(self.rows))

    def _squares(self, name: str) -> Floats:
        return np.asarray((self.outcomes[name].score_pp - self.rows.score_pp) ** 2, float)

    def _ratio(self, one: Floats, two: Floats) -> tuple[float, Span | None]:
        """Root of the ratio of two means over tasks, of which both are known."""

        def of_totals(totals: Floats) -> Floats:
            return np.sqrt(totals[:, :1] / totals[:, 1:])

        squares = np.column_stack([one, two])
        known = np.asarray(np.isfinite(squares).all(1), bool)
        if not known.any():
            return math.nan, None
        groups = [group for group, there in zip(self.groups, known, strict=True) if there]
        (span,) = group_spans(squares[known], groups, of_totals)
        totals = np.sqrt(squares[known].mean(0))
        return _over(float(totals[0]), float(totals[1])), span


def _measured(judged: Judged) -> _Field:
    return _Field(judged.rows, judged.outcomes, drawn_groups(judged.rows, judged.protocol))


def _everything(judged: Judged) -> _Field | None:
    """All tasks that were held out, where errors are measured on some of them."""
    if judged.whole is None or judged.whole.n == judged.scored[OURS.name].metrics.n:
        return None
    return _Field(judged.all_rows, judged.all_outcomes, drawn_groups(judged.all_rows, judged.protocol))


def _floor_row(judged: Judged) -> tuple[Cell, ...]:
    over, span = _measured(judged).over_noise(OURS.name)
    return Aim(high=1.25).row("RMSE over the seed-noise floor", over, span_text(span))


def _below_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    label = "RMSE below the best baseline's"
    fields = {f"{label}, %": _measured(judged)}
    whole = _everything(judged)
    if whole is not None and judged.whole is not None:
        fields[f"{label}, all {judged.whole.n} tasks, %"] = whole
    rows = []
    for figure, field in fields.items():
        best, _ = field.best()
        below, span = field.ratio(OURS.name, best) if best else (math.nan, None)
        rows.append(Aim(low=30).row(figure, 100 * (1 - below), span and _complement(span)))
    return rows


def _note(judged: Judged) -> str:
    labels = {system.name: system.label for system in BASELINES}
    measured, whole = _measured(judged), _everything(judged)
    notes = []
    best, error = measured.best()
    if best:
        notes.append(f"Best baseline: {labels[best]}, {error:.2f}")
        best, error = whole.best() if whole else ("", math.nan)
        notes[0] += f"; over all tasks {labels[best]}, {error:.2f}." if best else "."
    partial = [
        label
        for name, label in labels.items()
        if name in judged.scored and judged.scored[name].metrics.n and measured.error_pp(name) is None
    ]
    if partial:
        notes.append(f"Measured on fewer tasks and no candidate: {', '.join(partial)}.")
    return " ".join(notes)


def _over(value: float, by: float) -> float:
    """``value / by``; NaN where there is nothing to divide by, as where all seeds gave the same score."""
    return value / by if by else math.nan


def _complement(span: Span) -> str:
    return span_text((1 - span[1], 1 - span[0]), 100) or ""


def _whole_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    """The same over every task that was held out, where errors are measured on some of them."""
    whole = judged.whole
    if whole is None or _everything(judged) is None:
        return []
    rmse = span_text(whole.spans.get("rmse_pp"))
    covered = span_text(whole.spans.get("coverage"), 100)
    return [
        (f"RMSE over all {whole.n} tasks, points", whole.rmse_pp, rmse, None, None, None),
        (f"90 % intervals cover, all {whole.n} tasks, %", 100 * whole.coverage, covered, None, None, None),
    ]


def _ablation_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    papers = {"static_only": 3.50 / 1.47, "dynamic_only": 3.38 / 1.47}
    rows = []
    for system in ABLATIONS:
        if system.name in papers and system.name in judged.scored and ALL_GROUPS in judged.scored:
            # Against the same cheap models on all groups: the default's models would flatter the ratio.
            value, span = _measured(judged).ratio(system.name, ALL_GROUPS)
            label = f"RMSE of {system.label.lower()} over that of all groups"
            rows.append(Aim(low=2).row(label, value, span_text(span), papers[system.name]))
    return rows


def _decision_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    part, predicted = judged.rows, judged.outcomes[OURS.name].score_pp
    tau = success_tau_pp(part.score_pp)
    costs, groups = task_costs(part), drawn_groups(part, judged.protocol)
    rules = {
        "by the prediction (the paper's rule)": predicted,
        "by the upper end (the gate's rule)": judged.outcomes[OURS.name].high_pp,
        "by the cautious rule": cautious_pp(predicted, part.score_pp, tau, groups),
    }
    rows = []
    for rule, upper in rules.items():
        found = decisions(upper, part.score_pp, tau, costs, groups=groups)
        for figure, name, share, paper in (
            ("compute saved", "compute_saved", found.compute_saved, 58.4),
            ("good runs kept", "good_kept", found.good_kept, 94.5),
        ):
            span = span_text(found.spans.get(name), 100)
            label = f"{figure} at a goal of {tau:g}, {rule}, %"
            rows.append(Aim(low=paper).row(label, 100 * share, span, paper))
    return rows
