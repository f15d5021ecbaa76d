"""Benchmark cues as features: what a small part of the benchmark said during the probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import CHOICE_METRICS
from tuneahead.features.featurespec import Value
from tuneahead.features.projection import NO_MARGINS, project_margins
from tuneahead.features.series import Floats, ratio
from tuneahead.trace import Cue, ProbeTrace

NAMED_STEPS = (10, 25, 50, 100)
CLOSE_NATS = 0.25
CLOSE_SHARE = 0.25
SOFT_NATS = 0.5
SUBJECT_ITEMS = 3
"""Fewest items by which a subject is judged."""

_AT_END = (
    "probe_score_pp",
    "probe_score_headroom",
    "soft_score_pp",
    "right_probability_mean",
    "right_probability_excess",
    "margin_mean_nats",
    "margin_sd_nats",
    "margin_q25_nats",
    "margin_median_nats",
    "margin_q75_nats",
    "margin_near_zero_fraction",
    "margin_close_fraction",
    "margin_mean_over_sd",
)
_SINCE_BASE = (
    "score_gain_pp",
    "score_gain_headroom",
    "score_slope_pp",
    "score_slope_headroom",
    "score_drop_pp",
    "right_probability_gain",
    "margin_shift",
    "margin_sd_ratio",
    "known_margin_change_nats",
    "known_margin_change_sd",
    "base_agreement_fraction",
    "base_margin_correlation",
    "known_kept_fraction",
    "unknown_learned_fraction",
)
_BETWEEN = ("late_gain_pp", "late_gain_headroom", "churn_fraction")
_EXTRAPOLATED = ("extrapolated_score_pp", "extrapolated_gain_headroom")
_DIVERGED = "the margins at step {} are not finite: the run has diverged"
_NO_CHANCE = "the benchmark's score of guessing is not known"
_OVER_CHANCE = ("_headroom", "right_probability_excess")
"""Endings of the names of features that need it."""
_SUBJECT_END = ("subject_score_sd_pp",)
_SUBJECT_CHANGE = ("subject_worst_fall_pp", "subjects_improved_fraction")


def measure_cues(trace: ProbeTrace) -> dict[str, Value]:
    """Every cue feature of a probe of any length, by name: a value or the reason for none."""
    cues = sorted((cue for cue in trace.cues if len(cue.margin_nats)), key=lambda cue: cue.step)
    totals = {cue.step: cue.total_pp for cue in trace.cues if math.isfinite(cue.total_pp)}
    only_totals = totals and not cues
    out = _of_totals(dict(sorted(totals.items())), trace) if only_totals else _of_items(cues, trace)
    if math.isnan(trace.info.chance_pp):
        measured = [name for name, value in out.items() if not isinstance(value, str)]
        out |= {name: _NO_CHANCE for name in measured if name.endswith(_OVER_CHANCE)}
    return out


def _of_items(cues: Sequence[Cue], trace: ProbeTrace) -> dict[str, Value]:
    """Features of a probe that asked the benchmark's items; ``cues`` by step."""
    chance = trace.info.chance_pp
    projected = project_margins(trace, cues)
    none = next((why for what, why in trace.absent if what == "benchmark cues"), "no benchmark cue was taken")
    metric = trace.info.metric
    scored = {cue.step: cue.score_pp(metric) for cue in cues}
    diverged = {
        cue.step: _DIVERGED.format(cue.step) for cue in cues if not np.isfinite(cue.margin_nats).all()
    }
    scored = {step: score for step, score in scored.items() if step not in diverged}
    out = {
        **_named_steps(scored, none),
        **{f"score_at_{s}_pp": diverged[s] for s in NAMED_STEPS if s in diverged},
    }
    base = next((cue for cue in cues if cue.step == 0 and 0 not in diverged), None)
    no_base = diverged.get(0, "no benchmark cue was taken at step 0")
    out |= _base(base, metric, chance, no_base if cues else none)
    if not cues or cues[-1].step == 0 or cues[-1].step in diverged:
        reason = "no benchmark cue was taken after step 0" if cues else none
        reason = diverged.get(cues[-1].step, reason) if cues else reason
        names = _AT_END + _SINCE_BASE + _BETWEEN + _EXTRAPOLATED + _SUBJECT_END + _SUBJECT_CHANGE
        return {**out, **dict.fromkeys(names, reason), **dict.fromkeys(projected, reason)}
    end = cues[-1]
    out |= _at_end(end, metric, chance)
    out |= _between([cue for cue in cues if cue.step not in diverged], scored, chance)
    if base is None:
        out |= dict.fromkeys(_SINCE_BASE + _EXTRAPOLATED, no_base)
    else:
        out |= _since_base(base, end, scored, chance)
        out |= _extrapolated(scored, trace.info.total_steps, chance)
    if metric not in CHOICE_METRICS:
        out |= {name: NO_MARGINS for name in out if name == "soft_score_pp" or "margin" in name}
    return {**out, **_subjects(trace, base, end), **projected}


