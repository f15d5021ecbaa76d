"""Static features from sentence vectors, and the likeness of the data to a benchmark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark, ChoiceItem, GenerationItem
from tuneahead.examples import Example
from tuneahead.features.catalogue import spec
from tuneahead.features.featurespec import Value
from tuneahead.features.rows import Drawn, Texts, encodable, texts_of
from tuneahead.features.sampling import Measured, Places, Sample, group_errors, share_error

if TYPE_CHECKING:
    from wordllama.inference import WordLlamaInference

Vectors = NDArray[np.float32]

EMBEDDED_CHARACTERS = 2_000
"""Of a longer text the beginning is turned into a sentence vector."""
SAMPLE_ITEMS = 1_000
SAMPLE_SEED = 23
NEIGHBOURS = 20
OUTLIER_FACTOR = 1.5
ISOLATED_COSINE = 0.5
COVERED_COSINE = 0.85
NO_BENCHMARK = "no benchmark was given"
_DISPERSION = (
    "outlier_fraction",
    "isolated_fraction",
    "embedding_spread",
    "embedding_dimensions",
    "nearest_row_similarity",
)
_PAIRS = ("prompt_answer_similarity", "prompt_answer_similarity_gap")
_LIKENESS = (
    "benchmark_similarity",
    "benchmark_nearest_similarity",
    "benchmark_coverage_fraction",
    "benchmark_relevance",
)
_FORM = (
    "benchmark_form_fraction",
    "answer_is_option_fraction",
    "option_coverage_fraction",
    "option_length_mismatch",
)


@dataclass(frozen=True)
class PairVectors:
    """Unit vectors of the prompts and answers of some rows, each ``(rows, 256)``."""

    prompts: Vectors
    answers: Vectors


def embed_pairs(rows: Sequence[Example]) -> PairVectors:
    """The vectors of what rows ask and answer."""
    return PairVectors(embed([_asked(row) for row in rows]), embed([row.answer for row in rows]))


def measure_semantics(
    drawn: Drawn, benchmarks: Sequence[Benchmark] = (), pairs: PairVectors | None = None
) -> Measured:
    """Every feature of sentence vectors and of the benchmarks, by name: a value or the reason for none.

    ``pairs`` are those of ``drawn.vectors`` where they are known already.
    """
    texts = texts_of(drawn.vectors)
    asked_for = [_asked(row) for row in drawn.vectors]
    whole = [f"{ask} {row.answer}".strip() for ask, row in zip(asked_for, drawn.vectors, strict=True)]
    pairs = pairs or embed_pairs(drawn.vectors)
    prompts, answers = pairs.prompts, pairs.answers
    items = [item for benchmark in benchmarks for item in benchmark.items]
    asked = embed([encodable(item.question or item.prompt) for item in items])
    form: dict[str, Value] = dict.fromkeys(_FORM, NO_BENCHMARK)
    if items:
        form = form_features(texts, items)

    def row_features(at: Places | slice) -> dict[str, Value]:
        likeness: dict[str, Value] = dict.fromkeys(_LIKENESS, NO_BENCHMARK)
        if items:
            likeness = likeness_features(prompts[at], asked)
        return {**pair_features(prompts[at], answers[at]), **likeness}

    values = {**dispersion_features(embed(whole)), **row_features(slice(None)), **form}
    return Measured(values, _samples(values, row_features, len(drawn.vectors), drawn.total))


def _asked(row: Example) -> str:
    """The prompt, or of a longer conversation the user's last turn: what comes before is often a fixed
    system prompt, which would make all rows look alike."""
    if len(row.prompt) <= EMBEDDED_CHARACTERS:
        return row.prompt
    turns = (turn.content for turn in reversed(row.messages or ()) if turn.role == "user")
    return next((text for text in turns if text.strip()), row.prompt)


def _samples(
    values: Mapping[str, Value], row_features: Callable[[Places], dict[str, Value]], rows: int, total: int
) -> dict[str, Sample]:
    if rows >= total:
        return {}
    known = {name: value for name, value in values.items() if not isinstance(value, str)}
    means = [name for name in (*_PAIRS, *_LIKENESS) if name in known and spec(name).estimate == "mean"]
    errors = group_errors(row_features, means, rows, total)
    errors |= {
        name: share_error(value, rows, total)
        for name, value in known.items()
        if spec(name).estimate == "share"
    }
    return {name: Sample(rows, total, errors.get(name, math.nan)) for name in known}


def embed(texts: Sequence[str]) -> Vectors:
    """Unit vectors of the texts, ``(texts, 256)``; rows of NaN for texts without a known token."""
    if not texts:
        return np.zeros((0, 256), np.float32)
    # Long texts add time, not meaning: their beginning says what they are about.
    cut = [text[:EMBEDDED_CHARACTERS] for text in texts]
    vectors: Vectors = np.asarray(_encoder().embed(cut, norm=False), np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 0, vectors / np.maximum(length, 1e-12), np.nan).astype(np.float32)


@lru_cache(maxsize=1)
def _encoder() -> WordLlamaInference:
    from pathlib import Path

    import wordllama

    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def dispersion_features(vectors: Vectors) -> dict[str, Value]:
    """How the rows lie: outliers, spread, dimensions, nearest neighbours. ``vectors`` is (rows, d).

    Copies are taken out first: they would make a place look crowded.
    """
    vectors = np.unique(vectors[np.isfinite(vectors).all(axis=1)], axis=0)
    rows = len(vectors)
    if rows < 3:
        return dict.fromkeys(_DISPERSION, f"needs 3 different rows with known words, the data have {rows}")
    centre = vectors.mean(axis=0)
    power = np.linalg.eigvalsh(np.cov((vectors - centre).T.astype(float), bias=True)).clip(0)
    distance = 1 - np.clip(vectors @ vectors.T, -1, 1)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.min(axis=1)
    return {
        "outlier_fraction": float(np.mean(outlier_factors(distance) > OUTLIER_FACTOR)),
        "isolated_fraction": float(np.mean(nearest > 1 - ISOLATED_COSINE)),
        "embedding_spread": float(np.clip(1 - centre @ centre, 0, 1)),
        "embedding_dimensions": float(power.sum() ** 2 / (power**2).sum())
        if power.sum() > 1e-9
        else "all rows have the same vector",
        "nearest_row_similarity": float(1 - nearest.mean()),
    }


def outlier_factors(distance: NDArray[np.floating]) -> NDArray[np.float64]:
    """Local outlier factor of each row from ``distance``, (rows, rows) with infinity on the diagonal.

    About 1 inside a cluster of any density, larger for rows that lie apart from the rows they
    are nearest to. Source: Breunig et al. 2000, with 20 neighbours.
    """
    k = min(NEIGHBOURS, len(distance) - 1)
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    to_near = np.take_along_axis(distance, near, axis=1).astype(float)
    reach = np.maximum(to_near, to_near.max(axis=1)[near])
    density = 1 / np.maximum(reach.mean(axis=1), 1e-6)
    factors: NDArray[np.float64] = density[near].mean(axis=1) / density
    return factors


def pair_features(prompts: Vectors, answers: Vectors) -> dict[str, Value]:
    """Likeness of prompts and answers, and how much of it is owed to the pairing."""
    known = np.isfinite(prompts).all(axis=1) & np.isfinite(answers).all(axis=1)
    prompts, answers = prompts[known], answers[known]
    if not len(prompts):
        return dict.fromkeys(_PAIRS, "no row has known words in prompt and answer")
    own = float((prompts * answers).sum(axis=1).mean())
    if len(prompts) < 2:
        return {_PAIRS[0]: own, _PAIRS[1]: "a single row can't be compared with others"}
    # The mean over all pairs, without those of a row with itself.
    count = len(prompts)
    everyone = (float(prompts.sum(axis=0) @ answers.sum(axis=0)) - own * count) / (count * (count - 1))
    return {_PAIRS[0]: own, _PAIRS[1]: own - everyone}


def likeness_features(prompts: Vectors, items: Vectors) -> dict[str, Value]:
    """How near the prompts are to the benchmark's items: (rows, d) and (items, d)."""
    items = _spread(items[np.isfinite(items).all(axis=1)])
    prompts = prompts[np.isfinite(prompts).all(axis=1)]
    if not len(items) or not len(prompts):
        return dict.fromkeys(_LIKENESS, "no prompt has a known word")
    between = np.clip(items @ prompts.T, -1, 1)  # (items, rows)
    means = items.mean(axis=0), prompts.mean(axis=0)
    lengths = float(np.linalg.norm(means[0]) * np.linalg.norm(means[1]))
    nearest = between.max(axis=1)
    return {
        "benchmark_similarity": float(np.clip(means[0] @ means[1] / max(lengths, 1e-12), -1, 1)),
        "benchmark_nearest_similarity": float(nearest.mean()),
        "benchmark_coverage_fraction": float(np.mean(nearest >= COVERED_COSINE)),
        "benchmark_relevance": float(between.max(axis=0).mean()),
    }


