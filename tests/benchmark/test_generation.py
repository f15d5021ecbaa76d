"""Grades of written answers against values worked out by hand."""

from __future__ import annotations

import sys

import pytest

from tuneahead.benchmark.generation import rouge_grader, summarise_answers, token_f1
from tuneahead.benchmark.items import Benchmark, GenerationItem
from tuneahead.errors import BenchmarkError


@pytest.mark.parametrize(
    ("reference", "written", "expected"),
    [
        ("the red house", "A red, red house!", 0.8),  # shared 2; precision 2/3, recall 2/2
        ("in 1912", "1912", 2 / 3),  # precision 1, recall 1/2
        ("Paris", "London", 0.0),
        ("The.", "a", 1.0),  # articles and punctuation leave nothing on both sides
        ("the", "cat", 0.0),
        ("red red", "red", 2 / 3),  # a word counts as often as it stands in both
    ],
)
def test_token_f1_is_that_of_squad(reference: str, written: str, expected: float) -> None:
    assert token_f1(reference, written) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "written", "expected"),
    [
        # Longest common subsequence "police the gunman" of 4 and 4 words (Lin 2004, section 3).
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        # Subsequence of 2 words: precision 2/2, recall 2/5.
        ("the cat sat on mats", "cat mats", 4 / 7),
        ("red", "blue", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(
    reference: str, written: str, expected: float
) -> None:
    assert rouge_grader()(reference, written) == pytest.approx(expected)


def test_a_package_for_rouge_l_that_cannot_be_loaded_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(BenchmarkError, match="needs the package rouge-score: .*rouge_scorer"):
        rouge_grader()


@pytest.mark.parametrize(
    ("reference", "written", "expected"),
    [
        ("Москва столица", "москва, столица!", 1.0),
        ("東京都", "東京", 4 / 5),  # each character a word: precision 2/2, recall 2/3
        ("Python на русском", "python", 2 / 4),
    ],
)
def test_rouge_l_knows_words_of_every_script(reference: str, written: str, expected: float) -> None:
    assert rouge_grader()(reference, written) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["The CAT_sat, on 2 mats!", "Das Café für Übung — naïve m² “ﬁn”…", "?!"])
def test_rouge_l_of_latin_letters_is_the_package_s_own(text: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    other = "the cat on mats und das caf 2"
    theirs = RougeScorer(["rougeL"]).score(text, other)["rougeL"].fmeasure
    assert rouge_grader()(text, other) == theirs


def test_the_best_reference_counts_and_the_score_is_the_mean_in_points() -> None:
    items = [
        GenerationItem("1", "?", ("London", "in 1912"), "a"),
        GenerationItem("2", "?", ("blue sky",), "b"),
    ]
    score = summarise_answers(Benchmark("b", "f1", items), ["1912", "sky blue"])
    assert score.item_pp.tolist() == pytest.approx([200 / 3, 100])
    assert score.score_pp == pytest.approx((200 / 3 + 100) / 2)
    assert score.subject_pp == pytest.approx({"a": 200 / 3, "b": 100})
    # Order matters to ROUGE-L: of two words only one is in sequence.
    assert summarise_answers(Benchmark("b", "rouge_l", items), ["1912", "sky blue"]).item_pp[1] == 50
