"""Assessments as text for a terminal: health card, forecast bar, reasons and fixes.

Nothing here parses markup from data: names and messages are added as plain text.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tuneahead.assessment import Assessment, Costs, DataSummary, Outcome
from tuneahead.backtest.tables import Table as ResultTable
from tuneahead.backtest.tables import narrowed, show
from tuneahead.counts import counted
from tuneahead.printable import printable
from tuneahead.ranking import best_chances
from tuneahead.report import plots, words
from tuneahead.trace import ProbeTrace
from tuneahead.verdict import Attribution, Decision, Finding, Fix, Severity

COLOURS: dict[Decision, str] = {"GO": "green", "NO_GO": "red", "UNSURE": "yellow"}
SEVERITY_STYLES: dict[Severity, str] = {"stop": "bold red", "warn": "yellow", "note": "dim"}
SHOWN_REASONS = 8
LABEL_CELLS = 16
TRACK_CELLS = 52
LEAST_TRACK_CELLS = 12
LEAST_RANKING_CELLS = 78
"""Width of a terminal, in characters, from which a ranking's figures are not broken."""
HALF_BAR_CELLS = 10
LEAST_REASONS_CELLS = 60
"""Width of a terminal, in characters, from which reasons have bars: beside them text needs room too."""


@dataclass(frozen=True)
class Glyphs:
    """Drawing characters, with plain ones for terminals that know no Unicode."""

    point: str
    span: str
    goal: str
    rest: str
    bar: str

    @classmethod
    def of(cls, console: Console) -> Glyphs:
        """The set that ``console`` can show."""
        if "utf" in (console.encoding or "").lower():
            return cls("●", "━", "┊", " ", "█")
        return cls("o", "=", "|", " ", "#")


def _points(value: float) -> str:
    # A hyphen here: not every terminal's encoding has the minus sign that the page uses.
    return plots.number_pp(value).replace("−", "-")


def _signed(value: float) -> str:
    return words.signed_pp(value).replace("−", "-").replace("±", "")


def _value(name: str, value: float) -> str:
    return words.feature_value(name, value).replace("−", "-").replace("∞", "inf")


def print_assessment(console: Console, assessment: Assessment) -> None:
    """Print the whole assessment."""
    glyphs = Glyphs.of(console)
    console.print(_verdict_panel(assessment, glyphs, console.width))
    print_section(console, "Data", _data_card(assessment.data, assessment.findings))
    if assessment.attributions and assessment.forecast is not None:
        print_section(console, "Reasons", _reasons(assessment, glyphs, console.width))
    if assessment.fixes:
        print_section(console, "What to do", _fixes(assessment.fixes))
    console.print(costs_line(assessment), style="dim")


def print_trace(console: Console, trace: ProbeTrace) -> None:
    """Print what a probe measured: loss and gradient norm in five parts, and the cues."""
    loss, norm = trace.steps.loss_nats, trace.steps.grad_norm
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Training", title_justify="left")
    for title in ("Steps", "Loss (nats per token)", "Gradient norm"):
        table.add_column(title, justify="right", overflow="fold")
    for part in np.array_split(np.arange(len(loss)), min(5, len(loss)) or 1):
        if len(part):
            steps = f"{part[0] + 1} to {part[-1] + 1}"
            table.add_row(steps, _nats(float(loss[part].mean())), _nats(float(norm[part].mean())))
    console.print(table)
    cues = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Cues", title_justify="left")
    for title in ("Step", "Benchmark %", "Held-out loss", "Reference loss"):
        cues.add_column(title, justify="right", overflow="fold")
    for cue in trace.cues:
        cues.add_row(
            str(cue.step),
            _points(cue.score_pp(trace.info.metric)),
            _nats(cue.heldout_loss_nats),
            _nats(cue.reference_loss_nats),
        )
    console.print(cues)
    if trace.info.failure:
        console.print(Text(f"The probe ended early: {trace.info.failure}", style="bold red"))


