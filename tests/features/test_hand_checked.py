"""Every feature of the catalogue, against a value worked out by hand."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log, log10, sqrt

import numpy as np
import pytest
from feature_fixtures import LOSS, NAN, RECIPE, tiny_trace

from tuneahead.benchmark.items import ChoiceItem
from tuneahead.examples import Example, Message
from tuneahead.features.answertokens import AnswerTokens
from tuneahead.features.catalogue import CATALOGUE
from tuneahead.features.extract import cue_features, dynamic_features, recipe_features
from tuneahead.features.featurespec import Value
from tuneahead.features.perplexity import answer_losses, measure_perplexity
from tuneahead.features.rows import draw, texts_of
from tuneahead.features.semantic import (
    dispersion_features,
    form_features,
    likeness_features,
    pair_features,
)
from tuneahead.features.text import measure_text
from tuneahead.recipe import Recipe
from tuneahead.survey import take_survey
from tuneahead.training.encode import encode_examples
from tuneahead.training.models import Base

# ------ the probe: ten steps, see feature_fixtures.tiny_trace

_SLOPE = -22.5 / 82.5  # sum of (step - 4.5) x loss over sum of (step - 4.5)^2
_REST = [loss - 2.9 - _SLOPE * (t - 4.5) for t, loss in enumerate(LOSS)]
_LN_STEP = [log(t + 1) for t in range(10)]
_LN_STEP_MEAN = sum(_LN_STEP) / 10
_POWER = sum((x - _LN_STEP_MEAN) * log(y) for x, y in zip(_LN_STEP, LOSS, strict=True)) / sum(
    (x - _LN_STEP_MEAN) ** 2 for x in _LN_STEP
)
# Second half of the visits: row 2 thrice, row 3 thrice, rows 0 and 1 twice each.
_LATE = [log(5), -log(0.8), -log(0.8), log(2), log(2), log(2), -log(0.9), -log(0.9), log(10), log(10)]
_LATE_MEAN = sum(_LATE) / 10
_ONE_TOKEN = (log(5) - 2 * log(0.8) - 2 * log(0.9)) / 5
_TWO_TOKENS = (3 * 2 * log(2) + 2 * 2 * log(10)) / 5
_ROW2_SD = sqrt((3 * 0.24**2 + 2 * 0.36**2) / 5)

DYNAMIC = {
    "non_finite_fraction": 0.0,
    "initial_loss_nats": 4.0,
    "loss_decay_slope": 100 * _SLOPE,
    "loss_variance_nats2": (3 * 1.1**2 + 3 * 0.1**2 + 4 * 0.9**2) / 10,
    "loss_end_nats": 2.0,
    "loss_fall_nats": 2.0,
    "loss_end_ratio": 0.5,
    "loss_max_ratio": 1.0,
    "loss_cv": sqrt(0.69) / 2.9,
    "loss_slope_early": -30.0,
    "loss_slope_late": -20.0,
    # 6 / 528 per step^2 by orthogonal polynomials, times 9^2 steps^2.
    "loss_curvature_nats": 81 * 6 / 528,
    "loss_power_exponent": -_POWER,
    "loss_noise_ratio": sqrt(2 / 9 / 2) / 2.9,
    "loss_autocorrelation": sum(a * b for a, b in zip(_REST[1:], _REST, strict=False))
    / sum(a * a for a in _REST),
    "loss_spike_fraction": 0.0,
    "grad_norm_mean": 2.2,
    "grad_norm_variance": 0.36,
    "grad_norm_cv": 0.6 / 2.2,
    "grad_norm_growth": 3.0 / 2.2,
    "grad_norm_peak_ratio": 2.0,
    "clipped_fraction": 0.1,
    "grad_consistency": (4 * 1 - 2 * 0.5 + 1) / 9,
    "grad_consistency_late": 0.0,
    "grad_mean_cosine": (8 * 0.5 + 1) / 9,
    "grad_conflict_fraction": 2 / 9,
    "grad_noise_ratio": 1 - 20 / 42,
    "grad_noise_scale_log10": log10(2 * 22 / 20),
    "grad_sparsity_fraction": 0.2,
    "layer_grad_evenness": -(0.75 * log(0.75) + 0.25 * log(0.25)) / log(2),
    "layer_grad_top_fraction": 0.75,
    "layer_grad_depth": 0.25,
    "parameter_change_norm": 1.0,
    "distance_per_rate": 1.0 / (10 * 0.01 * sqrt(100)),
    "path_straightness": 0.5,
    "update_per_distance": 0.2,
    "distance_exponent": 1.0,
    "flatness_rise_nats": 1.0,
    "flatness_rise_ratio": 0.5,
    "flatness_small_rise_nats": 0.2,
    "flatness_spread_nats": sqrt((0.4**2 + 0.4**2) / 3),
    "forgetting_nats": 0.5,
    "forgetting_ratio": 1.5,
    "heldout_start_nats": 4.0,
    "heldout_end_nats": 3.0,
    "heldout_end_ratio": 0.75,
    "heldout_rebound_ratio": 0.5 / 4,
    "heldout_gap_nats": 1.0,
    "heldout_gap_ratio": 0.25,
    "confidence_mean": (0.9 + 0.1 + 0.44 + 0.5) / 4,
    "confidence_end": (0.9 + 0.1 + 0.8 + 0.5) / 4,
    "easy_rows_fraction": 2 / 4,
    "hard_rows_fraction": 1 / 4,
    "variability_mean": _ROW2_SD / 4,
    "ambiguous_rows_fraction": 1 / 4,
    "revisit_gain": 0.6 / 4,
    "row_loss_cv": sqrt(sum((x - _LATE_MEAN) ** 2 for x in _LATE) / 10) / _LATE_MEAN,
    # Ten values: the 10 % quantile lies 0.9 of the way from the lowest to the second.
    "row_loss_p10_nats": -log(0.9),
    "row_loss_p90_nats": log(10),
    "token_loss_slope_nats": _TWO_TOKENS - _ONE_TOKEN,
    "answer_start_nats": 2 * _ONE_TOKEN - _TWO_TOKENS,
    "epochs_seen": 5.0,
    "rows_seen_fraction": 1.0,
    "revisit_fraction": 0.8,
    "probe_fraction": 0.25,
    "rate_left_fraction": 0.75,
}

# ------ the cues: six items, three looks

_SD = sqrt(7.05 / 6 - (2.9 / 6) ** 2)
_SIXTH = 100 / 6
_LOG_STEPS = [0.0, log(6), log(11)]
_LOG_MEAN = sum(_LOG_STEPS) / 3
_CUE_SLOPE = sum(
    (x - _LOG_MEAN) * y for x, y in zip(_LOG_STEPS, (50, 50 + _SIXTH, 50 + _SIXTH), strict=True)
) / sum((x - _LOG_MEAN) ** 2 for x in _LOG_STEPS)
# The score stays from step 5 on, so the quickest rise fits best: tau is half of the first interval.
_RISE = [1 - math.exp(-2), 1 - math.exp(-4)]
_CEILING = _SIXTH * sum(_RISE) / sum(r * r for r in _RISE)
_FINAL = 50 + _CEILING * (1 - math.exp(-16))

CUE = {
    "base_score_pp": 50.0,
    "base_score_headroom": 25 / 75,
    "score_at_10_pp": 4 * _SIXTH,
    "score_at_25_pp": NAN,
    "score_at_50_pp": NAN,
    "score_at_100_pp": NAN,
    "probe_score_pp": 4 * _SIXTH,
    "probe_score_headroom": (4 * _SIXTH - 25) / 75,
    "soft_score_pp": 100 * sum(1 / (1 + math.exp(-2 * m)) for m in (2, 1, 0.1, -0.2, 1, -1)) / 6,
    "score_gain_pp": _SIXTH,
    "score_gain_headroom": _SIXTH / 75,
    "late_gain_pp": 0.0,
    "late_gain_headroom": 0.0,
    "score_slope_pp": _CUE_SLOPE,
    "score_slope_headroom": _CUE_SLOPE / 75,
    "score_drop_pp": 0.0,
    "extrapolated_score_pp": _FINAL,
    "extrapolated_gain_headroom": (_FINAL - 4 * _SIXTH) / 75,
    "right_probability_mean": 3.4 / 6,
    "right_probability_excess": (100 * 3.4 / 6 - 25) / 75,
    "right_probability_gain": 3.4 / 6 - 0.5,
    "margin_mean_nats": 2.9 / 6,
    "margin_sd_nats": _SD,
    "margin_q25_nats": -0.2 + 0.25 * 0.3,
    "margin_median_nats": 0.55,
    "margin_q75_nats": 1.0,
    "margin_near_zero_fraction": 2 / 6,
    "margin_close_fraction": 2 / 6,
    "margin_mean_over_sd": 2.9 / 6 / _SD,
    "margin_shift": 2.9 / 6,
    "margin_sd_ratio": _SD,
    "known_margin_change_nats": (1 - 1.2 + 0) / 3,
    "known_margin_change_sd": (1 - 1.2 + 0) / 3,
    "known_kept_fraction": 2 / 3,
    "unknown_learned_fraction": 2 / 3,
    "base_agreement_fraction": 3 / 6,
    "base_margin_correlation": (2 - 1 - 0.1 - 0.2 + 1 + 1) / 6 / _SD,
    "churn_fraction": 2 / 6,
    "subject_score_sd_pp": 100 / 3,
    "subject_worst_fall_pp": 100 / 3,
    "subjects_improved_fraction": 0.5,
    # Trend (1, 0, 1.1, -1.2, 0, 0), drift (1, 2, 1.1, -1.2, 0, 0): no item changes sides on the way on.
    "projected_trend_short_gain": 0.0,
    "projected_trend_gain": 0.0,
    "projected_drift_short_gain": 0.0,
    "projected_drift_gain": 0.0,
    "projected_settling_trend_gain": 0.0,
    "projected_settling_drift_gain": 0.0,
    "projected_growth_gain": 0.0,
    "margin_trend_consistency": 0.15 / sqrt(3.65 / 6),
    "margin_drift_consistency": 2.9 / 6 / sqrt(7.65 / 6),
    "margin_turn_cosine": sqrt(3.65 / 7.65),
    "margin_trend_share": sqrt(3.65 / 7.65),
    "margin_growth_exponent": log(sqrt(7.65 / 4)) / log(2),
    "rate_growth_ln": log(4),
}

# ------ the recipe of feature_fixtures: 40 steps on 4 rows

RECIPE_VALUES = {
    "learning_rate_log10": -2.0,
    "scaled_rate_log10": log10(0.02),
    "rate_per_row_log10": log10(0.005),
    "rate_sum_log10": log10(0.4),
    "scaled_rate_sum_log10": log10(0.8),
    "total_steps_log10": log10(40),
    "rows_per_step_log10": log10(2),
    "rows_trained_log10": log10(80),
    "full_epochs": 20.0,
    "batch_fraction": 0.5,
    "lora_rank_log2": 2.0,
    "lora_scale": 2.0,
    "lora_dropout": 0.1,
    "weight_decay": 0.01,
    "warmup_fraction": 0.0,
    "schedule_linear": 0.0,
    "schedule_cosine": 0.0,
    "schedule_constant": 1.0,
    "clipping": 1.0,
    "clip_norm": 3.0,
    "window_log2": 7.0,
    "targeted_fraction": 2 / 7,
    "trained_parameters_log10": 2.0,
}

# ------ the text: a row, its copy, its contradiction, and a row without an answer

ROWS = (
    Example("What is red?", "a colour", 1),
    Example("What is red?", "a colour", 2),
    Example("What is red?", "blood", 3),
    Example("Say \u00e912", "", 4),
)
_TEXT = "What is red? a colour\nWhat is red? a colour\nWhat is red? blood\nSay \u00e912".encode()


def _divergence() -> float:
    from wordfreq import get_frequency_dict

    english = get_frequency_dict("en", wordlist="best")
    share = {
        "what": 3 / 15,
        "is": 3 / 15,
        "red": 3 / 15,
        "a": 2 / 15,
        "colour": 2 / 15,
        "blood": 1 / 15,
        "say": 1 / 15,
    }
    return sum(p * log(p / english[word]) for word, p in share.items())


def text_values() -> dict[str, float]:
    return {
        "examples": 4.0,
        "examples_log10": log10(4),
        "length_mean_words": 4.0,
        "length_variance_words2": 1.5,
        "length_cv": sqrt(1.5) / 4,
        "prompt_length_mean_words": 11 / 4,
        "answer_length_mean_words": 5 / 4,
        "answer_length_sd_words": sqrt((2 * 0.75**2 + 0.25**2 + 1.25**2) / 4),
        "answer_length_p10_words": 0.3,
        "answer_length_p50_words": 1.5,
        "answer_length_p90_words": 2.0,
        "answer_prompt_length_ratio": 5 / 11,
        "answer_words_log10": log10(5),
        "special_character_fraction": 3 / 55,
        "digit_fraction": 2 / 55,
        "uppercase_fraction": 4 / 55,
        "non_ascii_fraction": 1 / 55,
        "compression_ratio": len(zlib.compress(_TEXT, 6)) / len(_TEXT),
        "prompt_type_token_ratio": 5 / 11,
        "answer_type_token_ratio": 3 / 5,
        "ngram_repetition_fraction": 1 - 4 / 8,
        # "is" and "Say" are the roots; every other word hangs on them.
        "parse_depth_mean": 1.0,
        "parse_depth_sd": 0.0,
        "prompt_segment_variety": NAN,
        "answer_segment_variety": NAN,
        "answer_loop_fraction": NAN,
        "word_kl_nats": _divergence(),
        "unknown_word_fraction": 0.0,
        "near_duplicate_fraction": 1 / 4,
        "exact_duplicate_fraction": 1 / 4,
        "contradiction_fraction": 3 / 4,
        "empty_answer_fraction": 1 / 4,
        "distinct_answer_fraction": 2 / 3,
        "top_answer_fraction": 2 / 3,
        "answer_entropy_fraction": -(2 / 3 * log(2 / 3) + 1 / 3 * log(1 / 3)) / log(3),
        "answer_opening_fraction": 1.0,
        "answer_in_prompt_fraction": 0.0,
        "empty_prompt_fraction": 0.0,
        "prompt_opening_fraction": 1.0,
        "question_prompt_fraction": 3 / 4,
    }


# ------ vectors in a plane: (1, 0) twice, (0, 1) and (0.6, 0.8)

VECTORS = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
_XX, _YY, _XY = 1.36 / 3 - (1.6 / 3) ** 2, 1.64 / 3 - (1.8 / 3) ** 2, 0.48 / 3 - 1.6 * 1.8 / 9

VECTOR_VALUES = {
    "outlier_fraction": 0.0,
    "isolated_fraction": 0.0,
    "embedding_spread": 1 - (1.6**2 + 1.8**2) / 9,
    "embedding_dimensions": (_XX + _YY) ** 2 / (_XX**2 + _YY**2 + 2 * _XY**2),
    "nearest_row_similarity": 1 - (0.4 + 0.2 + 0.2) / 3,
    "prompt_answer_similarity": (1 + 0.8) / 2,
    "prompt_answer_similarity_gap": 0.9 - (0.6 + 0) / 2,
    "benchmark_similarity": (0.8 * 0.5 + 0.4 * 0.5) / (sqrt(0.5) * sqrt(0.8)),
    "benchmark_nearest_similarity": 0.9,
    "benchmark_coverage_fraction": 0.5,
    "benchmark_relevance": 0.9,
}


def vector_values() -> dict[str, Value]:
    east, north, between = VECTORS[0], VECTORS[2], VECTORS[3]
    return {
        **dispersion_features(VECTORS),
        **pair_features(np.stack([east, north]), np.stack([east, between])),
        **likeness_features(np.stack([east, between]), np.stack([east, north])),
    }


# ------ form: two items; three of four prompts begin and end like one of them

ITEMS = (
    ChoiceItem("1", "What is a fox?", ("an animal", "a colour"), (0,)),
    ChoiceItem("2", "Name a colour:", ("red", "a fox"), (0,)),
)
FORM = {
    "benchmark_form_fraction": 3 / 4,
    "answer_is_option_fraction": 2 / 3,
    "option_coverage_fraction": 1 / 4,
    "option_length_mismatch": log((7 / 4) / (5 / 4)),
}

# ------ the base: a random model, row by row without padding

BASE_ROWS = (
    Example("one two three", "four five", 1),
    Example("six", "cat dog bird", 2),
    Example("sun moon", "star", 3),
)


@dataclass(frozen=True)
class Scored:
    nll: float
    tokens: int
    hits: int
    known: bool


def _score(base: Base, before: tuple[int, ...], answer: tuple[int, ...]) -> Scored:
    import torch

    ids = before + answer
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([ids])).logits[0].double()
    ln = torch.log_softmax(logits, -1)
    at = range(len(before), len(ids))
    hits = [int(logits[i - 1].argmax()) == ids[i] for i in at]
    return Scored(-sum(float(ln[i - 1, ids[i]]) for i in at), len(answer), sum(hits), all(hits[:-1]))


def base_values(base: Base) -> dict[str, float]:
    """By the definition; the rows come in the order of the draw, each meets the next one's prompt."""
    words = base.tokenizer.get_vocab()
    end = base.tokenizer.eos_token_id
    order = np.random.default_rng(29).permutation(3)
    rows = []
    for i in order:
        row = BASE_ROWS[i]
        first, *rest = row.prompt.split()
        before = (words[first], *(words["\u2581" + w] for w in rest))
        rows.append((before, (*(words["\u2581" + w] for w in row.answer.split()), end)))
    own = [_score(base, before, answer) for before, answer in rows]
    alone = [_score(base, (end,), answer) for _, answer in rows]
    swapped = [_score(base, rows[(i + 1) % 3][0], rows[i][1]) for i in range(3)]

    def mean(scored: list[Scored]) -> float:
        return sum(s.nll for s in scored) / sum(s.tokens for s in scored)

    per_row = sorted(s.nll / s.tokens for s in own)
    centre = sum(per_row) / 3
    sd = sqrt(sum((x - centre) ** 2 for x in per_row) / 3)
    return {
        "reference_loss_nats": mean(own),
        "reference_loss_sd_nats": sd,
        "reference_loss_cv": sd / centre,
        "reference_loss_p10_nats": per_row[0] + 0.2 * (per_row[1] - per_row[0]),
        "reference_loss_p90_nats": per_row[1] + 0.8 * (per_row[2] - per_row[1]),
        "base_token_accuracy": sum(s.hits for s in own) / sum(s.tokens for s in own),
        "base_knows_fraction": sum(s.known for s in own) / 3,
        "answer_alone_loss_nats": mean(alone),
        "prompt_gain_nats": mean(alone) - mean(own),
        "prompt_gain_ratio": 1 - mean(own) / mean(alone),
        "own_prompt_gain_nats": mean(swapped) - mean(own),
        "own_prompt_gain_ratio": 1 - mean(own) / mean(swapped),
    }


