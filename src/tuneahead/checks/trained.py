"""Checks of rows as a Trainer trains them, whatever made their tokens and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuneahead.checks.check import found, share
from tuneahead.checks.encoding import is_ended, special_tokens
from tuneahead.checks.tokens import WARN_CUT_FRACTION
from tuneahead.verdict import Finding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneahead.training.encode import Encoded


def trained_findings(
    rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, packed: bool
) -> tuple[Finding, ...]:
    """Rows without a trained token, and ends that are not trained, gravest first.

    Of ``packed`` rows a part may be in another line, so that single open ends say nothing.
    """
    return (*_masked(rows), *_open_ends(rows, tokenizer, packed))


def _masked(rows: Sequence[Encoded]) -> Iterator[Finding]:
    masked = np.array([row.row for row in rows if not row.answer_tokens], np.int64)
    if not len(masked):
        return
    if every := len(masked) == len(rows):
        message = "no row has a trained token, all labels are masked: nothing is learnt, loss 0 or NaN"
    else:
        message = f"{share(len(masked), len(rows))} have no trained token, their labels are all masked"
    yield found(
        "masked-answers",
        "stop" if every else "warn",
        message,
        "look at the labels of a batch: correct what marks the answers (response template, assistant mask), "
        "or raise the maximal length where prompts fill it",
        rows=masked,
    )


def _open_ends(
    rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, packed: bool
) -> Iterator[Finding]:
    trained = [row for row in rows if row.answer_tokens]
    special = special_tokens(tokenizer)
    unended = np.array([row.row for row in trained if not is_ended(row, special)], np.int64)
    if not len(unended):
        return
    if len(unended) == len(trained):
        yield found(
            "end-token",
            "warn",
            "no row's trained tokens close with a special token: the model would never learn to stop",
            "add the end token to every row, and give the tokenizer a pad token of its own: collators mask "
            "the labels of padding",
        )
    elif not packed:
        yield found(
            "cut-answers",
            "warn" if len(unended) >= WARN_CUT_FRACTION * len(rows) else "note",
            f"{share(len(unended), len(rows))} have trained tokens that no special token closes, unlike the "
            "others: their answers are cut off, and the model doesn't learn where they end",
            "raise the maximal length, or split these rows",
            rows=unended,
        )
