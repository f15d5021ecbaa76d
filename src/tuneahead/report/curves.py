"""The probe's curves: loss, gradient norm, benchmark cue and forgetting."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tuneahead.assessment import Assessment
from tuneahead.benchmark.items import GRADED
from tuneahead.report import words
from tuneahead.report.plots import (
    NARROWEST_NATS,
    NARROWEST_PP,
    Chart,
    Mark,
    Series,
    line_chart,
    number,
    number_pp,
)
from tuneahead.trace import ProbeTrace

SMOOTHING_STEPS = 9
_METRICS = {
    "acc_norm": "length-normalised accuracy",
    "mc2": "MC2",
    "exact_match": "exact match",
    "f1": "F1",
    "rouge_l": "ROUGE-L",
    "harness": "mean score",
}


def curves(trace: ProbeTrace) -> tuple[Markup, ...]:
    """One chart for each measurement that the trace holds."""
    charts = []
    if len(trace.steps):
        charts += [_loss(trace), _gradient(trace)]
    if any(math.isfinite(cue.score_pp(trace.info.metric)) for cue in trace.cues):
        charts.append(_benchmark(trace))
    if sum(math.isfinite(cue.reference_loss_nats) for cue in trace.cues) > 1:
        charts.append(_reference(trace))
    return tuple(charts)


def probe_intro(assessment: Assessment) -> str:
    """What the probe was and how far the loss fell."""
    trace = assessment.trace
    if trace is None or not len(trace.steps):
        return ""
    loss = trace.steps.loss_nats
    text = f"The first {len(trace.steps):,} of {trace.info.total_steps:,} steps of this very run"
    if math.isfinite(assessment.costs.probe_seconds):
        text += f", made in {words.duration(assessment.costs.probe_seconds)}"
    finite = loss[np.isfinite(loss)]
    if len(finite) > 10:
        first, last = float(finite[:5].mean()), float(finite[-5:].mean())
        text += f". Training loss went from {number(first)} to {number(last)}"
    if trace.info.failure:
        text += f". It ended early: {trace.info.failure}"
    return text + "."


def _smooth(values: NDArray[np.float64]) -> list[float]:
    half = SMOOTHING_STEPS // 2
    with np.errstate(invalid="ignore"):
        return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def _steps(trace: ProbeTrace) -> list[float]:
    return [float(step) for step in range(1, len(trace.steps) + 1)]


def _loss(trace: ProbeTrace) -> Markup:
    loss = trace.steps.loss_nats
    x = _steps(trace)
    held = [cue for cue in trace.cues if math.isfinite(cue.heldout_loss_nats)]
    series = [Series("each step", x, loss.tolist(), "faint"), Series("training, smoothed", x, _smooth(loss))]
    reading = f"Training loss over {len(x)} steps, last {number(float(loss[-1]))} nats per token"
    if held:
        series.append(
            Series(
                "held out", [float(c.step) for c in held], [c.heldout_loss_nats for c in held], "line-2", True
            )
        )
        first, last = held[0].heldout_loss_nats, held[-1].heldout_loss_nats
        reading += f"; held-out loss from {number(first)} to {number(last)}"
    chart = Chart("Loss", "nats per answer token", reading + ".", floor=0.0, least=NARROWEST_NATS)
    return line_chart(chart, series)


def _gradient(trace: ProbeTrace) -> Markup:
    norm = np.asarray(trace.steps.grad_norm, float)
    reading = f"Gradient norm before clipping, median {number(float(np.median(norm)))}."
    clip = trace.info.recipe.max_grad_norm
    marks: tuple[Mark, ...] = ()
    finite = norm[np.isfinite(norm)]
    if clip is not None and len(finite) and clip <= 1.5 * float(finite.max()):
        marks = (Mark("clipping", clip, "chance"),)
        reading += f" Clipping threshold {number(clip)}, dotted."
    unit = "before clipping" + (f"; dotted: threshold {number(clip)}" if marks and clip else "")
    chart = Chart("Gradient norm", unit, reading, floor=0.0, marks=marks)
    return line_chart(chart, [Series("gradient norm", _steps(trace), norm.tolist())])


def _benchmark(trace: ProbeTrace) -> Markup:
    metric = trace.info.metric
    cues = [cue for cue in trace.cues if math.isfinite(cue.score_pp(metric))]
    y = [cue.score_pp(metric) for cue in cues]
    chance = trace.info.chance_pp
    marks = (Mark("chance", chance, "chance"),) if chance > 0 else ()
    steps = ", ".join(f"{number_pp(pp)} % at step {c.step}" for c, pp in zip(cues, y, strict=True))
    reading = f"Benchmark score during the probe: {steps}."
    items = f"{len(cues[0].margin_nats):,} items"
    # A mean of graded answers is no share of the items.
    unit = f"{_METRICS.get(metric, metric)} over {items}, %" if metric in GRADED else f"% of {items}"
    unit += f"; dotted: chance {number_pp(chance)}" if marks else ""
    chart = Chart("Benchmark score", unit, reading, floor=0.0, ceiling=100.0, least=NARROWEST_PP, marks=marks)
    return line_chart(
        chart, [Series(_METRICS.get(metric, metric), [float(c.step) for c in cues], y, "line-1", True)]
    )


def _reference(trace: ProbeTrace) -> Markup:
    cues = [cue for cue in trace.cues if math.isfinite(cue.reference_loss_nats)]
    y = [cue.reference_loss_nats for cue in cues]
    reading = f"Loss on reference text from {number(y[0])} to {number(y[-1])}; rising means forgetting."
    chart = Chart("Forgetting", "loss on reference text", reading, floor=0.0, least=NARROWEST_NATS)
    return line_chart(chart, [Series("reference", [float(c.step) for c in cues], y, "line-1", True)])
