"""Small charts as inline SVG that stay readable from a phone to a wide screen.

Positions are percentages of the drawing area and text keeps its size, so no chart is ever
scaled like a picture. Every text that comes from data goes through ``markupsafe.escape``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

NARROWEST_PP = 12.0
"""Scores closer than this are drawn close: a point of difference must not look like ten."""
NARROWEST_NATS = 0.1
"""Losses closer than this are drawn close."""
STROKE_PATH = (
    '<svg x="0" y="0" width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none" '
    'aria-hidden="true"><polyline class="{css}" vector-effect="non-scaling-stroke" points="{points}"/></svg>'
)


@dataclass(frozen=True)
class Scale:
    """A linear map from ``low``..``high`` to 0..100 % of the drawing area."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Position of ``value``, held inside the area."""
        width = self.high - self.low
        share = (value - self.low) / width if width > 0 else 0.5
        return 100.0 * min(1.0, max(0.0, share))

    def ticks(self, count: int = 4) -> tuple[float, ...]:
        """About ``count`` round values inside the range."""
        width = self.high - self.low
        if not width > 0:
            return (self.low,)
        raw = width / max(1, count)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(step * index for index in range(first, last + 1))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """The ticks as text, all with as many decimals as the finest needs."""
    if len(ticks) < 2:
        return [number(tick) for tick in ticks]
    digits = next((d for d in range(6) if all(abs(t - round(t, d)) < 1e-9 + 1e-6 * abs(t) for t in ticks)), 6)
    return [f"{tick:,.{digits}f}".replace("-", "−") for tick in ticks]