def _nats(value: float) -> str:
    # No number is what a log lacks; a loss that turns into none ends the probe, which is said below.
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def print_ranking(console: Console, names: Sequence[str], assessments: Sequence[Assessment]) -> None:
    """Print several assessments of one data set, in the order given."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", justify="right")
    names = _without_folders(names)
    wide = console.width >= LEAST_RANKING_CELLS
    short = max(map(len, names), default=0) <= LABEL_CELLS
    table.add_column("Recipe", overflow="fold", no_wrap=wide and short)
    chances = best_chances(assessments)
    known = any(math.isfinite(chance) for chance in chances)
    best = ("Best",) if known else ()
    for title in ("After probe", "Forecast", "Interval", *best, "Full run"):
        whole = wide and title in ("Forecast", "Interval")
        table.add_column(title, justify="right", overflow="fold", no_wrap=whole)
    table.add_column("Verdict", no_wrap=wide)
    for place, (name, chance, one) in enumerate(zip(names, chances, assessments, strict=True), 1):
        forecast = one.forecast
        decision = one.verdict.decision
        table.add_row(
            str(place),
            Text(name),
            _points(one.probe_pp),
            "n/a" if forecast is None else _points(forecast.score_pp),
            "" if forecast is None else f"{_points(forecast.low_pp)} to {_points(forecast.high_pp)}",
            *((_chance(chance),) if known else ()),
            ("at least " if one.costs.full_run_is_least else "")
            + _time_and_price(one.costs.full_run_seconds, one.costs),
            Text(words.VERDICTS[decision], style=COLOURS[decision]),
        )
    console.print(table)
    goals = [one.verdict.threshold_pp for one in assessments if math.isfinite(one.verdict.threshold_pp)]
    if goals:
        console.print(Text(f"Goal: a score of {_points(goals[0])}.", style="dim"))
    if known:
        console.print(Text("Best: how likely this recipe's full run ends best of all.", style="dim"))
    for why, places in _untold(assessments).items():
        console.print(Text(f"{', '.join(map(str, places))}: {why}", style="dim"))


def _untold(assessments: Sequence[Assessment]) -> dict[str, list[int]]:
    """The places of recipes whose verdict the table's figures do not tell, by its reason."""
    found: dict[str, list[int]] = {}
    for place, one in enumerate(assessments, 1):
        if not one.verdict.by_interval:
            found.setdefault(words.reason(one), []).append(place)
    return found


def _without_folders(names: Sequence[str]) -> list[str]:
    """Paths without their folders, where the files' names alone tell them apart."""
    files = [os.path.basename(name) for name in names]
    one_folder = len({os.path.dirname(name) for name in names}) == 1
    return files if one_folder or len(set(files)) == len(files) else list(names)


def _chance(chance: float) -> str:
    """A probability as people read it: nothing is certain before the full run."""
    if math.isnan(chance):
        return "n/a"
    if not 0.01 <= chance <= 0.99:
        return "< 1 %" if chance < 0.5 else "> 99 %"
    return f"{round(100 * chance)} %"


def print_table(console: Console, table: ResultTable) -> None:
    """Print one table of a backtest, without its least telling columns where they do not fit."""
    table = narrowed(table, console.width)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=table.title, title_justify="left")
    for place, name in enumerate(table.columns):
        numeric = any(isinstance(row[place], int | float) for row in table.rows)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(show(cell)) for cell in row))
    console.print(shown)
    if table.note:
        console.print(Text(table.note, style="dim"))


def print_section(console: Console, title: str, body: RenderableType) -> None:
    """Print a titled part and an empty line."""
    console.print(Text(title, style="bold"))
    console.print(body)
    console.print()


