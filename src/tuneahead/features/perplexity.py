"""Static features from the base's own opinion of the answers: what it knows, and what a prompt tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import ModelError
from tuneahead.features.answertokens import AnswerTokens, sample_answers
from tuneahead.features.catalogue import spec
from tuneahead.features.featurespec import Value
from tuneahead.features.rows import NO_PROMPTS, Drawn
from tuneahead.features.sampling import Measured, Places, Sample, group_errors, share_error

if TYPE_CHECKING:
    from tuneahead.training.encode import Encoded
    from tuneahead.training.models import Base

Floats = NDArray[np.float64]

LOGITS_PER_PASS = 32_000_000

_REFERENCE = (
    "reference_loss_nats",
    "reference_loss_sd_nats",
    "reference_loss_cv",
    "reference_loss_p10_nats",
    "reference_loss_p90_nats",
    "base_token_accuracy",
    "base_knows_fraction",
)
_ALONE = ("answer_alone_loss_nats", "prompt_gain_nats", "prompt_gain_ratio")
_SWAPPED = ("own_prompt_gain_nats", "own_prompt_gain_ratio")
OF_THE_BASE = _REFERENCE + _ALONE + _SWAPPED
"""Features that need the base itself."""


@dataclass(frozen=True)
class AnswerLosses:
    """Losses of the answers of some rows under a frozen model, all ``(rows,)``.

    ``nll_nats`` is summed over the answer's ``tokens``; ``hits`` counts those that are the
    model's first choice, ``known`` says whether all but the closing special tokens are.
    """

    nll_nats: Floats
    tokens: Floats
    hits: Floats
    known: NDArray[np.bool_]

    def chosen(self, at: Places | NDArray[np.bool_] | slice) -> AnswerLosses:
        """A copy with only these rows."""
        return AnswerLosses(
            self.nll_nats[at].copy(), self.tokens[at].copy(), self.hits[at].copy(), self.known[at].copy()
        )

    @property
    def mean_nats(self) -> float:
        """Loss per answer token over all rows."""
        return float(self.nll_nats.sum() / self.tokens.sum())


def measure_perplexity(
    drawn: Drawn, base: Base | None, encoded: Mapping[int, Encoded] | None = None
) -> Measured:
    """Every feature of the base's losses, by name: a value or the reason for none.

    A sample of 128 rows, fewer where they exceed 8,192 tokens, as ``encoded`` has them by their numbers or
    under the template ``auto``, of each up to 512 tokens; a chat template that refuses one of them is the
    reason for none.
    """
    if base is None:
        return Measured(dict.fromkeys(OF_THE_BASE, "no base model was given"), {})
    try:
        rows = sample_answers(drawn.answers, base, encoded)
    except ModelError as error:
        return Measured(dict.fromkeys(OF_THE_BASE, error.message), {})
    if not rows:
        return Measured(dict.fromkeys(OF_THE_BASE, "no row has a trainable answer"), {})
    losses = _losses(base, rows)
    values = loss_features(losses)
    samples: dict[str, Sample] = {}
    if len(rows) < drawn.total:
        known = {name: value for name, value in values.items() if not isinstance(value, str)}
        means = [name for name in known if spec(name).estimate == "mean"]
        errors = group_errors(lambda at: loss_features(losses.chosen(at)), means, len(rows), drawn.total)
        errors |= {
            name: share_error(value, len(rows), drawn.total)
            for name, value in known.items()
            if spec(name).estimate == "share"
        }
        samples = {name: Sample(len(rows), drawn.total, errors.get(name, math.nan)) for name in known}
    return Measured(values, samples)


@dataclass(frozen=True)
class PromptLosses:
    """Losses of the same answers under their own prompt, after none, and under another row's.

    ``own`` counts every answer of a conversation, the others its last one: ``given`` all before
    it, ``alone`` and ``foreign`` without. ``asked`` says which rows have a prompt, ``(rows,)``;
    ``alone`` and ``foreign`` hold the reason where they could not be measured, and stand for the own
    loss where a row has no prompt.
    """

    own: AnswerLosses
    given: AnswerLosses
    asked: NDArray[np.bool_]
    alone: AnswerLosses | str
    foreign: AnswerLosses | str

    def chosen(self, at: Places) -> PromptLosses:
        """Only the rows at these places."""

        def part(losses: AnswerLosses | str) -> AnswerLosses | str:
            return losses if isinstance(losses, str) else losses.chosen(at)

        own, given = self.own.chosen(at), self.given.chosen(at)
        return PromptLosses(own, given, self.asked[at], part(self.alone), part(self.foreign))


def loss_features(losses: PromptLosses) -> dict[str, Value]:
    """Level and spread of the losses, and what the prompts save."""
    own = reference_features(losses.own)
    if not losses.asked.any():
        return {**own, **dict.fromkeys(_ALONE + _SWAPPED, NO_PROMPTS)}
    given = losses.given.chosen(losses.asked)
    out = {**own, **dict.fromkeys(_ALONE, losses.alone), **dict.fromkeys(_SWAPPED, losses.foreign)}
    if not isinstance(losses.alone, str):
        bare = losses.alone.chosen(losses.asked).mean_nats
        gain = bare - given.mean_nats
        ratio: Value = gain / bare if bare > 0 else "every loss is 0"
        out |= dict(zip(_ALONE, (bare, gain, ratio), strict=True))
    if not isinstance(losses.foreign, str):
        foreign = losses.foreign.chosen(losses.asked).mean_nats
        gain = foreign - given.mean_nats
        out |= dict(zip(_SWAPPED, (gain, gain / foreign if foreign > 0 else "every loss is 0"), strict=True))
    return {name: value for name, value in out.items() if not isinstance(value, AnswerLosses)}


def answer_losses(
    base: Base, rows: Sequence[AnswerTokens], special: frozenset[int] = frozenset()
) -> AnswerLosses:
    """Losses of all answers given what comes before; the first token of a sequence is never predicted."""
    from tuneahead.training.scoring import read_answers, tokens_per_pass

    count = len(rows)
    result = AnswerLosses(np.zeros(count), np.zeros(count), np.zeros(count), np.ones(count, bool))
    order = sorted(range(count), key=lambda i: len(rows[i].before) + len(rows[i].answer))
    vocabulary = int(base.model.config.get_text_config().vocab_size)
    batches: list[list[int]] = []
    batch: list[int] = []
    logits = 0
    for index in order:
        length = len(rows[index].before) + len(rows[index].answer)
        expected = rows[index].encoded.answer.count(True) * vocabulary
        # Filled to the longest row, where the base does not let rows share lines.
        places = length * (len(batch) + 1)
        if batch and (places > tokens_per_pass(base) or logits + expected > LOGITS_PER_PASS):
            batches.append(batch)
            batch, logits = [], 0
        batch.append(index)
        logits += expected
    if batch:
        batches.append(batch)
    read = read_answers(base, [[rows[i].encoded for i in batch] for batch in batches])
    for batch, (nll, hit) in zip(batches, read, strict=True):
        _note(rows, batch, nll, hit, special, result)
    return result


def _note(
    rows: Sequence[AnswerTokens],
    batch: Sequence[int],
    nll: NDArray[np.float64],
    hit: NDArray[np.bool_],
    special: frozenset[int],
    result: AnswerLosses,
) -> None:
    stop = 0
    for index in batch:
        answer = rows[index].scored
        start, stop = stop, stop + len(answer)
        result.nll_nats[index] = nll[start:stop].sum()
        result.tokens[index] = len(answer)
        result.hits[index] = hit[start:stop].sum()
        told = len(answer)
        while told and answer[told - 1] in special:
            told -= 1
        result.known[index] = told > 0 and bool(hit[start : start + told].all())


def reference_features(own: AnswerLosses) -> dict[str, Value]:
    """Level and spread of the base's loss on the answers."""
    scored = own.tokens > 0
    if not scored.any():
        return dict.fromkeys(_REFERENCE, "no answer token could be predicted")
    per_token = own.nll_nats[scored] / own.tokens[scored]
    low, high = (float(q) for q in np.quantile(per_token, [0.1, 0.9]))
    return {
        "reference_loss_nats": own.mean_nats,
        "reference_loss_sd_nats": float(per_token.std()),
        "reference_loss_cv": float(per_token.std() / per_token.mean())
        if per_token.any()
        else "every loss is 0",
        "reference_loss_p10_nats": low,
        "reference_loss_p90_nats": high,
        "base_token_accuracy": float(own.hits.sum() / own.tokens.sum()),
        "base_knows_fraction": float(own.known[scored].mean()),
    }


