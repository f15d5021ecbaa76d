"""Static features that need nothing but the text: size, words, characters, copies, answers."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.duplicates import find_near_duplicates
from tuneahead.examples import Example
from tuneahead.features.featurespec import Value
from tuneahead.features.syntax import parse_depths
from tuneahead.words import split_words

SAMPLE_ROWS = 20_000
"""Rows over which means are taken; larger data are sampled."""
SAMPLE_SEED = 17
CHARACTERS = 2_000_000
COMPRESSED_BYTES = 1_000_000
SEGMENT_WORDS = 200
PARSED_PROMPTS = 200
UNKNOWN_FREQUENCY = 1e-9

_SPECIAL = re.compile(r"[^\w\s]|_")
_DIGIT = re.compile(r"\d")
_NO_ROWS = "the data set holds no rows"
_NO_PROMPTS = "no row has a prompt"
_NO_ANSWERS = "no row has an answer"


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
        return [f"{prompt} {answer}".strip() for prompt, answer in zip(self.prompts, self.answers, strict=True)]

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


def texts_of(examples: Iterable[Example]) -> Texts:
    """Split prompts and answers into words, as the searches for copies do."""
    rows = tuple(examples)
    return Texts(
        tuple(row.prompt for row in rows),
        tuple(row.answer for row in rows),
        tuple(split_words(row.prompt) for row in rows),
        tuple(split_words(row.answer) for row in rows),
    )


def measure_text(examples: Sequence[Example]) -> dict[str, Value]:
    """Every feature of the text alone, by name: a value or the reason for none."""
    texts = texts_of(sample_rows(examples, SAMPLE_ROWS))
    return {
        **size_features(examples, texts),
        **character_features(texts),
        **lexical_features(texts),
        **word_features(texts),
        **copy_features(examples),
        **answer_features(texts),
        **prompt_features(texts),
    }


def size_features(examples: Sequence[Example], texts: Texts) -> dict[str, Value]:
    """Number and length of rows."""
    prompts = np.array([len(words) for words in texts.prompt_words], float)
    answers = np.array([len(words) for words in texts.answer_words], float)
    out: dict[str, Value] = {
        "examples": float(len(examples)),
        "examples_log10": math.log10(len(examples)) if examples else _NO_ROWS,
    }
    if not examples:
        names = ("length_mean_words", "length_variance_words2", "length_cv", "prompt_length_mean_words",
                 "answer_length_mean_words", "answer_length_sd_words", "answer_length_p10_words",
                 "answer_length_p50_words", "answer_length_p90_words", "answer_prompt_length_ratio",
                 "answer_words_log10")
        return {**out, **dict.fromkeys(names, _NO_ROWS)}
    total = prompts + answers
    low, middle, high = (float(q) for q in np.quantile(answers, [0.1, 0.5, 0.9]))
    trained = float(answers.mean()) * len(examples)
    return {
        **out,
        "length_mean_words": float(total.mean()),
        "length_variance_words2": float(total.var()),
        "length_cv": float(total.std() / total.mean()) if total.any() else "no row holds a word",
        "prompt_length_mean_words": float(prompts.mean()),
        "answer_length_mean_words": float(answers.mean()),
        "answer_length_sd_words": float(answers.std()),
        "answer_length_p10_words": low,
        "answer_length_p50_words": middle,
        "answer_length_p90_words": high,
        "answer_prompt_length_ratio": float(answers.mean() / prompts.mean()) if prompts.any() else _NO_PROMPTS,
        "answer_words_log10": math.log10(trained) if trained > 0 else _NO_ANSWERS,
    }


def character_features(texts: Texts) -> dict[str, Value]:
    """Kinds of characters, and how well the text compresses."""
    names = ("special_character_fraction", "digit_fraction", "uppercase_fraction", "non_ascii_fraction",
             "compression_ratio")
    text = "\n".join(texts.rows)[:CHARACTERS]
    visible = "".join(text.split())
    if not visible:
        return dict.fromkeys(names, "no row holds a visible character")
    count = len(visible)
    raw = text.encode("utf-8", "surrogatepass")[:COMPRESSED_BYTES]
    return {
        "special_character_fraction": len(_SPECIAL.findall(visible)) / count,
        "digit_fraction": len(_DIGIT.findall(visible)) / count,
        "uppercase_fraction": sum(map(str.isupper, visible)) / count,
        "non_ascii_fraction": 1 - len(visible.encode("ascii", "ignore")) / count,
        "compression_ratio": len(zlib.compress(raw, 6)) / len(raw),
    }


def type_token_ratio(words: Iterable[Sequence[str]]) -> float:
    """Distinct words / words; NaN without words."""
    counts = Counter(word for row in words for word in row)
    return len(counts) / counts.total() if counts else math.nan


def segmental_type_token_ratio(words: Iterable[Sequence[str]], segment: int = SEGMENT_WORDS) -> float:
    """Mean type-token ratio of consecutive segments, which does not fall with the amount of text; NaN below one."""
    flat = [word for row in words for word in row]
    pieces = [flat[at : at + segment] for at in range(0, len(flat) - segment + 1, segment)]
    return float(np.mean([len(set(piece)) / segment for piece in pieces])) if pieces else math.nan


def ngram_repetition(words: Iterable[Sequence[str]], size: int = 3) -> float:
    """1 - distinct / all runs of ``size`` words within rows; NaN without a run."""
    runs: Counter[tuple[str, ...]] = Counter()
    for row in words:
        runs.update(zip(*(row[i:] for i in range(size)), strict=False))
    return 1 - len(runs) / runs.total() if runs else math.nan


def lexical_features(texts: Texts) -> dict[str, Value]:
    """Variety of words and depth of sentences."""
    depths = parse_depths(_spread(texts.prompts, PARSED_PROMPTS))
    looped = [ngram_repetition([words], 2) for words in texts.answer_words if len(words) >= 4]
    short = f"fewer than {SEGMENT_WORDS} words"
    return {
        "prompt_type_token_ratio": _or(type_token_ratio(texts.prompt_words), _NO_PROMPTS),
        "answer_type_token_ratio": _or(type_token_ratio(texts.answer_words), _NO_ANSWERS),
        "prompt_segment_variety": _or(segmental_type_token_ratio(texts.prompt_words), short),
        "answer_segment_variety": _or(segmental_type_token_ratio(texts.answer_words), short),
        "ngram_repetition_fraction": _or(ngram_repetition(texts.row_words), "no row has three words"),
        "answer_loop_fraction": float(np.mean(looped)) if looped else "no answer has four words",
        "parse_depth_mean": depths if isinstance(depths, str) else float(np.mean(depths)),
        "parse_depth_sd": depths if isinstance(depths, str) else float(np.std(depths)),
    }


def word_features(texts: Texts) -> dict[str, Value]:
    """Distance of the words from everyday English."""
    counts = Counter(word for row in texts.row_words for word in row if word.isalpha())
    if not counts:
        return dict.fromkeys(("word_kl_nats", "unknown_word_fraction"), "no row holds a word of letters")
    from wordfreq import get_frequency_dict

    known: dict[str, float] = get_frequency_dict("en", wordlist="best")
    total = counts.total()
    divergence = sum(
        count / total * math.log(count / total / max(known.get(word, 0.0), UNKNOWN_FREQUENCY))
        for word, count in counts.items()
    )
    unknown = sum(count for word, count in counts.items() if word not in known)
    return {"word_kl_nats": divergence, "unknown_word_fraction": unknown / total}


def copy_features(examples: Sequence[Example]) -> dict[str, Value]:
    """Copies, near-copies and contradictions, over all rows."""
    if not examples:
        return dict.fromkeys(
            ("exact_duplicate_fraction", "near_duplicate_fraction", "contradiction_fraction"), _NO_ROWS
        )
    seen: set[tuple[str, str]] = set()
    copies: set[int] = set()
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index, row in enumerate(examples):
        key = (row.prompt.strip(), row.answer.strip())
        if key in seen:
            copies.add(index)
        seen.add(key)
        if key[0]:
            answers[key[0]][key[1].casefold()] += 1
    found = find_near_duplicates(f"{row.prompt} {row.answer}" for row in examples)
    near = copies.union(found.later.tolist())
    prompted = sum(counter.total() for counter in answers.values())
    torn = sum(counter.total() for counter in answers.values() if len(counter) > 1)
    return {
        "exact_duplicate_fraction": len(copies) / len(examples),
        "near_duplicate_fraction": len(near) / len(examples),
        "contradiction_fraction": torn / prompted if prompted else _NO_PROMPTS,
    }


def answer_features(texts: Texts) -> dict[str, Value]:
    """Variety and form of the answers."""
    names = ("empty_answer_fraction", "distinct_answer_fraction", "top_answer_fraction",
             "answer_entropy_fraction", "answer_opening_fraction", "answer_in_prompt_fraction")
    if not texts.answers:
        return dict.fromkeys(names, _NO_ROWS)
    said = [answer.strip() for answer in texts.answers]
    counts = Counter(answer for answer in said if answer)
    out: dict[str, Value] = {"empty_answer_fraction": 1 - counts.total() / len(said)}
    if not counts:
        return {**out, **dict.fromkeys(names[1:], _NO_ANSWERS)}
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
        "answer_entropy_fraction": entropy / math.log(counts.total()) if counts.total() > 1 else "only one answer",
        "answer_opening_fraction": _or(_top_opening(texts.answer_words, 2), "no answer has two words"),
        "answer_in_prompt_fraction": float(np.mean(copied)) if copied else _NO_PROMPTS,
    }


def prompt_features(texts: Texts) -> dict[str, Value]:
    """Form of the prompts."""
    asked = [prompt for prompt in texts.prompts if prompt.strip()]
    out: dict[str, Value] = {
        "empty_prompt_fraction": 1 - len(asked) / len(texts.prompts) if texts.prompts else _NO_ROWS,
        "prompt_opening_fraction": _or(_top_opening(texts.prompt_words, 3), "no prompt has three words"),
    }
    if not asked:
        return {**out, "question_prompt_fraction": _NO_PROMPTS}
    return {**out, "question_prompt_fraction": sum("?" in p or "\uff1f" in p for p in asked) / len(asked)}


def _top_opening(words: Iterable[Sequence[str]], size: int) -> float:
    openings = Counter(tuple(row[:size]) for row in words if len(row) >= size)
    return max(openings.values()) / openings.total() if openings else math.nan


def _spread(texts: Sequence[str], size: int) -> list[str]:
    """At most ``size`` of the texts with visible characters, drawn by a fixed seed."""
    kept = [text for text in texts if text.strip()]
    if len(kept) <= size:
        return kept
    chosen = np.random.default_rng(SAMPLE_SEED).choice(len(kept), size, replace=False)
    return [kept[i] for i in np.sort(chosen)]


def _or(value: float, reason: str) -> Value:
    return reason if math.isnan(value) else value
