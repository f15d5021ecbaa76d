"""Dynamic features: what loss, gradients and weights did during the probe."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.cartography import row_features
from tuneahead.features.featurespec import Value
from tuneahead.trace import Cue, ProbeTrace

Floats = NDArray[np.float64]

FIRST_STEPS = 3
"""Steps whose loss counts as initial: one alone is too noisy at small batches."""
SCALE_STEPS = 10
"""Steps whose mean gradient norm is the scale of a run."""
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


def last_fifth(steps: int) -> int:
    """Number of steps that count as the probe's end: a fifth, at least two."""
    return min(steps, max(2, math.ceil(steps / 5)))


def slope(x: Floats, y: Floats) -> float:
    """Least-squares slope of ``y`` on ``x``."""
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


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
    out["loss_end_ratio"] = _ratio(end, first, "the initial loss is 0")
    out["loss_max_ratio"] = _ratio(float(loss.max()), first, "the initial loss is 0")
    out["loss_variance_nats2"] = float(np.mean((loss - loss.mean()) ** 2)) if count > 1 else _too_few(count, 2)
    out["loss_cv"] = _ratio(float(loss.std()), float(loss.mean()), "the mean loss is 0")
    out["loss_decay_slope"] = 100 * slope(step, loss) if count > 2 else _too_few(count, 3)
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
        reason = _too_few(len(loss), 6)
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
        reason = _too_few(len(loss), 3)
        out |= {"loss_noise_ratio": reason, "loss_autocorrelation": reason}
    else:
        # Differences of neighbours cancel the trend; their variance is twice that of the noise.
        noise = math.sqrt(float(np.mean(np.diff(loss) ** 2)) / 2)
        out["loss_noise_ratio"] = _ratio(noise, float(loss.mean()), "the mean loss is 0")
        rest = loss - loss.mean() - slope(step, loss) * (step - step.mean())
        power = float(rest @ rest)
        flat = power <= 1e-12 * max(1.0, float(loss @ loss))
        out["loss_autocorrelation"] = (
            "the loss lies on a straight line" if flat else float(rest[1:] @ rest[:-1]) / power
        )
    if len(loss) <= SPIKE_AFTER:
        out["loss_spike_fraction"] = _too_few(len(loss), SPIKE_AFTER + 1)
    else:
        later = range(SPIKE_AFTER, len(loss))
        spikes = [loss[t] > SPIKE_FACTOR * np.median(loss[max(0, t - SPIKE_WINDOW) : t]) for t in later]
        out["loss_spike_fraction"] = float(np.mean(spikes))
    return out


def _non_finite(trace: ProbeTrace) -> Value:
    if not len(trace.steps):
        return "the probe has no step"
    finite = np.isfinite(trace.steps.loss_sum_nats) & np.isfinite(trace.steps.grad_norm)
    return float(np.mean(~finite))


def gradient_features(trace: ProbeTrace) -> dict[str, Value]:
    """Size, steadiness and agreement of the gradients before clipping."""
    norm = np.asarray(trace.steps.grad_norm, float)
    norm = norm[np.isfinite(norm)]
    names = ("grad_norm_mean", "grad_norm_variance", "grad_norm_cv", "grad_norm_growth", "grad_norm_peak_ratio",
             "clipped_fraction")
    out: dict[str, Value] = {}
    if len(norm) < 2:
        out |= dict.fromkeys(names, _too_few(len(norm), 2, "gradient norm"))
    else:
        tail = norm[-last_fifth(len(norm)) :]
        limit = trace.info.recipe.max_grad_norm
        mean = float(norm.mean())
        out["grad_norm_mean"] = mean
        out["grad_norm_variance"] = float(norm.var())
        out["grad_norm_cv"] = _ratio(float(norm.std()), mean, "every gradient is 0")
        out["grad_norm_growth"] = _ratio(
            float(tail.mean()), float(norm[:SCALE_STEPS].mean()), "the first gradients are 0"
        )
        out["grad_norm_peak_ratio"] = _ratio(float(norm.max()), float(np.median(norm)), "the median gradient is 0")
        out["clipped_fraction"] = 0.0 if limit is None else float(np.mean(norm > limit))
    small = np.asarray(trace.steps.small_gradients, float) / max(1, trace.info.parameters)
    out["grad_sparsity_fraction"] = (
        float(np.nanmean(small)) if np.isfinite(small).any() else "gradient entries were not counted"
    )
    return {**out, **_agreement(trace)}


