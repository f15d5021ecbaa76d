"""Additive reasons for a prediction, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from tuneahead.counts import listed
from tuneahead.predictor.table import Floats
from tuneahead.verdict import Attribution

if TYPE_CHECKING:
    from tuneahead.features.catalogue import FeatureSpec

BASE_TERM = "base_pp"
GAIN_TERM = "gain_so_far_pp"
HEADROOM_TERM = "headroom_pp"
LIMIT_TERM = "limit_pp"
OWN_RUNS_TERM = "own_runs_pp"
_TERMS = frozenset({BASE_TERM, GAIN_TERM, HEADROOM_TERM, LIMIT_TERM, OWN_RUNS_TERM})
ABSENT_TERM = "not_measured"
"""What features without a value contribute together, where attributions are told to a reader."""
NAMED_ABSENT = 2
_RESTATED = {
    BASE_TERM: ("base_score_pp", "base_score_headroom"),
    GAIN_TERM: ("probe_score_pp", "probe_score_headroom", "score_gain_pp", "score_gain_headroom"),
    "late_gain_pp": ("late_gain_headroom",),
    "score_slope_pp": ("score_slope_headroom",),
    "right_probability_mean": ("right_probability_excess", "right_probability_gain"),
    "margin_mean_nats": ("margin_shift",),
    "margin_sd_nats": ("margin_sd_ratio",),
    "known_margin_change_nats": ("known_margin_change_sd",),
    "forgetting_nats": ("forgetting_ratio",),
    "examples": ("examples_log10",),
    "total_steps_log10": ("probe_fraction",),
    "rate_left_fraction": ("rate_growth_ln",),
}
RESTATES = {name: told for told, names in _RESTATED.items() for name in names}
"""Features that, on one base and benchmark after one length of probe, are the quantity of another in other
units, with that other one's name."""


def known_spec(name: str) -> FeatureSpec | None:
    """The catalogue's entry for ``name``, or None for a feature that users brought themselves."""
    from tuneahead.features.catalogue import spec

    try:
        return spec(name)
    except KeyError:
        return None


@dataclass(frozen=True)
class Typical:
    """Weighted means over the training rows, in points: what contributions are measured against."""

    base_pp: float
    gain_pp: float
    anchor_pp: float
    headroom_pp: float


@dataclass(frozen=True)
class Parts:
    """One prediction taken apart: ``anchor + headroom * (constant + sum of shares)``, limited to 0..100.

    ``shares`` is ``(d,)`` in fractions of the head-room, over ``names``; the context columns among
    them are folded into the base and gain terms, which they are functions of.
    """

    names: tuple[str, ...]
    values: Floats
    shares: Floats
    constant: float
    anchor: str
    anchor_pp: float
    base_pp: float
    probe_pp: float
    headroom_pp: float
    shift_pp: float = 0.0
    """Correction learned from runs of this base."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why features have no value, by name."""


def explain_parts(parts: Parts, typical: Typical) -> tuple[float, tuple[Attribution, ...]]:
    """Baseline in points, and attributions, largest first, that together sum to the predicted score.

    The baseline is the typical prediction: mean anchor score of the training rows plus the models'
    constant. The score at the probe, which the predicted gain is added to, appears as two terms
    against their typical values: the base's score, and the gain so far.
    """
    points = parts.headroom_pp * parts.shares
    context = {
        name: float(points[i])
        for i, name in enumerate(parts.names)
        if name in ("base_level", "probe_level", "gain_level")
    }
    base, gain = _anchor_terms(parts, typical)
    base += context.pop("base_level", 0.0)
    gain += sum(context.values())
    found = [
        Attribution(name, float(value), float(share), sentence_for(name, float(value), parts.absent))
        for name, value, share in zip(parts.names, parts.values, points, strict=True)
        if name not in ("base_level", "probe_level", "gain_level") and share != 0.0
    ]
    gain_pp = parts.probe_pp - parts.base_pp
    found.append(Attribution(BASE_TERM, parts.base_pp, base, _base_sentence(parts.base_pp, typical)))
    found.append(Attribution(GAIN_TERM, gain_pp, gain, _gain_sentence(gain_pp, parts.probe_pp, typical)))
    room = (parts.headroom_pp - typical.headroom_pp) * parts.constant
    if room:
        sentence = f"the benchmark has {parts.headroom_pp:.0f} points between chance and the top"
        found.append(Attribution(HEADROOM_TERM, parts.headroom_pp, room, sentence))
    if parts.shift_pp:
        sentence = f"runs of this base end {parts.shift_pp:+.1f} points from what others' runs suggest"
        found.append(Attribution(OWN_RUNS_TERM, parts.shift_pp, parts.shift_pp, sentence))
    baseline = typical.anchor_pp + typical.headroom_pp * parts.constant
    raw = parts.anchor_pp + parts.headroom_pp * (parts.constant + float(parts.shares.sum())) + parts.shift_pp
    limited = min(100.0, max(0.0, raw))
    if limited != raw:
        found.append(Attribution(LIMIT_TERM, raw, limited - raw, "a score can't leave the range of 0 to 100"))
    kept = [a for a in found if a.contribution_pp != 0.0]
    return baseline, tuple(sorted(kept, key=lambda a: -abs(a.contribution_pp)))


