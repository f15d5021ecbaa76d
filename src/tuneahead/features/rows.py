"""Rows of a data set as features see them: sampled, and split into words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.errors import DataError
from tuneahead.examples import Example
from tuneahead.features.featurespec import Value
from tuneahead.words import split_words

TEXT_ROWS = 20_000
"""Rows whose words and characters are looked at; larger data are sampled."""
TEXT_CHARACTERS = 50_000_000
"""Of rows with more characters together fewer are looked at: in words a text takes ten times its size."""
VECTOR_ROWS = 2_000
"""Rows that are turned into sentence vectors."""
VECTOR_CHARACTERS = 200_000_000
"""Of rows with more characters together fewer are turned into vectors: they are held as they are."""
ANSWER_ROWS = 128
"""Rows whose answers the base reads."""
SAMPLE_SEED = 17
ANSWER_SEED = 29
NO_ROWS = "the data set holds no rows"
NO_PROMPTS = "no row has a prompt"
NO_ANSWERS = "no row has an answer"

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Texts:
    """Prompts and answers of some rows, and their words: lower-case runs of letters, digits, underscores."""

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

    def chosen(self, places: Iterable[int]) -> Texts:
        """Only the rows at these places."""
        columns = (self.prompts, self.answers, self.prompt_words, self.answer_words)
        at = [int(place) for place in places]
        return Texts(*(tuple(column[i] for i in at) for column in columns))  # type: ignore[arg-type]

    @property
    def row_words(self) -> list[list[str]]:
        """Words of prompt and answer of each row."""
        return [p + a for p, a in zip(self.prompt_words, self.answer_words, strict=True)]


@dataclass(frozen=True)
class Drawn:
    """The rows of a data set of ``total`` that features are measured on: all, or random samples.

    ``texts`` and ``vectors`` keep the order of the rows, ``answers`` that of the draw.
    """

    total: int
    texts: tuple[Example, ...]
    vectors: tuple[Example, ...]
    answers: tuple[Example, ...]


def draw(examples: Iterable[Example], total: int, characters: Sequence[int] | None = None) -> Drawn:
    """Draw the rows from a list or a stream of ``total`` examples: the same ones either way.

    With the ``characters`` of prompt and answer of every row no more rows of a stream are held than
    are drawn. Raises :class:`DataError` when a stream gives fewer.
    """
    texts, vectors = _places(total, TEXT_ROWS), _places(total, VECTOR_ROWS)
    if characters is not None:
        texts = _few_enough(texts, characters, TEXT_CHARACTERS)
        vectors = _few_enough(vectors, characters, VECTOR_CHARACTERS)
    answers = np.random.default_rng(ANSWER_SEED).permutation(total)[:ANSWER_ROWS].tolist()
    wanted = {*texts, *vectors, *answers}
    kept = {i: example for i, example in enumerate(examples) if i in wanted}
    if len(kept) < len(wanted):
        raise DataError(
            f"gave {total:,} rows at first and fewer the second time",
            remedy="leave the file as it is meanwhile",
        )
    if characters is None:
        lengths = {i: len(example.prompt) + len(example.answer) for i, example in kept.items()}
        texts = _few_enough(texts, lengths, TEXT_CHARACTERS)
        vectors = _few_enough(vectors, lengths, VECTOR_CHARACTERS)
    wanted = {*texts, *vectors, *answers}
    kept = {i: kept[i] for i in kept if i in wanted}
    clean = dict(zip(kept, encodable_rows(kept.values()), strict=True))
    chosen = (tuple(clean[i] for i in places) for places in (texts, vectors, answers))
    return Drawn(total, *chosen)


def _places(total: int, size: int) -> list[int]:
    if total <= size:
        return list(range(total))
    chosen: list[int] = np.sort(
        np.random.default_rng(SAMPLE_SEED).choice(total, size, replace=False)
    ).tolist()
    return chosen


def _few_enough(places: list[int], characters: Mapping[int, int] | Sequence[int], most: int) -> list[int]:
    """These places, or as many drawn from them as hold ``most`` characters on average, 128 at least."""
    count = sum(characters[i] for i in places)
    if count <= most:
        return places
    size = max(ANSWER_ROWS, len(places) * most // count)
    return [places[i] for i in _places(len(places), size)]


def sample_rows(examples: Sequence[Example], size: int) -> list[Example]:
    """At most ``size`` rows drawn without replacement by a fixed seed, in their own order."""
    return [examples[i] for i in _places(len(examples), size)]


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