def _agreement(trace: ProbeTrace) -> dict[str, Value]:
    steps = trace.steps
    norm, dot = np.asarray(steps.grad_norm, float)[1:], np.asarray(steps.dot_previous, float)[1:]
    before = np.asarray(steps.grad_norm, float)[:-1]
    fit = np.isfinite(dot) & np.isfinite(norm) & np.isfinite(before) & (norm * before > 0)
    names = ("grad_consistency", "grad_consistency_late", "grad_conflict_fraction", "grad_noise_ratio",
             "grad_noise_scale_log10")
    out: dict[str, Value] = {}
    if not fit.any():
        out |= dict.fromkeys(names, "no two successive gradients were compared")
    else:
        norm, dot, before = norm[fit], dot[fit], before[fit]
        cosine = np.clip(dot / (norm * before), -1, 1)
        out["grad_consistency"] = float(cosine.mean())
        out["grad_consistency_late"] = float(cosine[len(cosine) // 2 :].mean())
        out["grad_conflict_fraction"] = float(np.mean(dot < 0))
        # E[g.g'] is the power of the mean gradient, E[g.g] that plus the noise of one batch.
        signal = float(dot.mean() / np.mean((norm**2 + before**2) / 2))
        out["grad_noise_ratio"] = 1.0 - signal
        out["grad_noise_scale_log10"] = (
            math.log10(trace.info.recipe.rows_per_step * (1 - signal) / signal)
            if 0 < signal < 1
            else "successive gradients do not agree on average"
        )
    product = np.asarray(steps.grad_norm, float) * np.asarray(steps.mean_norm, float)
    with_mean = np.asarray(steps.dot_mean, float)
    fit = np.isfinite(product) & np.isfinite(with_mean) & (product > 0)
    out["grad_mean_cosine"] = (
        float(np.clip(with_mean[fit] / product[fit], -1, 1).mean())
        if fit.any()
        else "no gradient was compared with the running mean"
    )
    return out


def layer_features(trace: ProbeTrace) -> dict[str, Value]:
    """How the gradient's power is spread over the layers."""
    names = ("layer_grad_evenness", "layer_grad_top_fraction", "layer_grad_depth")
    power = np.asarray(trace.steps.layer_grad_norm, float) ** 2
    power = power[np.isfinite(power).all(axis=1)] if power.size else power
    if power.ndim != 2 or power.shape[1] < 2:
        return dict.fromkeys(names, "gradients of fewer than two layers were recorded")
    if power.sum() <= 0:
        return dict.fromkeys(names, "every gradient is 0")
    share = power.sum(axis=0) / power.sum()
    present = share[share > 0]
    depth = np.linspace(0, 1, len(share))
    return {
        "layer_grad_evenness": float(-(present * np.log(present)).sum() / math.log(len(share))),
        "layer_grad_top_fraction": float(share.max()),
        "layer_grad_depth": float(share @ depth),
    }


def movement_features(trace: ProbeTrace) -> dict[str, Value]:
    """How far, how fast and how straight the adapter moved."""
    steps = trace.steps
    distance, update = np.asarray(steps.distance, float), np.asarray(steps.update_norm, float)
    names = ("parameter_change_norm", "distance_per_rate", "path_straightness", "update_per_distance",
             "distance_exponent")
    if not np.isfinite(distance).any():
        return dict.fromkeys(names, "the distance from the start was not recorded")
    finite = np.isfinite(distance) & np.isfinite(update)
    distance, update = distance[finite], update[finite]
    rates = np.asarray(steps.learning_rate, float)[finite]
    end, tail = float(distance[-1]), last_fifth(len(distance))
    moved = distance > 0
    number = np.flatnonzero(finite).astype(float)[moved] + 1
    return {
        "parameter_change_norm": end,
        # AdamW moves an entry by about its learning rate a step: 1 is straight ahead in every entry.
        "distance_per_rate": _ratio(
            end, float(rates.sum()) * math.sqrt(max(1, trace.info.parameters)), "the learning rate was 0"
        ),
        "path_straightness": _ratio(min(end, float(update.sum())), float(update.sum()), "the adapter never moved"),
        "update_per_distance": _ratio(float(update[-tail:].mean()), end, "the adapter never moved"),
        "distance_exponent": slope(np.log(number), np.log(distance[moved]))
        if moved.sum() > 2
        else _too_few(int(moved.sum()), 3, "movement"),
    }


def flatness_features(trace: ProbeTrace) -> dict[str, Value]:
    """How much the loss rises when the adapter is perturbed at the probe's end."""
    names = ("flatness_rise_nats", "flatness_rise_ratio", "flatness_small_rise_nats", "flatness_spread_nats")
    flat = trace.flatness
    if flat is None or not len(flat.radii):
        return dict.fromkeys(names, _absence(trace, "flatness", "flatness was not measured by this step"))
    order = np.argsort(flat.radii)
    losses = np.asarray(flat.perturbed_nats, float)[order]
    if not (np.isfinite(losses).all() and math.isfinite(flat.centre_nats)):
        return dict.fromkeys(names, "a perturbed loss is not finite")
    rise = float(losses[-1].mean()) - flat.centre_nats
    return {
        "flatness_rise_nats": rise,
        "flatness_rise_ratio": _ratio(rise, flat.centre_nats, "the loss at the centre is 0"),
        "flatness_small_rise_nats": float(losses[0].mean()) - flat.centre_nats,
        "flatness_spread_nats": float(losses[-1].std()),
    }


def text_loss_features(trace: ProbeTrace) -> dict[str, Value]:
    """Held-out loss on the user's own rows, and loss on the reference text (forgetting)."""
    out: dict[str, Value] = {}
    reference = [(cue.step, cue.reference_loss_nats) for cue in trace.cues]
    found = _first_and_last(reference, _absence(trace, "reference loss", "no reference loss was taken"))
    if isinstance(found, str):
        out |= dict.fromkeys(("forgetting_nats", "forgetting_ratio"), found)
    else:
        out["forgetting_nats"] = found[1] - found[0]
        out["forgetting_ratio"] = _ratio(found[1], found[0], "the base's reference loss is 0")
    return {**out, **_heldout(trace)}


def _heldout(trace: ProbeTrace) -> dict[str, Value]:
    names = ("heldout_end_nats", "heldout_end_ratio", "heldout_rebound_ratio", "heldout_gap_ratio")
    no_loss = _absence(trace, "held-out loss", "no held-out loss was taken")
    losses = [(cue.step, cue.heldout_loss_nats) for cue in trace.cues]
    start = _at_start(trace.cues)
    out: dict[str, Value] = {"heldout_start_nats": no_loss if start is None else start.heldout_loss_nats}
    if isinstance(out["heldout_start_nats"], float) and not math.isfinite(out["heldout_start_nats"]):
        out["heldout_start_nats"] = no_loss
    found = _first_and_last(losses, no_loss)
    if isinstance(found, str):
        return {**out, **dict.fromkeys(names, found), "heldout_gap_nats": found}
    first, end = found
    lowest = min(loss for _, loss in losses if math.isfinite(loss))
    out["heldout_end_nats"] = end
    out["heldout_end_ratio"] = _ratio(end, first, "the base's held-out loss is 0")
    out["heldout_rebound_ratio"] = _ratio(end - lowest, first, "the base's held-out loss is 0")
    sums, tokens = (np.asarray(a, float) for a in (trace.steps.loss_sum_nats, trace.steps.answer_tokens))
    finite = np.isfinite(sums) & (tokens > 0)
    if not finite.any():
        return {**out, **dict.fromkeys(("heldout_gap_nats", "heldout_gap_ratio"), "no step has a finite loss")}
    tail = last_fifth(int(finite.sum()))
    gap = end - float(sums[finite][-tail:].sum() / tokens[finite][-tail:].sum())
    out["heldout_gap_nats"] = gap
    out["heldout_gap_ratio"] = _ratio(gap, first, "the base's held-out loss is 0")
    return out


def progress_features(trace: ProbeTrace) -> dict[str, Value]:
    """How much of the full run the probe is."""
    info, done = trace.info, len(trace.steps)
    if not done:
        return dict.fromkeys(("probe_fraction", "rate_left_fraction"), "the probe has no step")
    rates = np.array([info.recipe.learning_rate_at(t, info.total_steps) for t in range(info.total_steps)])
    return {
        "probe_fraction": min(1.0, done / max(1, info.total_steps)),
        "rate_left_fraction": _ratio(
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
    return taken[0][1], taken[-1][1]


def _absence(trace: ProbeTrace, name: str, otherwise: str) -> str:
    return next((reason for what, reason in trace.absent if what == name), otherwise)


def _ratio(value: float, over: float, reason: str) -> Value:
    return value / over if over > 0 else reason


def _too_few(seen: int, needed: int, what: str = "finite loss") -> str:
    return f"needs {needed} steps with a {what}, the probe has {seen}"
