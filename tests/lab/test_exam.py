"""The lab's examinations: form, balance, and facts kept apart."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem
from tuneahead.lab.corpus import CorpusMix, documents
from tuneahead.lab.exam import (
    lab_exam,
    lab_generation,
    lab_truth,
    number_in_words,
    reference_statements,
    right_answers,
)
from tuneahead.lab.world import load_world


def test_the_exam_asks_four_option_questions_evenly_over_subjects() -> None:
    exam = lab_exam()
    assert (exam.name, exam.metric, exam.chance_pp) == ("lab-exam", "accuracy", 25.0)
    assert 750 <= len(exam.items) <= 850
    counts = Counter(item.subject for item in exam.items)
    assert set(counts) == set(load_world().subjects) and max(counts.values()) == 40
    places = Counter(item.gold[0] for item in exam.items if isinstance(item, ChoiceItem))
    assert all(150 < places[place] < 260 for place in range(4))


@pytest.mark.parametrize("benchmark", [lab_exam(), lab_truth()], ids=lambda b: b.name)
def test_options_are_distinct_and_the_gold_ones_are_right(benchmark: Benchmark) -> None:
    world = load_world()
    facts = {(f.subject, world.question(f, 0)): f for f in world.facts}
    for item in benchmark.items:
        assert isinstance(item, ChoiceItem)
        assert item.prompt.startswith("Question: ") and item.prompt.endswith("?\nAnswer:")
        fact = facts[item.subject, item.prompt.removeprefix("Question: ").removesuffix("\nAnswer:")]
        assert len(set(item.options)) == len(item.options) >= 4
        right = {place for place, option in enumerate(item.options) if option in right_answers(fact)}
        assert right == set(item.gold)
    assert len({item.item_id for item in benchmark.items}) == len(benchmark.items)


def test_the_truth_exam_tempts_and_sometimes_has_two_right_options() -> None:
    truth = lab_truth()
    assert truth.metric == "mc2" and 150 <= len(truth.items) <= 260
    assert {len(item.gold) for item in truth.items if isinstance(item, ChoiceItem)} == {1, 2}
    world = load_world()
    traps = {(f.subject, world.question(f, 0)): f.traps for f in world.facts if f.role == "truth"}
    tempting = 0
    for item in truth.items:
        assert isinstance(item, ChoiceItem)
        question = item.prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
        tempting += bool(set(traps[item.subject, question]) & set(item.options))
    assert tempting > 0.95 * len(truth.items)


def test_free_answers_accept_digits_and_words() -> None:
    generation = lab_generation()
    assert generation.metric == "exact_match" and 150 <= len(generation.items) <= 260
    for item in generation.items:
        assert isinstance(item, GenerationItem)
        if item.subject == "addition":
            assert item.answers == (item.answers[0], number_in_words(int(item.answers[0])))


def test_no_question_occurs_in_two_examinations_or_in_the_pretraining_text() -> None:
    prompts = [item.prompt for b in (lab_exam(), lab_truth(), lab_generation()) for item in b.items]
    assert len(set(prompts)) == len(prompts)
    questions = {p.removeprefix("Question: ").removesuffix("\nAnswer:") for p in prompts}
    text = list(islice(documents(CorpusMix(question_fraction=0.5), random.Random(3)), 20_000))
    asked = {line for document in text for line in document.removeprefix("Question: ").split("\n")}
    assert not questions & asked
    assert not set(reference_statements()) & set(text)


def test_reference_statements_are_64_and_distinct() -> None:
    assert len(set(reference_statements())) == 64


def test_the_exams_never_change_unnoticed() -> None:
    items, asking = tuple(lab_exam().items), Asking(template="raw")
    assert lab_exam().fingerprint == Benchmark("other", "accuracy", items, asking).fingerprint
    assert len({b.fingerprint for b in (lab_exam(), lab_truth(), lab_generation())}) == 3


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (13, "thirteen"), (40, "forty"), (42, "forty-two"), (305, "three hundred five")],
)
def test_number_words(number: int, words: str) -> None:
    assert number_in_words(number) == words
