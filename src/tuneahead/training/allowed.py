"""What a base allows: rows that share a line, and a beginning that is held once a line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from weakref import WeakKeyDictionary

import numpy as np
import torch

from tuneahead.training.batches import Packed, pack
from tuneahead.training.encode import Encoded
from tuneahead.training.heads import answer_head
from tuneahead.training.lines import LONGEST_SHARED_LINE, SHARED_LINES, shared_prefix
from tuneahead.training.lora import AdapterStack
from tuneahead.training.losses import answer_nll
from tuneahead.training.models import Base


def shares_lines(base: Base, batches: Sequence[Sequence[Encoded]]) -> bool:
    """Whether rows may share a line: the model obeys explicit masks and no row leaves its window."""
    longest = max((len(row.ids) for batch in batches for row in batch), default=0)
    return longest <= window(base) and obeys_masks(base)


def window(base: Base) -> int:
    """How far back a place sees: the sliding window or Llama 4's chunk, else more than any line is long."""
    config = base.model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return int(min((tokens for tokens in named if tokens), default=1 << 30))


def shared_beginnings(base: Base, batches: Sequence[Sequence[Encoded]]) -> list[int]:
    """How many tokens of each slot's rows are held once a line: what they begin with, if the base allows."""
    found = [shared_prefix(batch) for batch in batches]
    # Asked last: it takes the base a line of the greatest length.
    return found if any(found) and obeys_gaps(base) else [0] * len(batches)


def pack_for(
    base: Base,
    batches: Sequence[Sequence[Encoded]],
    stack: AdapterStack | None = None,
    *,
    shared_by_slots: bool = False,
    whole: Sequence[bool] = (),
) -> Packed:
    """Pack one batch per slot as closely as the base allows; ``stack`` is the one attached to it.

    Slots that are ``whole`` (default: none) hold every row with its beginning.
    """
    # What the base allows is asked of the base alone.
    with stack.base_only() if stack is not None else nullcontext():
        several, prefixes = shares_lines(base, batches), shared_beginnings(base, batches)
    for slot, alone in enumerate(whole):
        prefixes[slot] = 0 if alone else prefixes[slot]
    return pack(
        batches,
        base.pad_id,
        base.device,
        several_per_line=several,
        shared_by_slots=shared_by_slots,
        large_base=base.is_large,
        prefixes=prefixes,
    )


_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError)
"""What is raised by bases that take no mask of every place by every place (BLOOM, Mamba)."""
_OBEYS: WeakKeyDictionary[Base, bool] = WeakKeyDictionary()
_OBEYS_GAPS: WeakKeyDictionary[Base, bool] = WeakKeyDictionary()
_ROUNDING = 1e-4
"""Greatest relative difference of losses that rounding may make in fp32."""
_ROUGH_ROUNDING = 1e-2
"""The same in formats of 16 bits or fewer and with TF32: SmolLM2 in bf16 has 3e-3 on a processor."""
_ROUNDING_OF_GAPS = 3.0
"""How often more a gap may change losses than rounding does: SmolLM2 in bf16 has 1.5."""


def obeys_masks(base: Base) -> bool:
    """Whether the base gives a row the same scores alone and behind another one under a mask.

    Attention models do; recurrent ones do not, and then neither lines nor prompts are shared.
    """
    if base not in _OBEYS:
        first, second = _drawn_tokens(base, (2, 6))
        rows = [Encoded((*first,), (True,) * 6, 1), Encoded((*second[:5],), (True,) * 5, 2)]
        apart = pack([rows], base.pad_id, base.device)
        # Of their own accord so short rows would have a line each.
        together = pack([rows], base.pad_id, base.device, several_per_line=True, line=SHARED_LINES[0])
        limit = _ROUGH_ROUNDING if _is_rough(base) else _ROUNDING
        _OBEYS[base] = _difference(base, apart, together) <= limit
    return _OBEYS[base]


def obeys_gaps(base: Base) -> bool:
    """Whether the base gives a row the same scores alone and far behind its beginning in the longest line.

    Not so where attention goes by the place in the line: local attention (GPT-Neo), biases by distance (MPT).
    """
    if base not in _OBEYS_GAPS:
        _OBEYS_GAPS[base] = obeys_masks(base) and _is_same_far_behind(base)
    return _OBEYS_GAPS[base]


def _is_same_far_behind(base: Base) -> bool:
    # Rows that fill the longest line together, but none of them a sliding window by itself.
    own = max(1, min(60, window(base) - 24, base.context_tokens - 24))
    opening, *drawn = _drawn_tokens(base, (9, max(24, own)))
    rows = [Encoded((*opening[:24], *one[:own]), (False,) * 24 + (True,) * own, 1) for one in drawn]
    apart = pack([rows], base.pad_id, base.device)
    behind, after = (
        pack(
            [rows],
            base.pad_id,
            base.device,
            several_per_line=True,
            prefixes=[prefix],
            line=LONGEST_SHARED_LINE,
        )
        for prefix in (shared_prefix(rows), 0)
    )
    limit = _ROUNDING
    if _is_rough(base):
        # How much rounding changes is the base's own: whole rows behind each other show it.
        limit = max(_ROUGH_ROUNDING / 10, _ROUNDING_OF_GAPS * _difference(base, apart, after))
    return _difference(base, apart, behind) <= limit


def _drawn_tokens(base: Base, shape: tuple[int, int]) -> list[list[int]]:
    """Tokens from all over the vocabulary, few enough to come again: a row then says what a base attends to.

    The first ones alone would not do: those are tokens that mark things, and bases that never saw two of them
    in a row answer with nothing but rounding.
    """
    vocabulary = int(base.model.config.get_text_config().vocab_size)
    pool = np.linspace(min(4, vocabulary - 1), vocabulary - 1, 40).astype(int)
    return [[int(i) for i in one] for one in np.random.default_rng(0).choice(pool, shape)]


def _difference(base: Base, one: Packed, other: Packed) -> float:
    """Mean absolute difference of the losses over their mean; infinite where the base takes no such mask."""
    with torch.no_grad(), answer_head(base) as head:
        first = answer_nll(base, head, one)
        try:
            second = answer_nll(base, head, other)
        except _REFUSALS:
            return float("inf")
    return float((first - second).abs().mean() / first.abs().mean())


def _is_rough(base: Base) -> bool:
    device = base.device.split(":", 1)[0]
    rough = base.dtype != torch.float32 or torch.is_autocast_enabled(device)
    rough |= bool(getattr(base.model, "is_quantized", False))
    return rough or (device == "cuda" and torch.backends.cuda.matmul.allow_tf32)