def _verdict_panel(assessment: Assessment, glyphs: Glyphs, width: int) -> Panel:
    decision = assessment.verdict.decision
    head = Text(words.VERDICTS[decision].upper(), style=f"bold {COLOURS[decision]}")
    head.append("  " + words.lead(assessment), style="not bold default")
    parts: list[RenderableType] = [head, Text(words.reason(assessment), style="dim")]
    bars = _score_rows(assessment, glyphs, min(TRACK_CELLS, width - LABEL_CELLS - 30))
    if bars:
        parts += [Text(""), *bars]
    if note := words.scores_note(assessment):
        parts += [Text(""), Text(note, style="dim")]
    task = assessment.task
    title = Text(printable(f"{assessment.data.path} on {task.base}, {task.benchmark}"))
    title.truncate(max(20, width - 8), overflow="ellipsis")
    return Panel(
        Group(*parts), title=title, title_align="left", border_style=COLOURS[decision], padding=(1, 2)
    )


def _score_rows(assessment: Assessment, glyphs: Glyphs, cells: int) -> list[Text]:
    forecast, outcome = assessment.forecast, assessment.outcome
    rows = [("Base", assessment.base_pp, math.nan, math.nan, "default")]
    rows.append(
        (f"At step {assessment.task.probe_steps}", assessment.probe_pp, math.nan, math.nan, "default")
    )
    if forecast is not None:
        rows.append(("Forecast", forecast.score_pp, forecast.low_pp, forecast.high_pp, "bold cyan"))
    if outcome is not None:
        rows.append(("Measured", outcome.score_pp, math.nan, math.nan, "bold"))
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return []
    # In a narrower terminal the scores stand alone.
    cells = cells if cells >= LEAST_TRACK_CELLS else 0
    goal = assessment.verdict.threshold_pp
    known = [value for row in rows for value in (*row[1:4], goal) if math.isfinite(value)]
    low, high = min(known) - 1.0, max(known) + 1.0

    def cell(value: float) -> int:
        return round((value - low) / (high - low) * (cells - 1))

    lines = []
    for label, value, start, end, style in rows:
        line = Text(f"{label:<{LABEL_CELLS}}", no_wrap=cells > 0)
        if cells:
            track = [glyphs.rest] * cells
            if math.isfinite(start) and math.isfinite(end):
                track[cell(start) : cell(end) + 1] = glyphs.span * (cell(end) - cell(start) + 1)
            if math.isfinite(goal):
                track[cell(goal)] = glyphs.goal
            track[cell(value)] = glyphs.point
            line.append("".join(track), style=style)
        line.append(f" {_points(value):>6}", style="bold")
        if math.isfinite(start):
            line.append(f"  {_points(start)} to {_points(end)}", style="dim")
        lines.append(line)
    if math.isfinite(goal) and not cells:
        lines.append(Text(f"{'Goal':<{LABEL_CELLS}} {_points(goal):>6}", style="dim"))
    elif math.isfinite(goal):
        text = f"goal {_points(goal)}"
        at = max(0, min(cells - len(text), cell(goal) - len(text) // 2))
        lines.append(Text(" " * (LABEL_CELLS + at) + text, style="dim", no_wrap=True))
    return lines


def _data_card(data: DataSummary, findings: tuple[Finding, ...]) -> RenderableType:
    line = data_line(data)
    return Group(line, findings_table(findings))


def data_line(data: DataSummary) -> Text:
    """Rows, format and tokens in one line, and the columns, where they are known, in another."""
    tokens, columns = words.tokens_text(data), words.columns_text(data)
    line = f"{counted(data.rows, 'row')}, {data.format}" + (f", {tokens}" if tokens else "")
    return Text(f"{line}\n{columns}" if columns else line)


def findings_table(findings: tuple[Finding, ...]) -> RenderableType:
    """Findings with their remedies and rows, gravest first as given."""
    if not findings:
        return Text("All preflight checks passed.", style="green")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        body = Text(words.sentence(finding.message))
        body.append(f"\n{words.sentence(finding.remedy)}", style="dim")
        if rows := words.rows_text(finding):
            body.append(f"\n{rows}", style="dim")
        body.append(f"\n{finding.page}", style="dim")
        table.add_row(Text(words.SEVERITIES[finding.severity], style=SEVERITY_STYLES[finding.severity]), body)
    return table


def _reasons(assessment: Assessment, glyphs: Glyphs, width: int) -> Table:
    shown, rest = words.ranked(assessment, SHOWN_REASONS)
    if rest:
        total = sum(a.contribution_pp for a in rest)
        shown.append(Attribution(f"{len(rest)} other properties", math.nan, total))
    largest = max((abs(a.contribution_pp) for a in shown), default=0.0) or 1.0
    assert assessment.forecast is not None
    nothing = Text(" " * HALF_BAR_CELLS + glyphs.goal)
    rows = [(nothing, Text(_points(assessment.baseline_pp)), Text("Average task"))]
    for one in shown:
        what = Text(words.feature_label(one.feature))
        what.append(f"  {words.sentence(one.sentence) or words.value_beside(one)}", style="dim")
        bar = _signed_bar(one.contribution_pp, largest, glyphs)
        rows.append((bar, Text(_signed(one.contribution_pp)), what))
    end = Text(_points(assessment.forecast.score_pp), style="bold")
    rows.append((nothing, end, Text("Forecast", style="bold")))
    bars = width >= LEAST_REASONS_CELLS
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    if bars:
        table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row[not bars :])
    return table


def _signed_bar(value: float, largest: float, glyphs: Glyphs) -> Text:
    length = max(1, round(abs(value) / largest * HALF_BAR_CELLS)) if value else 0
    bar = glyphs.bar * length
    left = bar.rjust(HALF_BAR_CELLS) if value < 0 else " " * HALF_BAR_CELLS
    right = bar.ljust(HALF_BAR_CELLS) if value > 0 else " " * HALF_BAR_CELLS
    return Text.assemble((left, "red"), glyphs.goal, (right, "green"))


def _fixes(fixes: tuple[Fix, ...]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for place, fix in enumerate(fixes, 1):
        body = Text(words.sentence(fix.title))
        body.append(f"\n{words.sentence(fix.reason)}", style="dim")
        table.add_row(f"{place}.", body)
    return table


def _time_and_price(seconds: float, costs: Costs) -> str:
    price = words.price(seconds, costs.price_per_hour)
    return words.duration(seconds) + (f" ({price})" if price else "")


def costs_line(assessment: Assessment) -> Text:
    """What the probe took and the full run would take, in money too where a price is known."""
    costs = assessment.costs
    parts = []
    if math.isfinite(costs.probe_seconds):
        parts.append(f"The probe took {_time_and_price(costs.probe_seconds, costs)}")
    run = f"the full run of {counted(assessment.task.total_steps, 'step')}"
    if assessment.outcome is not None:
        parts.append(f"{run} took {_time_and_price(assessment.outcome.seconds, costs)}")
    elif math.isfinite(costs.full_run_seconds) and not assessment.complete:
        least = "at least" if costs.full_run_is_least else "about"
        parts.append(f"{run} would train for {least} {_time_and_price(costs.full_run_seconds, costs)}")
    if parts and math.isfinite(costs.price_per_hour):
        parts[-1] += f" at {costs.price_per_hour:,g} an hour"
    if assessment.outcome is not None:
        parts += _scored(assessment.outcome, assessment)
    return Text("; ".join(parts) + "." if parts else "Nothing was trained.")


def _scored(outcome: Outcome, assessment: Assessment) -> list[str]:
    """What the full run scored, beside its forecast and the goal, as far as there are any."""
    said = words.measured_note(outcome, assessment)
    if outcome.unscored:
        return [f"it {outcome.unscored}"]
    return [f"it scored {_points(outcome.score_pp)} %" + (f", {said}" if said else "")]
