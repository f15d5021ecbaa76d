"""Whether runs fit in memory: what a pass keeps for its backward pass, and doing without if too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tuneahead.errors import MemoryShortError
from tuneahead.training.encode import Encoded
from tuneahead.training.hardware import free_bytes
from tuneahead.training.lora import AdapterStack
from tuneahead.training.updates import SlotDropout

MEASURED_TOKENS = 256
"""Longest line that is run to see what it keeps; longer ones are reckoned from it and from half of it."""
LOGIT_BYTES = 16
"""Bytes of a vocabulary entry at an answer's position: logits, their fp32 copy, softmax and gradient."""
ROWS_TO_COME = 6
"""Of a run's adapters' size, not there yet when the room is looked at: AdamW's two moments, the previous
gradient, the mean one, the values before a step, and what is reckoned in passing."""


@dataclass(frozen=True)
class PassSize:
    """The largest micro-batch of one run: rows, and the tokens and answer tokens of its longest row."""

    rows: int
    row_tokens: int
    answer_tokens: int


def pass_size(rows: Sequence[Encoded], batch_size: int) -> PassSize:
    """The size of a run's largest micro-batch."""
    return PassSize(
        min(batch_size, len(rows)),
        max(len(row.ids) for row in rows),
        max(row.answer_tokens for row in rows),
    )


def fit_runs(stack: AdapterStack, sizes: Sequence[PassSize], width: int) -> bool:
    """Make sure that ``width`` runs of these sizes fit; True when layers are recomputed for it.

    Raises :class:`MemoryShortError` with the memory needed when even that is too much.
    """
    device = stack.base.device
    free = free_bytes(device)
    if free is None:
        return False
    longest = max(size.row_tokens for size in sizes)
    line = LineBytes.measure(stack, longest)
    largest = max(sizes, key=lambda size: size.rows * line.of_line(size.row_tokens))
    answers = width * max(size.rows * size.answer_tokens for size in sizes)
    vocabulary = stack.base.model.config.get_text_config().vocab_size
    fixed = ROWS_TO_COME * 4 * width * stack.parameters + LOGIT_BYTES * answers * vocabulary
    kept = width * largest.rows * line.of_line(largest.row_tokens)
    if fixed + kept <= free:
        return False
    recompute_layers(stack)
    # With every layer recomputed its inputs are kept, and the insides of one layer at a time.
    layers = max(1, sum(isinstance(m, GradientCheckpointingLayer) for m in stack.base.model.modules()))
    inputs = LineBytes.measure(stack, longest).of_line(largest.row_tokens)
    least = width * largest.rows * inputs + kept / layers
    if fixed + least <= free:
        return True
    raise MemoryShortError(
        f"{width} run(s) of {largest.rows} rows of {largest.row_tokens} tokens on {stack.base.name!r} need "
        f"{(fixed + min(kept, least)) / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB free",
        remedy="lower batch_size (raise gradient_accumulation_steps instead) or max_length, or use a "
        "smaller base or precision",
    )


@dataclass(frozen=True)
class LineBytes:
    """What a line keeps for the backward pass.

    Attention that is not fused, as on processors, keeps numbers for every two of a line's places.
    """

    of_a_token: float
    of_two_tokens: float

    @classmethod
    def measure(cls, stack: AdapterStack, longest: int) -> LineBytes:
        """Found from a line as long as the ``longest``, or as is measured at most, and from half of it."""
        whole = min(MEASURED_TOKENS, longest, stack.base.context_tokens)
        half = whole // 2
        share, share_of_half = (saved_bytes(stack, n) / n for n in (whole, half))
        square = max(0.0, (share - share_of_half) / (whole - half))
        return cls(share - square * whole, square)

    def of_line(self, tokens: int) -> float:
        """Bytes that a line of so many tokens keeps."""
        return tokens * (self.of_a_token + self.of_two_tokens * tokens)


def saved_bytes(stack: AdapterStack, length: int) -> int:
    """Bytes that a forward pass over one line of ``length`` tokens keeps for the backward pass.

    Weights and adapters are not counted, nor the vocabulary projection.
    """
    model = stack.base.model
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held.add(stack.values.untyped_storage().data_ptr())
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(1, length, dtype=torch.long, device=stack.base.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.enable_grad(), stack.using([0]), hooks:
        kept = model.base_model(input_ids=ids, use_cache=False)
    total = sum(seen.values())
    del kept
    return total


def recompute_layers(stack: AdapterStack) -> None:
    """Keep only the input of every decoder layer and run the layer again in the backward pass.

    Unlike transformers' own gradient checkpointing it needs no training mode (a frozen base stays
    without dropout), and the adapters' dropout draws the same masks again.
    """
    for module in stack.base.model.modules():
        if isinstance(module, GradientCheckpointingLayer) and "forward" not in vars(module):
            module.forward = _Recomputed(module.forward, stack)


def keep_layers(stack: AdapterStack) -> None:
    """Undo :func:`recompute_layers`."""
    for module in stack.base.model.modules():
        recomputed = vars(module).get("forward")
        if isinstance(recomputed, _Recomputed):
            del module.forward
            # Passes that were never gone back over keep it, and so would the adapters' memory be kept.
            recomputed.held.clear()


class _Recomputed:
    """A layer's forward pass that is made again when its gradient is asked for."""

    def __init__(self, forward: Any, stack: AdapterStack) -> None:
        self.inner = forward
        self.held = [stack]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.inner(*args, **kwargs)
        dropout = self.held[0].dropout
        before = [] if dropout is None else [g.get_state() for g in dropout.generators]

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self._rewound(dropout, before)

        return checkpoint(self.inner, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    @contextmanager
    def _rewound(self, dropout: SlotDropout | None, states: Sequence[torch.Tensor]) -> Iterator[None]:
        """Draw again what the first pass drew; afterwards the generators go on where they were."""
        stack = self.held[0]
        own, generators = stack.dropout, [] if dropout is None else dropout.generators
        after = [generator.get_state() for generator in generators]
        stack.dropout = dropout
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        try:
            yield
        finally:
            stack.dropout = own
            for generator, state in zip(generators, after, strict=True):
                generator.set_state(state)
