"""Features of the probe's gradients and of the adapter's movement."""

from __future__ import annotations

import math

import numpy as np

from tuneahead.features.featurespec import Value
from tuneahead.features.series import absence, last_fifth, ratio, slope, too_few
from tuneahead.trace import ProbeTrace

SCALE_STEPS = 10
"""Steps whose mean gradient norm is the scale of a run."""


def gradient_features(trace: ProbeTrace) -> dict[str, Value]:
    """Size, steadiness and agreement of the gradients before clipping."""
    norm = np.asarray(trace.steps.grad_norm, float)
    norm = norm[np.isfinite(norm)]
    names = (
        "grad_norm_mean",
        "grad_norm_variance",
        "grad_norm_cv",
        "grad_norm_growth",
        "grad_norm_peak_ratio",
        "clipped_fraction",
    )
    out: dict[str, Value] = {}
    if len(norm) < 2:
        out |= dict.fromkeys(names, too_few(len(norm), 2, "gradient norm"))
    else:
        tail = norm[-last_fifth(len(norm)) :]
        limit = trace.info.recipe.max_grad_norm
        mean = float(norm.mean())
        out["grad_norm_mean"] = mean
        out["grad_norm_variance"] = float(norm.var())
        out["grad_norm_cv"] = ratio(float(norm.std()), mean, "every gradient is 0")
        out["grad_norm_growth"] = ratio(
            float(tail.mean()), float(norm[:SCALE_STEPS].mean()), "the first gradients are 0"
        )
        out["grad_norm_peak_ratio"] = ratio(
            float(norm.max()), float(np.median(norm)), "the median gradient is 0"
        )
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
    names = (
        "grad_consistency",
        "grad_consistency_late",
        "grad_conflict_fraction",
        "grad_noise_ratio",
        "grad_noise_scale_log10",
    )
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
    names = (
        "parameter_change_norm",
        "distance_per_rate",
        "path_straightness",
        "update_per_distance",
        "distance_exponent",
    )
    finite = np.isfinite(distance) & np.isfinite(update)
    if not finite.any():
        return dict.fromkeys(names, "the adapter's movement was not recorded, or is not finite")
    distance, update = distance[finite], update[finite]
    rates = np.asarray(steps.learning_rate, float)[: np.flatnonzero(finite)[-1] + 1]
    end, tail = float(distance[-1]), last_fifth(len(distance))
    moved = distance > 0
    number = np.flatnonzero(finite).astype(float)[moved] + 1
    return {
        "parameter_change_norm": end,
        # AdamW moves an entry by about its learning rate a step: 1 is straight ahead in every entry.
        "distance_per_rate": ratio(
            end, float(rates.sum()) * math.sqrt(max(1, trace.info.parameters)), "the learning rate was 0"
        ),
        "path_straightness": ratio(
            min(end, float(update.sum())), float(update.sum()), "the adapter never moved"
        ),
        "update_per_distance": ratio(float(update[-tail:].mean()), end, "the adapter never moved"),
        "distance_exponent": slope(np.log(number), np.log(distance[moved]))
        if moved.sum() > 2
        else too_few(int(moved.sum()), 3, "movement"),
    }


def flatness_features(trace: ProbeTrace) -> dict[str, Value]:
    """How much the loss rises when the adapter is perturbed at the probe's end."""
    names = ("flatness_rise_nats", "flatness_rise_ratio", "flatness_small_rise_nats", "flatness_spread_nats")
    flat = trace.flatness
    if flat is None or not len(flat.radii):
        return dict.fromkeys(names, absence(trace, "flatness", "flatness was not measured by this step"))
    order = np.argsort(flat.radii)
    losses = np.asarray(flat.perturbed_nats, float)[order]
    if not (np.isfinite(losses).all() and math.isfinite(flat.centre_nats)):
        return dict.fromkeys(names, "a perturbed loss is not finite")
    rise = float(losses[-1].mean()) - flat.centre_nats
    return {
        "flatness_rise_nats": rise,
        "flatness_rise_ratio": ratio(rise, flat.centre_nats, "the loss at the centre is 0"),
        "flatness_small_rise_nats": float(losses[0].mean()) - flat.centre_nats,
        "flatness_spread_nats": float(losses[-1].std()),
    }
