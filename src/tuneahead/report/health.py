"""What the page of a checkup shows, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from tuneahead.assessment import Checkup
from tuneahead.features.catalogue import spec
from tuneahead.features.catalogue_static import STATIC_SECTIONS
from tuneahead.printable import printable
from tuneahead.report import words
from tuneahead.report.page import Figure, FindingView, Group, VerdictView
from tuneahead.report.view import ICONS, finding_view, recipe_groups
from tuneahead.verdict import first_stop


@dataclass(frozen=True)
class Measure:
    """One measured feature: its name, value and error, and what it says in a sentence."""

    label: str
    value: str
    error: str
    sentence: str


@dataclass(frozen=True)
class MeasureGroup:
    """Measures of one subject."""

    title: str
    rows: tuple[Measure, ...]


@dataclass(frozen=True)
class HealthView:
    """Everything the template prints, in the order of the page."""

    title: str
    base: str
    base_note: str
    benchmark: str
    created: str
    version: str
    verdict: VerdictView
    figures: tuple[Figure, ...]
    findings: tuple[FindingView, ...]
    measures: tuple[MeasureGroup, ...]
    sampling: str
    measures_note: str
    provenance: tuple[Group, ...]


def health_view(checkup: Checkup) -> HealthView:
    """Turn a checkup into what the page shows."""
    decision, word, counted = words.health(checkup)
    data = checkup.data
    stop = first_stop(checkup.findings)
    groups = (MeasureGroup(title, _measures(checkup, title)) for title in STATIC_SECTIONS)
    return HealthView(
        title=words.file_name(data),
        base=printable(checkup.base) if checkup.base_named else "",
        base_note=words.base_note(checkup),
        benchmark=printable(checkup.benchmark),
        created=checkup.created,
        version=checkup.version,
        verdict=VerdictView(
            word,
            decision.lower().replace("_", "-"),
            Markup(ICONS[decision]),
            words.sentence(counted) + ".",
            words.sentence(stop.message) + "." if stop else "",
        ),
        figures=_figures(checkup),
        findings=tuple(finding_view(finding) for finding in checkup.findings),
        measures=tuple(group for group in groups if group.rows),
        sampling=words.sampling_note(data),
        measures_note=words.MEASURES_NOTE,
        provenance=(*recipe_groups(checkup.recipe), _origin(checkup)),
    )


def _figures(checkup: Checkup) -> tuple[Figure, ...]:
    data = checkup.data
    out = [Figure("Rows", f"{data.rows:,}", "", data.format)]
    for label, name, value in (
        ("Tokens", "tokens", data.tokens),
        ("Trained tokens", "answer_tokens", data.answer_tokens),
    ):
        if not math.isfinite(value):
            continue
        sample = data.samples.get(name)
        note, shown = "counted", f"{value:,.0f}"
        if sample is not None and value:
            note, shown = f"estimated, ± {100 * sample.error / value:.2g} %", words.rounded(value)
        out.append(Figure(label, shown, "", note))
    spent = words.duration(checkup.costs.check_seconds)
    out.append(Figure("The check took", spent, "", "nothing was trained"))
    return tuple(out)


def _measures(checkup: Checkup, title: str) -> tuple[Measure, ...]:
    values, samples = checkup.features.values, checkup.data.samples
    out = []
    for row in STATIC_SECTIONS[title]:
        value = values.get(row.name, math.nan)
        if row.name in words.SAID_BESIDE or not math.isfinite(value):
            continue
        error = words.sample_error(row.name, value, samples.get(row.name))
        sentence = words.sentence(spec(row.name).describe(value))
        out.append(Measure(words.feature_label(row.name), row.format_value(value), error, sentence))
    return tuple(out)


def _origin(checkup: Checkup) -> Group:
    data = checkup.data
    rows = (
        ("data fingerprint", data.fingerprint),
        ("recipe fingerprint", checkup.recipe.fingerprint),
        ("format", data.format),
        ("columns", words.columns_text(data)),
        ("base", checkup.base if checkup.base_named else f"{checkup.base}, for want of a named one"),
        ("benchmark", checkup.benchmark),
    )
    return Group("Provenance", tuple((name, printable(value)) for name, value in rows if value))
