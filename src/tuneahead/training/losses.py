"""The loss of a base's answers, row by row or token by token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tuneahead.training.batches import Packed
from tuneahead.training.heads import AnswerHead
from tuneahead.training.models import Base


def rows_nll(base: Base, head: AnswerHead, packed: Packed) -> Tensor:
    """Summed loss of every row in nats: (rows of all slots,)."""
    nll = answer_nll(base, head, packed)
    return torch.zeros(packed.starts[-1], device=nll.device).index_add(0, packed.owner, nll)


def answer_nll(base: Base, head: AnswerHead, packed: Packed) -> Tensor:
    """Loss of every answer token in nats, (N,), in fp32; differentiable."""
    if not len(packed.positions):
        return torch.zeros(0, device=packed.ids.device)
    return functional.cross_entropy(answer_logits(base, head, packed), packed.labels, reduction="none")


def answer_logits(base: Base, head: AnswerHead, packed: Packed) -> Tensor:
    """What the base expects at each answer token's place: (N, vocabulary), in fp32."""
    head.positions = packed.positions
    logits: Tensor = base.model(**packed.inputs(base.dtype), use_cache=False).logits[0]
    head.positions = None
    return logits.float()
