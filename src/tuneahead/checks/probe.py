"""Checks of the probe's trace: what went wrong while it trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import CHOICE_METRICS
from tuneahead.counts import counted
from tuneahead.trace import SKIPPED, Cue, ProbeTrace
from tuneahead.verdict import Finding

_WINDOW_STEPS = 10
_SPIKE_NATS = 0.5
_SPIKE_FRACTION = 0.25
_SPIKE_ERRORS = 3.0
"""Standard errors of the difference of two ten-step means, from the differences of successive steps."""
_FLAT_FRACTION = 0.01
_WORSE_FRACTION = 0.1
_WORSE_NOISES = 3.0
_GAIN_PP = 1.0
_NO_MOVE = 1e-6
_NO_CHANGE_NATS = 1e-4
_MIN_STEPS = 20
NO_GRADIENT = (
    "under gradient checkpointing call model.enable_input_require_grads() or set use_reentrant to False; "
    "else check which weights are frozen"
)
"""What to do about weights of an adapter that never have a gradient."""
_LOWER_RATE = "lower the learning rate (a tenth often cures it), warm up longer, or clip gradients harder"


def not_finite(trace: ProbeTrace) -> Iterator[Finding]:
    """A loss or gradient that is NaN or infinite, or a run that ended early."""
    steps = trace.steps
    loss = steps.loss_nats
    trained = np.asarray(steps.answer_tokens) > 0
    bad_loss = np.flatnonzero(trained & ~np.isfinite(loss))
    norm = np.asarray(steps.grad_norm)
    # NaN throughout is a measurement that was not taken, and so is a step that a gradient scaler skipped.
    unmeasured = np.isnan(norm) & (np.isnan(norm).all() or any(what == SKIPPED for what, _ in trace.absent))
    bad_norm = np.flatnonzero(~np.isfinite(norm) & ~unmeasured)
    remedy = "lower the learning rate, clip gradients (max_grad_norm: 1.0), or use bf16 instead of fp16"
    if len(bad_loss) or len(bad_norm):
        what, at = ("loss", bad_loss[0]) if len(bad_loss) else ("gradient norm", bad_norm[0])
        value = loss[at] if what == "loss" else norm[at]
        count = len(bad_loss) or len(bad_norm)
        message = (
            f"the {what} is {value} at step {at + 1} of the probe ({counted(int(count), 'step')} in all)"
        )
        if what == "loss" and at == 0:
            message += ": the base itself gives no numbers"
            remedy = "nothing was trained yet: check the base's weights, or use bf16 or fp32 instead of fp16"
        yield Finding("not-finite", "stop", message, remedy, int(count))
    elif trace.info.failure:
        yield Finding("not-finite", "stop", f"the probe ended early: {trace.info.failure}", remedy)
    if len(trained) and not trained.any():
        yield Finding(
            "not-finite",
            "stop",
            "no step of the probe had an answer token to train on",
            "check max_length and the answers",
        )


def loss_spike(trace: ProbeTrace) -> Iterator[Finding]:
    """The loss jumped up and did not come back within the probe."""
    smooth = _smoothed(trace)
    if len(smooth) < 2 or not np.isfinite(smooth).all():
        return
    low = int(smooth.argmin())
    rise = float(smooth[-1] - smooth[low])
    # Steps of four rows differ by as much: a rise is one beside what they scattered by until then.
    scatter = np.diff(trace.steps.loss_nats[: low + _WINDOW_STEPS])
    chance = _SPIKE_ERRORS * float(np.sqrt(np.mean(scatter**2) / _WINDOW_STEPS))
    if rise > max(_SPIKE_NATS, _SPIKE_FRACTION * float(smooth[low]), chance):
        yield Finding(
            "loss-spike",
            "warn",
            f"the loss rose from {smooth[low]:.2f} to {smooth[-1]:.2f} nats a token after step "
            f"{low + _WINDOW_STEPS} and did not recover within the probe",
            _LOWER_RATE,
        )


def no_effect(trace: ProbeTrace) -> Iterator[Finding]:
    """The adapter had no gradient or did not move, or its movement changed nothing that was measured."""
    if len(trace.steps) == 0:
        return
    steps = counted(len(trace.steps), "step")
    if not np.asarray(trace.steps.learning_rate).any():
        message = f"the learning rate is 0 in each of {steps}: nothing is being trained"
        yield Finding("no-effect", "stop", message, "raise learning_rate, or shorten the warm-up")
        return
    norm = np.asarray(trace.steps.grad_norm)[np.asarray(trace.steps.answer_tokens) > 0]
    if len(norm) and not norm.any():
        # Weight decay alone may move it.
        message = f"the adapter's gradient is 0 in each of {counted(len(norm), 'step')}"
        yield Finding("no-effect", "stop", f"{message}: nothing is being trained", NO_GRADIENT)
        return
    distance = float(trace.steps.distance[-1])
    remedy = "check that the adapter's layers are trained, that answers are not masked, and the learning rate"
    if np.isfinite(distance) and distance < _NO_MOVE:
        message = f"after {steps} the adapter is {distance:.2g} away from its start"
        yield Finding("no-effect", "stop", f"{message}: nothing is being trained", remedy)
        return
    if len(trace.cues) < 2:
        return
    first, last = trace.cues[0], trace.cues[-1]
    telling, aside = _changes(first, last, choices=trace.info.metric in CHOICE_METRICS)
    if telling and max(telling.values()) < _NO_CHANGE_NATS and aside < _NO_CHANGE_NATS:
        message = f"steps {first.step} and {last.step} have the same {' and '.join(telling)}"
        yield Finding("no-effect", "stop", f"{message}: the adapter has no effect on the model", remedy)


def _changes(first: Cue, last: Cue, *, choices: bool) -> tuple[dict[str, float], float]:
    """How far each measurement moved that any effect would move, by name, and the most that another moved.

    Margins of free answers and grades go in steps: a model that has changed may leave all of them as they
    were, and its loss on other text nearly so. They can only show that there is an effect.
    """
    heldout = abs(last.heldout_loss_nats - first.heldout_loss_nats)
    reference = abs(last.reference_loss_nats - first.reference_loss_nats)
    margins = (
        float(np.max(np.abs(last.margin_nats - first.margin_nats))) if _comparable(first, last) else np.nan
    )
    found = {"held-out loss": heldout, "benchmark cues": margins if choices else np.nan}
    others = [value for value in (reference, margins) if np.isfinite(value)]
    return {name: value for name, value in found.items() if np.isfinite(value)}, max(others, default=0.0)


def flat_loss(trace: ProbeTrace) -> Iterator[Finding]:
    """The training loss does not fall, and nothing measured beside it has improved either."""
    loss = trace.steps.loss_nats
    if len(loss) < _MIN_STEPS or not np.isfinite(loss).all():
        return
    span = max(5, len(loss) // 5)
    first, last = float(loss[:span].mean()), float(loss[-span:].mean())
    noise = float(np.sqrt(loss[:span].var(ddof=1) / span + loss[-span:].var(ddof=1) / span))
    if first - last >= max(_FLAT_FRACTION * first, noise) or _improved(trace):
        return
    ratio, rise = _heldout_ratio(trace), (last - first) / noise if noise > 0 else 0.0
    # Training does harm where the loss on held-out rows, or without them that in training, has clearly risen.
    breaks = rise > _WORSE_NOISES if np.isnan(ratio) else ratio > 1 + _WORSE_FRACTION
    if breaks and any(loss_spike(trace)):
        return  # Told already, with the same remedy.
    what = "rises" if breaks and last - first > noise else "does not fall"
    beside = ""
    if breaks and not np.isnan(ratio):
        beside = f"; that on held-out rows ends at {ratio:.2f} times the base's"
    yield Finding(
        "flat-loss",
        "warn",
        f"the loss {what} over the probe: {first:.2f} nats a token in its first {span} steps, "
        f"{last:.2f} in its last {span} (noise {noise:.2f}){beside}",
        _LOWER_RATE
        if breaks
        else "raise the learning rate if it is low; else check whether answers follow from prompts",
    )


def _heldout_ratio(trace: ProbeTrace) -> float:
    """Held-out loss at the last cue over that at the first; NaN where it was not measured."""
    if len(trace.cues) < 2:
        return np.nan
    first, last = trace.cues[0].heldout_loss_nats, trace.cues[-1].heldout_loss_nats
    return last / first if first > 0 else np.nan


def _improved(trace: ProbeTrace) -> bool:
    """Whether held-out loss or benchmark got better although the training loss is too noisy to tell."""
    if len(trace.cues) < 2:
        return False
    first, last = trace.cues[0], trace.cues[-1]
    learnt = last.heldout_loss_nats < (1 - _FLAT_FRACTION) * first.heldout_loss_nats
    return learnt or last.score_pp(trace.info.metric) >= first.score_pp(trace.info.metric) + _GAIN_PP


def _comparable(first: Cue, last: Cue) -> bool:
    return len(first.margin_nats) == len(last.margin_nats) > 0


def _smoothed(trace: ProbeTrace) -> NDArray[np.float64]:
    """Running mean of the loss over ten steps."""
    loss = trace.steps.loss_nats
    if len(loss) < _WINDOW_STEPS:
        return np.empty(0)
    return np.convolve(loss, np.full(_WINDOW_STEPS, 1 / _WINDOW_STEPS), "valid")
