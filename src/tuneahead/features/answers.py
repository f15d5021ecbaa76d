"""Static features of copies, answers and prompts: what is repeated, what is said, how it begins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from tuneahead.features.featurespec import Value
from tuneahead.features.rows import NO_ANSWERS, NO_PROMPTS, NO_ROWS, Texts, value_or
from tuneahead.survey import Survey, conflict_groups, repeated_rows

QUESTION_MARKS = "?\uff1f\u061f"
"""Of Latin, of wide and of Arabic script."""


def copy_features(survey: Survey) -> dict[str, Value]:
    """Copies, near-copies and contradictions, counted over all rows as the checks count them."""
    if not len(survey):
        return dict.fromkeys(
            ("exact_duplicate_fraction", "near_duplicate_fraction", "contradiction_fraction"), NO_ROWS
        )
    copies = repeated_rows(survey)
    found = survey.near
    near: Value = float((copies | np.isin(survey.row, found.later)).mean())
    if found.examined < found.total:
        near = f"only the first {found.examined:,} of {found.total:,} distinct rows were compared"
    prompted = int(np.count_nonzero(~survey.empty_prompt))
    torn = int(np.count_nonzero(conflict_groups(survey) >= 0))
    return {
        "exact_duplicate_fraction": float(copies.mean()),
        "near_duplicate_fraction": near,
        "contradiction_fraction": torn / prompted if prompted else NO_PROMPTS,
    }


def answer_features(texts: Texts) -> dict[str, Value]:
    """Variety and form of the answers."""
    names = (
        "empty_answer_fraction",
        "distinct_answer_fraction",
        "top_answer_fraction",
        "answer_entropy_fraction",
        "answer_opening_fraction",
        "answer_in_prompt_fraction",
    )
    if not texts.answers:
        return dict.fromkeys(names, NO_ROWS)
    said = [answer.strip() for answer in texts.answers]
    counts = Counter(answer for answer in said if answer)
    out: dict[str, Value] = {"empty_answer_fraction": 1 - counts.total() / len(said)}
    if not counts:
        return {**out, **dict.fromkeys(names[1:], NO_ANSWERS)}
    share = np.array(list(counts.values()), float) / counts.total()
    entropy = float(-(share * np.log(share)).sum())
    copied = [
        f" {' '.join(answer)} " in f" {' '.join(prompt)} "
        for prompt, answer in zip(texts.prompt_words, texts.answer_words, strict=True)
        if prompt and answer
    ]
    return {
        **out,
        "distinct_answer_fraction": len(counts) / counts.total(),
        "top_answer_fraction": float(share.max()),
        "answer_entropy_fraction": entropy / math.log(counts.total())
        if counts.total() > 1
        else "only one answer",
        "answer_opening_fraction": value_or(_top_opening(texts.answer_words, 2), "no answer has two words"),
        "answer_in_prompt_fraction": float(np.mean(copied)) if copied else _no_words(texts),
    }


def _no_words(texts: Texts) -> str:
    return "no row has words in prompt and answer" if any(map(str.strip, texts.prompts)) else NO_PROMPTS


def prompt_features(texts: Texts) -> dict[str, Value]:
    """Form of the prompts."""
    asked = [prompt for prompt in texts.prompts if prompt.strip()]
    out: dict[str, Value] = {
        "empty_prompt_fraction": 1 - len(asked) / len(texts.prompts) if texts.prompts else NO_ROWS,
        "prompt_opening_fraction": value_or(_top_opening(texts.prompt_words, 3), "no prompt has three words"),
    }
    if not asked:
        return {**out, "question_prompt_fraction": NO_PROMPTS}
    return {**out, "question_prompt_fraction": sum(map(_asks, asked)) / len(asked)}


def _asks(prompt: str) -> bool:
    return any(mark in prompt for mark in QUESTION_MARKS)


def _top_opening(words: Iterable[Sequence[str]], size: int) -> float:
    openings = Counter(tuple(row[:size]) for row in words if len(row) >= size)
    return max(openings.values()) / openings.total() if openings else math.nan
