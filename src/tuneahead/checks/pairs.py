"""Check of prompts with their answers: whether they belong together, by the features of their meaning."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuneahead.blocks import LANGUAGES
from tuneahead.checks.check import Context, found
from tuneahead.counts import counted
from tuneahead.features.catalogue import spec
from tuneahead.verdict import Finding

_GAP = "prompt_answer_similarity_gap"
_LEAST_GAP = 0.02
"""The 12 of 19 public data sets that are judged have 0.059 or more; dealt at random, answers have about 0."""
_ROWS = 100
_ANSWER_WORDS = 4
_DISTINCT_FRACTION = 0.5
_OPENING_FRACTION = 0.5
_READ_CHARACTERS = 2_000
_READ_SCRIPTS = (*(name for name in LANGUAGES if not name.endswith(" script")), "CJK script")
"""What the sentence vectors know words of."""


def mismatched_answers(context: Context) -> Iterator[Finding]:
    """Answers that are no nearer to their own prompt than to those of other rows, or stand one row off."""
    measured = context.static
    gap = measured.get(_GAP, np.nan)
    if gap < _LEAST_GAP and _is_telling(context):
        yield found(
            "mismatched-answers",
            "warn",
            "prompts have no more in common with their own answers than with those of other rows "
            f"({gap:+.3f} in similarity)",
            spec(_GAP).remedy,
        )
    elif context.moved is not None:
        rows = np.sort(context.moved.rows)
        where, way = ("after", "up") if context.moved.after else ("before", "down")
        yield found(
            "mismatched-answers",
            "warn",
            f"from row {rows[0]:,} to {rows[-1]:,} prompts are nearer to the answers of the rows {where} "
            f"them than to their own: {counted(len(rows), 'row')} of those looked at",
            f"move these answers {way} by one row if they belong there: one cell left out or put in moves "
            "all that follow",
            rows=rows,
        )


def _is_telling(context: Context) -> bool:
    """Whether sentence vectors could show that answers belong to their prompts.

    They can't of labels and numbers, of one prompt for all, and of prompts that are mostly an instruction.
    """
    survey, measured = context.survey, context.static
    asked = ~survey.empty_prompt & ~survey.empty_answer
    rows = int(np.count_nonzero(asked))
    if rows < _ROWS:
        return False
    read = np.isin(survey.language[asked], [LANGUAGES.index(name) for name in _READ_SCRIPTS])
    return bool(
        len(np.unique(survey.prompt[asked])) >= _DISTINCT_FRACTION * rows
        and np.median(survey.prompt_characters[asked]) <= _READ_CHARACTERS
        and read.mean() >= _DISTINCT_FRACTION
        and measured.get("prompt_opening_fraction", 0.0) < _OPENING_FRACTION
        and measured.get("distinct_answer_fraction", 0.0) >= _DISTINCT_FRACTION
        and measured.get("answer_length_p50_words", 0.0) >= _ANSWER_WORDS
    )
