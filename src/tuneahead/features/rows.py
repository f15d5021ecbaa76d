"""Rows of a data set as features see them: sampled, and split into words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.examples import Example
from tuneahead.features.featurespec import Value
from tuneahead.words import split_words

SAMPLE_SEED = 17
NO_ROWS = "the data set holds no rows"
NO_PROMPTS = "no row has a prompt"
NO_ANSWERS = "no row has an answer"

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Texts:
    """Prompts and answers of some rows, and their words (lower-case runs of letters and digits)."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    prompt_words: tuple[list[str], ...]
    answer_words: tuple[list[str], ...]

    @property
    def rows(self) -> list[str]:
        """Prompt and answer of each row as one text."""
        return [
            f"{prompt} {answer}".strip() for prompt, answer in zip(self.prompts, self.answers, strict=True)
        ]

    @property
    def row_words(self) -> list[list[str]]:
        """Words of prompt and answer of each row."""
        return [p + a for p, a in zip(self.prompt_words, self.answer_words, strict=True)]


def sample_rows(examples: Sequence[Example], size: int) -> list[Example]:
    """At most ``size`` rows drawn without replacement by a fixed seed, in their own order."""
    if len(examples) <= size:
        return list(examples)
    chosen = np.random.default_rng(SAMPLE_SEED).choice(len(examples), size, replace=False)
    return [examples[i] for i in np.sort(chosen)]


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which no tokenizer takes, as replacement characters."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def encodable_rows(examples: Iterable[Example]) -> tuple[Example, ...]:
    """Rows whose prompt and answer every tokenizer takes (JSON may hold half a surrogate pair)."""
    cleaned = []
    for row in examples:
        turns = row.messages and tuple(
            replace(turn, content=encodable(turn.content)) for turn in row.messages
        )
        clean = replace(row, prompt=encodable(row.prompt), answer=encodable(row.answer), messages=turns)
        cleaned.append(clean)
    return tuple(cleaned)


def texts_of(examples: Iterable[Example]) -> Texts:
    """Split prompts and answers into words, as the searches for copies do."""
    rows = tuple(examples)
    return Texts(
        tuple(row.prompt for row in rows),
        tuple(row.answer for row in rows),
        tuple(split_words(row.prompt) for row in rows),
        tuple(split_words(row.answer) for row in rows),
    )


def value_or(value: float, reason: str) -> Value:
    """The value, or the reason when it is NaN."""
    return reason if math.isnan(value) else value