def _of_totals(scored: Mapping[int, float], trace: ProbeTrace) -> dict[str, Value]:
    """Features of a log that holds the benchmark's scores at some steps, but no item of it."""
    chance, room = trace.info.chance_pp, headroom_pp(trace.info.chance_pp)
    steps, end = list(scored), list(scored)[-1]
    no_items = "the log holds the benchmark's score, not its items"
    names = (
        *(_AT_END + _SINCE_BASE + _BETWEEN + _EXTRAPOLATED + _SUBJECT_END + _SUBJECT_CHANGE),
        *project_margins(trace, []),
    )
    no_base = "no benchmark score was logged at step 0"
    out: dict[str, Value] = {**dict.fromkeys(names, no_items), **_named_steps(scored, no_items)}
    out |= {"base_score_pp": no_base, "base_score_headroom": no_base}
    at_end = end > 0 and end == len(trace.steps)
    if at_end:
        out |= {"probe_score_pp": scored[end], "probe_score_headroom": (scored[end] - chance) / room}
    else:
        late = f"no benchmark score was logged at step {len(trace.steps)}, the probe's end"
        out |= dict.fromkeys(("probe_score_pp", "probe_score_headroom"), late)
    if steps[0] == 0:
        out |= {"base_score_pp": scored[0], "base_score_headroom": (scored[0] - chance) / room}
        if at_end:
            gain = scored[end] - scored[0]
            out |= {"score_gain_pp": gain, "score_gain_headroom": gain / room}
            out |= _extrapolated(scored, trace.info.total_steps, chance)
    return out


def headroom_pp(chance_pp: float) -> float:
    """Points between a guess and a perfect score."""
    return max(1e-9, 100.0 - chance_pp)


def saturating_score_pp(steps: Sequence[int], scores_pp: Sequence[float], at_step: int) -> float:
    """Score at ``at_step`` on ``s0 + g (1 - exp(-t / tau))`` fitted by least squares.

    ``s0`` is the first score (of step 0); ``tau`` runs over a grid from half the first interval
    to twice the last step, beyond which cues can't tell a slow rise from a high ceiling. The
    value is kept in [0, 100].
    """
    time, score = np.asarray(steps, float), np.asarray(scores_pp, float)
    gained = score[1:] - score[0]
    best, value = math.inf, float(score[-1])
    for tau in np.geomspace(time[1] / 2, 2 * time[-1], 32):
        rise = 1 - np.exp(-time[1:] / tau)
        gain = float(rise @ gained / (rise @ rise))
        error = float(np.sum((gained - gain * rise) ** 2))
        if error < best - 1e-12:
            best, value = error, float(score[0]) + gain * (1 - math.exp(-at_step / tau))
    return min(100.0, max(0.0, value))


def _named_steps(scored: Mapping[int, float], none: str) -> dict[str, Value]:
    return {
        f"score_at_{step}_pp": scored.get(
            step, f"no benchmark cue was taken at step {step}" if scored else none
        )
        for step in NAMED_STEPS
    }


def _base(base: Cue | None, metric: str, chance: float, reason: str) -> dict[str, Value]:
    if base is None:
        return dict.fromkeys(("base_score_pp", "base_score_headroom"), reason)
    score = base.score_pp(metric)
    return {"base_score_pp": score, "base_score_headroom": (score - chance) / headroom_pp(chance)}


def _at_end(end: Cue, metric: str, chance: float) -> dict[str, Value]:
    margin = np.asarray(end.margin_nats, float)
    score, sd = end.score_pp(metric), float(margin.std())
    right = float(np.mean(np.asarray(end.right_probability, float)))
    q25, q50, q75 = (float(q) for q in np.quantile(margin, [0.25, 0.5, 0.75]))
    no_spread = "all margins are equal"
    return {
        "probe_score_pp": score,
        "probe_score_headroom": (score - chance) / headroom_pp(chance),
        # A step of 0 or 1 for each item is coarse with few items; the logistic curve is not.
        "soft_score_pp": 100 * float(np.mean(1 / (1 + np.exp(-np.clip(margin / SOFT_NATS, -500, 500))))),
        "right_probability_mean": right,
        "right_probability_excess": (100 * right - chance) / headroom_pp(chance),
        "margin_mean_nats": float(margin.mean()),
        "margin_sd_nats": sd,
        "margin_q25_nats": q25,
        "margin_median_nats": q50,
        "margin_q75_nats": q75,
        "margin_near_zero_fraction": float(np.mean(np.abs(margin) < CLOSE_NATS)),
        "margin_close_fraction": float(np.mean(np.abs(margin) < CLOSE_SHARE * sd)) if sd > 0 else no_spread,
        "margin_mean_over_sd": ratio(float(margin.mean()), sd, no_spread),
    }


