"""Dynamic features: what loss, gradients and weights did during the probe."""

from __future__ import annotations

import math

import numpy as np

from tuneahead.features.cartography import row_features
from tuneahead.features.featurespec import Value
from tuneahead.features.gradients import (
    flatness_features,
    gradient_features,
    layer_features,
    movement_features,
)
from tuneahead.features.series import Floats, absence, last_fifth, ratio, slope, too_few
from tuneahead.trace import SKIPPED, Cue, ProbeTrace

HELDOUT_AT_END = (
    "heldout_end_nats",
    "heldout_end_ratio",
    "heldout_rebound_ratio",
    "heldout_gap_nats",
    "heldout_gap_ratio",
)
"""Features of the held-out loss at the probe's end."""
FIRST_STEPS = 3
"""Steps whose loss counts as initial: one alone is too noisy at small batches."""
SPIKE_WINDOW = 10
SPIKE_AFTER = 5
SPIKE_FACTOR = 1.5


def measure_dynamics(trace: ProbeTrace) -> dict[str, Value]:
    """Every dynamic feature of a probe of any length, by name: a value or the reason for none."""
    return {
        **loss_features(trace),
        **gradient_features(trace),
        **layer_features(trace),
        **movement_features(trace),
        **flatness_features(trace),
        **text_loss_features(trace),
        **row_features(trace),
        **progress_features(trace),
    }


def loss_features(trace: ProbeTrace) -> dict[str, Value]:
    """Shape of the training loss per answer token; steps whose loss is not finite are left out."""
    sums, tokens = (np.asarray(a, float) for a in (trace.steps.loss_sum_nats, trace.steps.answer_tokens))
    finite = np.isfinite(sums) & (tokens > 0)
    step = np.flatnonzero(finite).astype(float)
    loss = sums[finite] / tokens[finite]
    count = len(loss)
    out: dict[str, Value] = {"non_finite_fraction": _non_finite(trace)}
    if count == 0:
        return {**out, **dict.fromkeys(_LOSS_NAMES, "no step has a finite loss")}
    tail = last_fifth(count)
    first = float(sums[finite][:FIRST_STEPS].sum() / tokens[finite][:FIRST_STEPS].sum())
    end = float(sums[finite][-tail:].sum() / tokens[finite][-tail:].sum())
    out["initial_loss_nats"] = first
    out["loss_end_nats"] = end
    out["loss_fall_nats"] = first - end
    out["loss_end_ratio"] = ratio(end, first, "the initial loss is 0")
    out["loss_max_ratio"] = ratio(float(loss.max()), first, "the initial loss is 0")
    out["loss_variance_nats2"] = float(np.mean((loss - loss.mean()) ** 2)) if count > 1 else too_few(count, 2)
    out["loss_cv"] = ratio(float(loss.std()), float(loss.mean()), "the mean loss is 0")
    out["loss_decay_slope"] = 100 * slope(step, loss) if count > 2 else too_few(count, 3)
    out |= _halves(step, loss)
    out |= _texture(step, loss)
    return out


_LOSS_NAMES = (
    "initial_loss_nats",
    "loss_end_nats",
    "loss_fall_nats",
    "loss_end_ratio",
    "loss_max_ratio",
    "loss_variance_nats2",
    "loss_cv",
    "loss_decay_slope",
    "loss_slope_early",
    "loss_slope_late",
    "loss_curvature_nats",
    "loss_power_exponent",
    "loss_noise_ratio",
    "loss_autocorrelation",
    "loss_spike_fraction",
)


def _halves(step: Floats, loss: Floats) -> dict[str, Value]:
    if len(loss) < 6:
        reason = too_few(len(loss), 6)
        return dict.fromkeys(
            ("loss_slope_early", "loss_slope_late", "loss_curvature_nats", "loss_power_exponent"), reason
        )
    half = len(loss) // 2
    progress = (step - step[0]) / (step[-1] - step[0])
    return {
        "loss_slope_early": 100 * slope(step[:half], loss[:half]),
        "loss_slope_late": 100 * slope(step[half:], loss[half:]),
        "loss_curvature_nats": float(np.polyfit(progress, loss, 2)[0]),
        # A loss of exactly 0 (everything known) has no logarithm; the floor is far below what counts.
        "loss_power_exponent": -slope(np.log(step + 1), np.log(np.maximum(loss, 1e-6))),
    }


def _texture(step: Floats, loss: Floats) -> dict[str, Value]:
    out: dict[str, Value] = {}
    if len(loss) < 3:
        reason = too_few(len(loss), 3)
        out |= {"loss_noise_ratio": reason, "loss_autocorrelation": reason}
    else:
        # Differences of neighbours cancel the trend; their variance is twice that of the noise.
        noise = math.sqrt(float(np.mean(np.diff(loss) ** 2)) / 2)
        out["loss_noise_ratio"] = ratio(noise, float(loss.mean()), "the mean loss is 0")
        rest = loss - loss.mean() - slope(step, loss) * (step - step.mean())
        power = float(rest @ rest)
        flat = power <= 1e-12 * max(1.0, float(loss @ loss))
        out["loss_autocorrelation"] = (
            "the loss lies on a straight line" if flat else float(rest[1:] @ rest[:-1]) / power
        )
    if len(loss) <= SPIKE_AFTER:
        out["loss_spike_fraction"] = too_few(len(loss), SPIKE_AFTER + 1)
    else:
        later = range(SPIKE_AFTER, len(loss))
        spikes = [loss[t] > SPIKE_FACTOR * np.median(loss[max(0, t - SPIKE_WINDOW) : t]) for t in later]
        out["loss_spike_fraction"] = float(np.mean(spikes))
    return out