def _anchor_terms(parts: Parts, typical: Typical) -> tuple[float, float]:
    whole = parts.anchor_pp - typical.anchor_pp
    if parts.anchor != "probe":
        # From chance or the base upwards: what was gained so far is not added back.
        return whole, 0.0
    base = parts.base_pp - typical.base_pp
    if math.isnan(base):
        return 0.0, whole
    # What is left, not the gain against its mean: the means are over other rows where scores are absent.
    return base, whole - base


def _base_sentence(base_pp: float, typical: Typical) -> str:
    if math.isnan(base_pp):
        return "the base model's score is unknown"
    if math.isnan(typical.base_pp):
        return f"the base model starts at {base_pp:.1f} points"
    return f"the base model starts at {base_pp:.1f} points (typical {typical.base_pp:.1f})"


def _gain_sentence(gain_pp: float, probe_pp: float, typical: Typical) -> str:
    if math.isnan(probe_pp):
        return "the benchmark score at the probe is unknown"
    if math.isnan(gain_pp) or math.isnan(typical.gain_pp):
        return f"benchmark score at the probe: {probe_pp:.1f} points"
    return (
        f"benchmark score at the probe: {probe_pp:.1f} points, {gain_pp:+.1f} over the base"
        f" (typical {typical.gain_pp:+.1f})"
    )


def sentence_for(name: str, value: float, absent: Mapping[str, str] = MappingProxyType({})) -> str:
    """The catalogue's sentence for a feature's value; ``name = value`` for one it does not know.

    ``absent`` says, by name, why a feature has none.
    """
    if math.isnan(value):
        from tuneahead.report.words import feature_words

        title = feature_words(name)
        return f"{title} is absent: {absent[name]}" if absent.get(name) else f"{title} was not measured"
    found = known_spec(name)
    if found is None or not found.sentence:
        return f"{name} = {value:.4g}"
    return found.describe(value)


def weighted_mean(values: Floats, weights: Floats) -> float:
    """Mean over the finite entries; NaN when there is none."""
    known = np.isfinite(values)
    return float(np.average(values[known], weights=weights[known])) if known.any() else math.nan


def told_once(attributions: Sequence[Attribution], probe_steps: int) -> tuple[Attribution, ...]:
    """One attribution for each quantity, largest first, with the contributions of all features that state it.

    A predictor weighs the score at the probe's end, say, as points, as points gained and as shares of the
    head-room: to a reader that is one reason. What was not measured is one, too: of a base that is never
    asked at step 25 each task lacks the score there. The sum of all contributions stays what it was.
    """
    told = RESTATES | {f"score_at_{probe_steps}_pp": GAIN_TERM}
    found: dict[str, list[Attribution]] = {}
    for one in attributions:
        absent = math.isnan(one.value) and one.feature not in _TERMS
        found.setdefault(ABSENT_TERM if absent else told.get(one.feature, one.feature), []).append(one)
    summed = (
        replace(_spokesman(name, ones), contribution_pp=math.fsum(one.contribution_pp for one in ones))
        for name, ones in found.items()
    )
    return tuple(sorted(summed, key=lambda one: -abs(one.contribution_pp)))


def _spokesman(name: str, ones: Sequence[Attribution]) -> Attribution:
    """Whose words tell a quantity: the feature it is named after, or, where that has no part, the largest."""
    by_size = sorted(ones, key=lambda one: -abs(one.contribution_pp))
    if name == ABSENT_TERM and len(ones) > 1:
        return Attribution(ABSENT_TERM, math.nan, math.nan, _absent_sentence(by_size))
    return next((one for one in ones if one.feature == name), by_size[0])


def _absent_sentence(ones: Sequence[Attribution]) -> str:
    from tuneahead.report.words import feature_words

    names, rest = [feature_words(one.feature) for one in ones[:NAMED_ABSENT]], len(ones) - NAMED_ABSENT
    return f"{listed([*names, *([f'{rest} more'] if rest > 0 else [])])} have no value here"
