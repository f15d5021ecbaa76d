"""Checks of single rows: empty, broken, unreadable, and how their answers are spread."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np

from tuneahead.blocks import PLACEHOLDERS, first_places, pair_keys
from tuneahead.checks.check import Context, found, share
from tuneahead.counts import counted
from tuneahead.survey import LANGUAGES
from tuneahead.textstats import Damage
from tuneahead.verdict import Finding

_SAME_ANSWER_ROWS = 8
_TOP_ANSWER_FRACTION = 0.9
_TOP_ANSWER_ROWS = 20
_STOCK_CHARACTERS = 20
_STOCK_ROWS = 5
_STOCK_FRACTION = 0.01
_STOCK_WARN_FRACTION = 0.1
_OWN_ANSWERS_FRACTION = 0.8
_OWN_ANSWERS_ROWS = 20
_GIBBERISH_FRACTION = 0.01
_ECHO_FRACTION = 0.05
_LANGUAGE_FRACTION = 0.02
_LONG_FACTOR = 20
_LONG_CHARACTERS = 1_000
_LONG_MASS_FRACTION = 0.5


def few_rows(context: Context) -> Iterator[Finding]:
    """Fewer rows with an answer than one optimiser step takes."""
    rows = int(np.count_nonzero(context.answered))
    need = context.recipe.rows_per_step
    if rows == 0 and len(context.survey) == 0:
        yield found("few-rows", "stop", "there are no training rows", "hand over a file that holds rows")
    elif 0 < rows < need:
        yield found(
            "few-rows",
            "warn",
            f"{counted(rows, 'row')} with an answer {'is' if rows == 1 else 'are'} fewer than the {need} "
            "of one optimiser step",
            "add rows, or lower batch_size or gradient_accumulation_steps",
        )


def empty_answers(context: Context) -> Iterator[Finding]:
    """Answers that are empty or white space: nothing is trained on them."""
    survey = context.survey
    # What a turn calls stands beside its content, where it is not read.
    calls = "; if they are calls in tool_calls, which are not read: write them as text into content"
    hint = calls if np.any(survey.empty_answer & survey.conversation) else ""
    silent, partly = ~context.answered, survey.empty_answer & context.answered
    if len(survey) and silent.all():
        yield found(
            "empty-answers",
            "stop",
            "every answer is empty: there is nothing to train on",
            "check that the right column holds the answers" + hint,
            rows=survey.row[silent],
        )
        return
    for mask, message, remedy in (
        (silent, "have an empty answer and train nothing", "remove these rows or fill in their answers"),
        (partly, "end in an empty answer: only their earlier ones are trained", "fill in their last answers"),
    ):
        if mask.any():
            what = f"{share(int(mask.sum()), len(survey))} {message}"
            yield found("empty-answers", "warn", what, remedy + hint, rows=survey.row[mask])


def unread_parts(context: Context) -> Iterator[Finding]:
    """Tools, tool calls and thoughts beside the content of a turn: nothing of them is read or trained."""
    survey = context.survey
    for mask, what, remedy in (
        (survey.calls, "tool calls", "as the base's chat template shows them"),
        (survey.thoughts, "thoughts", "between the marks of the base, such as <think> and </think>"),
        (survey.tools, "tools", "in a system turn, as the base's chat template shows them"),
    ):
        if mask.any():
            yield found(
                "unread-parts",
                "warn",
                f"the {what} of {share(int(mask.sum()), len(survey))} stand beside the content of turns "
                "and are not read: a trainer whose chat template shows them trains another text",
                f"write them into content, {remedy}",
                rows=survey.row[mask],
            )


def empty_prompts(context: Context) -> Iterator[Finding]:
    """Rows without a prompt: their answers are trained as statements."""
    survey = context.survey
    mask = survey.empty_prompt & ~survey.empty_answer
    if mask.any():
        turns = context.tokens is not None and context.tokens.template == "chat"
        bare = " (template: raw trains them bare, as TRL does a text)" if turns else ""
        wrapped = ", by the chat template as turns without a question" if turns else ""
        yield found(
            "empty-prompts",
            "note",
            f"{share(int(mask.sum()), len(survey))} have no prompt: their answers are trained as statements"
            f"{wrapped}",
            f"nothing, if statements are meant{bare}; else check which column holds the prompts",
            rows=survey.row[mask],
        )


DAMAGE_NAMES = {
    Damage.REPLACEMENT: "the replacement character U+FFFD",
    Damage.MOJIBAKE: "mojibake, UTF-8 read as a single-byte encoding",
    Damage.CONTROL: "NUL or other control characters",
    Damage.PRIVATE: "private-use characters",
}


def broken_encoding(context: Context) -> Iterator[Finding]:
    """Texts that were decoded or exported wrongly."""
    survey = context.survey
    mask = survey.damage > 0
    if not mask.any():
        return
    kinds = [
        f"{int(np.count_nonzero(survey.damage & kind)):,} with {name}"
        for kind, name in DAMAGE_NAMES.items()
        if np.any(survey.damage & kind)
    ]
    private_only = not np.any(survey.damage & ~np.uint8(Damage.PRIVATE))
    yield found(
        "broken-encoding",
        "note" if private_only else "warn",
        f"{share(int(mask.sum()), len(survey))} hold broken characters: {'; '.join(kinds)}",
        "export the data again as UTF-8, or repair these rows (the package ftfy mends mojibake)",
        rows=survey.row[mask],
    )


def gibberish(context: Context) -> Iterator[Finding]:
    """Rows of random letters or signs."""
    survey = context.survey
    mask = survey.gibberish
    if mask.any():
        yield found(
            "gibberish",
            "warn" if mask.mean() >= _GIBBERISH_FRACTION else "note",
            f"{share(int(mask.sum()), len(survey))} look like random letters or signs",
            "read these rows; remove them unless such strings are what the model shall learn",
            rows=survey.row[mask],
        )


def echoed_prompts(context: Context) -> Iterator[Finding]:
    """Answers that repeat their whole prompt."""
    survey = context.survey
    mask = survey.echo
    if mask.any():
        yield found(
            "echoed-prompts",
            "warn" if mask.mean() >= _ECHO_FRACTION else "note",
            f"{share(int(mask.sum()), len(survey))} repeat the whole prompt in the answer",
            "cut the prompt from the answer column: some exports store the whole text there",
            rows=survey.row[mask],
        )


def same_answers(context: Context) -> Iterator[Finding]:
    """One answer for all rows, or for nearly all."""
    survey = context.survey
    given = ~survey.empty_answer
    rows = int(given.sum())
    if rows < _SAME_ANSWER_ROWS:
        return
    values, counts = np.unique(survey.loose_answer[given], return_counts=True)
    top = int(counts.max())
    mask = given & (survey.loose_answer == values[counts.argmax()])
    earlier = context.trains_every_turn and bool(survey.earlier_turns[given].any())
    if len(values) == 1 and earlier:
        yield found(
            "same-answers",
            "warn",
            f"all {rows:,} conversations end in the same answer, and earlier ones are trained as well",
            "leave the last exchange out, unless the model shall end like that",
            rows=survey.row[mask],
        )
    elif len(values) == 1:
        yield found(
            "same-answers",
            "stop",
            f"all {rows:,} answers are the same: the model would learn to say it whatever is asked",
            "check that the right column holds the answers",
            rows=survey.row[mask],
        )
    elif rows >= _TOP_ANSWER_ROWS and top >= _TOP_ANSWER_FRACTION * rows:
        yield found(
            "same-answers",
            "warn",
            f"{share(top, len(survey))} have one and the same answer: the model may always give it",
            "balance the answers, or check how they were made",
            rows=survey.row[mask],
        )
    else:
        yield from _stock_answers(context)


def _stock_answers(context: Context) -> Iterator[Finding]:
    """Sentences that many prompts have as their answer, among rows with answers of their own."""
    survey = context.survey
    # Thanks at the end of a conversation rightly have one answer.
    longer = survey.earlier_turns if context.trains_every_turn else np.zeros(len(survey), bool)
    given = np.flatnonzero(~survey.empty_answer & ~longer)
    # Copies and near-copies of a row are no further prompts.
    alike = np.isin(survey.row[given], survey.near.later[survey.near.alike])
    first = first_places(pair_keys(survey.prompt[given], survey.loose_answer[given]))
    once = given[first & ~alike]
    values, place, times = np.unique(survey.loose_answer[once], return_index=True, return_counts=True)
    # Labels and numbers rightly stand for many prompts.
    telling = survey.answer_characters[once[place]] >= _STOCK_CHARACTERS
    stock = (times >= max(_STOCK_ROWS, _STOCK_FRACTION * len(once))) & (
        telling | np.isin(values, PLACEHOLDERS)
    )
    others = int(times[~stock].sum())
    own = int(np.count_nonzero(~stock)) >= _OWN_ANSWERS_FRACTION * others
    if stock.any() and own and others >= _OWN_ANSWERS_ROWS:
        rows = survey.row[given[np.isin(survey.loose_answer[given], values[stock])]]
        many = int(stock.sum())
        said = "the same answer" if many == 1 else f"one of {many} answers"
        yield found(
            "same-answers",
            "warn" if len(rows) >= _STOCK_WARN_FRACTION * len(survey) else "note",
            f"{share(len(rows), len(survey))} have {said} to different prompts, while most others have one "
            "of their own",
            "read these rows: refusals, automatic replies and marks of a missing answer (nan, N/A) are "
            "learnt like any other; leave those that are meant",
            rows=rows,
        )


def language_mix(context: Context) -> Iterator[Finding]:
    """More than one language, where one can be told."""
    survey = context.survey
    counts = np.bincount(survey.language, minlength=len(LANGUAGES))
    clear = int(counts[1:].sum())
    if not clear:
        return
    named = [(int(counts[i]), i) for i in range(1, len(LANGUAGES)) if counts[i] >= _LANGUAGE_FRACTION * clear]
    named.sort(reverse=True)
    if len(named) < 2:
        return
    parts = ", ".join(f"{LANGUAGES[i]} {100 * count / clear:.0f} %" for count, i in named[:6])
    minor = np.isin(survey.language, [i for _, i in named[1:]])
    yield found(
        "language-mix",
        "note",
        f"several languages: {parts} of the {clear:,} rows whose language is clear",
        "nothing, if the mix is meant; the benchmark's language should be among them",
        rows=survey.row[minor],
    )


def answer_lengths(context: Context) -> Iterator[Finding]:
    """Answers far longer than the others: they dominate the loss, which is summed over tokens."""
    survey = context.survey
    given = ~survey.empty_answer
    if not given.any():
        return
    lengths = survey.answer_characters[given]
    median = float(np.median(lengths))
    limit = max(_LONG_CHARACTERS, _LONG_FACTOR * median)
    mask = given & (survey.answer_characters > limit)
    if not mask.any():
        return
    mass = float(survey.answer_characters[mask].sum() / lengths.sum())
    yield found(
        "answer-lengths",
        "warn" if mass >= _LONG_MASS_FRACTION else "note",
        f"{share(int(mask.sum()), len(survey))} have answers above {limit:,.0f} characters, "
        f"{100 * mass:.0f} % of all answer text (median {median:,.0f}, longest {int(lengths.max()):,})",
        "read these rows: a missing line break or a whole document in one field is common",
        rows=survey.row[mask],
    )


def column_choice(context: Context) -> Iterator[Finding]:
    """Columns whose names would have done as well as that of the one that was read."""
    use = context.columns
    read = dict(use.parts)
    for part in dict.fromkeys(part for part, _ in use.rivals):
        others = [column for name, column in use.rivals if name == part]
        named = {**read, part: others[0]}
        kept = ("prompt", "answer") if part in ("prompt", "answer") else (part,)
        options = " ".join(f"-m {name}={shlex.quote(named[name])}" for name in kept)
        yield found(
            "column-choice",
            "note",
            f"the {part} was read from column {read[part]!r}; the name of "
            f"{', '.join(map(repr, others))} would have done as well",
            f"nothing if that is right; else {options}",
        )
