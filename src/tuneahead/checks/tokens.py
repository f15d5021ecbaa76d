"""Checks that need the tokenizer: window, end of sequence, chat template, budget."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tuneahead.checks.check import Context, found, share
from tuneahead.checks.encoding import TokenMeasures
from tuneahead.counts import counted
from tuneahead.survey import MARKERS
from tuneahead.verdict import Finding

WARN_CUT_FRACTION = 0.01
"""From this share of rows on cut answers are a warning."""
_CHARACTERS_PER_TOKEN = 4.0


def masked_answers(context: Context) -> Iterator[Finding]:
    """Rows whose prompt fills the window, so that no answer token is left to train on."""
    tokens = context.tokens
    if tokens is None or not len(tokens.masked):
        return
    given = int(np.count_nonzero(context.answered))
    every = len(tokens.masked) == tokens.examined and tokens.long_rows >= given
    window = context.recipe.max_length
    if every:
        message = f"every prompt fills the window of {window} tokens: nothing would be trained, loss 0 or NaN"
    else:
        count = _counted(len(tokens.masked), tokens, len(context.survey))
        message = (
            f"{count} fill the window of {window} tokens with their prompt: none of their answer is trained"
        )
    yield found(
        "masked-answers",
        "stop" if every else "warn",
        message,
        "raise max_length in the recipe, or shorten the prompts",
        rows=tokens.masked,
    )


def cut_answers(context: Context) -> Iterator[Finding]:
    """Rows whose answer is cut by the window: their end is never seen."""
    tokens = context.tokens
    if tokens is None or not len(tokens.cut):
        return
    count = len(tokens.cut)
    yield found(
        "cut-answers",
        "warn" if count >= WARN_CUT_FRACTION * len(context.survey) else "note",
        f"{_counted(count, tokens, len(context.survey))} have an answer that the window of "
        f"{context.recipe.max_length} tokens cuts off: the model doesn't learn where they end",
        "raise max_length in the recipe, or split these rows",
        rows=tokens.cut,
    )


def _counted(count: int, tokens: TokenMeasures, total: int) -> str:
    if tokens.examined < tokens.long_rows:
        return f"{count:,} of {tokens.examined:,} examined long rows (of {tokens.long_rows:,})"
    return share(count, total)


def end_token(context: Context) -> Iterator[Finding]:
    """The end of the answer is not trained: the model would not know when to stop."""
    tokens = context.tokens
    if tokens is None or tokens.failure:
        return
    if not tokens.end_token:
        yield found(
            "end-token",
            "warn",
            "the tokenizer has no end-of-sequence token: the model can't learn to stop",
            "set eos_token on the tokenizer, or use one that has it",
        )
    elif tokens.ended_fraction == 0.0:
        yield found(
            "end-token",
            "warn",
            "no row's trained tokens close with a special token: the model would never learn to stop",
            "use a template that closes the answer (raw, qa and alpaca add the end token)",
        )


def pad_token(context: Context) -> Iterator[Finding]:
    """The pad token is the end token: a trainer that masks padding masks the end as well."""
    tokens = context.tokens
    if tokens is not None and tokens.pad_is_end:
        yield found(
            "pad-token",
            "warn",
            f"the tokenizer pads with its end token {tokens.end_token!r}: trainers that mask padding by "
            "token then never train the end (TuneAhead's own loop does)",
            "give the tokenizer a pad token of its own before training elsewhere",
        )


def chat_template(context: Context) -> Iterator[Finding]:
    """Rows, tokenizer and recipe disagree about how turns are marked."""
    survey, tokens = context.survey, context.tokens
    if tokens is not None and tokens.failure:
        yield found("chat-template", "stop", tokens.failure, tokens.remedy)
        return
    marked = survey.marker > 0
    if marked.any():
        families = [MARKERS[i] for i in np.unique(survey.marker[marked]).tolist()]
        yield from _marked(context, families)
    turns = survey.conversation
    if tokens is not None and tokens.template != "chat" and turns.any():
        why = "the recipe says so" if tokens.has_chat_template else "the tokenizer has no chat template"
        yield found(
            "chat-template",
            "warn",
            f"{share(int(turns.sum()), len(survey))} are conversations, but the template is "
            f"{tokens.template!r} ({why}): turns are joined without marks of who speaks",
            "use a base with a chat template and template: auto, or flatten the conversations",
            rows=survey.row[turns],
        )


def earlier_turns(context: Context) -> Iterator[Finding]:
    """Conversations of which only the last answer is trained: a chat template trains them all."""
    survey, tokens = context.survey, context.tokens
    if context.trains_every_turn or not survey.earlier_turns.any():
        return
    template = context.recipe.template if tokens is None else tokens.template
    yield found(
        "earlier-turns",
        "note",
        f"{share(int(survey.earlier_turns.sum()), len(survey))} hold earlier assistant turns that are not "
        f"trained: template {template!r} trains the last one alone",
        "nothing if that is meant; else use a base with a chat template, or make a row of each answer",
        rows=survey.row[survey.earlier_turns],
    )


def _marked(context: Context, families: list[str]) -> Iterator[Finding]:
    survey, tokens = context.survey, context.tokens
    rows = survey.row[survey.marker > 0]
    what = f"{share(len(rows), len(survey))} already hold template markers ({', '.join(families)})"
    if tokens is None:
        yield found(
            "chat-template",
            "note",
            what,
            "train them with template: raw, on a base whose tokenizer knows these markers",
            rows=rows,
        )
        return
    wrapped = tokens.template == "chat" or (tokens.template == "alpaca" and "Alpaca" in families)
    unknown = [family for family in families if family in tokens.split_markers]
    if wrapped:
        yield found(
            "chat-template",
            "warn",
            f"{what}, and template {tokens.template!r} would wrap them a second time",
            "strip the markers from the rows, or set template: raw",
            rows=rows,
        )
    elif unknown:
        yield found(
            "chat-template",
            "warn",
            f"{what}, but those of {', '.join(unknown)} are no tokens of this tokenizer and fall apart",
            "strip the markers from the rows, or use the base that they belong to",
            rows=rows,
        )


def token_budget(context: Context) -> Iterator[Finding]:
    """How many tokens the full run will see."""
    survey, recipe, tokens = context.survey, context.recipe, context.tokens
    rows, steps = context.run.rows, context.run.steps
    if not rows:
        return
    if not math.isnan(context.run.tokens_a_row):
        per_row, how = context.run.tokens_a_row, ""
    elif tokens is not None and not tokens.failure:
        per_row, how = tokens.mean_tokens, ""
    elif not len(survey.prompt_characters):
        # A stream: its rows are known by their number alone.
        per_row, how = math.nan, ""
    else:
        characters = float(np.mean(survey.prompt_characters + survey.answer_characters))
        per_row, how = (
            min(characters / _CHARACTERS_PER_TOKEN, recipe.max_length),
            ", guessed at 4 characters a token",
        )
    seen = recipe.rows_seen(rows, steps)
    held = f", {context.run.heldout_rows:,} more held out" if context.run.heldout_rows else ""
    size = f": about {_rounded(seen * per_row)} tokens ({per_row:.0f} a row{how})"
    yield found(
        "token-budget",
        "note",
        f"the full run is {counted(steps, 'step')} over {counted(rows, 'row')} "
        f"({seen / rows:.1f} epochs{held}){'' if math.isnan(per_row) else size}",
        "nothing; lower epochs or max_steps for a shorter run",
    )


def _rounded(number: float) -> str:
    for size, name in ((1e9, " billion"), (1e6, " million")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return f"{number:,.0f}"
