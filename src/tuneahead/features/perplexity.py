"""Static features from the base's own opinion of the answers: what it knows, and what a prompt tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import ModelError
from tuneahead.examples import Example
from tuneahead.features.catalogue import spec
from tuneahead.features.featurespec import Value
from tuneahead.features.rows import NO_PROMPTS, Drawn
from tuneahead.features.sampling import Measured, Places, Sample, group_errors, share_error

if TYPE_CHECKING:
    from tuneahead.training.encode import Encoded
    from tuneahead.training.models import Base

Floats = NDArray[np.float64]

SAMPLE_TOKENS = 8_192
PROMPT_CHARACTERS = 32_768
"""Of a longer text the part next to the answer is tokenised where a prompt leaves the answer no room."""
LONGEST_TOKENS = 1 << 20
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
class AnswerTokens:
    """One row in tokens: what comes before the last answer, and that answer.

    ``earlier`` marks the tokens of ``before`` that are answers themselves, in a conversation. A row is
    ``asked`` when ``before`` holds a prompt: what a template or a tokenizer puts before a text is none.
    """

    before: tuple[int, ...]
    answer: tuple[int, ...]
    earlier: tuple[bool, ...] = ()
    asked: bool = True

    @property
    def encoded(self) -> Encoded:
        """The row as training would read it."""
        from tuneahead.training.encode import Encoded

        asked = self.earlier or (False,) * len(self.before)
        return Encoded(self.before + self.answer, asked + (True,) * len(self.answer), 0)

    @property
    def scored(self) -> tuple[int, ...]:
        """The tokens that a loss is measured of: the first of a sequence can't be predicted."""
        encoded = self.encoded
        return tuple(token for token, own in zip(encoded.ids[1:], encoded.answer[1:], strict=True) if own)


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


def sample_answers(
    drawn: Sequence[Example], base: Base, given: Mapping[int, Encoded] | None = None
) -> list[AnswerTokens]:
    """The drawn rows in tokens, in the order of the draw, until rows or tokens suffice.

    ``given`` are the rows in tokens already, by their numbers.
    """
    from tuneahead.checks.encoding import trimmed
    from tuneahead.recipe import Recipe
    from tuneahead.training.probe import encode_rows

    recipe = Recipe(max_length=max(2, min(512, base.context_tokens)))
    rows: list[AnswerTokens] = []
    tokens = 0
    if given is None:
        encoded = encode_rows(base, [trimmed(row, recipe.max_length) for row in drawn], recipe)
    else:
        encoded = [_cut(given[row.row], recipe.max_length) for row in drawn]
    for example, row in zip(drawn, encoded, strict=True):
        if tokens > SAMPLE_TOKENS:
            break
        if given is not None and not example.answer:
            # An end alone is trained there. Under a template of our own such rows have no token to read.
            continue
        if row.answer_tokens:
            found = _last_answer(row, asked=bool(example.prompt) or len(example.messages or ()) > 1)
        elif (late := _late_row(example, base, given)) is not None:
            found = _ending_in(late, base, recipe.max_length)
        else:
            continue
        tokens += len(row.ids)
        rows.append(found)
    return rows


def _late_row(example: Example, base: Base, given: Mapping[int, Encoded] | None) -> AnswerTokens | None:
    """The answer (of a conversation the first) of a prompt that fills the window, if any."""
    if given is None:
        return _late_answer(example, base)
    row = given[example.row]
    if not row.answer_tokens:
        return None
    start = row.answer.index(True)
    stop = row.answer.index(False, start) if False in row.answer[start:] else len(row.ids)
    return AnswerTokens(row.ids[:start], row.ids[start:stop])


def _late_answer(example: Example, base: Base) -> AnswerTokens | None:
    from tuneahead.recipe import Recipe
    from tuneahead.training.encode import encode_examples

    room = PROMPT_CHARACTERS
    turns = example.messages
    if turns is not None:
        said = (i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.content.strip())
        stop = next(said, None)
        if stop is None:
            return None
        asked = (replace(turn, content=turn.content[-room:]) for turn in turns[:stop])
        turns = (*asked, replace(turns[stop], content=turns[stop].content[:room]))
    short = replace(example, prompt=example.prompt[-room:], answer=example.answer[:room], messages=turns)
    uncut = Recipe(max_length=LONGEST_TOKENS)
    (row,) = encode_examples([short], base.tokenizer, uncut)
    return _last_answer(row, asked=True) if row.answer_tokens else None


def _ending_in(whole: AnswerTokens, base: Base, window: int) -> AnswerTokens:
    """The end of the prompt and the beginning of the answer, as much as ``window`` tokens hold."""
    from tuneahead.training.encode import start_ids

    answer = whole.answer[: window // 2]
    start = tuple(start_ids(base.tokenizer))
    if whole.before[: len(start)] != start:
        start = ()
    # Some bases read nothing well without the token that begins a text.
    end = whole.before[len(start) :][-max(1, window - len(start) - len(answer)) :]
    return AnswerTokens(start + end, answer)


def _cut(row: Encoded, window: int) -> Encoded:
    return replace(row, ids=row.ids[:window], answer=row.answer[:window])


def _last_answer(row: Encoded, *, asked: bool) -> AnswerTokens:
    stop = len(row.ids) - row.answer[::-1].index(True)
    start = stop
    while start and row.answer[start - 1]:
        start -= 1
    return AnswerTokens(row.ids[:start], row.ids[start:stop], row.answer[:start], asked)


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