def scale_over(
    values: Iterable[float],
    *,
    pad_fraction: float = 0.08,
    least: float = 0.0,
    floor: float = -math.inf,
    ceiling: float = math.inf,
) -> Scale:
    """A scale that holds every finite value with some air, at least ``least`` wide.

    Its air ends at ``floor`` and ``ceiling``; what is missing of the least width is added at the other end.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Scale(0.0, 1.0)
    low, high = min(finite), max(finite)
    air = (high - low) * pad_fraction if high > low else max(abs(high) * 0.1, 0.5)
    air = max(air, (least - (high - low)) / 2)
    low, high = min(low, max(floor, low - air)), max(high, min(ceiling, high + air))
    short = max(0.0, least - (high - low))
    if high >= ceiling:
        return Scale(min(low, max(floor, low - short)), high)
    return Scale(low, max(high, min(ceiling, high + short)))


def number(value: float) -> str:
    """A figure as people write it: three significant digits, no exponent where none is needed."""
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return (
            f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−", 1 if value < 0 else 0)
        )
    digits = 0 if size >= 100 or float(value).is_integer() else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class ScoreRow:
    """One line of the score chart: a point, with an interval if it has one."""

    label: str
    value_pp: float
    css: str
    low_pp: float = math.nan
    high_pp: float = math.nan


@dataclass(frozen=True)
class Mark:
    """A vertical line across a chart, with its label."""

    label: str
    value: float
    css: str


def score_chart(rows: Sequence[ScoreRow], marks: Sequence[Mark]) -> Markup:
    """Scores in percentage points as one dot a row on a common axis, the goal as a line across."""
    values = [v for row in rows for v in (row.value_pp, row.low_pp, row.high_pp)]
    values += [mark.value for mark in marks]
    scale = scale_over(values, pad_fraction=0.12, least=NARROWEST_PP, floor=0.0, ceiling=100.0)
    lines = [_grid(scale, "x")]
    for mark in marks:
        x = scale.percent(mark.value)
        lines.append(f'<line class="{escape(mark.css)}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>')
    body = [
        '<div class="score-chart">',
        '<div class="score-heads" aria-hidden="true"><span></span><div class="score-marks">',
        *(_mark_label(mark, scale.percent(mark.value)) for mark in marks),
        "</div><span></span></div>",
    ]
    for row in rows:
        body.append(_score_row(row, scale, "".join(lines)))
    ticks = "".join(f'<span style="left:{scale.percent(t):.2f}%">{number(t)}</span>' for t in scale.ticks(6))
    body.append(
        f'<div class="score-heads" aria-hidden="true"><span></span><div class="x-ticks">{ticks}</div>'
        "<span></span></div></div>"
    )
    return Markup("".join(body))


def _mark_label(mark: Mark, x: float) -> str:
    side = "at-start" if x < 12 else "at-end" if x > 88 else "at-middle"
    return f'<span class="{side} {escape(mark.css)}-label" style="left:{x:.2f}%">{escape(mark.label)}</span>'


def _score_row(row: ScoreRow, scale: Scale, backdrop: str) -> str:
    parts = [backdrop]
    shown = number_pp(row.value_pp)
    if math.isfinite(row.low_pp) and math.isfinite(row.high_pp):
        x, end = scale.percent(row.low_pp), scale.percent(row.high_pp)
        parts.append(
            f'<rect class="interval {escape(row.css)}" x="{x:.2f}%" width="{max(0.5, end - x):.2f}%" '
            'y="30%" height="40%" rx="4"/>'
        )
        shown += f" <small>{number_pp(row.low_pp)} – {number_pp(row.high_pp)}</small>"
    if math.isfinite(row.value_pp):
        parts.append(
            f'<circle class="dot {escape(row.css)}" cx="{scale.percent(row.value_pp):.2f}%" cy="50%" r="6"/>'
        )
    return (
        f'<div class="score-row {escape(row.css)}"><span class="score-name">{escape(row.label)}</span>'
        f'<svg class="area" aria-hidden="true">{"".join(parts)}</svg>'
        f'<span class="score-value">{shown}</span></div>'
    )


def number_pp(value: float) -> str:
    """Percentage points with one decimal."""
    return f"{value:.1f}".replace("-", "−") if math.isfinite(value) else "n/a"


def _grid(scale: Scale, axis: str) -> str:
    out = []
    for tick in scale.ticks(6 if axis == "x" else 4):
        at = scale.percent(tick)
        if axis == "x":
            out.append(f'<line class="grid" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="100%"/>')
        else:
            out.append(f'<line class="grid" y1="{100 - at:.2f}%" y2="{100 - at:.2f}%" x1="0" x2="100%"/>')
    return "".join(out)


def step_bar(start: float, end: float, scale: Scale, *, css: str, marks: Sequence[Mark] = ()) -> Markup:
    """One floating bar of a waterfall, or a dot where start and end are the same value."""
    left, right = sorted((scale.percent(start), scale.percent(end)))
    lines = "".join(
        f'<line class="{escape(mark.css)}" x1="{scale.percent(mark.value):.2f}%" '
        f'x2="{scale.percent(mark.value):.2f}%" y1="0" y2="100%"/>'
        for mark in marks
    )
    if start == end:
        shape = f'<circle class="{escape(css)}" cx="{left:.2f}%" cy="50%" r="6"/>'
    else:
        shape = (
            f'<rect class="{escape(css)}" x="{left:.2f}%" width="{max(0.4, right - left):.2f}%" y="20%" '
            'height="60%" rx="3"/>'
        )
    return Markup(f'<svg class="area" aria-hidden="true">{lines}{shape}</svg>')


def range_strip(value: float, low: float, high: float) -> Markup:
    """Where a value stands against a usual range: the band is the range, the dot the value."""
    spread = (high - low) or max(abs(high), 1.0) * 0.1
    scale = Scale(low - 0.5 * spread, high + 0.5 * spread)
    left, right = scale.percent(low), scale.percent(high)
    inside = low <= value <= high
    css = "dot-in" if inside else "dot-out"
    return Markup(
        '<svg class="area strip" aria-hidden="true"><line class="rail" x1="0" x2="100%" y1="50%" y2="50%"/>'
        f'<rect class="band" x="{left:.2f}%" width="{right - left:.2f}%" y="25%" height="50%" rx="3"/>'
        f'<circle class="{css}" cx="{scale.percent(value):.2f}%" cy="50%" r="5"/></svg>'
    )


@dataclass(frozen=True)
class Series:
    """One line of a chart; values that are not finite leave a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    css: str = "line-1"
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Title, unit and reading of a line chart.

    ``floor`` and ``ceiling`` are values that the axis need not go past, ``least`` is its least width.
    """

    title: str
    unit: str
    reading: str
    x_label: str = "optimiser step"
    floor: float = -math.inf
    ceiling: float = math.inf
    least: float = 0.0
    marks: tuple[Mark, ...] = ()


def line_chart(chart: Chart, series: Sequence[Series]) -> Markup:
    """Lines over a common axis, with the chart's reading as its text alternative."""
    x_scale = scale_over([x for one in series for x in one.x], pad_fraction=0.0)
    values = [y for one in series for y in one.y] + [mark.value for mark in chart.marks]
    y_scale = scale_over(values, least=chart.least, floor=chart.floor, ceiling=chart.ceiling)
    parts = [_grid(y_scale, "y")]
    for mark in chart.marks:
        at = 100 - y_scale.percent(mark.value)
        parts.append(f'<line class="{escape(mark.css)}" x1="0" x2="100%" y1="{at:.2f}%" y2="{at:.2f}%"/>')
    for one in series:
        parts.extend(_line(one, x_scale, y_scale))
    return _frame(chart, "".join(parts), (x_scale, y_scale), _legend(series))


