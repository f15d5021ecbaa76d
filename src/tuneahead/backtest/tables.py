"""The backtest's results as plain tables, for the terminal, Markdown and JSON alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuneahead.columnfit import fitting_columns
from tuneahead.predictor.bootstrap import Span
from tuneahead.predictor.decisions import Decisions
from tuneahead.predictor.metrics import Metrics
from tuneahead.predictor.selection import TrailEntry

Cell = str | float | int | None

PAPER: Mapping[str, tuple[str, tuple[float | None, ...]]] = {
    "early_stop": ("Early-Stop Extrapolation", (7.43, 0.81, 0.90, 11.2, 23.9, 32.8)),
    "domain_proxy": ("Domain-Proxy Baseline", (6.58, 0.85, 0.92, 8.6, 22.0, 32.8)),
    "static_only": ("TuneAhead, static only", (3.50, None, None, None, None, 49.3)),
    "dynamic_only": ("TuneAhead, dynamic only", (3.38, None, None, None, None, 55.6)),
    "early_dynamics": ("Early-Dynamics Baseline", (3.33, 0.96, 0.98, 29.9, 50.0, 67.5)),
    "proxy_lm": ("ProxyLM", (2.11, 0.98, 0.99, 40.7, 67.9, 85.8)),
    "paper": ("TuneAhead", (1.47, 0.99, 0.99, 50.0, 82.5, 95.1)),
}
"""The paper's label and figures in its own setting, by our system's name: RMSE, R2, r, and the percentage of
forecasts within 1, 2 and 3 points."""


@dataclass(frozen=True)
class Table:
    """A titled table. A cell is text, a number, or None where nothing was measured.

    ``protocol`` says how the tasks were held out that it is about.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    protocol: str = ""

    @property
    def places(self) -> dict[str, int]:
        """Where each column stands in a row, by name."""
        return {name: place for place, name in enumerate(self.columns)}

    def to_markdown(self) -> str:
        """A GitHub table under a heading, numbers right-aligned, with the note below."""
        numeric = [
            any(isinstance(row[i], int | float) for row in self.rows) for i in range(len(self.columns))
        ]
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|" + "|".join(" ---: " if number else " --- " for number in numeric) + "|")
        lines += ["| " + " | ".join(show(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def to_record(self) -> dict[str, object]:
        """The same as JSON values; NaN becomes null."""
        rows = [
            [None if isinstance(c, float) and not math.isfinite(c) else c for c in row] for row in self.rows
        ]
        return {
            "name": self.name,
            "title": self.title,
            "columns": list(self.columns),
            "rows": rows,
            "note": self.note,
            "protocol": self.protocol,
        }


LEAST_TELLING = (
    *("bias", "Spearman", "r", "within 1 pp %", "within 2 pp %", "tasks", "good", "bad", "run %"),
    *("saved, 95 % interval", "kept, 95 % interval", "width", "paper's RMSE", "95 % interval", "direction"),
)
"""Columns that a narrow terminal does without, in this order."""


def narrowed(table: Table, width: int) -> Table:
    """The table with as many of its columns as fit into ``width`` characters; what is left out is noted."""
    cells = [[column, *(show(row[i]) for row in table.rows)] for i, column in enumerate(table.columns)]
    widths = [max(1, *map(len, column)) for column in cells]
    kept = fitting_columns(table.columns, widths, LEAST_TELLING, width)
    columns = tuple(table.columns[i] for i in kept)
    dropped = [name for name in LEAST_TELLING if name in table.columns and name not in columns]
    if not dropped:
        return table
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    note = f"Left out for want of width (--markdown has all): {', '.join(dropped)}."
    return replace(table, columns=columns, rows=rows, note=f"{table.note} {note}".strip())


def show(cell: Cell) -> str:
    """A cell as text: two decimals under 10, one above, a dash for what was not measured."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) < 10 else f"{cell:.1f}"
    return str(cell).replace("|", "\\|")


def span_text(span: Span | None, factor: float = 1.0) -> str | None:
    """``3.1 to 4.2``; None where there is no interval."""
    if span is None or not math.isfinite(span[0]):
        return None
    return f"{show(factor * span[0])} to {show(factor * span[1])}"


@dataclass(frozen=True)
class Scored:
    """One system under one protocol: its metrics, and why rows are missing if some are."""

    name: str
    label: str
    metrics: Metrics
    reason: str = ""


def worst_first(systems: Iterable[Scored]) -> list[Scored]:
    """The systems in the order of their errors, the least last; first those that were not run."""
    return sorted(systems, key=lambda s: -s.metrics.rmse_pp if s.metrics.n else -math.inf)


def without_paper(systems: Sequence[Scored]) -> list[Scored]:
    """The systems without the paper's figures, which are of one base and one benchmark."""
    return [replace(system, name="") for system in systems]


FLOOR = "Seed-noise floor"
"""Label of the row of an error that no forecast can fall below."""
METRIC_COLUMNS = (
    "system",
    "RMSE",
    "95 % interval",
    "R2",
    "r",
    "Spearman",
    "within 1 pp %",
    "within 2 pp %",
    "within 3 pp %",
    "bias",
    "coverage %",
    "width",
    "tasks",
    "paper's RMSE",
)


def metric_table(name: str, title: str, systems: Sequence[Scored], floor_pp: float, note: str) -> Table:
    """Systems by metrics, best last as given, with the seed-noise floor as the last row."""
    rows: list[tuple[Cell, ...]] = [_metric_row(system) for system in systems]
    rows.append((FLOOR, floor_pp, *(None,) * (len(METRIC_COLUMNS) - 2)))
    most = max((s.metrics.n for s in systems), default=0)
    reasons = [_why_absent(s, most) for s in systems if s.reason]
    return Table(name, title, METRIC_COLUMNS, tuple(rows), " ".join([note, *reasons]))


def _why_absent(system: Scored, most: int) -> str:
    """Why a system lacks forecasts that others of the table have; ``most`` is how many tasks those are on."""
    found = system.metrics.n
    if not found:
        return f"{system.label}: not run, {system.reason}."
    if found < most:
        # An error on easy tasks would pass for a small one.
        return (
            f"{system.label}: on {found:,} of the {most:,} tasks alone, so that its figures can't be set "
            f"beside the others' ({system.reason})."
        )
    return f"{system.label}: {system.reason}."


def _metric_row(system: Scored) -> tuple[Cell, ...]:
    m = system.metrics
    span = span_text(m.spans.get("rmse_pp"))
    percents = (100.0 * m.within_1, 100.0 * m.within_2, 100.0 * m.within_3)
    _, (paper, *_) = PAPER.get("paper" if system.name == "ours" else system.name, ("", (None,)))
    return (
        system.label,
        m.rmse_pp,
        span,
        m.r2,
        m.pearson,
        m.spearman,
        *percents,
        m.bias_pp,
        100.0 * m.coverage,
        m.width_pp,
        m.n,
        paper,
    )


def paper_table() -> Table:
    """The paper's own main and ablation figures, in the columns of ours."""
    columns = tuple(name for name in METRIC_COLUMNS[:9] if name not in ("95 % interval", "Spearman"))
    rows = tuple((label, *figures) for label, figures in PAPER.values())
    note = (
        "Qwen2.5-7B-Instruct on MMLU, 370 held-out tasks of 1,300 (arXiv 2606.17660): other tasks than ours,"
        " so that the figures of one system differ by what is easy to foresee too."
    )
    return Table("paper random", "The paper's own figures, its random split", columns, rows, note)


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

    def is_met(self, value: float) -> bool:
        """Whether a known figure lies within the bounds."""
        return self.low <= value <= self.high

    def row(
        self, figure: str, value: float, span: str | None = None, paper: float | None = None
    ) -> tuple[Cell, ...]:
        """A row of the table of headline figures."""
        met = None if math.isnan(value) else ("yes" if self.is_met(value) else "no")
        return (figure, value, span, self.text, met, paper)


def goal_note(figure: str, value: float, *, low: float = -math.inf, high: float = math.inf) -> str:
    """A sentence that sets a figure beside its goal; none of a figure that is not known."""
    if not math.isfinite(value):
        return ""
    aim = Aim(low, high)
    return f" Goal: {figure} {aim.text}, {'met' if aim.is_met(value) else 'missed'} ({value:.3g})."


def kind_table(kinds: Sequence[tuple[str, Metrics]]) -> Table:
    """Ours on kinds of data of which no training row was, all tasks."""
    rows = tuple((name, m.n, m.rmse_pp, m.bias_pp, 100.0 * m.coverage, m.width_pp) for name, m in kinds)
    note = (
        "Intervals are made for data like those of the history: on a kind that it lacks they may hold less"
        " often than 90 %. A bias above 0 is a forecast that is too good."
    )
    columns = ("kind of data", "tasks", "RMSE", "bias", "coverage %", "width")
    return Table("kinds family-out", "Ours on kinds of data never seen, family-out", columns, rows, note)


def decision_table(name: str, title: str, rules: Sequence[tuple[str, Decisions]], note: str) -> Table:
    """Rules by decision figures, in percent."""
    columns: tuple[str, ...] = (
        *("tau", "rule", "run %", "compute saved %", "good kept %", "bad caught %", "good", "bad"),
        *(("saved, 95 % interval", "kept, 95 % interval") if any(d.spans for _, d in rules) else ()),
    )
    rows = tuple(
        (
            d.tau_pp,
            label,
            *(100.0 * value for value in (d.go, d.compute_saved, d.good_kept, d.bad_caught)),
            d.good,
            d.bad,
            *(span_text(d.spans[key], 100.0) for key in ("compute_saved", "good_kept") if key in d.spans),
        )
        for label, d in rules
    )
    return Table(name, title, columns, rows, note)


def trail_table(trail: Sequence[TrailEntry]) -> Table:
    """What the selection did with every feature."""
    columns = ("feature", "step", "mean SHAP pp", "direction", "reason")
    rows = tuple((e.feature, e.step, e.importance_pp, e.direction, e.reason) for e in trail)
    kept = sum(entry.step == "kept" for entry in trail)
    return Table(
        "selection",
        "Feature selection, random split",
        columns,
        rows,
        f"{kept} of {len(trail)} features kept.",
    )
