"""Contamination: planted benchmark questions are found with their rows, others are not."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from tuneahead.benchmark.items import Benchmark, ChoiceItem, GenerationItem
from tuneahead.contamination import Contamination, question_key, question_stem
from tuneahead.dataset import Example, Message
from tuneahead.survey import take_survey

WORDS = [
    f"{a}{b}"
    for a in ("bo", "ka", "lu", "mi", "ne", "ro", "ta", "zu")
    for b in ("ran", "lek", "dom", "vis", "pur")
]


def _choice(name: str, question: str, *options: str) -> ChoiceItem:
    return ChoiceItem(name, f"Question: {question}\nAnswer:", options or ("yes", "no"), (0,))


def _search(examples: list[Example], *items: ChoiceItem) -> Contamination:
    (result,) = take_survey(examples, benchmarks=[Benchmark("b", "accuracy", items)]).contamination
    return result


def _found(item: ChoiceItem, prompt: str, answer: str = "whatever") -> bool:
    return len(_search([Example(prompt, answer, 1)], item).rows) == 1


@pytest.mark.parametrize("length", [2, 5, 7, 8, 10, 12, 13, 14, 20, 60])
def test_every_planted_question_is_found_in_its_row_and_nothing_else(length: int) -> None:
    rng = random.Random(length)
    questions = [" ".join(rng.choices(WORDS, k=length)) + f" q{i}?" for i in range(120)]
    items = [_choice(f"i{i}", question) for i, question in enumerate(questions)]
    examples = [
        Example(" ".join(rng.choices(WORDS, k=length + 1)) + f" x{i}", "a", i) for i in range(1, 1001)
    ]
    planted = sorted(rng.sample(range(1000), 100))
    for item, place in enumerate(planted):
        examples[place] = Example(questions[item].upper().replace("?", " ?"), "a", place + 1)
    result = _search(examples, *items)
    assert result.rows.tolist() == [place + 1 for place in planted]
    assert result.item_ids == tuple(f"i{i}" for i in range(100))
    assert result.first_items == result.item_ids
    assert result.fraction == pytest.approx(100 / 120)


def test_a_long_question_is_found_inside_a_longer_row_and_when_half_of_it_is_there() -> None:
    words = [f"w{i}" for i in range(40)]
    item = _choice("i", " ".join(words) + "?")
    assert _found(item, "Please answer. " + " ".join(words) + " Be quick.")
    assert _found(item, "", f"Once I read: {', '.join(words)}.")
    # 40 words make 28 runs of 13; 26 words hold 14 of them, 25 hold 13.
    assert _found(item, " ".join(words[:26]))
    assert not _found(item, " ".join(words[:25]))
    assert not _found(item, " ".join(words[::2]))


def test_a_question_of_8_to_12_words_must_stand_whole() -> None:
    item = _choice("i", "Which river flows through the old town of Ronda?")
    assert _found(item, "Tell me this: which river flows through the old town of Ronda, and why?")
    assert not _found(item, "Which river flows through the new town of Ronda?")


def test_a_short_question_must_be_the_prompt_or_a_line_of_it() -> None:
    item = _choice("i", "Who wrote Faust?", "Goethe", "Schiller")
    assert _found(item, "who wrote faust")
    assert _found(item, "Q: Who wrote Faust?\nA:")
    assert _found(item, "### Instruction:\nWho wrote Faust?\n\n### Response:\n")
    assert _found(item, "Answer briefly.\nWho wrote Faust?")
    assert _found(item, "Who wrote Faust?\nA. Goethe\nB. Schiller\nAnswer:")
    assert _found(item, "", "Question: Who wrote Faust?\nAnswer: Goethe")
    assert not _found(item, "Who wrote Faust and when was it printed?")
    assert not _found(item, "", "Question: Who wrote Faust?\nAnswer: Nobody knows")


def test_statements_are_found_with_their_right_answer() -> None:
    item = ChoiceItem("i", "The capital of Peru is", (" Lima", " Quito"), (0,))
    assert _found(item, "", "The capital of Peru is Lima.")
    assert _found(item, "The capital of", "Peru is Lima")
    assert not _found(item, "", "The capital of Peru is Quito.")


def test_signs_tell_short_questions_apart() -> None:
    item = _choice("i", "2 + 2 =", "4", "5")
    assert _found(item, "2  +  2 =")
    assert _found(item, "2+2 =")
    assert not _found(item, "2 - 2 =")
    twins = [_choice("i", "2 + 2 =", "4", "5"), _choice("j", "2 + 2 =", "four", "five")]
    for prompt in ("2 + 2 =", "2+2="):
        assert _search([Example(prompt, "4", 1)], *twins).item_ids == ("i",)
    assert not _found(item, "2 * 2 =")


def test_questions_that_live_by_their_options_need_the_right_answer() -> None:
    item = _choice("i", "Which of the following is true?", "Water is wet", "Fire is cold")
    assert not _found(item, "Which of the following is true?", "Cats bark")
    assert _found(item, "Which of the following is true?", "Water is wet")
    twins = [_choice("i", "Pick one.", "red"), _choice("j", "Pick one.", "blue")]
    assert len(_search([Example("Pick one.", "green", 1)], *twins).rows) == 0
    assert _search([Example("Pick one.", "blue", 1)], *twins).item_ids == ("j",)


@pytest.mark.parametrize(
    "stem",
    [
        "Which one of the following statements is true?",
        "Which of the following statements is not correct?",
        "Which of the following best describes the passage above?",
    ],
)
def test_a_common_question_with_other_options_is_not_the_benchmarks(stem: str) -> None:
    options = "\nA. Cats bark at night\nB. Water flows up\nC. Ice is warm\nD. Stars are near"
    listed = ChoiceItem("i", f"Question: {stem}{options}\nAnswer:", ("A", "B", "C", "D"), (0,))
    told = _choice("i", stem, "Cats bark at night", "Water flows up")
    other = "\nA. Lead is light\nB. Gold is blue\nC. Fish can fly\nD. Snow is black"
    for item in (listed, told):
        assert not _found(item, f"Question: {stem}{other}\nAnswer:", "A")
        assert not _found(item, stem, "Lead is light")
        assert _found(item, stem, "Cats bark at night")
        assert _found(item, f"{stem}{options}\nAnswer:", "A")
    assert _found(listed, f"Read on.\n{stem}{options}", "no idea")


@pytest.mark.parametrize(
    "stem",
    [
        "Welche der folgenden Aussagen ist richtig?",
        "Laquelle des affirmations suivantes est vraie ?",
        "下列说法中正确的是哪一项？",
        "Какое из следующих утверждений верно?",
    ],
)
def test_questions_that_live_by_their_options_are_known_in_other_languages(stem: str) -> None:
    item = _choice("i", stem, "Wasser", "Feuer")
    assert not _found(item, stem, "Luft")
    assert not _found(item, f"{stem}\nA. Luft\nB. Erde", "Erde")
    assert _found(item, stem, "Wasser")


def test_a_phrase_of_a_script_without_spaces_is_no_question_found() -> None:
    item = _choice("i", "中国的首都是哪一个", "北京", "上海")
    assert not _found(item, "请问你知道中国的首都是哪一个城市吗，并说明理由。")
    assert _found(item, "中国的首都是哪一个？")


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Which of the following is a mammal?\nA. a cat\nB. a carp\nAnswer:", "A"),
        ("Which of the following is a mammal?\n(A) a cat\n(B) a carp", "(A)"),
        ("Which of the following is a mammal?\nA. a carp\nB. a cat", "B. a cat"),
        ("Which of the following is a mammal?", "A. a cat"),
        ("Choose.\nWhich of the following is a mammal?", "a cat"),
        ("Choose.\nWhich of the following is a mammal?\nA) a cat\nB) a carp\n", "A)"),
    ],
)
def test_a_right_option_may_be_told_by_its_letter_and_below_an_instruction(prompt: str, answer: str) -> None:
    item = _choice("i", "Which of the following is a mammal?", "a cat", "a carp")
    assert _found(item, prompt, answer)
    assert not _found(item, prompt, "C. a carp")


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Who wrote Faust? A) Goethe B) Schiller", "A"),
        ("Question: Who wrote Faust? (A) Goethe (B) Schiller (C) Heine\nAnswer:", "(A)"),
        ("Read on.\nWho wrote Faust? A. Goethe B. Schiller", "Goethe"),
        ("“Who wrote Faust?”", "Goethe"),
        ("Frage: Who wrote Faust?", "Goethe"),
        ("问题：Who wrote Faust?\n答案：", "Goethe"),
        ("\n".join(["A line of a long text."] * 100) + "\nWho wrote Faust?", "Goethe"),
        ("", "Quiz of the week\nQ: Who wrote Egmont?\nA: Goethe\n\nQ: Who wrote Faust?\nA: Goethe"),
    ],
)
def test_options_of_one_line_other_labels_and_lines_of_long_texts(prompt: str, answer: str) -> None:
    assert _found(_choice("i", "Who wrote Faust?", "Goethe", "Schiller"), prompt, answer)
    assert not _found(_choice("i", "Who wrote Werther?", "Goethe", "Schiller"), prompt, answer)


def test_options_of_one_line_tell_open_questions_apart() -> None:
    item = _choice("i", "Which of the following is a mammal?", "a cat", "a carp")
    assert _found(item, "Which of the following is a mammal? A. a carp B. a cat", "B")
    assert not _found(item, "Which of the following is a mammal? A. a carp B. a cat", "A")
    assert question_stem("Is it vitamin A. or iron?") == "Is it vitamin A. or iron?"


def test_instructions_that_many_items_share_are_ignored() -> None:
    shots = (
        "The following are questions of an exam in astronomy for students of the first year at college. " * 3
    )
    items = [ChoiceItem(f"i{i}", f"{shots}\nHow far is star {i}?", ("near", "far"), (0,)) for i in range(6)]
    assert len(_search([Example(shots, "a", 1)], *items).rows) == 0


def test_one_row_can_hold_several_questions_and_conversations_are_searched() -> None:
    items = [_choice(f"i{i}", f"In which year did the {name} tower fall down again?") for i, name in
             enumerate(("black", "white", "green"))]  # fmt: skip
    both = f"{items[0].prompt} {items[2].prompt}"
    turns = (Message("system", "S"), Message("user", "Who wrote Faust?"), Message("assistant", "Goethe"))
    result = _search([Example(both, "a", 5), Example("S\n\nWho wrote Faust?", "Goethe", 9, turns)],
                     *items, _choice("f", "Who wrote Faust?"))  # fmt: skip
    assert result.item_ids == ("i0", "i2", "f")
    assert result.rows.tolist() == [5, 9] and result.first_items == ("i0", "f")


def test_short_questions_are_found_in_every_turn_of_the_user() -> None:
    talk = [("user", "Who wrote Faust?"), ("assistant", "Goethe"), ("user", "Which of these is blue?"),
            ("assistant", "the sky"), ("user", "Are you sure?"), ("assistant", "Yes")]  # fmt: skip
    turns = tuple(Message(role, text) for role, text in talk)
    row = Example("\n\n".join(text for _, text in talk[:-1]), "Yes", 3, turns)
    asked = _choice("f", "Who wrote Faust?"), _choice("b", "Which of these is blue?", "the sky", "the sun")
    result = _search([row], *asked, _choice("n", "Who wrote Egmont?"))
    assert result.item_ids == ("f", "b") and result.rows.tolist() == [3]
    other = _choice("b", "Which of these is blue?", "the sun", "the sky")
    assert not len(_search([row], other).rows)  # its right answer does not come along


def test_generation_items_and_empty_benchmarks_are_searched_too() -> None:
    item = GenerationItem("g", "The metal of coins long ago was", ("gold", "silver"))
    benchmarks = [Benchmark("b", "exact_match", [item]), Benchmark("none", "accuracy", [])]
    first, none = take_survey(
        [Example("", "The metal of coins long ago was silver.", 3)], benchmarks=benchmarks
    ).contamination
    assert first.rows.tolist() == [3]
    assert np.isnan(none.fraction) and not len(none.rows)


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [
        ("Question: Why?\nAnswer:", "Why?"),
        ("Why?", "Why?"),
        ("**Question:** Why?\n**Answer:**", "Why?"),
        ("Why?\nA. so\nB. no\nAnswer:", "Why?"),
        ("Vitamin A", "Vitamin A"),
    ],
)
def test_the_stem_of_a_prompt_is_its_question(prompt: str, stem: str) -> None:
    assert question_stem(prompt) == stem
    assert question_key(stem) == stem.lower().rstrip("?")


def test_long_runs_of_blanks_cost_no_time() -> None:
    blanks = "\n" * 100_000 + " " * 100_000 + "#" * 100_000 + "\n" * 100_000
    start = time.perf_counter()
    assert not _found(_choice("i", "Who wrote Faust?"), f"{blanks}Who wrote Bambi?{blanks}")
    assert time.perf_counter() - start < 5.0
