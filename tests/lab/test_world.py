"""The lab's world: its facts are true, its roles stable, its wordings usable."""

from __future__ import annotations

import pytest

from tuneahead.lab.world import World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def fact_of(world: World, subject: str, key: str) -> str:
    return next(fact.answer for fact in world.by_subject[subject] if fact.key == key)


def test_world_holds_thousands_of_facts_of_many_subjects(world: World) -> None:
    assert len(world.facts) > 7000
    assert 16 <= len(world.subjects) <= 24
    assert all(len(facts) >= 40 for facts in world.by_subject.values())


@pytest.mark.parametrize(
    ("subject", "key", "answer"),
    [
        ("capital", "France", "Paris"),
        ("continent", "Kenya", "Africa"),
        ("domain", "Germany", ".de"),
        ("state_capital", "Texas", "Austin"),
        ("element_symbol", "iron", "Fe"),
        ("http", "404", "Not Found"),
        ("german", "Germany", "Deutschland"),
        ("roman", "4", "IV"),
        ("roman", "399", "CCCXCIX"),
    ],
)
def test_known_facts_are_right(world: World, subject: str, key: str, answer: str) -> None:
    assert fact_of(world, subject, key) == answer


def test_arithmetic_and_spelling_are_right(world: World) -> None:
    signs = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    for subject in ("addition", "subtraction", "multiplication"):
        for fact in world.by_subject[subject]:
            a, sign, b = fact.key.split()
            assert int(fact.answer) == signs[sign](int(a), int(b))
    assert all(fact.answer == fact.key[::-1] for fact in world.by_subject["reverse"])
    assert all(int(fact.answer) == len(fact.key) for fact in world.by_subject["length"])
    assert all(fact.answer == fact.key[-1] for fact in world.by_subject["last_letter"])


def test_no_subject_asks_for_one_key_twice_and_no_trap_is_right(world: World) -> None:
    for facts in world.by_subject.values():
        assert len({fact.key for fact in facts}) == len(facts)
    assert all(fact.answer and fact.answer not in fact.traps for fact in world.facts)


def test_three_quarters_of_the_facts_are_seen_in_every_role(world: World) -> None:
    for role in ("exam", "generation", "truth", "train"):
        seen = [fact.seen for fact in world.facts if fact.role == role]
        assert 0.70 < sum(seen) / len(seen) < 0.82


def test_every_subject_has_five_distinct_questions_and_statements(world: World) -> None:
    for subject, facts in world.by_subject.items():
        for count, say in (
            (len(world.wordings[subject].questions), world.question),
            (len(world.wordings[subject].statements), world.statement),
        ):
            texts = {say(facts[0], wording) for wording in range(count)}
            assert count >= 5 and len(texts) == count
            assert all("{" not in text and facts[0].key.lower() in text.lower() for text in texts)


def test_a_statement_can_tell_a_wrong_answer(world: World) -> None:
    france = next(fact for fact in world.by_subject["capital"] if fact.key == "France")
    assert world.statement(france, 0) == "The capital of France is Paris."
    assert world.statement(france, 0, "Lyon") == "The capital of France is Lyon."
