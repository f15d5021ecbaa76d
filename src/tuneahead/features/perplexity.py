"""Static features from the base's own opinion of the answers: what it knows, and what a prompt tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.examples import Example
from tuneahead.features.featurespec import Value

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tuneahead.training.models import Base

Floats = NDArray[np.float64]

SAMPLE_ROWS = 128
SAMPLE_TOKENS = 8_192
SAMPLE_SEED = 29
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


@dataclass(frozen=True)
class AnswerTokens:
    """One row in tokens: what comes before the answer, and the answer that is trained."""

    before: tuple[int, ...]
    answer: tuple[int, ...]


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

    @property
    def mean_nats(self) -> float:
        """Loss per answer token over all rows."""
        return float(self.nll_nats.sum() / self.tokens.sum())


def measure_perplexity(examples: Sequence[Example], base: Base | None) -> dict[str, Value]:
    """Every feature of the base's losses, by name: a value or the reason for none.

    A sample of 128 rows, fewer where they exceed 8,192 tokens, under the template ``auto``.
    """
    names = _REFERENCE + _ALONE + _SWAPPED
    if base is None:
        return dict.fromkeys(names, "no base model was given")
    rows = sample_answers(examples, base)
    if not rows:
        return dict.fromkeys(names, "no row has a trainable answer")
    special = frozenset(int(i) for i in base.tokenizer.all_special_ids)
    own = answer_losses(base.model, rows, special)
    asked = np.array([bool(row.before) for row in rows])
    if not asked.any():
        return {**reference_features(own), **dict.fromkeys(_ALONE + _SWAPPED, "no row has a prompt")}
    with_prompt = [row for row in rows if row.before]
    mean_nats = float(own.nll_nats[asked].sum() / own.tokens[asked].sum())
    return {
        **reference_features(own),
        **_alone(base, with_prompt, mean_nats, special),
        **_swapped(base, with_prompt, mean_nats, special),
    }


def sample_answers(examples: Sequence[Example], base: Base) -> list[AnswerTokens]:
    """Rows in tokens, in the order of a fixed draw, until rows or tokens suffice."""
    from tuneahead.recipe import Recipe
    from tuneahead.training.encode import encode_examples

    order = np.random.default_rng(SAMPLE_SEED).permutation(len(examples))[:SAMPLE_ROWS]
    recipe = Recipe(max_length=max(2, min(512, base.context_tokens)))
    rows: list[AnswerTokens] = []
    tokens = 0
    for row in encode_examples([examples[i] for i in order], base.tokenizer, recipe):
        if row.answer_tokens == 0 or tokens > SAMPLE_TOKENS:
            continue
        tokens += len(row.ids)
        first = row.answer.index(True)
        answer = tuple(token for token, trained in zip(row.ids, row.answer, strict=True) if trained)
        rows.append(AnswerTokens(row.ids[:first], answer))
    return rows


def answer_losses(
    model: PreTrainedModel, rows: Sequence[AnswerTokens], special: frozenset[int] = frozenset()
) -> AnswerLosses:
    """Losses of the answers given what comes before; the first token of a sequence is never predicted."""
    count = len(rows)
    result = AnswerLosses(np.zeros(count), np.zeros(count), np.zeros(count), np.ones(count, bool))
    order = sorted(range(count), key=lambda i: len(rows[i].before) + len(rows[i].answer))
    most = max(1, LOGITS_PER_PASS // int(model.config.get_text_config().vocab_size))
    batch: list[int] = []
    for index in order:
        length = len(rows[index].before) + len(rows[index].answer)
        if batch and length * (len(batch) + 1) > most:
            _score(model, rows, batch, special, result)
            batch = []
        batch.append(index)
    if batch:
        _score(model, rows, batch, special, result)
    return result


def _score(
    model: PreTrainedModel,
    rows: Sequence[AnswerTokens],
    batch: Sequence[int],
    special: frozenset[int],
    result: AnswerLosses,
) -> None:
    import torch

    lines = [rows[i].before + rows[i].answer for i in batch]
    length = max(2, max(len(line) for line in lines))
    ids = np.zeros((len(lines), length), np.int64)
    seen = np.zeros((len(lines), length), np.int64)
    for place, line in enumerate(lines):
        ids[place, : len(line)] = line
        seen[place, : len(line)] = 1
    tokens = torch.from_numpy(ids).to(model.device)
    with torch.no_grad():
        mask = torch.from_numpy(seen).to(model.device)
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        hit = (logits.argmax(-1) == tokens[:, 1:]).cpu().numpy()
    nll = loss.double().cpu().numpy()
    for place, index in enumerate(batch):
        start, stop = max(1, len(rows[index].before)) - 1, len(lines[place]) - 1
        result.nll_nats[index] = nll[place, start:stop].sum()
        result.tokens[index] = stop - start
        result.hits[index] = hit[place, start:stop].sum()
        while stop > start and lines[place][stop] in special:
            stop -= 1
        result.known[index] = stop > start and bool(hit[place, start:stop].all())


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


def _alone(
    base: Base, rows: Sequence[AnswerTokens], own_nats: float, special: frozenset[int]
) -> dict[str, Value]:
    tokenizer = base.tokenizer
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    if start is None:
        return dict.fromkeys(_ALONE, "the tokenizer has no token that begins a text")
    bare = answer_losses(base.model, [AnswerTokens((int(start),), row.answer) for row in rows], special)
    gain = bare.mean_nats - own_nats
    return {
        "answer_alone_loss_nats": bare.mean_nats,
        "prompt_gain_nats": gain,
        "prompt_gain_ratio": gain / bare.mean_nats if bare.mean_nats > 0 else "every loss is 0",
    }


def _swapped(
    base: Base, rows: Sequence[AnswerTokens], own_nats: float, special: frozenset[int]
) -> dict[str, Value]:
    if len(rows) < 2:
        return dict.fromkeys(_SWAPPED, "a single row has no other row's prompt")
    # The order is that of a random draw, so the next row is a random other one.
    room = base.context_tokens
    others = [
        AnswerTokens(other.before[: max(1, room - len(row.answer))], row.answer)
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]
    foreign = answer_losses(base.model, others, special)
    gain = foreign.mean_nats - own_nats
    return {
        "own_prompt_gain_nats": gain,
        "own_prompt_gain_ratio": gain / foreign.mean_nats if foreign.mean_nats > 0 else "every loss is 0",
    }
