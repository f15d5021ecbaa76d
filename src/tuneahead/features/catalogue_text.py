"""Catalogue rows of the text: size, words, characters, copies, answers."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
# Text features do not know the base: they compare between bases as they are.
_row = partial(FeatureSpec, group="static", source="ours", scale_free=True)
_GLOBAL = "arXiv 2606.17660, global statistics"
_LEXICAL = "arXiv 2606.17660, lexical diversity"

_MORE = "collect more rows"
_CLEAN = "look at a sample of the rows for markup, broken encoding or noise, and clean it out"
_VARY = "vary the wording, or add rows from other sources"
_COPIES = "remove copies: they weigh a few rows more than all others"
_NEAR_COPIES = (
    "remove near-copies whose answers are alike too; rows of one passage with answers of their own may stay"
)
_CLEAN_ENGLISH = (
    "if the data are meant to be English, look at a sample of the rows for markup, broken encoding or noise"
)
_ANSWERS = "look at the most frequent answers: one answer for everything teaches that answer"
_SHORT = "shorten answers to what the benchmark asks for"

_SIZE = (
    _row(
        name="examples", unit="rows", low=0, high=_INF, direction=1, source=_GLOBAL, paper=True,
        formula="number of rows", sentence="the data set holds {value}", remedy=_MORE,
    ),
    _row(
        name="length_mean_words", estimate="mean",
        unit="words", low=0, high=_INF, direction=0, source=_GLOBAL, paper=True,
        formula="mean words of prompt and answer; words are lower-case runs of letters, digits and "
        "underscores, the same whatever the base", sentence="a row has {value} on average", remedy=_SHORT,
        remedy_side=1,
    ),
    _row(
        name="length_variance_words2", estimate="mean",
        unit="words²", low=0, high=_INF, direction=0, source=_GLOBAL,
        paper=True,
        formula="variance over rows of the words of prompt and answer",
        sentence="the rows' length has a variance of {value}",
    ),
    _row(
        name="examples_log10", unit="log10", low=0, high=_INF, direction=1,
        formula="log10 of the number of rows", sentence="the data set holds {value} rows", remedy=_MORE,
    ),
    _row(
        name="length_cv", estimate="mean", unit="ratio", low=0, high=_INF, direction=0,
        formula="standard deviation / mean of the rows' words",
        sentence="the rows' length varies by {value} of its mean",
    ),
    _row(
        name="prompt_length_mean_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="mean words of a prompt", sentence="a prompt has {value} on average",
    ),
    _row(
        name="answer_length_mean_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="mean words of an answer", sentence="an answer has {value} on average", remedy=_SHORT,
        remedy_side=1,
    ),
    _row(
        name="answer_length_sd_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="standard deviation of the answers' words", sentence="the answers' length varies by {value}",
    ),
    _row(
        name="answer_length_p10_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="10 % quantile of the answers' words",
        sentence="a tenth of the answers are no longer than {value}",
        remedy="check that answers are not cut short", remedy_side=-1,
    ),
    _row(
        name="answer_length_p50_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="median of the answers' words", sentence="half of the answers are no longer than {value}",
        remedy=_SHORT, remedy_side=1,
    ),
    _row(
        name="answer_length_p90_words", estimate="mean", unit="words", low=0, high=_INF, direction=0,
        formula="90 % quantile of the answers' words",
        sentence="a tenth of the answers are longer than {value}",
        remedy=_SHORT, remedy_side=1,
    ),
    _row(
        name="answer_prompt_length_ratio", estimate="mean", unit="ratio", low=0, high=_INF, direction=0,
        formula="mean words of an answer / mean words of a prompt",
        sentence="answers are {value} times as long as prompts", remedy=_SHORT, remedy_side=1,
    ),
    _row(
        name="answer_words_log10", estimate="mean", unit="log10", low=-_INF, high=_INF, direction=1,
        formula="log10 of rows x mean words of an answer (of a conversation the last one)",
        sentence="all answers (of a conversation the last) together have {value} words", remedy=_MORE,
    ),
)

_CHARACTERS = (
    _row(
        name="special_character_fraction", estimate="mean",
        unit="fraction", low=0, high=1, direction=-1, source=_GLOBAL,
        paper=True,
        formula="visible characters that are neither letters, their marks nor digits / visible characters "
        "(joiners are not visible)",
        sentence="{value} of the characters are special", remedy=_CLEAN,
    ),
    _row(
        name="digit_fraction", estimate="mean", unit="fraction", low=0, high=1, direction=0,
        formula="digits / visible characters", sentence="{value} of the characters are digits",
    ),
    _row(
        name="uppercase_fraction", estimate="mean", unit="fraction", low=0, high=1, direction=0,
        formula="upper-case letters / visible characters",
        sentence="{value} of the characters are capitals", remedy=_CLEAN, remedy_side=1,
    ),
    _row(
        name="non_ascii_fraction", estimate="mean", unit="fraction", low=0, high=1, direction=0,
        formula="characters outside ASCII / visible characters",
        sentence="{value} of the characters lie outside ASCII",
        remedy="look for broken encoding (signs such as \u00c3\u00a9 for \u00e9)", remedy_side=1,
    ),
    _row(
        name="compression_ratio", estimate="sample", unit="ratio", low=0, high=_INF, direction=0,
        formula="bytes after zlib (level 6) / bytes of the first 1 MB of text",
        sentence="the text can be packed to {value} of its size", remedy=_VARY, remedy_side=-1,
    ),
)

_WORDS = (
    _row(
        name="prompt_type_token_ratio", estimate="sample",
        unit="fraction", low=0, high=1, direction=1, source=_LEXICAL,
        paper=True,
        formula="distinct words / words over all prompts",
        sentence="{value} of the prompts' words are new ones", remedy=_VARY,
    ),
    _row(
        name="answer_type_token_ratio", estimate="sample",
        unit="fraction", low=0, high=1, direction=1, source=_LEXICAL,
        paper=True,
        formula="distinct words / words over all answers",
        sentence="{value} of the answers' words are new ones", remedy=_VARY,
    ),
    _row(
        name="ngram_repetition_fraction", estimate="sample",
        unit="fraction", low=0, high=1, direction=-1, source=_LEXICAL,
        paper=True,
        formula="1 - distinct / all runs of three words within rows",
        sentence="{value} of the word triples are repeats", remedy=_VARY,
    ),
    _row(
        name="parse_depth_mean", estimate="mean",
        unit="links", low=0, high=_INF, direction=0, source=_LEXICAL, paper=True,
        formula="mean over up to 200 sampled prompts (1,000 characters each) of the links between the "
        "deepest word "
        "and the root of its sentence in the dependency parse (spaCy en_core_web_sm)",
        sentence="prompts are {value} deep in their grammar, read as English",
        remedy="if the prompts are English, ask in simpler sentences",
        remedy_side=1,
    ),
    _row(
        name="parse_depth_sd", estimate="sample", unit="links", low=0, high=_INF, direction=0,
        formula="standard deviation of those depths",
        sentence="the prompts' grammar varies by {value} in depth",
    ),
    _row(
        name="prompt_segment_variety", estimate="mean", unit="fraction", low=0, high=1, direction=1,
        formula="mean of distinct words / words over consecutive segments of 200 words of the prompts",
        sentence="within 200 words of prompts {value} are different ones", remedy=_VARY,
    ),
    _row(
        name="answer_segment_variety", estimate="mean", unit="fraction", low=0, high=1, direction=1,
        formula="mean of distinct words / words over consecutive segments of 200 words of the answers",
        sentence="within 200 words of answers {value} are different ones", remedy=_VARY,
    ),
    _row(
        name="answer_loop_fraction", estimate="mean", unit="fraction", low=0, high=1, direction=-1,
        formula="mean over answers of four words or more of 1 - distinct / all word pairs",
        sentence="{value} of the word pairs within an answer repeat",
        remedy="remove answers that run in circles",
    ),
    _row(
        name="word_kl_nats", estimate="sample", unit="nats", low=-_INF, high=_INF, direction=-1, paper=True,
        source="arXiv 2606.17660, model-based complexity; reference: wordfreq's English list",
        formula="sum over words of letters of p ln(p / q), p their share in the data, q their share in "
        "English, at "
        "least 1e-9", sentence="the words lie {value} from everyday English",
        remedy=_CLEAN_ENGLISH,
    ),
    _row(
        name="unknown_word_fraction", estimate="mean", unit="fraction", low=0, high=1, direction=-1,
        formula="words of letters that wordfreq's English list (321,180 words) lacks / words of letters",
        sentence="{value} of the words are unknown to English", remedy=_CLEAN_ENGLISH,
    ),
)

_COPIED = (
    _row(
        name="near_duplicate_fraction", unit="fraction", low=0, high=1, direction=-1, paper=True,
        source="arXiv 2606.17660, semantic diversity (MinHash)",
        formula="share of rows equal to an earlier one or sharing 80 % of its word triples (Jaccard; "
        "the system prompt of a conversation aside; MinHash bands, then compared exactly), whether or not "
        "their answers differ; absent where only the first 1,000,000 distinct rows or 250,000,000 triples "
        "were compared",
        sentence="{value} of the rows share most of their wording with an earlier row", remedy=_NEAR_COPIES,
    ),
    _row(
        name="exact_duplicate_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of rows whose prompt and answer (spaces collapsed) equal those of an earlier row, "
        "empty answers included (the finding leaves those out)",
        sentence="{value} of the rows, empty answers included, are exact copies", remedy=_COPIES,
    ),
    _row(
        name="contradiction_fraction", unit="fraction", low=0, high=1, direction=-1,
        formula="share of the rows with a prompt whose prompt occurs with another answer as well (case and "
        "closing punctuation aside, empty answers left out)",
        sentence="{value} of the rows share their prompt with another answer",
        remedy="keep one answer per prompt, the right one",
    ),
)

_ANSWERED = (
    _row(
        name="empty_answer_fraction", estimate="share", unit="fraction", low=0, high=1, direction=-1,
        formula="share of rows whose answer holds no visible character",
        sentence="{value} of the answers are empty", remedy="fill or drop the empty answers",
    ),
    _row(
        name="distinct_answer_fraction", estimate="sample", unit="fraction", low=0, high=1, direction=0,
        formula="distinct answers / answers that are not empty",
        sentence="{value} of the answers are different ones", remedy=_ANSWERS, remedy_side=-1,
    ),
    _row(
        name="top_answer_fraction", estimate="share", unit="fraction", low=0, high=1, direction=-1,
        formula="share of the most frequent answer among answers that are not empty",
        sentence="one answer makes up {value}", remedy=_ANSWERS,
    ),
    _row(
        name="answer_entropy_fraction", estimate="sample", unit="fraction", low=0, high=1, direction=0,
        formula="entropy of the answers / ln(answers)",
        sentence="answers have {value} of the variety they could have", remedy=_ANSWERS, remedy_side=-1,
    ),
    _row(
        name="answer_opening_fraction", estimate="share", unit="fraction", low=0, high=1, direction=-1,
        formula="share of the most common first two words among answers of two words or more",
        sentence="of the answers of two words or more {value} begin with the same two",
        remedy="drop set phrases at the beginning of answers",
    ),
    _row(
        name="answer_in_prompt_fraction", estimate="share", unit="fraction", low=0, high=1, direction=-1,
        formula="share of rows whose answer's words stand in the prompt, in a row",
        sentence="{value} of the answers stand in their prompt already",
        remedy="check that prompts do not give the answer away",
    ),
    _row(
        name="empty_prompt_fraction", estimate="share", unit="fraction", low=0, high=1, direction=0,
        formula="share of rows whose prompt holds no visible character (plain text)",
        sentence="{value} of the rows have no prompt",
        remedy="give rows a prompt when the benchmark asks questions", remedy_side=1,
    ),
    _row(
        name="prompt_opening_fraction", estimate="share", unit="fraction", low=0, high=1, direction=0,
        formula="share of the most common first three words among prompts of three words or more",
        sentence="of the prompts of three words or more {value} begin with the same three", remedy=_VARY,
        remedy_side=1,
    ),
    _row(
        name="question_prompt_fraction", estimate="share", unit="fraction", low=0, high=1, direction=0,
        formula="share of prompts that hold a question mark",
        sentence="{value} of the prompts ask a question",
    ),
)

TEXT_SECTIONS: dict[str, tuple[FeatureSpec, ...]] = {
    "Size": _SIZE,
    "Characters": _CHARACTERS,
    "Words": _WORDS,
    "Copies and contradictions": _COPIED,
    "Prompts and answers": _ANSWERED,
}
"""The rows by what they are about, for a reader."""

TEXT: tuple[FeatureSpec, ...] = tuple(row for rows in TEXT_SECTIONS.values() for row in rows)
