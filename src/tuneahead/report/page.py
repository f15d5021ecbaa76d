"""The parts of the report page: only text, already worded, and drawings."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class VerdictView:
    """The banner."""

    word: str
    css: str
    icon: Markup
    lead: str
    reason: str


@dataclass(frozen=True)
class Figure:
    """One figure of the strip below the banner."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class ReasonRow:
    """One line of the waterfall."""

    label: str
    value: str
    sentence: str
    points: str
    css: str
    bar: Markup


@dataclass(frozen=True)
class FixView:
    """One thing to do."""

    title: str
    reason: str


@dataclass(frozen=True)
class FindingView:
    """One preflight finding."""

    severity: str
    word: str
    message: str
    remedy: str
    rows: str
    page: str


@dataclass(frozen=True)
class Strip:
    """One measured feature, with its place in the usual range."""

    label: str
    value: str
    error: str
    note: str
    bar: Markup


@dataclass(frozen=True)
class Share:
    """Share of one kind of rows in the data map."""

    value: str
    label: str
    note: str
    css: str


@dataclass(frozen=True)
class MapView:
    """The data map."""

    intro: str
    chart: Markup
    shares: tuple[Share, ...]
    rows: str


@dataclass(frozen=True)
class Group:
    """A titled list of names and values."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReportView:
    """Everything the template prints, in the order of the page."""

    title: str
    base: str
    benchmark: str
    created: str
    version: str
    verdict: VerdictView
    scores: Markup | None
    scores_reading: str
    scores_note: str
    figures: tuple[Figure, ...]
    reasons: tuple[ReasonRow, ...]
    fixes: tuple[FixView, ...]
    curves: tuple[Markup, ...]
    probe_intro: str
    health_intro: str
    findings: tuple[FindingView, ...]
    strips: tuple[Strip, ...]
    strips_title: str
    sampling: str
    map: MapView | None
    provenance: tuple[Group, ...]
