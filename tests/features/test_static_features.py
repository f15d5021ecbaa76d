"""Static features on ordinary, odd and random data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneahead.benchmark.items import Benchmark, ChoiceItem, GenerationItem
from tuneahead.examples import Example, Message
from tuneahead.features import syntax
from tuneahead.features.answers import copy_features
from tuneahead.features.answertokens import sample_answers
from tuneahead.features.catalogue import spec
from tuneahead.features.extract import static_features
from tuneahead.features.rows import sample_rows
from tuneahead.features.semantic import outlier_factors
from tuneahead.features.text import ngram_repetition, segmental_type_token_ratio
from tuneahead.features.vector import FeatureVector
from tuneahead.survey import take_survey
from tuneahead.training.models import Base

CHOICES = Benchmark("choices", "accuracy", (ChoiceItem("1", "What is red?", ("a colour", "a fox"), (0,)),))
FREE = Benchmark("free", "exact_match", (GenerationItem("1", "Name a colour:", ("red", "blue")),))
CAPITALS = [
    "Peru",
    "Lima",
    "France",
    "Paris",
    "Italy",
    "Rome",
    "Spain",
    "Madrid",
    "Japan",
    "Tokyo",
    "Kenya",
    "Nairobi",
    "Egypt",
    "Cairo",
    "Cuba",
    "Havana",
]


def capital_rows(copies: int = 1) -> list[Example]:
    pairs = list(zip(CAPITALS[::2], CAPITALS[1::2], strict=True)) * copies
    return [
        Example(f"What is the capital of {country}?", city, i + 1) for i, (country, city) in enumerate(pairs)
    ]


def test_likeness_to_a_benchmark_is_that_to_its_questions_not_to_the_examples_before_them() -> None:
    rows = capital_rows()
    questions = [row.prompt for row in rows]
    examples = "Name a colour: red\n\nName a fox: Reynard\n\n"
    names = ("benchmark_similarity", "benchmark_nearest_similarity", "benchmark_form_fraction")
    found = []
    for before in ("", examples):
        items = [ChoiceItem(q, before + q, ("Lima", "Rome"), (0,), question=q) for q in questions]
        vector = static_features(rows, benchmarks=[Benchmark("capitals", "accuracy", items)])
        found.append([vector[name] for name in names])
    assert found[1] == pytest.approx(found[0]) and found[1][1:] == pytest.approx([1, 1])


def within_bounds(vector: FeatureVector) -> None:
    for name, value in vector.values.items():
        row = spec(name)
        assert math.isnan(value) == (name in vector.absent), name
        assert math.isnan(value) or row.low - 1e-6 <= value <= row.high + 1e-6, (name, value)


texts = st.one_of(
    st.text(max_size=60), st.sampled_from(["", " ", "?", "What is red?", "42", "\U0001f642", "\ud800"])
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts, texts), max_size=12), with_benchmark=st.booleans())
def test_no_text_breaks_a_feature(rows: list[tuple[str, str]], with_benchmark: bool) -> None:
    examples = [Example(prompt, answer, i + 1) for i, (prompt, answer) in enumerate(rows)]
    within_bounds(static_features(examples, benchmarks=(CHOICES, FREE) if with_benchmark else ()))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=6))
def test_no_text_breaks_the_bases_losses(tiny_base: Base, rows: list[tuple[str, str]]) -> None:
    examples = [Example(prompt, answer, i + 1) for i, (prompt, answer) in enumerate(rows)]
    within_bounds(static_features(examples, base=tiny_base))


def test_the_same_data_give_the_same_features() -> None:
    rows = capital_rows(280)
    one, other = (static_features(rows, benchmarks=(CHOICES,)) for _ in range(2))
    assert one.aligned(one.values) == pytest.approx(other.aligned(one.values), nan_ok=True)


def test_copies_are_seen_as_such() -> None:
    once, thrice = static_features(capital_rows()), static_features(capital_rows(3))
    assert once["exact_duplicate_fraction"] == 0.0
    assert thrice["exact_duplicate_fraction"] == thrice["near_duplicate_fraction"] == pytest.approx(2 / 3)
    assert thrice["distinct_answer_fraction"] == pytest.approx(1 / 3)


def test_a_changed_word_makes_a_near_copy() -> None:
    story = "the old man walked down to the harbour and bought a fish for his three cats before noon"
    rows = [
        Example(story, "yes", 1),
        Example(story + " today", "yes", 2),
        Example("an unrelated line", "no", 3),
    ]
    vector = static_features(rows)
    assert vector["exact_duplicate_fraction"] == 0.0
    assert vector["near_duplicate_fraction"] == pytest.approx(1 / 3)


def test_gibberish_lies_farther_from_english() -> None:
    rows = capital_rows()
    noise = [Example("xqzv brrtk flomp?", "zzgh wvv", row.row) for row in rows]
    assert static_features(noise)["unknown_word_fraction"] > 0.5
    assert static_features(rows)["unknown_word_fraction"] < 0.05
    assert static_features(noise)["word_kl_nats"] > static_features(rows)["word_kl_nats"] + 3


def test_marks_belong_to_their_letters_in_every_script() -> None:
    rows = [Example("भारत की राजधानी क्या है", "नई दिल्ली", 1), Example("مُحَمَّدٌ رَسُول", "نَعَم", 2)]
    vector = static_features(rows)
    assert vector["length_mean_words"] == 5.0
    assert vector["special_character_fraction"] == 0.0
    assert vector["unknown_word_fraction"] > 0.5


def test_joiners_are_no_signs_and_arabic_asks_too() -> None:
    joined = Example("\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u062f\u061f", "\u0628\u0644\u0647", 1)
    found = static_features([joined]).values
    assert found["special_character_fraction"] == pytest.approx(1 / 11)
    assert found["question_prompt_fraction"] == 1.0


def test_characters_are_counted_in_every_row_looked_at() -> None:
    rows = [Example("", "word " * 100_000, i) for i in range(1, 5)]
    vector = static_features([*rows, Example("", "7777 " * 100_000, 5)])
    assert vector["digit_fraction"] == pytest.approx(1 / 5)


def test_scrambled_answers_lose_their_nearness_to_the_prompt() -> None:
    rows = capital_rows()
    turned = [Example(a.prompt, b.answer, a.row) for a, b in zip(rows, rows[1:] + rows[:1], strict=True)]
    own, foreign = (static_features(data)["prompt_answer_similarity_gap"] for data in (rows, turned))
    assert own > 0.05 > foreign


def test_a_long_system_prompt_leaves_the_sentence_vectors_to_the_questions() -> None:
    system = "You are a careful assistant who answers in one word and never explains. " * 40
    talks = []
    for row in capital_rows():
        turns = (Message("system", system), Message("user", row.prompt), Message("assistant", row.answer))
        talks.append(replace(row, prompt=f"{system}\n\n{row.prompt}", messages=turns))
    plain, long = (static_features(rows, benchmarks=(CHOICES,)) for rows in (capital_rows(), talks))
    for name in ("embedding_spread", "prompt_answer_similarity_gap", "benchmark_similarity"):
        assert long[name] == pytest.approx(plain[name])


def test_near_copies_are_no_share_of_rows_that_were_not_all_compared() -> None:
    survey = take_survey([Example(f"which number is {i}", str(i), i + 1) for i in range(20)])
    assert copy_features(survey)["near_duplicate_fraction"] == 0.0
    part = replace(survey, near=replace(survey.near, examined=12))
    reason = "only the first 12 of 20 distinct rows were compared"
    assert copy_features(part)["near_duplicate_fraction"] == reason


def test_answers_without_words_are_told_from_prompts_that_are_missing() -> None:
    reasons = static_features([Example("why", "!!!", 1), Example("how", "...", 2)]).absent
    assert reasons["answer_in_prompt_fraction"] == "no row has words in prompt and answer"


def test_prompts_that_fill_the_window_keep_their_answers(tiny_base: Base) -> None:
    rows = [Example(f"one {'two ' * 100}cat", "dog bird", i + 1) for i in range(9)]
    rows.append(Example("one two", "cat", 10))
    found = sample_answers(rows, tiny_base)
    assert len(found) == 10
    assert all(len(row.before) + len(row.answer) == tiny_base.context_tokens for row in found[:9])
    alone = sample_answers([Example("one cat", "dog bird", 1)], tiny_base)[0]
    assert found[0].answer == alone.answer and found[0].before[-1:] == alone.before[-1:]
    turns = (Message("user", "two " * 100), Message("assistant", "dog"), Message("user", "sun"))
    talk = Example("two " * 100, "moon", 1, (*turns, Message("assistant", "moon")))
    assert len(sample_answers([talk], tiny_base)) == 1


def test_rows_on_the_benchmarks_subject_cover_it() -> None:
    items = tuple(
        ChoiceItem(str(i), f"Which city is the capital of {country}?", ("Lima", "Rome"), (0,))
        for i, country in enumerate(CAPITALS[::2])
    )
    exam = Benchmark("capitals", "accuracy", items)
    other = [Example(f"Multiply {i} by seven:", str(7 * i), i) for i in range(2, 10)]
    near, far = (
        static_features(capital_rows(), benchmarks=(exam,)),
        static_features(other, benchmarks=(exam,)),
    )
    for name in ("benchmark_similarity", "benchmark_nearest_similarity", "benchmark_relevance"):
        assert near[name] > far[name] + 0.1
    assert near["option_coverage_fraction"] == 1.0 and far["option_coverage_fraction"] == 0.0


def test_plain_text_has_no_prompt_and_says_so(tiny_base: Base) -> None:
    rows = [Example("", "one two three four", 1), Example("", "cat dog bird", 2)]
    vector = static_features(rows, base=tiny_base)
    assert vector["empty_prompt_fraction"] == 1.0
    for name in ("prompt_type_token_ratio", "contradiction_fraction", "parse_depth_mean", "prompt_gain_nats"):
        assert vector.absent[name] == "no row has a prompt"
    assert vector["reference_loss_nats"] > 0


def test_no_rows_at_all_leave_only_the_count() -> None:
    vector = static_features([])
    assert [name for name, value in vector.values.items() if not math.isnan(value)] == ["examples"]
    assert vector["examples"] == 0.0


def test_a_missing_parser_is_named_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "_PACKAGES", ("no_such_model",))
    syntax._parser.cache_clear()
    try:
        vector = static_features(capital_rows())
    finally:
        syntax._parser.cache_clear()
    assert vector.absent["parse_depth_mean"].startswith("no parser is installed")


def test_depth_counts_links_up_to_the_root() -> None:
    import spacy
    from spacy.tokens import Doc

    vocabulary = spacy.blank("en").vocab
    words = ["dogs", "that", "bark", "loudly", "sleep"]
    # loudly -> bark -> dogs -> sleep (root): three links.
    assert syntax.tree_depth(Doc(vocabulary, words=words, heads=[4, 2, 0, 2, 4], deps=["dep"] * 5)) == 3
    assert syntax.tree_depth(Doc(vocabulary, words=["go"], heads=[0], deps=["ROOT"])) == 0


def test_repeated_runs_and_varied_segments_by_hand() -> None:
    assert ngram_repetition([["a", "b", "a", "b"]], 2) == pytest.approx(1 / 3)
    assert math.isnan(ngram_repetition([["a"]], 2))
    assert segmental_type_token_ratio([["a", "b", "a"], ["c", "d"]], segment=2) == pytest.approx(1.0)
    assert segmental_type_token_ratio([["a", "a", "a", "b"]], segment=2) == pytest.approx(0.75)


def test_a_row_apart_from_a_cluster_has_a_large_outlier_factor() -> None:
    # Three places on a line at 0, 1 and 2, and one at 12; with two neighbours each.
    place = np.array([0.0, 1.0, 2.0, 12.0])
    distance = np.abs(place[:, None] - place[None])
    np.fill_diagonal(distance, np.inf)
    # With three neighbours for four rows everybody is everybody's neighbour: k-distances 12, 11, 10, 12.
    reach = np.array([(12 + 12 + 12) / 3, (12 + 11 + 12) / 3, (12 + 11 + 12) / 3, (12 + 11 + 12) / 3])
    reach[0] = (max(1, 11) + max(2, 10) + max(12, 12)) / 3
    reach[1] = (max(1, 12) + max(1, 10) + max(11, 12)) / 3
    reach[2] = (max(2, 12) + max(1, 11) + max(10, 12)) / 3
    reach[3] = (max(12, 12) + max(11, 11) + max(10, 10)) / 3
    density = 1 / reach
    expected = [(density.sum() - density[i]) / 3 / density[i] for i in range(4)]
    assert outlier_factors(distance) == pytest.approx(expected)


def test_an_outlier_among_many_stands_out() -> None:
    draw = np.random.default_rng(0)
    points = np.vstack([draw.normal(size=(60, 3)) * 0.1, [[3.0, 3.0, 3.0]]])
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    factors = outlier_factors(distance)
    assert factors[-1] > 5 and np.median(factors) < 1.2


def test_samples_are_drawn_the_same_way_every_time() -> None:
    rows = capital_rows(10)
    assert sample_rows(rows, 7) == sample_rows(rows, 7)
    assert len({row.row for row in sample_rows(rows, 7)}) == 7
    assert sample_rows(rows, 100) == rows