def _line(series: Series, x_scale: Scale, y_scale: Scale) -> list[str]:
    out, points = [], list[str]()
    for x, y in zip(series.x, series.y, strict=True):
        if math.isfinite(y):
            points.append(f"{x_scale.percent(x):.2f},{100 - y_scale.percent(y):.2f}")
        elif points:
            out.append(STROKE_PATH.format(css=escape(series.css), points=" ".join(points)))
            points = []
    if points:
        out.append(STROKE_PATH.format(css=escape(series.css), points=" ".join(points)))
    if series.dots:
        for x, y in zip(series.x, series.y, strict=True):
            if math.isfinite(y):
                title = f"<title>step {number(x)}: {number(y)}</title>"
                place = f'cx="{x_scale.percent(x):.2f}%" cy="{100 - y_scale.percent(y):.2f}%"'
                out.append(f'<circle class="{escape(series.css)} point" {place} r="4">{title}</circle>')
    return out


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    items = "".join(f'<li><i class="{escape(one.css)}"></i>{escape(one.label)}</li>' for one in series)
    return f'<ul class="legend">{items}</ul>'


def _frame(chart: Chart, drawing: str, scales: tuple[Scale, Scale], legend: str) -> Markup:
    x_scale, y_scale = scales
    y_at, x_at = y_scale.ticks(), x_scale.ticks(4)
    y_ticks = "".join(
        f'<span style="top:{100 - y_scale.percent(t):.2f}%">{text}</span>'
        for t, text in zip(y_at, tick_labels(y_at), strict=True)
    )
    x_ticks = "".join(
        f'<span style="left:{x_scale.percent(t):.2f}%">{text}</span>'
        for t, text in zip(x_at, tick_labels(x_at), strict=True)
    )
    return Markup(
        f'<figure class="plot"><figcaption><b>{escape(chart.title)}</b><small>{escape(chart.unit)}</small>'
        f'</figcaption><div class="plot-body"><div class="y-ticks" aria-hidden="true">{y_ticks}</div>'
        f'<svg class="area" role="img" aria-label="{escape(chart.reading)}">{drawing}</svg></div>'
        f'<div class="x-ticks" aria-hidden="true">{x_ticks}</div>'
        f'<p class="x-label" aria-hidden="true">{escape(chart.x_label)}</p>{legend}</figure>'
    )


def scatter(chart: Chart, points: Sequence[tuple[float, float, str]], y_range: tuple[float, float]) -> Markup:
    """Points ``(x, y, css)`` in the given order; the axes start at 0."""
    x_scale = Scale(0.0, max([x for x, _, _ in points], default=0.0) * 1.05 or 1.0)
    y_scale = Scale(*y_range)
    dots = "".join(
        f'<circle class="{escape(css)}" cx="{x_scale.percent(x):.2f}%" '
        f'cy="{100 - y_scale.percent(y):.2f}%" r="3"/>'
        for x, y, css in points
    )
    return _frame(chart, _grid(y_scale, "y") + dots, (x_scale, y_scale), "")
