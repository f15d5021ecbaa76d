"""Features of the probe stay meaningful for short, broken and partial traces."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from feature_fixtures import RECIPE, floats, tiny_trace
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneahead.features.cartography import row_map
from tuneahead.features.catalogue import spec
from tuneahead.features.catalogue_projection import PROJECTION
from tuneahead.features.cues import saturating_score_pp
from tuneahead.features.extract import cue_features, derived_features, dynamic_features, recipe_features
from tuneahead.features.vector import FeatureVector
from tuneahead.trace import Cue, ProbeTrace, RowVisits, StepColumns, trace_from_bytes


def long_trace(seed: int, steps: int = 200, *, broken: float = 0.0) -> ProbeTrace:
    """A trace of random measurements; a share of them is not a number or infinite."""
    draw = np.random.default_rng(seed)

    def column(low: float, high: float) -> np.ndarray:
        values = draw.uniform(low, high, steps).astype(np.float32)
        bad = draw.random(steps) < broken
        values[bad] = draw.choice([np.nan, np.inf], bad.sum())
        return values

    norm = column(0.1, 9)
    before = np.roll(norm, 1)
    dots = (draw.uniform(-1, 1, steps) * norm * before).astype(np.float32)
    dots[0] = np.nan
    update = column(0, 1)
    columns = StepColumns(
        column(1, 50),
        np.full(steps, 9, np.float32),
        np.full(steps, 1e-3, np.float32),
        norm,
        dots,
        dots,
        norm,
        column(0, 100),
        update,
        np.sqrt(np.nancumsum(np.where(np.isfinite(update), update, 0) ** 2)),
        column(0, 1),
        column(1, 2),
        np.abs(draw.normal(size=(steps, 3))).astype(np.float32),
    )
    rows = draw.integers(0, 50, 4 * steps).astype(np.int32)
    visits = RowVisits(
        np.repeat(np.arange(steps), 4).astype(np.int32),
        rows,
        draw.uniform(0, 20, 4 * steps).astype(np.float32),
        draw.integers(1, 9, 4 * steps).astype(np.int32),
    )
    cues = tuple(
        Cue(
            step,
            draw.uniform(0, 5),
            draw.uniform(0, 5),
            draw.random(40).astype(np.float32),
            draw.normal(size=40).astype(np.float32),
        )
        for step in (0, 10, 25, 50, 100, 200)
        if step <= steps
    )
    made = tiny_trace()
    subjects = tuple("abcd"[i % 4] for i in range(40))
    info = replace(made.info, total_steps=1000, train_rows=50, layers=("0", "1", "2"), item_subjects=subjects)
    flat = replace(made.flatness, step=100) if made.flatness and steps >= 100 else None
    return ProbeTrace(info, columns, visits, cues, flat)


def within_bounds(vector: FeatureVector) -> None:
    for name, value in vector.values.items():
        row = spec(name)
        assert math.isnan(value) == (name in vector.absent), name
        assert math.isnan(value) or row.low - 1e-6 <= value <= row.high + 1e-6, (name, value)


@pytest.mark.parametrize("steps", [10, 25, 50, 100, 200])
def test_at_the_lengths_of_the_sweep_little_is_absent(steps: int) -> None:
    vector = derived_features(long_trace(0).truncate(steps))
    within_bounds(vector)
    flat = {name for name in vector.absent if name.startswith("flatness")}
    later = {f"score_at_{step}_pp" for step in (25, 50, 100) if step > steps}
    # Two cues make no curve, and the gradients of this noise need not agree.
    maybe = {"extrapolated_score_pp", "extrapolated_gain_headroom", "grad_noise_scale_log10"}
    if steps == 10:
        later |= {row.name for row in PROJECTION}
    assert set(vector.absent) - maybe == flat | later
    assert bool(flat) == (steps < 100)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 7])
def test_a_run_of_a_few_steps_gives_reasons_not_errors(steps: int) -> None:
    vector = derived_features(tiny_trace().truncate(steps))
    within_bounds(vector)
    assert "loss_slope_early" in vector.absent or steps >= 6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(0, 40), broken=st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_no_measurement_however_broken_breaks_a_feature(seed: int, steps: int, broken: float) -> None:
    with np.errstate(all="ignore"):
        within_bounds(derived_features(long_trace(seed, 40, broken=broken).truncate(steps)))


def test_a_trace_read_back_gives_the_same_features() -> None:
    trace = long_trace(1, 100)
    halved = replace(
        trace,
        visits=replace(trace.visits, nll_nats=trace.visits.nll_nats.astype(np.float16).astype(np.float32)),
        cues=tuple(
            replace(
                cue,
                right_probability=cue.right_probability.astype(np.float16).astype(np.float32),
                margin_nats=cue.margin_nats.astype(np.float16).astype(np.float32),
            )
            for cue in trace.cues
        ),
    )
    again = derived_features(trace_from_bytes(halved.to_bytes()))
    assert again.aligned(again.values) == pytest.approx(
        derived_features(halved).aligned(again.values), nan_ok=True
    )


def test_features_of_the_first_steps_do_not_know_the_later_ones() -> None:
    trace = long_trace(2, 100)
    rest = replace(trace.steps, loss_sum_nats=np.where(np.arange(100) < 50, trace.steps.loss_sum_nats, 999))
    changed = replace(
        trace, steps=rest, cues=(*trace.cues[:-1], replace(trace.cues[-1], heldout_loss_nats=999))
    )
    one, other = (derived_features(t.truncate(50)).aligned(spec_names()) for t in (trace, changed))
    assert one == pytest.approx(other, nan_ok=True)


def spec_names() -> tuple[str, ...]:
    return tuple(derived_features(tiny_trace()).values)


def test_steps_that_are_not_finite_are_counted_and_left_out() -> None:
    trace = tiny_trace()
    loss = trace.steps.loss_sum_nats.copy()
    loss[-1] = np.nan
    vector = dynamic_features(replace(trace, steps=replace(trace.steps, loss_sum_nats=loss)))
    assert vector["non_finite_fraction"] == pytest.approx(0.1)
    assert vector["loss_end_nats"] == pytest.approx(2.0)


def test_what_was_not_measured_did_not_fail() -> None:
    trace = tiny_trace()
    nothing = floats(*[np.nan] * 10)
    gap = np.arange(10) % 5 != 4
    sparse = {"loss_sum_nats": trace.steps.loss_sum_nats, "answer_tokens": trace.steps.answer_tokens}
    sparse = {name: np.where(gap, np.nan, column).astype(np.float32) for name, column in sparse.items()}

    def fraction(**columns: np.ndarray) -> float | str:
        vector = dynamic_features(replace(trace, steps=replace(trace.steps, **columns)))
        return vector.absent.get("non_finite_fraction") or vector["non_finite_fraction"]

    assert fraction(grad_norm=nothing) == 0.0
    assert fraction(**sparse, grad_norm=nothing) == 0.0
    assert fraction(**sparse, grad_norm=np.where(gap, np.nan, np.inf).astype(np.float32)) == 1.0
    absent = {"loss_sum_nats": nothing, "answer_tokens": nothing}
    assert fraction(**absent) == 0.0, "the gradient norm was measured"
    assert "was measured" in str(fraction(**absent, grad_norm=nothing))


@pytest.mark.parametrize("failure", ["the gradient norm was not finite at step 0", ""])
def test_a_probe_that_failed_from_its_first_step_failed_throughout(failure: str) -> None:
    trace = tiny_trace()
    nothing = floats(*[np.nan] * 10)
    column = "grad_norm" if failure else "loss_sum_nats"
    failed = replace(
        trace,
        info=replace(trace.info, failure=failure),
        steps=replace(trace.steps, **{column: nothing}),
    )
    assert dynamic_features(failed)["non_finite_fraction"] == 1.0
    skipped = replace(trace, steps=replace(trace.steps, grad_norm=nothing))
    skipped = replace(skipped, absent=(("gradients", "the gradient scaler skipped 10 steps"),))
    assert dynamic_features(skipped)["non_finite_fraction"] == 1.0


def test_steps_that_a_gradient_scaler_skipped_have_no_norm_and_did_not_fail() -> None:
    trace = tiny_trace()
    norm = trace.steps.grad_norm.copy()
    norm[:3] = np.nan
    skipped = replace(trace, steps=replace(trace.steps, grad_norm=norm))
    skipped = replace(skipped, absent=(("gradients", "the gradient scaler skipped 3 steps"),))
    assert dynamic_features(skipped)["non_finite_fraction"] == 0.0


def test_a_spike_is_one_step_above_half_again_the_median_before_it() -> None:
    trace = tiny_trace()
    loss = trace.steps.loss_sum_nats.copy()
    loss[7] = 4 * 5.0
    vector = dynamic_features(replace(trace, steps=replace(trace.steps, loss_sum_nats=loss)))
    assert vector["loss_spike_fraction"] == pytest.approx(1 / 5)


def test_the_first_three_steps_are_the_initial_loss() -> None:
    trace = tiny_trace()
    # 6, 4 and 2 nats a token, the last on four times as many: (24 + 16 + 32) / 24.
    steps = replace(
        trace.steps,
        loss_sum_nats=floats(24.0, 16.0, 32.0, *trace.steps.loss_sum_nats[3:]),
        answer_tokens=floats(4.0, 4.0, 16.0, *[4.0] * 7),
    )
    assert dynamic_features(replace(trace, steps=steps))["initial_loss_nats"] == pytest.approx(3.0)


def test_gradients_grow_from_the_mean_of_the_first_ten() -> None:
    trace = long_trace(0, 40)
    steps = replace(trace.steps, grad_norm=floats(*[1.0] * 10, *[2.0] * 22, *[3.0] * 8))
    assert dynamic_features(replace(trace, steps=steps))["grad_norm_growth"] == pytest.approx(3.0)


def test_rows_are_easy_hard_and_ambiguous_from_the_documented_bounds_on() -> None:
    seen = {0: (0.28, 0.72), 1: (0.32, 0.68), 2: (0.76,), 3: (0.24,)}
    visited = [(row, share) for row, shares in seen.items() for share in shares]
    visits = RowVisits(
        step=np.arange(6, dtype=np.int32),
        row=np.array([row for row, _ in visited], np.int32),
        nll_nats=floats(*(-math.log(share) for _, share in visited)),
        tokens=np.ones(6, np.int32),
    )
    found = dynamic_features(replace(tiny_trace(), visits=visits))
    # Of the two rows seen twice one varies by 0.22, the other by 0.18; the bound is 0.2.
    assert found["ambiguous_rows_fraction"] == 0.5
    # Judged by the latest visit: 0.76 is easy, 0.24 is hard, 0.72 and 0.68 are neither.
    assert (found["easy_rows_fraction"], found["hard_rows_fraction"]) == (0.25, 0.25)


def test_losses_count_by_their_tokens() -> None:
    trace = tiny_trace()
    # One step of 36 tokens at 1 nat and one of 4 at 2 nats: 44 / 40, not their mean.
    steps = replace(
        trace.steps,
        loss_sum_nats=floats(*trace.steps.loss_sum_nats[:8], 36.0, 8.0),
        answer_tokens=floats(*[4.0] * 8, 36.0, 4.0),
    )
    assert dynamic_features(replace(trace, steps=steps))["loss_end_nats"] == pytest.approx(1.1)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_loss_that_the_last_cue_lacks_is_not_taken_from_an_earlier_one(lost: float) -> None:
    trace = tiny_trace()
    end = replace(trace.cues[-1], heldout_loss_nats=lost, reference_loss_nats=lost)
    vector = dynamic_features(replace(trace, cues=(*trace.cues[:-1], end)))
    names = ("forgetting_nats", "heldout_end_ratio", "heldout_rebound_ratio", "heldout_gap_nats")
    assert all("step 10, the last cue" in vector.absent[name] for name in names)
    assert vector.values["heldout_start_nats"] == 4.0


def test_a_power_law_is_found_as_one() -> None:
    trace = tiny_trace()
    loss = floats(*(4 * 3 * (t + 1) ** -0.5 for t in range(10)))
    vector = dynamic_features(replace(trace, steps=replace(trace.steps, loss_sum_nats=loss)))
    assert vector["loss_power_exponent"] == pytest.approx(0.5, rel=1e-5)


def test_reasons_of_the_trace_are_passed_on() -> None:
    trace = replace(
        tiny_trace(),
        flatness=None,
        cues=(),
        absent=(
            ("flatness", "it was switched off"),
            ("benchmark cues", "no benchmark was given"),
            ("held-out loss", "9 rows are too few to hold any out"),
        ),
    )
    vector = derived_features(trace)
    assert vector.absent["flatness_rise_nats"] == "it was switched off"
    assert vector.absent["probe_score_pp"] == vector.absent["score_at_10_pp"] == "no benchmark was given"
    assert vector.absent["heldout_end_ratio"] == "9 rows are too few to hold any out"
    assert vector.absent["forgetting_nats"] == "no reference loss was taken"


def test_cues_without_a_look_at_the_base_give_no_gain() -> None:
    trace = tiny_trace()
    vector = cue_features(replace(trace, cues=trace.cues[1:]))
    assert vector["probe_score_pp"] == pytest.approx(400 / 6)
    assert vector.absent["score_gain_pp"] == "no benchmark cue was taken at step 0"
    assert vector["churn_fraction"] == pytest.approx(2 / 6)


def test_where_every_subject_improves_the_worst_falls_by_nothing() -> None:
    trace = tiny_trace()
    better = replace(trace.cues[-1], margin_nats=floats(*[1.0] * 6))
    found = cue_features(replace(trace, cues=(*trace.cues[:-1], better)))
    assert (found["subject_worst_fall_pp"], found["subjects_improved_fraction"]) == (0.0, 1.0)


def test_a_diverged_benchmark_score_is_absent_not_zero() -> None:
    trace = tiny_trace()
    last = replace(trace.cues[-1], margin_nats=floats(*[np.nan] * 6))
    vector = cue_features(replace(trace, cues=(*trace.cues[:-1], last)))
    assert vector.absent["probe_score_pp"] == "the margins at step 10 are not finite: the run has diverged"
    assert vector["base_score_pp"] == 50.0
    middle = replace(trace.cues[1], step=25, margin_nats=last.margin_nats)
    late = replace(trace.cues[-1], step=50)
    vector = cue_features(replace(trace, cues=(trace.cues[0], middle, late)))
    assert vector.absent["score_at_25_pp"] == "the margins at step 25 are not finite: the run has diverged"
    assert vector["score_at_50_pp"] == vector["probe_score_pp"] == pytest.approx(400 / 6)


@pytest.mark.parametrize("metric", ["exact_match", "f1", "rouge_l", "harness"])
def test_grades_of_free_answers_are_not_margins(metric: str) -> None:
    trace = tiny_trace()
    vector = cue_features(replace(trace, info=replace(trace.info, metric=metric)))
    for name in ("soft_score_pp", "margin_mean_nats", "known_margin_change_nats", "projected_drift_gain"):
        assert vector.absent[name] == "free answers are graded and have no margin"
    assert "probe_score_pp" in vector.values and "probe_score_pp" not in vector.absent


def test_scale_free_cues_do_not_depend_on_chance_and_scale() -> None:
    trace = tiny_trace()
    assert cue_features(trace)["score_gain_headroom"] == pytest.approx((100 / 6) / 75)
    half = replace(trace, info=replace(trace.info, chance_pp=50.0))
    assert cue_features(half)["score_gain_headroom"] == pytest.approx((100 / 6) / 50)
    doubled = tuple(replace(cue, margin_nats=2 * cue.margin_nats) for cue in trace.cues)
    scaled = cue_features(replace(trace, cues=doubled))
    for name in ("margin_shift", "margin_sd_ratio", "known_margin_change_sd", "margin_close_fraction"):
        assert scaled[name] == pytest.approx(cue_features(trace)[name])


def test_without_a_score_of_guessing_nothing_is_a_share_of_the_headroom() -> None:
    trace = tiny_trace()
    vector = cue_features(replace(trace, info=replace(trace.info, chance_pp=math.nan)))
    known = cue_features(trace)
    for name in known.values:
        if name.endswith("_headroom") or name == "right_probability_excess":
            assert vector.absent[name] == known.absent.get(
                name, "the benchmark's score of guessing is not known"
            )
    assert vector["score_gain_pp"] == known["score_gain_pp"]


def test_gradient_ratios_do_not_depend_on_the_gradients_scale() -> None:
    trace = tiny_trace()
    steps = trace.steps
    scaled = replace(
        steps,
        grad_norm=10 * steps.grad_norm,
        dot_previous=100 * steps.dot_previous,
        dot_mean=100 * steps.dot_mean,
        mean_norm=10 * steps.mean_norm,
    )
    one, other = dynamic_features(trace), dynamic_features(replace(trace, steps=scaled))
    for name in (
        "grad_norm_cv",
        "grad_norm_growth",
        "grad_consistency",
        "grad_noise_ratio",
        "grad_mean_cosine",
    ):
        assert one[name] == pytest.approx(other[name])


def test_a_saturating_curve_is_followed_to_its_ceiling() -> None:
    steps = [0, 10, 25, 50, 100]
    scores = [30 + 20 * (1 - math.exp(-t / 40)) for t in steps]
    assert saturating_score_pp(steps, scores, 1000) == pytest.approx(50, abs=0.5)
    assert saturating_score_pp(steps, [40.0] * 5, 1000) == pytest.approx(40)
    assert saturating_score_pp(steps, [90, 60, 40, 20, 0], 1000) == pytest.approx(0, abs=3)
    # Nearly straight lines, which would lead beyond any score.
    assert saturating_score_pp([0, 50, 100], [50, 75, 98], 10_000) == 100.0
    assert saturating_score_pp([0, 50, 100], [50, 25, 2], 10_000) == 0.0


def test_the_map_of_rows_holds_mean_and_spread_of_each_rows_visits() -> None:
    visits = RowVisits(
        step=np.array([0, 0, 1], np.int32),
        row=np.array([7, 3, 7], np.int32),
        nll_nats=floats(-2 * math.log(0.5), -math.log(0.9), -2 * math.log(0.7)),
        tokens=np.array([2, 1, 2], np.int32),
    )
    found = row_map(visits)
    assert found.row.tolist() == [3, 7] and found.visits.tolist() == [1, 2]
    assert found.confidence == pytest.approx([0.9, 0.6]) and found.variability == pytest.approx([0.0, 0.1])


def test_recipe_features_name_what_they_do_not_know() -> None:
    vector = recipe_features(RECIPE.replace(max_grad_norm=None, target_modules=("c_attn",)), 40, 4)
    assert vector["clipping"] == 0.0 and vector.absent["clip_norm"] == "clipping is off"
    assert vector.absent["targeted_fraction"] == "no usual projection among c_attn"
    assert "trained_parameters_log10" in vector.absent
    assert recipe_features(RECIPE.replace(target_modules=("all-linear",)), 40, 4)["targeted_fraction"] == 1.0


def test_a_linear_schedule_sweeps_half_the_learning_rate() -> None:
    # Rates 1, 3/4, 2/4, 1/4 of the peak.
    vector = recipe_features(RECIPE.replace(schedule="linear"), 4, 4)
    assert vector["rate_sum_log10"] == pytest.approx(math.log10(0.01 * 2.5))