# ------ the checks


def matches(found: Mapping[str, Value], expected: Mapping[str, float]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        got = found[name]
        if math.isnan(value):
            assert isinstance(got, str) or math.isnan(got), name
        else:
            assert got == pytest.approx(value, rel=2e-5, abs=2e-6), name


def test_dynamic_features_by_hand() -> None:
    matches(dynamic_features(tiny_trace()).values, DYNAMIC)


def test_cue_features_by_hand() -> None:
    matches(cue_features(tiny_trace()).values, CUE)


def test_recipe_features_by_hand() -> None:
    matches(recipe_features(RECIPE, 40, 4, parameters=100).values, RECIPE_VALUES)


def test_text_features_by_hand() -> None:
    matches(measure_text(draw(ROWS, len(ROWS)), take_survey(ROWS)).values, text_values())


def test_vector_features_by_hand() -> None:
    matches(vector_values(), VECTOR_VALUES)


def test_form_features_by_hand() -> None:
    matches(form_features(texts_of(ROWS), ITEMS), FORM)


def test_base_features_by_hand(tiny_base: Base) -> None:
    expected = base_values(tiny_base)
    assert 0 < expected["base_token_accuracy"] < 1 and 0 < expected["base_knows_fraction"] < 1
    matches(measure_perplexity(draw(BASE_ROWS, len(BASE_ROWS)), tiny_base).values, expected)


TURNS = (
    "{% for m in messages %}{{ ' cat' if m.role == 'user' else '' }} {{ m.content }}"
    "{{ ' star' if m.role == 'assistant' else ' dog' }}{% endfor %}"
)


def test_answers_of_a_conversation_are_read_with_all_turns_before_them(tiny_base: Base) -> None:
    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.chat_template = TURNS
    base = replace(tiny_base, tokenizer=tokenizer)
    talks = [("one two", "three", "four", "five six"), ("six", "bird", "moon sun", "two")]
    rows = []
    for i, (ask, say, more, last) in enumerate(talks, 1):
        turns = (Message("user", ask), Message("assistant", say), Message("user", more))
        rows.append(Example("", last, i, (*turns, Message("assistant", last))))
    words = tokenizer.get_vocab()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(words["\u2581" + word] for word in text.split())

    early, late, alone = [], [], []
    for ask, say, more, last in talks:
        start, said, told = ids(f"cat {ask} dog"), ids(f"{say} star"), ids(f"{last} star")
        early.append(_score(base, start, said))
        late.append(_score(base, (*start, *said, *ids(f"cat {more} dog")), told))
        alone.append(_score(base, (tokenizer.eos_token_id,), told))

    def mean(*scored: Scored) -> float:
        return sum(s.nll for s in scored) / sum(s.tokens for s in scored)

    found = measure_perplexity(draw(rows, 2), base).values
    assert found["reference_loss_nats"] == pytest.approx(mean(*early, *late), rel=2e-5)
    assert found["answer_alone_loss_nats"] == pytest.approx(mean(*alone), rel=2e-5)
    assert found["prompt_gain_nats"] == pytest.approx(mean(*alone) - mean(*late), rel=2e-5)


def test_a_text_without_a_prompt_is_read_as_it_is_trained(tiny_base: Base) -> None:
    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.chat_template = TURNS
    base = replace(tiny_base, tokenizer=tokenizer)
    rows = [Example("", "one two three", 1), Example("", "moon sun", 2)]
    recipe = Recipe(max_length=64)
    trained = encode_examples(rows, tokenizer, recipe)
    opened = [row.answer.index(True) for row in trained]
    assert all(opened)
    scored = [_score(base, row.ids[:n], row.ids[n:]) for row, n in zip(trained, opened, strict=True)]
    found = measure_perplexity(draw(rows, 2), base)
    mean = sum(s.nll for s in scored) / sum(row.answer_tokens for row in trained)
    assert found.values["reference_loss_nats"] == pytest.approx(mean, rel=2e-5)
    assert found.values["prompt_gain_nats"] == "no row has a prompt"


@pytest.mark.parametrize("opening", [(), (7, 8, 9, 6) * 6])
def test_padding_and_batches_change_no_loss(tiny_base: Base, opening: tuple[int, ...]) -> None:
    rows = [AnswerTokens((*opening, *(3,) * n), (4, 5, 1)) for n in range(1, 9)]
    together = answer_losses(tiny_base, rows)
    alone = [answer_losses(tiny_base, [row]) for row in rows]
    assert together.nll_nats == pytest.approx([float(one.nll_nats[0]) for one in alone], rel=1e-5)
    assert together.tokens.tolist() == [3.0] * 8


def test_every_feature_of_the_catalogue_is_checked_by_hand(tiny_base: Base) -> None:
    tables: list[Callable[[], Mapping[str, float]]] = [text_values, lambda: base_values(tiny_base)]
    checked = [*DYNAMIC, *CUE, *RECIPE_VALUES, *VECTOR_VALUES, *FORM, *(name for t in tables for name in t())]
    assert sorted(checked) == sorted(row.name for row in CATALOGUE)
