"""The sentences, figures and names that reports share, on the page and in the terminal."""

from __future__ import annotations

import math

from tuneahead.assessment import Assessment
from tuneahead.report.plots import number, number_pp
from tuneahead.verdict import Decision, Finding

VERDICTS: dict[Decision, str] = {"GO": "Go", "NO_GO": "No go", "UNSURE": "Unsure"}
SEVERITIES = {"stop": "Stop", "warn": "Warning", "note": "Note"}


def signed_pp(value: float) -> str:
    """Points with an explicit sign, as in ``+1.2`` and ``−0.4``."""
    if not math.isfinite(value):
        return "n/a"
    text = number_pp(value)
    return text if text.startswith("−") else "±0.0" if text == "0.0" else f"+{text}"


def duration(seconds: float) -> str:
    """Wall-clock time as people say it: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return "n/a"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def quantity(value: float, unit: str = "") -> str:
    """A figure with its unit; fractions are shown as percentages."""
    if unit == "fraction" and math.isfinite(value):
        return f"{number(100 * value)} %"
    plain = unit in ("", "1", "ratio", "count", "log10", "cosine", "fraction")
    return number(value) if plain else f"{number(value)} {unit}"


def lead(assessment: Assessment) -> str:
    """The one sentence below the verdict."""
    forecast, base = assessment.forecast, assessment.base_pp
    if forecast is not None:
        gain = forecast.score_pp - base
        way = "above" if gain >= 0 else "below"
        tail = f", {number_pp(abs(gain))} points {way} the base" if math.isfinite(gain) else ""
        return f"Expected to score {number_pp(forecast.score_pp)} % at the end of the full run{tail}."
    if any(finding.severity == "stop" for finding in assessment.findings):
        return "Training was not started: preflight found a sure reason to stop."
    if math.isfinite(assessment.probe_pp):
        return f"No forecast. If nothing changed after the probe, it would score {number_pp(assessment.probe_pp)} %."
    return "No forecast."


def reason(assessment: Assessment) -> str:
    """The verdict's own reason, as a sentence; and why there is no forecast when there is none."""
    text = assessment.verdict.reason.strip()
    text = text[:1].upper() + text[1:]
    if text and text[-1] not in ".!?":
        text += "."
    return text


def rows_text(finding: Finding) -> str:
    """Which rows a finding is about: ``rows 3, 8, 11 and 40 more``."""
    if not finding.rows:
        return f"{finding.count:,} rows" if finding.count > 1 else ""
    shown = finding.rows[:8]
    rest = max(finding.count, len(finding.rows)) - len(shown)
    tail = f" and {rest:,} more" if rest > 0 else ""
    word = "row" if len(shown) == 1 and not rest else "rows"
    return f"{word} {', '.join(map(str, shown))}{tail}"


def feature_label(name: str) -> str:
    """A feature's name as plain words."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def feature_value(name: str, value: float) -> str:
    """A feature's value with its unit."""
    return quantity(value)
