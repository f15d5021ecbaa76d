"""What to do about it: remedies for preflight findings and for what pulls the forecast down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tuneahead.predictor.explain import known_spec
from tuneahead.verdict import Attribution, Finding, Fix

if TYPE_CHECKING:
    from tuneahead.features.catalogue import FeatureSpec

MIN_HARM_PP = 0.5
"""Remedies for less than half a point are not worth anybody's time."""
MOST_FIXES = 8


@dataclass(frozen=True)
class _Harm:
    """All features that share one remedy: their net contribution, and the worst of them."""

    remedy: str
    net_pp: float
    worst: Attribution


def advise(
    attributions: Sequence[Attribution],
    findings: Sequence[Finding],
    typical: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Fix, ...]:
    """Remedies, the surest and then the most harmful first, each once.

    First what stops the run, then warnings, which name rows that anybody can look at; then features
    that cost points, as far as the predictor knows, and notes. Features with the same remedy count
    together, gains against losses, so that two features telling one story are not blamed twice. ``typical``
    holds values that most runs have, by feature: what costs points on the side of them that the remedy
    would lead to anyway brings none.
    """
    by_severity = {
        severity: [_from_finding(finding) for finding in findings if finding.severity == severity]
        for severity in ("stop", "warn", "note")
    }
    harms = sorted(_harms(attributions, typical), key=lambda harm: harm.net_pp)
    costly = [_from_harm(harm) for harm in harms if harm.net_pp <= -MIN_HARM_PP]
    ranked = [*by_severity["stop"], *by_severity["warn"], *costly, *by_severity["note"]]
    unique: dict[str, Fix] = {}
    for fix in ranked:
        if fix.title:
            unique.setdefault(_key(fix.title), fix)
    return tuple(unique.values())[:MOST_FIXES]


def _harms(attributions: Sequence[Attribution], typical: Mapping[str, float]) -> list[_Harm]:
    found: dict[str, _Harm] = {}
    for attribution in attributions:
        spec = known_spec(attribution.feature)
        if spec is None or not spec.remedy or _has_nothing_left(spec, attribution.value):
            continue
        usual = typical.get(attribution.feature, math.nan)
        if attribution.contribution_pp < 0 and not spec.is_remedied_at(attribution.value, usual):
            continue
        before = found.get(spec.remedy)
        if before is None:
            found[spec.remedy] = _Harm(spec.remedy, attribution.contribution_pp, attribution)
            continue
        worst = min(before.worst, attribution, key=lambda one: one.contribution_pp)
        found[spec.remedy] = _Harm(spec.remedy, before.net_pp + attribution.contribution_pp, worst)
    return list(found.values())


def _has_nothing_left(spec: FeatureSpec, value: float) -> bool:
    """Whether the value stands where the remedy would take it: at the end of its range already."""
    if spec.direction == 0:
        return False
    return value >= spec.high if spec.direction > 0 else value <= spec.low


def _from_harm(harm: _Harm) -> Fix:
    # The reasons give each feature's own points: what counts more than the one named says so.
    others = "" if harm.net_pp == harm.worst.contribution_pp else " with related properties"
    reason = f"{harm.worst.sentence} ({harm.net_pp:+.1f} points{others})"
    return Fix(harm.remedy, reason, harm.worst.feature, harm.net_pp)


def _from_finding(finding: Finding) -> Fix:
    return Fix(finding.remedy, finding.message, finding.check)


def _key(title: str) -> str:
    return " ".join(title.lower().split()).rstrip(".")
