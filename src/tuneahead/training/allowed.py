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
from tuneahead.training.lines import LONGEST_SHARED_LINE, shared_prefix
from tuneahead.training.lora import AdapterStack
from tuneahead.training.losses import answer_nll
from tuneahead.training.models import Base


def shares_lines(base: Base, batches: Sequence[Sequence[Encoded]]) -> bool:
    """Whether rows may share a line: the model obeys explicit masks and no row leaves its window."""
    longest = max((len(row.ids) for batch in batches for row in batch), default=0)
    return longest <= window(base) and obeys_masks(base)


def window(base: Base) -> int:
    """How far back a place sees: the sliding window, or without one more than any line is long."""
    return int(getattr(base.model.config.get_text_config(), "sliding_window", None) or 1 << 30)


def shared_beginnings(base: Base, batches: Sequence[Sequence[Encoded]]) -> list[int]:
    """How many tokens of each slot's rows are held once a line: what they begin with, if the base allows."""
    found = [shared_prefix(batch) for batch in batches]
    # Asked last: it takes the base a line of the greatest length.
    return found if any(found) and obeys_masks(base) and obeys_gaps(base) else [0] * len(batches)


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


def obeys_masks(base: Base) -> bool:
    """Whether the base gives a row the same scores alone and behind another one under a mask.

    Attention models do; recurrent ones do not, and then neither lines nor prompts are shared.
    """
    if base not in _OBEYS:
        rows = [Encoded((5, 6, 7, 8, 9, 4), (True,) * 6, 1), Encoded((9, 7, 5, 4, 6), (True,) * 5, 2)]
        apart = pack([rows], base.pad_id, base.device)
        _OBEYS[base] = _same_losses(
            base, apart, pack([rows], base.pad_id, base.device, several_per_line=True)
        )
    return _OBEYS[base]


def obeys_gaps(base: Base) -> bool:
    """Whether the base gives a row the same scores alone and far behind its beginning in the longest line.

    Not so where attention goes by the place in the line: local attention (GPT-Neo), biases by distance (MPT).
    """
    if base not in _OBEYS_GAPS:
        # Rows that fill the longest line together, but none of them a sliding window by itself.
        own = min(60, window(base) - 24, base.context_tokens - 24)
        drawn = np.random.default_rng(0).integers(4, 10, (8, max(1, own))).tolist()
        opening = tuple(int(i) for i in np.random.default_rng(1).integers(4, 10, 24))
        rows = [Encoded((*opening, *one), (False,) * 24 + (True,) * len(one), 1) for one in drawn]
        apart = pack([rows], base.pad_id, base.device)
        behind = pack(
            [rows],
            base.pad_id,
            base.device,
            several_per_line=True,
            prefixes=[shared_prefix(rows)],
            line=LONGEST_SHARED_LINE,
        )
        _OBEYS_GAPS[base] = _same_losses(base, apart, behind)
    return _OBEYS_GAPS[base]


def _same_losses(base: Base, one: Packed, other: Packed) -> bool:
    with torch.no_grad(), answer_head(base) as head:
        first = answer_nll(base, head, one)
        try:
            second = answer_nll(base, head, other)
        except _REFUSALS:
            return False
    device = base.device.split(":", 1)[0]
    rough = base.dtype != torch.float32 or torch.is_autocast_enabled(device)
    rough |= bool(getattr(base.model, "is_quantized", False))
    rough |= device == "cuda" and torch.backends.cuda.matmul.allow_tf32
    rtol = 2e-2 if rough else 1e-4
    return torch.allclose(first, second, rtol=rtol, atol=1e-4)