def _losses(base: Base, rows: Sequence[AnswerTokens]) -> PromptLosses:
    special = frozenset(int(i) for i in base.tokenizer.all_special_ids)
    own = answer_losses(base, rows, special)
    asked = np.array([row.asked for row in rows])
    # In what a prompt saves, both sides count the same tokens.
    last = [replace(row, earlier=()) for row in rows]
    given = answer_losses(base, last, special) if any(any(row.earlier) for row in rows) else own
    with_prompt = [row for row in last if row.asked]

    def spread(found: AnswerLosses) -> AnswerLosses:
        whole = given.chosen(slice(None))
        for column in ("nll_nats", "tokens", "hits", "known"):
            getattr(whole, column)[asked] = getattr(found, column)
        return whole

    tokenizer = base.tokenizer
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    alone: AnswerLosses | str = "the tokenizer has no token that begins a text"
    foreign: AnswerLosses | str = "a single row has no other row's prompt"
    if with_prompt and start is not None:
        bare = [AnswerTokens((int(start),), row.answer) for row in with_prompt]
        alone = spread(answer_losses(base, bare, special))
    if len(with_prompt) > 1:
        foreign = spread(answer_losses(base, _swapped(with_prompt, base.context_tokens), special))
    return PromptLosses(own, given, asked, alone, foreign)


def _swapped(rows: Sequence[AnswerTokens], room: int) -> list[AnswerTokens]:
    """Each answer after the next row's prompt; the order is that of a random draw, so a random other one."""
    return [
        AnswerTokens(other.before[: max(1, room - len(row.answer))], row.answer)
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]
