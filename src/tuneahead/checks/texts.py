"""Checks of what stands in the texts and should not: cut answers, left-overs, half thoughts, secrets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuneahead.checks.check import Context, found, share
from tuneahead.closings import Closing
from tuneahead.confidential import Confidential
from tuneahead.counts import listed
from tuneahead.markup import Markup
from tuneahead.thinking import Thinking
from tuneahead.verdict import Finding, Severity

Mask = NDArray[np.bool_]

_WARN_FRACTION = 0.01
_JUDGED_ROWS = 20
_BROKEN_ROWS = 3
_BROKEN_FRACTION = 0.05
"""Of answers without a final sign: 2 % of whole ones end in such a word in the public data sets that have a
hundred of them, of answers cut at random about 30 %."""
_LIMITED_ROWS = 5
_LIMITED_FRACTION = 0.25
_UNLIMITED_FRACTION = 0.05
_SPREAD = 1.6
"""The longest answer to the shortest that the same limit of tokens has cut, in characters."""
_SURE_NATS = 10.0
"""How much likelier a limit makes the ends that were seen: whole answers of public data sets come to 5.4."""


def unfinished_answers(context: Context) -> Iterator[Finding]:
    """Answers that break off: in mid-sentence, or at a limit of their length."""
    survey = context.survey
    # A text without a prompt is often a piece of a longer one.
    judged = ~survey.empty_prompt & (survey.closing != Closing.UNKNOWN)
    if np.count_nonzero(judged) < _JUDGED_ROWS:
        return
    still_open = judged & (survey.closing >= Closing.OPEN)
    broken = judged & (survey.closing == Closing.BROKEN)
    reasons = []
    if np.count_nonzero(broken) >= max(_BROKEN_ROWS, _BROKEN_FRACTION * np.count_nonzero(still_open)):
        reasons.append(f'{np.count_nonzero(broken):,} with a comma or a word like "the"')
    else:
        broken = np.zeros(len(survey), bool)
    limit = _limit(survey.answer_characters[judged], still_open[judged])
    longest = judged & (survey.answer_characters >= limit) if limit else np.zeros(len(survey), bool)
    limited = longest & still_open
    if limit:
        many = int(np.count_nonzero(longest))
        reasons.append(f"{np.count_nonzero(limited):,} of the {many:,} longest ones without a final sign")
    mask = broken | limited
    yield from _told(
        "unfinished-answers",
        _by_share(mask),
        context,
        mask,
        f"{{}} have an answer that breaks off: {listed(reasons)}",
        "read how these answers end; write them anew with room for more tokens, or remove the rows: the "
        "model would learn to stop there",
    )


def _limit(lengths: NDArray[np.int64], still_open: NDArray[np.bool_]) -> int:
    """The length from which answers were cut by a limit, in characters; 0 where none shows.

    Of the longest answers many have no final sign, of the shorter ones hardly any.
    """
    order = np.argsort(-lengths, kind="stable")
    lengths, still_open = lengths[order], still_open[order]
    total, count = len(lengths), int(still_open.sum())
    opened = np.cumsum(still_open)
    best, limit = _SURE_NATS, 0
    for place in np.flatnonzero(still_open & (opened >= _LIMITED_ROWS)).tolist():
        longest, inside = place + 1, int(opened[place])
        below, outside = total - longest, count - inside
        if below < _JUDGED_ROWS or lengths[place] * _SPREAD < lengths[0]:
            break
        if inside < _LIMITED_FRACTION * longest or outside > _UNLIMITED_FRACTION * below:
            continue
        gain = _nats(inside, longest) + _nats(outside, below) - _nats(count, total)
        if gain >= best:
            best, limit = gain, int(lengths[place])
    return limit


def _nats(count: int, total: int) -> float:
    """The log-likelihood of so many of ``total`` under their own share."""
    return sum(part * math.log(part / total) for part in (count, total - count) if part)


def half_thoughts(context: Context) -> Iterator[Finding]:
    """Thoughts between tags that never end, that no answer follows, or that are empty."""
    survey = context.survey
    yield from _told(
        "half-thoughts",
        "warn",
        context,
        survey.thinking == Thinking.UNCLOSED,
        "the answers of {} open a thought (<think>) and never close it: no answer is trained",
        "let these answers be written to their end, or remove the rows",
    )
    yield from _told(
        "half-thoughts",
        "warn",
        context,
        # What follows a thought may be a call beside the content.
        (survey.thinking == Thinking.ALONE) & ~survey.calls,
        "the answers of {} end with their thoughts: nothing follows </think>",
        "add the answers, or remove the rows",
    )
    yield from _told(
        "half-thoughts",
        "note",
        context,
        survey.thinking == Thinking.EMPTY,
        "the answers of {} begin with empty thoughts (<think></think>): the model learns not to think",
        "nothing, if that is meant, as it is for models that think on request; else write the thoughts",
    )


def markup_left(context: Context) -> Iterator[Finding]:
    """Escaped signs and tags of web pages in running text."""
    survey = context.survey
    # Random signs may look like anything.
    escaped = (survey.markup == Markup.ENTITY) & ~survey.gibberish
    yield from _told(
        "markup-left",
        _by_share(escaped),
        context,
        escaped,
        "{} hold signs that were escaped for a web page (such as &amp; or &#39;)",
        "turn them back (in Python: html.unescape)",
    )
    yield from _told(
        "markup-left",
        "note",
        context,
        (survey.markup == Markup.TAG) & ~survey.gibberish,
        "{} hold tags of a web page in running text (such as <br> or </p>)",
        "nothing, if the model shall read or write them; else make line breaks of <br> and <p> and take "
        "the others off",
    )


def secrets(context: Context) -> Iterator[Finding]:
    """Keys: a model may repeat what it was trained on."""
    yield from _told(
        "secrets",
        "warn",
        context,
        (context.survey.confidential & Confidential.KEY) > 0,
        "{} hold what looks like a service's key or a private key: a model may repeat it",
        "revoke these keys if they are real, and remove them; none is shown here",
    )


def personal_data(context: Context) -> Iterator[Finding]:
    """E-mail addresses of persons, bank accounts and cards."""
    held = context.survey.confidential
    kinds = ((Confidential.ADDRESS, "an e-mail address"), (Confidential.ACCOUNT, "a bank account or card"))
    counts = [
        f"{int(np.count_nonzero(held & kind)):,} with {what}" for kind, what in kinds if np.any(held & kind)
    ]
    yield from _told(
        "personal-data",
        "note",
        context,
        (held & (Confidential.ADDRESS | Confidential.ACCOUNT)) > 0,
        f"{{}} hold what may belong to a person: {listed(counts)}",
        "remove or replace it unless you may train on it: a model may repeat it; none is shown here",
    )


def _by_share(mask: Mask) -> Severity:
    return "warn" if mask.any() and mask.mean() >= _WARN_FRACTION else "note"


def _told(
    check: str, severity: Severity, context: Context, mask: Mask, said: str, remedy: str
) -> Iterator[Finding]:
    """A finding about the rows of ``mask``, whose number stands at ``{}`` in ``said``; none without any."""
    if mask.any():
        message = said.format(share(int(mask.sum()), len(mask)))
        yield found(check, severity, message, remedy, rows=context.survey.row[mask])
