"""The figures that matter, each beside its interval, its goal and what the paper reports."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuneahead.backtest.protocols import Judged, success_tau_pp
from tuneahead.backtest.tables import Cell, Table, span_text
from tuneahead.predictor.baselines import ABLATIONS, BASELINES, OURS
from tuneahead.predictor.bootstrap import Span, group_spans
from tuneahead.predictor.metrics import cautious_pp, decisions, task_costs, task_seconds
from tuneahead.predictor.table import Floats

ALL_GROUPS = "full_quick"
"""The ablations' own yardstick: the cheap models on all groups of features."""
COLUMNS = ("figure", "measured", "95 % interval", "goal", "met", "paper")


@dataclass(frozen=True)
class Aim:
    """What a figure should reach: at least ``low``, at most ``high``."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def text(self) -> str:
        """The bounds in words."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if math.isfinite(self.low) else f"at most {self.high:g}"

    def row(
        self, figure: str, value: float, span: str | None = None, paper: float | None = None
    ) -> tuple[Cell, ...]:
        """A row of the table."""
        met = None if math.isnan(value) else ("yes" if self.low <= value <= self.high else "no")
        return (figure, value, span, self.text, met, paper)


def headline_table(judged: Judged) -> Table:
    """Our figures under one protocol against the project's goals, which are the paper's figures and ours."""
    ours = judged.scored[OURS.name].metrics
    spans = ours.spans
    rivals = [judged.scored[s.name] for s in BASELINES if s.name in judged.scored]
    errors = {rival.name: _on_ours(judged, rival.name) for rival in rivals}
    partial = [rival.label for rival in rivals if rival.metrics.n and errors[rival.name] is None]
    best, error = min(
        ((name, error) for name, error in errors.items() if error is not None),
        key=lambda pair: pair[1],
        default=("", math.nan),
    )
    below, below_span = _ratio(judged, OURS.name, best) if best else (math.nan, None)
    rows = [
        Aim(high=1.47).row("RMSE, points", ours.rmse_pp, span_text(spans.get("rmse_pp")), 1.47),
        Aim(low=95.1).row(
            "within 3 points, %", 100 * ours.within_3, span_text(spans.get("within_3"), 100), 95.1
        ),
        Aim(low=0.91).row("R2", ours.r2, span_text(spans.get("r2")), 0.99),
        Aim(high=1.25).row("RMSE over the seed-noise floor", _over(ours.rmse_pp, judged.floor_pp)),
        Aim(low=30).row(
            "RMSE below the best baseline's, %", 100 * (1 - below), below_span and _complement(below_span), 30
        ),
        Aim(88, 92).row(
            "90 % intervals cover, %", 100 * ours.coverage, span_text(spans.get("coverage"), 100)
        ),
        *_whole_rows(judged),
        *_ablation_rows(judged),
        *_decision_rows(judged),
    ]
    notes = [f"Best baseline: {judged.scored[best].label}, {error:.2f}."] if best else []
    if partial:
        notes.append(f"Measured on fewer tasks and no candidate: {', '.join(partial)}.")
    note = " ".join(notes)
    return Table(
        f"headline {judged.protocol}", f"Headline figures, {judged.protocol}", COLUMNS, tuple(rows), note
    )


def _on_ours(judged: Judged, name: str) -> float | None:
    """RMSE of a system on the tasks that ours predicts, in points; None where it leaves one of them out.

    Ours itself leaves out tasks without the score that it builds on, which most baselines do without.
    """
    ours, own = (judged.outcomes[key].score_pp - judged.rows.score_pp for key in (OURS.name, name))
    error = own[np.isfinite(ours)]
    return float(np.sqrt(np.mean(error**2))) if len(error) and np.isfinite(error).all() else None


def _over(value: float, by: float) -> float:
    """``value / by``; NaN where there is nothing to divide by, as where all seeds gave the same score."""
    return value / by if by else math.nan


def _ratio(judged: Judged, name: str, other: str) -> tuple[float, Span | None]:
    """RMSE of one system over another's on the same tasks, with its interval over data sets."""
    one, two = (judged.outcomes[key].score_pp - judged.rows.score_pp for key in (name, other))

    def ratio(totals: Floats) -> Floats:
        return np.sqrt(totals[:, :1] / totals[:, 1:])

    squares = np.column_stack([one**2, two**2])
    known = np.asarray(np.isfinite(squares).all(1), bool)
    groups = [group for group, there in zip(judged.rows.data_ids, known, strict=True) if there]
    (span,) = group_spans(squares[known], groups, ratio)
    totals = np.sqrt(squares[known].mean(0))
    return _over(float(totals[0]), float(totals[1])), span


def _complement(span: Span) -> str:
    return span_text((1 - span[1], 1 - span[0]), 100) or ""


def _whole_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    """The same over every task that was held out, where errors are measured on some of them."""
    whole = judged.whole
    if whole is None or whole.n == len(judged.rows):
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
            value, span = _ratio(judged, system.name, ALL_GROUPS)
            label = f"RMSE of {system.label.lower()} over that of all groups"
            rows.append(Aim(low=2).row(label, value, span_text(span), papers[system.name]))
    return rows


def _decision_rows(judged: Judged) -> list[tuple[Cell, ...]]:
    part, predicted = judged.rows, judged.outcomes[OURS.name].score_pp
    tau = success_tau_pp(part.score_pp)
    costs, seconds = task_costs(part), task_seconds(part)
    cautious = cautious_pp(predicted, part.score_pp, tau, part.data_ids)
    rows = []
    for rule, upper in (("", predicted), (", cautious", cautious)):
        found = decisions(upper, part.score_pp, tau, costs, groups=part.data_ids)
        for figure, name, share, paper in (
            ("compute saved", "compute_saved", found.compute_saved, 58.4),
            ("good runs kept", "good_kept", found.good_kept, 94.5),
        ):
            span = span_text(found.spans.get(name), 100)
            label = f"{figure} at a goal of {tau:g}{rule}, %"
            rows.append(Aim(low=paper).row(label, 100 * share, span, paper))
        if seconds is not None:
            timed = decisions(upper, part.score_pp, tau, seconds, groups=part.data_ids)
            span = span_text(timed.spans.get("compute_saved"), 100)
            label = f"seconds saved there, what the probe asks included{rule}, %"
            rows.append((label, 100 * timed.compute_saved, span, None, None, None))
    return rows
