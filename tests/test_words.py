"""Words: the same ones whatever the script, its marks and its joiners."""

from __future__ import annotations

import time

import pytest

from tuneahead.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Isn't it 42 o_k?", ["isn", "t", "it", "42", "o_k"]),
        ("Über l'été", ["über", "l", "été"]),
        ("今天 好。", ["今", "天", "好"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("किताब पढ़ना", ["किताब", "पढ़ना"]),
        ("தமிழ் మంచి", ["தமிழ்", "మంచి"]),
        ("مُحَمَّدٌ رَسُول", ["مُحَمَّدٌ", "رَسُول"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("ශ්\u200dරී ලංකා", ["ශ්රී", "ලංකා"]),
        ("\u2764\ufe0f 1\ufe0f\u20e3 葛\U000e0100城", ["1", "葛", "城"]),
    ],
)
def test_marks_stay_with_their_letters_and_signs_part_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_texts_beyond_ascii_cost_about_as_little_as_others() -> None:
    split_words("ü")
    began = time.process_time()
    for number in range(100):
        split_words(f"Größe {number}")
    assert time.process_time() - began < 1.0
