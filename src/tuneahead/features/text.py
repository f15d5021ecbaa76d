"""Static features that need nothing but the text: size, words, characters, copies, answers."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tuneahead.features.answers import answer_features, copy_features, prompt_features
from tuneahead.features.catalogue import spec
from tuneahead.features.featurespec import Value
from tuneahead.features.rows import (
    NO_ANSWERS,
    NO_PROMPTS,
    NO_ROWS,
    SAMPLE_SEED,
    Drawn,
    Texts,
    texts_of,
    value_or,
)
from tuneahead.features.sampling import Measured, Sample, group_errors, mean_error, share_error
from tuneahead.features.syntax import parse_depths
from tuneahead.survey import Survey
from tuneahead.words import JOINERS, is_lettered, is_mark

COMPRESSED_BYTES = 1_000_000
SEGMENT_WORDS = 200
PARSED_PROMPTS = 200
UNKNOWN_FREQUENCY = 1e-9


def measure_text(drawn: Drawn, survey: Survey) -> Measured:
    """Every feature of the text alone, by name: a value or the reason for none.

    Copies are counted by the ``survey`` over all rows, the rest is taken from the drawn ones.
    """
    texts = texts_of(drawn.texts)
    depths = parse_depths(_spread(texts.prompts, PARSED_PROMPTS))
    values = {**_row_features(texts, drawn.total), **lexical_features(texts), **depth_features(depths)}
    samples = _samples(texts, values, drawn.total)
    if not isinstance(depths, str) and len(depths) < drawn.total:
        error = mean_error(float(np.std(depths)), len(depths), drawn.total)
        samples["parse_depth_mean"] = Sample(len(depths), drawn.total, error)
        samples["parse_depth_sd"] = Sample(len(depths), drawn.total)
    return Measured({**values, **copy_features(survey)}, samples)


def _row_features(texts: Texts, total: int) -> dict[str, Value]:
    """What is a mean or a share over rows, and so can be estimated from any part of them."""
    return {
        **size_features(total, texts),
        **character_features(texts),
        **word_features(texts),
        **answer_features(texts),
        **prompt_features(texts),
        **variety_features(texts),
    }


def _samples(texts: Texts, values: Mapping[str, Value], total: int) -> dict[str, Sample]:
    rows = len(texts.prompts)
    if rows >= total:
        return {}
    known = {name: spec(name).estimate for name in values}
    means = [name for name, kind in known.items() if kind == "mean" and not name.startswith("parse_depth")]
    errors = group_errors(lambda places: _row_features(texts.chosen(places), total), means, rows, total)
    for name, kind in known.items():
        value = values[name]
        if kind == "share" and not isinstance(value, str):
            errors[name] = share_error(value, rows, total)
    return {
        name: Sample(rows, total, errors.get(name, math.nan))
        for name, kind in known.items()
        if kind != "exact" and not isinstance(values[name], str)
    }


def size_features(total: int, texts: Texts) -> dict[str, Value]:
    """Number of rows, and the length of those looked at."""
    prompts = np.array([len(words) for words in texts.prompt_words], float)
    answers = np.array([len(words) for words in texts.answer_words], float)
    out: dict[str, Value] = {
        "examples": float(total),
        "examples_log10": math.log10(total) if total else NO_ROWS,
    }
    if not total:
        names = (
            "length_mean_words",
            "length_variance_words2",
            "length_cv",
            "prompt_length_mean_words",
            "answer_length_mean_words",
            "answer_length_sd_words",
            "answer_length_p10_words",
            "answer_length_p50_words",
            "answer_length_p90_words",
            "answer_prompt_length_ratio",
            "answer_words_log10",
        )
        return {**out, **dict.fromkeys(names, NO_ROWS)}
    words = prompts + answers
    low, middle, high = (float(q) for q in np.quantile(answers, [0.1, 0.5, 0.9]))
    trained = float(answers.mean()) * total
    return {
        **out,
        "length_mean_words": float(words.mean()),
        "length_variance_words2": float(words.var()),
        "length_cv": float(words.std() / words.mean()) if words.any() else "no row holds a word",
        "prompt_length_mean_words": float(prompts.mean()),
        "answer_length_mean_words": float(answers.mean()),
        "answer_length_sd_words": float(answers.std()),
        "answer_length_p10_words": low,
        "answer_length_p50_words": middle,
        "answer_length_p90_words": high,
        "answer_prompt_length_ratio": float(answers.mean() / prompts.mean()) if prompts.any() else NO_PROMPTS,
        "answer_words_log10": math.log10(trained) if trained > 0 else NO_ANSWERS,
    }


def character_features(texts: Texts) -> dict[str, Value]:
    """Kinds of characters, and how well the text compresses."""
    names = (
        "special_character_fraction",
        "digit_fraction",
        "uppercase_fraction",
        "non_ascii_fraction",
        "compression_ratio",
    )
    rows = texts.rows
    found: Counter[str] = Counter()
    for row in rows:
        found.update(row)
    visible = {sign: times for sign, times in found.items() if not sign.isspace() and sign not in JOINERS}
    if not visible:
        return dict.fromkeys(names, "no row holds a visible character")
    count = sum(visible.values())

    def share(kind: Callable[[str], bool]) -> float:
        return sum(times for sign, times in visible.items() if kind(sign)) / count

    raw = "\n".join(rows)[:COMPRESSED_BYTES].encode("utf-8", "surrogatepass")[:COMPRESSED_BYTES]
    return {
        "special_character_fraction": share(_is_special),
        "digit_fraction": share(str.isdecimal),
        "uppercase_fraction": share(str.isupper),
        "non_ascii_fraction": 1 - share(str.isascii),
        "compression_ratio": len(zlib.compress(raw, 6)) / len(raw),
    }


def _is_special(character: str) -> bool:
    return not character.isalnum() and not is_mark(character)


def type_token_ratio(words: Iterable[Sequence[str]]) -> float:
    """Distinct words / words; NaN without words."""
    counts = Counter(word for row in words for word in row)
    return len(counts) / counts.total() if counts else math.nan


def segmental_type_token_ratio(words: Iterable[Sequence[str]], segment: int = SEGMENT_WORDS) -> float:
    """Mean type-token ratio of consecutive segments; NaN for less text than one.

    Unlike the plain ratio it does not fall as the text grows.
    """
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
    """Variety of words over all texts looked at."""
    return {
        "prompt_type_token_ratio": value_or(type_token_ratio(texts.prompt_words), NO_PROMPTS),
        "answer_type_token_ratio": value_or(type_token_ratio(texts.answer_words), NO_ANSWERS),
        "ngram_repetition_fraction": value_or(ngram_repetition(texts.row_words), "no row has three words"),
    }


def variety_features(texts: Texts) -> dict[str, Value]:
    """Variety of words within short stretches and within answers."""
    looped = [ngram_repetition([words], 2) for words in texts.answer_words if len(words) >= 4]
    short = f"fewer than {SEGMENT_WORDS} words"
    return {
        "prompt_segment_variety": value_or(segmental_type_token_ratio(texts.prompt_words), short),
        "answer_segment_variety": value_or(segmental_type_token_ratio(texts.answer_words), short),
        "answer_loop_fraction": float(np.mean(looped)) if looped else "no answer has four words",
    }


def depth_features(depths: Sequence[int] | str) -> dict[str, Value]:
    """Depth of the prompts' sentences."""
    return {
        "parse_depth_mean": depths if isinstance(depths, str) else float(np.mean(depths)),
        "parse_depth_sd": depths if isinstance(depths, str) else float(np.std(depths)),
    }


def word_features(texts: Texts) -> dict[str, Value]:
    """Distance of the words from everyday English."""
    counts = Counter(word for row in texts.row_words for word in row if is_lettered(word))
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


def _spread(texts: Sequence[str], size: int) -> list[str]:
    """At most ``size`` of the texts with visible characters, drawn by a fixed seed."""
    kept = [text for text in texts if text.strip()]
    if len(kept) <= size:
        return kept
    chosen = np.random.default_rng(SAMPLE_SEED).choice(len(kept), size, replace=False)
    return [kept[i] for i in np.sort(chosen)]