def form_features(texts: Texts, items: Sequence[ChoiceItem | GenerationItem]) -> dict[str, Value]:
    """Whether prompts and answers look like the benchmark's: first word, last sign, options, lengths."""
    wanted = {form for item in items if (form := _form_of(item.question or item.prompt))}
    forms = [form for prompt in texts.prompts if (form := _form_of(prompt))]
    options = texts_of(
        Example("", text, 0)
        for item in items
        for text in (item.options if isinstance(item, ChoiceItem) else item.answers)
    )
    known = {tuple(words) for words in options.answer_words if words}
    said = Counter(tuple(words) for words in texts.answer_words if words)
    answer_words = float(np.mean([len(words) for words in texts.answer_words])) if texts.answer_words else 0.0
    option_words = (
        float(np.mean([len(words) for words in options.answer_words])) if options.answer_words else 0.0
    )
    out: dict[str, Value] = {
        "benchmark_form_fraction": float(np.mean([form in wanted for form in forms]))
        if forms
        else "no row has a prompt",
        "option_length_mismatch": abs(math.log(answer_words / option_words))
        if answer_words > 0 and option_words > 0
        else "answers or options hold no word",
    }
    if not said or not known:
        return {**out, **dict.fromkeys(_FORM[1:3], "answers or options hold no word")}
    matched = sum(count for answer, count in said.items() if answer in known)
    return {
        **out,
        "answer_is_option_fraction": matched / said.total(),
        "option_coverage_fraction": len(known & set(said)) / len(known),
    }


def _form_of(prompt: str) -> tuple[str, str] | None:
    """First word and last visible sign: what a template leaves the same."""
    words = prompt.split(maxsplit=1)
    return (words[0].casefold(), prompt.rstrip()[-1]) if words else None


def _spread(vectors: Vectors) -> Vectors:
    if len(vectors) <= SAMPLE_ITEMS:
        return vectors
    return vectors[np.random.default_rng(SAMPLE_SEED).choice(len(vectors), SAMPLE_ITEMS, replace=False)]
