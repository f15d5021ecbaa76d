"""Greedy answers, written token by token, of one or several adapters in the same passes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from tuneahead.benchmark.items import Asking
from tuneahead.training.allowed import obeys_masks
from tuneahead.training.encode import assistant_turn, tokenise
from tuneahead.training.heads import AnswerHead, answer_head
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base

TOKENS_PER_BATCH = 12_288


@torch.no_grad()
def write_answers(
    base: Base,
    prompts: Sequence[tuple[int, ...]],
    asking: Asking,
    stack: AdapterStack | None,
    slots: Sequence[int],
    *,
    ends: Collection[int] = (),
) -> list[list[str]]:
    """The greedy answer of each of ``slots`` to each prompt, (slots, prompts); without ``stack`` the base's.

    An answer ends before the first stop text, at one of ``ends`` (without any: the base's end tokens) or
    after ``asking.max_new_tokens``; the space around it is taken off.
    """
    width = max(1, len(slots)) if stack is not None else 1
    ends = {*(ends or end_tokens(base)), *_marks(base, asking.stop)}
    answers = [[""] * len(prompts) for _ in range(width)]
    with stack.base_only() if stack is not None else nullcontext():
        padded = obeys_masks(base)
    with answer_head(base) as head, stack.using(slots) if stack is not None else nullcontext():
        for chosen in _batches(prompts, width, asking.max_new_tokens, padded=padded):
            rows = [prompts[i] for i in chosen] * width
            texts = _write(base, head, rows, asking, ends, cached=padded)
            for place, text in enumerate(texts):
                answers[place // len(chosen)][chosen[place % len(chosen)]] = text
    return answers


def _batches(
    prompts: Sequence[tuple[int, ...]], width: int, new_tokens: int, *, padded: bool
) -> Iterator[list[int]]:
    """Prompts of like length together; of the very same length where filled places would be seen."""
    current: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        length = len(prompts[index])
        full = width * (len(current) + 1) * (length + new_tokens) > TOKENS_PER_BATCH
        if current and (full or (not padded and length != len(prompts[current[0]]))):
            yield current
            current = []
        current.append(index)
    if current:
        yield current


def _write(
    base: Base,
    head: AnswerHead,
    rows: Sequence[tuple[int, ...]],
    asking: Asking,
    ends: Collection[int],
    *,
    cached: bool,
) -> list[str]:
    length = max(len(row) for row in rows)
    fill = [length - len(row) for row in rows]
    padded = [[base.pad_id] * gap + list(row) for gap, row in zip(fill, rows, strict=True)]
    ids = torch.tensor(padded, device=base.device)
    seen = torch.tensor([[0] * gap + [1] * (length - gap) for gap in fill], device=base.device)
    written: list[list[int]] = [[] for _ in rows]
    texts: list[str | None] = [None] * len(rows)
    cache: object = None
    inputs = ids
    for _ in range(asking.max_new_tokens):
        best, cache = _next(base, head, inputs, seen, cache, cached=cached)
        for place, token in enumerate(best.tolist()):
            if texts[place] is None:
                texts[place] = _ended(base, written[place], token, asking, ends)
        if all(text is not None for text in texts):
            break
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        ids = torch.cat([ids, best.unsqueeze(1)], 1)
        inputs = best.unsqueeze(1) if cached else ids
    return [
        _text(base, tokens) if text is None else text for tokens, text in zip(written, texts, strict=True)
    ]


def _next(
    base: Base, head: AnswerHead, inputs: Tensor, seen: Tensor, cache: object, *, cached: bool
) -> tuple[Tensor, object]:
    """The likeliest next token of every row, (rows,), and the cache that the next pass continues from."""
    rows, length = inputs.shape
    head.positions = (torch.arange(rows, device=inputs.device) + 1) * length - 1
    arguments: dict[str, object] = {}
    if cached:
        places = (seen.cumsum(1) - 1).clamp(min=0)[:, -length:]
        arguments = {"attention_mask": seen, "position_ids": places, "past_key_values": cache}
    output = base.model(input_ids=inputs, use_cache=cached, **arguments)
    head.positions = None
    best: Tensor = output.logits[0].argmax(-1)
    return best, output.past_key_values if cached else None


def end_tokens(base: Base, template: str = "raw") -> frozenset[int]:
    """Tokens after which the base has said all: its own, and what ends a turn under the template ``chat``."""
    tokenizer = base.tokenizer
    ends = {tokenizer.eos_token_id, *base.ends} - {None}
    if template == "chat":
        closing = tokenise(tokenizer, [assistant_turn(tokenizer).end.lstrip()])[0][:1]
        # A word may follow within an answer too; a token that is set apart may not.
        ends.update(token for token in closing if token in tokenizer.added_tokens_decoder)
    return frozenset(int(token) for token in ends)


def _marks(base: Base, stop: Collection[str]) -> Iterator[int]:
    """Those of the stop texts that are special tokens, which a decoded answer does not show."""
    for token, word in base.tokenizer.added_tokens_decoder.items():
        if word.special and str(word) in stop:
            yield int(token)


def _ended(base: Base, tokens: list[int], token: int, asking: Asking, ends: Collection[int]) -> str | None:
    """Add one token; the finished answer when it ends with it, else None."""
    if token in ends:
        return _text(base, tokens)
    tokens.append(token)
    text = str(base.tokenizer.decode(tokens, skip_special_tokens=True))
    ends = [text.index(stop) for stop in asking.stop if stop in text]
    return text[: min(ends)].strip() if ends else None


def _text(base: Base, tokens: Sequence[int]) -> str:
    return str(base.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
