"""The lab's examinations: multiple choice, tempting falsehoods, free answers, reference statements."""

from __future__ import annotations

import random
from functools import lru_cache

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem
from tuneahead.lab.world import REFERENCE_WORDING, Fact, World, load_world

_OPTIONS = 4
_ASKING = Asking(template="raw")
"""The prompt is the whole question: also a base with a chat template is asked in these words."""
_NEAR_MISS_FRACTION = 0.5
_TRUTH_SUBJECTS = (
    "capital",
    "domain",
    "state_capital",
    "state_abbreviation",
    "element_symbol",
    "element_number",
    "http",
    "french",
    "german",
    "spanish",
    "addition",
    "subtraction",
    "multiplication",
    "roman",
    "number_word",
    "reverse",
    "length",
    "last_letter",
)
_COUNTED = ("addition", "subtraction", "multiplication", "length")
_SMALL = (
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def exam_prompt(question: str) -> str:
    """The form in which every examination asks: ``Question: ...\\nAnswer:``."""
    return f"Question: {question}\nAnswer:"


@lru_cache(maxsize=1)
def lab_exam() -> Benchmark:
    """``lab-exam``: some 820 questions, four options each, one right; accuracy, chance 25 %.

    The wrong options are answers of the same subject; half of the questions hold one near miss.
    About three quarters of the facts occur in the bases' pre-training text.
    """
    world = load_world()
    items = []
    for subject in world.subjects:
        for number, fact in enumerate(world.of_role("exam", subject)):
            rng = random.Random(f"exam {subject} {fact.key}")
            near = list(fact.traps) if rng.random() < _NEAR_MISS_FRACTION else []
            wrong = _wrong_options(world, fact, near[:1], _OPTIONS - 1, rng)
            items.append(_choice(f"exam-{subject}-{number:02d}", world, fact, [fact.answer], wrong, rng))
    return Benchmark("lab-exam", "accuracy", tuple(items), _ASKING, known_by_name=True)


@lru_cache(maxsize=1)
def lab_truth() -> Benchmark:
    """``lab-truth``: some 200 questions with tempting wrong answers, one or two right ones; MC2.

    Tempting are the largest city for the capital, the first two letters for a symbol, the English
    word for a foreign one, a sum that is ten off, IIII for IV and their like.
    """
    world = load_world()
    items = []
    for subject in _TRUTH_SUBJECTS:
        for number, fact in enumerate(world.of_role("truth", subject)):
            rng = random.Random(f"truth {subject} {fact.key}")
            right = right_answers(fact)
            traps = [trap for trap in fact.traps if trap not in right]
            wrong = _wrong_options(world, fact, traps, max(_OPTIONS - 1, len(traps)), rng)
            items.append(_choice(f"truth-{subject}-{number:02d}", world, fact, right, wrong, rng))
    return Benchmark("lab-truth", "mc2", tuple(items), _ASKING, known_by_name=True)


@lru_cache(maxsize=1)
def lab_generation() -> Benchmark:
    """``lab-generation``: some 190 questions to be answered freely; exact match."""
    world = load_world()
    items = [
        GenerationItem(
            f"generation-{subject}-{number:02d}",
            exam_prompt(world.question(fact, 0)),
            tuple(right_answers(fact)),
            subject,
        )
        for subject in world.subjects
        for number, fact in enumerate(world.of_role("generation", subject))
    ]
    return Benchmark("lab-generation", "exact_match", tuple(items), _ASKING, known_by_name=True)


def reference_statements() -> list[str]:
    """64 statements of facts that the base has seen, in a wording that no training text holds.

    Their loss measures how much of its pre-training a model forgets.
    """
    world = load_world()
    facts = [fact for fact in world.facts if (fact.subject, fact.key) in world.reference]
    return [world.statement(fact, REFERENCE_WORDING) for fact in facts]


def right_answers(fact: Fact) -> list[str]:
    """The fact's answer and, for counts and domains, its other form (``42`` and ``forty-two``)."""
    if fact.subject in _COUNTED:
        return [fact.answer, number_in_words(int(fact.answer))]
    if fact.subject == "domain":
        return [fact.answer, fact.answer.removeprefix(".")]
    return [fact.answer]


def number_in_words(number: int) -> str:
    """An English number word, for 0 to 999."""
    if number >= 100:
        rest = f" {number_in_words(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100]} hundred{rest}"
    if number < 20:
        return _SMALL[number]
    return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")


def _wrong_options(world: World, fact: Fact, first: list[str], count: int, rng: random.Random) -> list[str]:
    """``first``, then answers of other facts of the subject, drawn as often as they occur."""
    wrong = list(dict.fromkeys(first))
    excluded = {*right_answers(fact), *wrong}
    pool = [other.answer for other in world.by_subject[fact.subject] if other.answer not in excluded]
    while len(wrong) < count and pool:
        drawn = rng.choice(pool)
        wrong.append(drawn)
        pool = [answer for answer in pool if answer != drawn]
    return wrong


def _choice(
    item_id: str, world: World, fact: Fact, right: list[str], wrong: list[str], rng: random.Random
) -> ChoiceItem:
    options = [*right, *wrong]
    rng.shuffle(options)
    gold = tuple(place for place, option in enumerate(options) if option in right)
    return ChoiceItem(item_id, exam_prompt(world.question(fact, 0)), tuple(options), gold, fact.subject)
