"""Near-duplicates and the words they are made of."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tuneahead.duplicates import NearDuplicateSearch, find_near_duplicates
from tuneahead.examples import Example, Message
from tuneahead.survey import take_survey
from tuneahead.words import WordHasher, split_words


def _texts(count: int, words: int, rng: random.Random) -> list[list[str]]:
    vocabulary = [f"word{i}" for i in range(3_000)]
    return [rng.choices(vocabulary, k=words) for _ in range(count)]


def _jaccard(a: list[str], b: list[str]) -> float:
    sets = [{tuple(text[i : i + 3]) for i in range(len(text) - 2)} for text in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_words_ignore_case_punctuation_and_spacing() -> None:
    assert split_words("It's  2 PM,\n(really)!") == ["it", "s", "2", "pm", "really"]
    assert split_words("ﬁne Straße") == ["fine", "strasse"]
    assert split_words("東京は big") == ["東", "京", "は", "big"]


def test_runs_are_equal_exactly_where_the_words_are() -> None:
    words = WordHasher().words(["a b c a b c a", "x b c a", "b", "", "c a b"])
    runs = words.runs(3)
    assert np.diff(runs.offsets).tolist() == [5, 2, 0, 0, 1]
    values = runs.hashes.tolist()
    # abc bca cab abc bca | xbc bca | cab
    assert values[0] == values[3] and values[1] == values[4] == values[6] and values[2] == values[7]
    assert len(set(values)) == 4


def test_runs_of_one_word_count_repeats_apart() -> None:
    (first, second) = WordHasher().words(["a a a a"]).runs(3).hashes.tolist()
    assert first == second


@pytest.mark.parametrize("size", [1, 2, 8, 13])
def test_runs_agree_with_a_plain_count(size: int) -> None:
    rng = random.Random(size)
    texts = [" ".join(rng.choices("abc", k=rng.randint(0, 40))) for _ in range(50)]
    runs = WordHasher().words(texts).runs(size)
    plain = [tuple(t.split()[i : i + size]) for t in texts for i in range(len(t.split()) - size + 1)]
    assert len(plain) == len(runs.hashes)
    assert (
        len(set(plain))
        == len(set(zip(plain, runs.hashes.tolist(), strict=True)))
        == len(set(runs.hashes.tolist()))
    )


def test_planted_pairs_are_found_and_no_others() -> None:
    rng = random.Random(7)
    texts = _texts(3_000, 40, rng)
    planted = {}
    for i in range(300):
        original = rng.randrange(len(texts) - i)
        copy = list(texts[original])
        copy[rng.randrange(40)] = "changed"
        planted[len(texts)] = original
        texts.append(copy)
    result = find_near_duplicates(" ".join(text) for text in texts)
    expected = {i: j for i, j in planted.items() if _jaccard(texts[i], texts[j]) >= 0.8}
    assert len(expected) > 250
    missed = expected.keys() - set(result.later.tolist())
    assert len(missed) <= 1
    for later, earlier, similarity in zip(result.later, result.earlier, result.similarity, strict=True):
        assert similarity == pytest.approx(_jaccard(texts[later], texts[earlier]))
    assert set(result.later.tolist()) - expected.keys() == {
        i for i in result.later.tolist() if _jaccard(texts[i], texts[planted.get(i, 0)]) < 0.8
    }
    assert result.fraction == pytest.approx(len(result.later) / len(texts))


def test_the_same_rows_give_the_same_pairs() -> None:
    texts = [" ".join(text) for text in _texts(200, 12, random.Random(1))] * 2
    first, second = find_near_duplicates(texts), find_near_duplicates(texts)
    assert first.later.tolist() == second.later.tolist() == list(range(200, 400))
    assert first.earlier.tolist() == list(range(200))


def test_every_row_with_an_alike_answer_is_paired_with_the_first_that_has_one() -> None:
    passage = " ".join(_texts(1, 140, random.Random(3))[0])
    asked = [
        ("Who?", "Ada"),
        ("Where?", "Rome"),
        ("Where now?", "rome."),
        ("Who is it?", "Ada"),
        ("When?", ""),
    ]
    rows = [Example(f"{passage} {question}", answer, i) for i, (question, answer) in enumerate(asked)]
    near = take_survey(rows).near
    assert list(zip(near.later, near.earlier, near.alike, strict=True)) == [
        (1, 0, False), (2, 1, True), (3, 0, True), (4, 0, False)
    ]  # fmt: skip
    assert [row[:2] for row in near.spare()] == [(2, 1), (3, 0)]
    assert [row[:2] for row in near.spare([1])] == [(3, 0)]


def test_rows_of_one_short_answer_are_alike_only_where_they_ask_the_same() -> None:
    passage = " ".join(_texts(1, 140, random.Random(6))[0])
    asked = "does the harbour freeze in winter"
    other = "have ships of ten metres room there"
    for form in ("{1}\n{0}", "{0}\n{1}"):
        questions = (asked, other, f"{asked} months")
        rows = [Example(form.format(passage, question), "Yes", i) for i, question in enumerate(questions)]
        near = take_survey(rows).near
        assert list(zip(near.later, near.alike, strict=True)) == [(1, False), (2, True)]
        assert [row[:2] for row in near.spare()] == [(2, 0)]


def test_long_answers_are_alike_where_they_share_most_of_their_triples() -> None:
    rng = random.Random(4)
    passage, told, other = (" ".join(_texts(1, words, rng)[0]) for words in (600, 40, 40))
    rows = [Example(passage, answer, i) for i, answer in enumerate((told, f"{told} now", other))]
    near = take_survey(rows).near
    assert (near.later.tolist(), near.alike.tolist()) == ([1, 2], [True, False])


def test_rows_are_not_alike_for_a_system_prompt_that_they_share() -> None:
    rng = random.Random(5)
    system = [" ".join(text) for text in _texts(5, 400, rng)]
    rows = []
    for i, (asked, told) in enumerate(zip(_texts(100, 12, rng), _texts(100, 12, rng), strict=True)):
        texts = (system[i % 5], " ".join(asked), " ".join(told))
        turns = tuple(map(Message, ("system", "user", "assistant"), texts))
        rows.append(Example("\n\n".join(texts[:2]), texts[2], i, turns))
    assert not len(take_survey(rows).near.later)


def test_a_long_instruction_that_every_row_shares_is_not_likeness() -> None:
    rng = random.Random(2)
    fixed = (
        "You are a careful clerk. Sort the following letter into one of the nine drawers of the old cabinet. "
        * 3
    )
    texts = [fixed + " ".join(words) for words in _texts(300, 12, rng)]
    assert len(find_near_duplicates(texts).later) == 0
    assert find_near_duplicates([*texts, texts[5] + " ps"]).later.tolist() == [300]


def test_texts_without_three_words_are_no_near_duplicates_of_each_other() -> None:
    assert len(find_near_duplicates(["", "yes", "no", "", "yes no"]).later) == 0
    assert np.isnan(find_near_duplicates([]).fraction)


def test_rows_beyond_the_limit_are_left_out_and_told() -> None:
    search = NearDuplicateSearch(max_rows=3)
    words = WordHasher().words(["a b c d e", "f g h i j", "a b c d e", "a b c d e"])
    search.add(words, np.array([11, 12, 13, 14]))
    search.add(words, np.array([15, 16, 17, 18]))
    result = search.finish()
    assert (result.later.tolist(), result.earlier.tolist()) == ([13], [11])
    assert (result.examined, result.total) == (3, 8)


def test_long_rows_are_compared_until_their_triples_are_too_many_and_no_shorter_row_follows() -> None:
    search = NearDuplicateSearch(max_shingles=7)
    words = WordHasher().words(["a b c d e", "a b c d e", "f g h i j k l", "a b c"])
    search.add(words, np.array([11, 12, 13, 14]))
    search.add(words, np.array([15, 16, 17, 18]))
    result = search.finish()
    assert (result.later.tolist(), result.earlier.tolist()) == ([12], [11])
    assert (result.examined, result.total) == (2, 8)