def _non_finite(trace: ProbeTrace) -> Value:
    steps = trace.steps
    if not len(steps):
        return "the probe has no step"
    norm = np.asarray(steps.grad_norm)
    # A log names no tokens where it holds no loss: NaN there lies between two entries and is no failure.
    gap = np.isnan(steps.answer_tokens)
    skipped, none = absence(trace, SKIPPED, ""), bool(np.isnan(norm).all())
    # A scaler skips steps until it has found its scale; one that skips all of them never does.
    no_norm = not (trace.info.failure or skipped) if none else bool(skipped)
    measured, failed = np.zeros(len(steps), bool), np.zeros(len(steps), bool)
    for column, absent in ((np.asarray(steps.loss_sum_nats), gap), (norm, gap | no_norm)):
        taken = ~(np.isnan(column) & absent)
        measured |= taken
        failed |= taken & ~np.isfinite(column)
    if not measured.any():
        return absence(trace, "loss", "neither loss nor gradient norm was measured")
    return float(np.mean(failed[measured]))


def text_loss_features(trace: ProbeTrace) -> dict[str, Value]:
    """Held-out loss on the user's own rows, and loss on the reference text (forgetting)."""
    out: dict[str, Value] = {}
    reference = [(cue.step, cue.reference_loss_nats) for cue in trace.cues]
    found = _first_and_last(reference, absence(trace, "reference loss", "no reference loss was taken"))
    if isinstance(found, str):
        out |= dict.fromkeys(("forgetting_nats", "forgetting_ratio"), found)
    else:
        out["forgetting_nats"] = found[1] - found[0]
        out["forgetting_ratio"] = ratio(found[1], found[0], "the base's reference loss is 0")
    return {**out, **_heldout(trace)}


def _heldout(trace: ProbeTrace) -> dict[str, Value]:
    no_loss = absence(trace, "held-out loss", "no held-out loss was taken")
    losses = [(cue.step, cue.heldout_loss_nats) for cue in trace.cues]
    start = _at_start(trace.cues)
    out: dict[str, Value] = {"heldout_start_nats": no_loss if start is None else start.heldout_loss_nats}
    if isinstance(out["heldout_start_nats"], float) and not math.isfinite(out["heldout_start_nats"]):
        out["heldout_start_nats"] = no_loss
    found = _first_and_last(losses, no_loss)
    if isinstance(found, str):
        return {**out, **dict.fromkeys(HELDOUT_AT_END, found)}
    first, end = found
    lowest = min(loss for _, loss in losses if math.isfinite(loss))
    out["heldout_end_nats"] = end
    out["heldout_end_ratio"] = ratio(end, first, "the base's held-out loss is 0")
    out["heldout_rebound_ratio"] = ratio(end - lowest, first, "the base's held-out loss is 0")
    sums, tokens = (np.asarray(a, float) for a in (trace.steps.loss_sum_nats, trace.steps.answer_tokens))
    finite = np.isfinite(sums) & (tokens > 0)
    if not finite.any():
        return {
            **out,
            **dict.fromkeys(("heldout_gap_nats", "heldout_gap_ratio"), "no step has a finite loss"),
        }
    tail = last_fifth(int(finite.sum()))
    gap = end - float(sums[finite][-tail:].sum() / tokens[finite][-tail:].sum())
    out["heldout_gap_nats"] = gap
    out["heldout_gap_ratio"] = ratio(gap, first, "the base's held-out loss is 0")
    return out


def progress_features(trace: ProbeTrace) -> dict[str, Value]:
    """How much of the full run the probe is."""
    info, done = trace.info, len(trace.steps)
    if not done:
        return dict.fromkeys(("probe_fraction", "rate_left_fraction"), "the probe has no step")
    rates = np.array([info.recipe.learning_rate_at(t, info.total_steps) for t in range(info.total_steps)])
    return {
        "probe_fraction": min(1.0, done / max(1, info.total_steps)),
        "rate_left_fraction": ratio(
            float(rates[done:].sum()), float(rates.sum()), "the learning rate is 0 throughout"
        ),
    }


def _at_start(cues: tuple[Cue, ...]) -> Cue | None:
    return next((cue for cue in cues if cue.step == 0), None)


def _first_and_last(losses: list[tuple[int, float]], reason: str) -> tuple[float, float] | str:
    taken = sorted((step, loss) for step, loss in losses if math.isfinite(loss))
    if not taken:
        return reason
    if taken[0][0] != 0:
        return "no loss was taken at step 0"
    if len(taken) < 2:
        return "no loss was taken after step 0"
    newest = max(step for step, _ in losses)
    if taken[-1][0] < newest:
        return f"the loss at step {newest}, the last cue, is not finite or was not taken"
    return taken[0][1], taken[-1][1]
