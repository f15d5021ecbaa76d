"""What the report page shows, as plain values: every sentence, figure and drawing, in order."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from tuneahead.assessment import NAN, Assessment, Costs, Outcome
from tuneahead.counts import counted
from tuneahead.features.catalogue import names_of
from tuneahead.printable import printable
from tuneahead.recipe import Recipe
from tuneahead.report import plots, words
from tuneahead.report.curves import curves, probe_intro
from tuneahead.report.datamap import Kind, data_map
from tuneahead.report.page import (
    Figure,
    FindingView,
    FixView,
    Group,
    MapView,
    ReasonRow,
    ReportView,
    Share,
    Strip,
    VerdictView,
)
from tuneahead.report.plots import number_pp
from tuneahead.verdict import Decision, Finding

SHOWN_REASONS = 8
SHOWN_DOTS = 800
SHOWN_STRIPS = 14
MAP_UNIT = "probability of each row's answer, per token"
MAP_NOTES: dict[Kind, str] = {
    "easy": "the model is sure of the answer",
    "ambiguous": "in between: where most is learned",
    "hard": "hardly believed: mislabelled, noisy or not learned yet",
}
ICONS: dict[Decision, str] = {
    "GO": '<circle cx="24" cy="24" r="24"/><path class="cut" d="M13.5 25 L21 32 L35 17"/>',
    "NO_GO": '<path d="M14.1 0 H33.9 L48 14.1 V33.9 L33.9 48 H14.1 L0 33.9 V14.1 Z"/>'
    '<path class="cut" d="M16 16 L32 32 M32 16 L16 32"/>',
    "UNSURE": '<path d="M24 0 L48 24 L24 48 L0 24 Z"/><path class="cut" d="M18.5 19.5 a5.5 5.5 0 1 1 8 4.9 '
    'c-1.8 .9 -2.5 2 -2.5 4"/><circle class="cut-dot" cx="24" cy="35.5" r="2.8"/>',
}


def report_view(assessment: Assessment) -> ReportView:
    """Turn an assessment into what the page shows."""
    scores, reading = _scores(assessment)
    decision = assessment.verdict.decision
    return ReportView(
        title=words.file_name(assessment.data),
        base=printable(assessment.task.base),
        benchmark=printable(assessment.task.benchmark or "no benchmark"),
        created=assessment.created,
        version=assessment.version,
        verdict=VerdictView(
            words.VERDICTS[decision],
            decision.lower().replace("_", "-"),
            Markup(ICONS[decision]),
            words.lead(assessment),
            words.reason(assessment),
        ),
        scores=scores,
        scores_reading=reading,
        scores_note=words.scores_note(assessment),
        figures=_figures(assessment),
        reasons=_reasons(assessment),
        fixes=tuple(
            FixView(words.sentence(fix.title), words.sentence(fix.reason)) for fix in assessment.fixes
        ),
        curves=curves(assessment.trace) if assessment.trace else (),
        probe_intro=probe_intro(assessment),
        health_intro=_health_intro(assessment),
        findings=tuple(finding_view(f) for f in assessment.findings),
        strips=_strips(assessment),
        sampling=words.sampling_note(assessment.data),
        strips_title="Measured against the tasks the predictor learned from"
        if assessment.ranges
        else "Measured",
        map=_map(assessment),
        provenance=_provenance(assessment),
    )


def finding_view(finding: Finding) -> FindingView:
    """One finding, worded."""
    return FindingView(
        finding.severity,
        words.SEVERITIES[finding.severity],
        words.sentence(finding.message),
        words.sentence(finding.remedy),
        words.rows_text(finding),
        finding.page,
    )


def _scores(assessment: Assessment) -> tuple[Markup | None, str]:
    rows = []
    if math.isfinite(assessment.base_pp):
        rows.append(plots.ScoreRow("Base", assessment.base_pp, "base"))
    if math.isfinite(assessment.probe_pp):
        rows.append(plots.ScoreRow(f"At step {assessment.task.probe_steps}", assessment.probe_pp, "probe"))
    if (forecast := assessment.forecast) is not None:
        rows.append(
            plots.ScoreRow("Forecast", forecast.score_pp, "forecast", forecast.low_pp, forecast.high_pp)
        )
    if assessment.outcome is not None and not assessment.outcome.unscored:
        rows.append(plots.ScoreRow("Measured", assessment.outcome.score_pp, "outcome"))
    if not rows:
        return None, ""
    threshold = assessment.verdict.threshold_pp
    marks = []
    if math.isfinite(threshold):
        marks.append(plots.Mark(f"Goal {number_pp(threshold)}", threshold, "goal"))
    reading = "; ".join(
        f"{row.label} {number_pp(row.value_pp)}"
        + (f" ({number_pp(row.low_pp)} to {number_pp(row.high_pp)})" if math.isfinite(row.low_pp) else "")
        for row in rows
    )
    goal = f"; goal {number_pp(threshold)}" if marks else ""
    return plots.score_chart(rows, marks), f"Scores in percent. {reading}{goal}."


def _figures(assessment: Assessment) -> tuple[Figure, ...]:
    out = []
    forecast, costs = assessment.forecast, assessment.costs
    if forecast is not None:
        interval = f"{number_pp(forecast.low_pp)} to {number_pp(forecast.high_pp)}"
        out.append(
            Figure(
                "Predicted score",
                number_pp(forecast.score_pp),
                "%",
                f"{interval} with {100 * forecast.level:g} % probability",
            )
        )
        out.append(
            Figure("Predicted gain", words.signed_pp(forecast.score_pp - assessment.counts_from_pp), "points")
        )
    if assessment.outcome is not None:
        out.append(_measured(assessment.outcome, assessment))
    if (full := _full_run(assessment)) is not None:
        out.append(full)
    if math.isfinite(costs.probe_seconds):
        out.append(
            Figure(
                "The probe took",
                words.duration(costs.probe_seconds),
                "",
                _with_price(f"{assessment.task.probe_steps:,} steps", costs.probe_seconds, costs),
            )
        )
    out.append(Figure("Training data", f"{assessment.data.rows:,}", "rows", _tokens_note(assessment)))
    return tuple(out)


def _measured(outcome: Outcome, assessment: Assessment) -> Figure:
    unscored = outcome.unscored
    note = f"the full run {unscored}" if unscored else words.measured_note(outcome, assessment)
    unit = "" if outcome.unscored else "%"
    return Figure("Measured score", number_pp(outcome.score_pp), unit, note)


def _full_run(assessment: Assessment) -> Figure | None:
    """How long the full run took, or would train; None where the probe was all of it."""
    costs, outcome = assessment.costs, assessment.outcome
    label, seconds = "Full run took", NAN if outcome is None else outcome.seconds
    if outcome is None:
        label = "Full run would train for" + (" at least" if costs.full_run_is_least else "")
        seconds = NAN if assessment.complete else costs.full_run_seconds
    if not math.isfinite(seconds):
        return None
    steps = f"{assessment.task.total_steps if outcome is None else outcome.steps:,} steps"
    return Figure(label, words.duration(seconds), "", _with_price(steps, seconds, costs))


def _with_price(text: str, seconds: float, costs: Costs) -> str:
    price = words.price(seconds, costs.price_per_hour)
    return f"{text}; {price} at {costs.price_per_hour:,g} an hour" if price else text


def _tokens_note(assessment: Assessment) -> str:
    tokens, answers = assessment.data.tokens, assessment.data.answer_tokens
    if not math.isfinite(tokens):
        return ""
    return f"{tokens:,.0f} tokens, {answers:,.0f} trained"


def _reasons(assessment: Assessment) -> tuple[ReasonRow, ...]:
    forecast = assessment.forecast
    if forecast is None or not assessment.attributions:
        return ()
    shown, rest = words.ranked(assessment, SHOWN_REASONS)
    steps = [
        (words.feature_label(a.feature), words.value_beside(a), words.sentence(a.sentence), a.contribution_pp)
        for a in shown
    ]
    if rest:
        steps.append((f"{len(rest)} other properties", "", "", sum(a.contribution_pp for a in rest)))
    levels = np.cumsum([assessment.baseline_pp, *(step[3] for step in steps)])
    scale = plots.scale_over([*levels, forecast.score_pp], pad_fraction=0.06, least=plots.NARROWEST_PP)
    start = assessment.baseline_pp

    marks = (plots.Mark("", start, "grid"),)

    def bar(low: float, high: float, css: str) -> Markup:
        return plots.step_bar(low, high, scale, css=css, marks=marks)

    rows = [ReasonRow("Average task", "", "", number_pp(start), "total", bar(start, start, "start"))]
    for level, (label, value, sentence, points) in zip(levels, steps, strict=False):
        css = "up" if points >= 0 else "down"
        rows.append(
            ReasonRow(
                label,
                value,
                sentence,
                words.signed_pp(points),
                css,
                bar(float(level), float(level + points), css),
            )
        )
    end = bar(forecast.score_pp, forecast.score_pp, "total")
    rows.append(ReasonRow("Forecast", "", "", number_pp(forecast.score_pp), "total", end))
    return tuple(rows)


def _health_intro(assessment: Assessment) -> str:
    counts = {name: sum(f.severity == name for f in assessment.findings) for name in words.SEVERITIES}
    names = {"stop": "blocking problem", "warn": "warning", "note": "note"}
    parts = [counted(n, names[k]) for k, n in counts.items() if n]
    found = ", ".join(parts) if parts else "nothing to report"
    rows = counted(assessment.data.rows, "row")
    if assessment.trace is None:
        return f"Preflight looked at {rows} before any training: {found}."
    return f"Preflight looked at {rows} before any training, and then at the probe: {found}."


def _strips(assessment: Assessment) -> tuple[Strip, ...]:
    """Key static features against the usual range; the paper's plain values where no range is known."""
    values = assessment.features.values
    names = [*assessment.ranges] or [name for name in names_of("static", paper=True) if name in values]
    out: list[Strip] = []
    for name in names:
        value, span = values.get(name, math.nan), assessment.ranges.get(name)
        if not math.isfinite(value):
            continue
        note, bar = "", Markup()
        if span is not None and math.isfinite(span.low) and math.isfinite(span.high):
            note = "below usual" if value < span.low else "above usual" if value > span.high else ""
            bar = plots.range_strip(value, span.low, span.high)
        error = words.sample_error(name, value, assessment.data.samples.get(name))
        out.append(Strip(words.feature_label(name), words.feature_value(name, value), error, note, bar))
    # Whatever lies outside is shown, and stands first.
    return tuple(out[: max(SHOWN_STRIPS, sum(bool(strip.note) for strip in out))])