def _since_base(base: Cue, end: Cue, scored: Mapping[int, float], chance: float) -> dict[str, Value]:
    before, after = np.asarray(base.margin_nats, float), np.asarray(end.margin_nats, float)
    knew, knows = before > 0, after > 0
    gain = scored[end.step] - scored[base.step]
    spread = float(before.std())
    varies = spread > 0 and float(after.std()) > 0
    time = np.log1p(np.array(list(scored), float))
    time -= time.mean()
    scores = np.array(list(scored.values()))
    slope = float(time @ scores / (time @ time))
    room = headroom_pp(chance)
    nothing_known = "the base answers no item right"
    change: Value = float((after - before)[knew].mean()) if knew.any() else nothing_known
    flat = "the base's margins are all equal"
    probability = np.asarray(end.right_probability, float) - np.asarray(base.right_probability, float)
    return {
        "score_gain_pp": gain,
        "score_gain_headroom": gain / room,
        "score_slope_pp": slope,
        "score_slope_headroom": slope / room,
        "score_drop_pp": float(scores.max()) - scored[end.step],
        "right_probability_gain": float(probability.mean()),
        "margin_shift": ratio(float((after - before).mean()), spread, flat),
        "margin_sd_ratio": ratio(float(after.std()), spread, flat),
        "known_margin_change_nats": change,
        "known_margin_change_sd": ratio(change, spread, flat) if isinstance(change, float) else change,
        "base_agreement_fraction": float(np.mean(knew == knows)),
        "base_margin_correlation": _correlation(before, after) if varies else "margins do not vary",
        "known_kept_fraction": float(knows[knew].mean()) if knew.any() else nothing_known,
        "unknown_learned_fraction": float(knows[~knew].mean())
        if (~knew).any()
        else "the base answers every item right",
    }


def _correlation(x: Floats, y: Floats) -> float:
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def _between(cues: Sequence[Cue], scored: Mapping[int, float], chance: float) -> dict[str, Value]:
    if len(cues) < 2:
        return dict.fromkeys(_BETWEEN, "only one benchmark cue was taken")
    end = cues[-1]
    # The latest cue of the first half; where there is none, the earliest before the end.
    middle = next((cue for cue in reversed(cues[:-1]) if 2 * cue.step <= end.step), cues[0])
    gain = scored[end.step] - scored[middle.step]
    flipped = (np.asarray(cues[-2].margin_nats) > 0) != (np.asarray(end.margin_nats) > 0)
    return {
        "late_gain_pp": gain,
        "late_gain_headroom": gain / headroom_pp(chance),
        "churn_fraction": float(np.mean(flipped)),
    }


def _extrapolated(scored: Mapping[int, float], total_steps: int, chance: float) -> dict[str, Value]:
    if len(scored) < 3:
        return dict.fromkeys(_EXTRAPOLATED, f"needs 3 benchmark cues, the probe has {len(scored)}")
    steps, scores = list(scored), list(scored.values())
    final = saturating_score_pp(steps, scores, max(total_steps, steps[-1]))
    return {
        "extrapolated_score_pp": final,
        "extrapolated_gain_headroom": (final - scores[-1]) / headroom_pp(chance),
    }


def _subjects(trace: ProbeTrace, base: Cue | None, end: Cue) -> dict[str, Value]:
    named = np.array(trace.info.item_subjects)
    names, counts = np.unique(named, return_counts=True) if len(named) else (named, np.zeros(0))
    judged = [name for name, count in zip(names, counts, strict=True) if count >= SUBJECT_ITEMS and name]
    if len(named) != len(end.margin_nats) or len(judged) < 2:
        reason = f"fewer than two subjects have {SUBJECT_ITEMS} items each"
        return dict.fromkeys(_SUBJECT_END + _SUBJECT_CHANGE, reason)
    after = _by_subject(end, trace.info.metric, named, judged)
    out: dict[str, Value] = {"subject_score_sd_pp": float(after.std())}
    if base is None:
        return {**out, **dict.fromkeys(_SUBJECT_CHANGE, "no benchmark cue was taken at step 0")}
    gain = after - _by_subject(base, trace.info.metric, named, judged)
    return {
        **out,
        "subject_worst_fall_pp": float(max(0.0, -gain.min())),
        "subjects_improved_fraction": float(np.mean(gain > 0)),
    }


def _by_subject(cue: Cue, metric: str, named: NDArray[np.str_], judged: Sequence[str]) -> Floats:
    right = cue.item_scores(metric)
    return np.array([100.0 * right[named == name].mean() for name in judged])