def _map(assessment: Assessment) -> MapView | None:
    found = data_map(assessment.trace) if assessment.trace is not None else None
    if found is None:
        return None
    kinds = found.kinds
    counts = {name: kinds.count(name) for name in MAP_NOTES}
    total = len(kinds)
    reading = f"Data map of {total} rows: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + "."
    if found.repeated:
        intro = f"Each dot is one of {total:,} training rows that came at least twice during the probe."
        chart = plots.Chart("Confidence by variability", MAP_UNIT, reading, "standard deviation over visits")
    else:
        intro = f"Each dot is one of {total:,} training rows, drawn at the step at which it came by."
        chart = plots.Chart("Confidence by step", MAP_UNIT, reading)
    # More dots than this only make the file heavier.
    shown = np.linspace(0, total - 1, min(total, SHOWN_DOTS)).astype(int)
    points = [(float(found.across[i]), float(found.confidence[i]), kinds[i]) for i in shown]
    shares = tuple(
        Share(f"{100 * count / total:.0f} %", name, MAP_NOTES[name], name) for name, count in counts.items()
    )
    rows = ", ".join(map(str, assessment.hard_rows))
    return MapView(intro, plots.scatter(chart, points, (0.0, 1.0)), shares, rows)


def _provenance(assessment: Assessment) -> tuple[Group, ...]:
    task, data = assessment.task, assessment.data
    origin = [
        ("base", task.base),
        ("base fingerprint", task.base_fingerprint),
        ("data fingerprint", data.fingerprint),
        ("recipe fingerprint", assessment.recipe.fingerprint),
        ("format", data.format),
        ("columns", words.columns_text(data)),
        ("training / held-out rows", f"{task.train_rows:,} / {task.heldout_rows:,}"),
        ("benchmark", f"{task.benchmark}, {task.benchmark_items:,} items"),
        ("chance level", f"{number_pp(task.chance_pp)} %"),
        ("device", task.device),
    ]
    if assessment.trace is not None:
        origin.extend(assessment.trace.info.versions)
    return (
        *recipe_groups(assessment.recipe),
        Group("Provenance", tuple((name, printable(value)) for name, value in origin if value)),
    )


def recipe_groups(recipe: Recipe) -> tuple[Group, Group]:
    """The fields of a recipe in two lists of about the same length."""
    rows = [
        (name.replace("_", " "), ", ".join(value) if isinstance(value, tuple) else str(value))
        for name, value in recipe
        if value is not None and name != "stop_after"
    ]
    half = (len(rows) + 1) // 2
    return Group("Recipe", tuple(rows[:half])), Group("Recipe, continued", tuple(rows[half:]))
