"""One step's passes: forward and backward through the stack, micro-batch after micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tuneahead.training.allowed import pack_for
from tuneahead.training.batches import step_rows
from tuneahead.training.heads import answer_head
from tuneahead.training.lora import AdapterStack
from tuneahead.training.losses import rows_nll
from tuneahead.training.models import Base
from tuneahead.training.runs import Slot
from tuneahead.training.updates import SlotDropout

Losses = list[tuple[int, float]]
"""Rows of one step by index, each with its summed loss in nats."""
FP16_TOKEN_WEIGHTS = (1.0, 2.0**-6, 2.0**-12)
"""Weights of a token's loss that are tried in half precision, until no gradient is beyond its range."""


@dataclass(frozen=True)
class StepPlan:
    """The rows of one slot's step, micro-batch by micro-batch, and how many answer tokens they hold."""

    parts: tuple[tuple[int, ...], ...]
    answer_tokens: int

    @classmethod
    def of(cls, slot: Slot) -> StepPlan:
        """The plan of the step that ``slot`` stands at."""
        rows = slot.job.data.train
        parts = [part.tolist() for part in step_rows(slot.job.recipe, len(rows), slot.step)]
        tokens = sum(rows[i].answer_tokens for part in parts for i in part)
        return cls(tuple(tuple(part) for part in parts), tokens)

    @property
    def token_share(self) -> float:
        """What one answer token counts in the step's mean loss."""
        return 1 / max(1, self.answer_tokens)

    def part(self, micro: int) -> tuple[int, ...]:
        """The rows of a micro-batch; none beyond the last."""
        return self.parts[micro] if micro < len(self.parts) else ()


@dataclass(frozen=True)
class _Attempt:
    """One way to make a step's passes.

    ``token_weight`` is that of a token's loss in them; None is the token's share of the step's loss, which
    gradients are brought to in any case.
    """

    shared: bool
    token_weight: float | None = None


class TrainingPasses:
    """Leaves the gradients of a step, summed over its micro-batches, in the stack."""

    def __init__(self, base: Base, stack: AdapterStack) -> None:
        self.base = base
        self.stack = stack

    def gradients(self, slots: Sequence[Slot], plans: Sequence[StepPlan]) -> tuple[list[Losses], Tensor]:
        """One step's losses of every slot's rows, and the norms of the gradients they leave in the stack."""
        # Only dropout draws from a slot's generator.
        drawn = [(s.generator, s.generator.get_state()) for s in slots if s.job.recipe.lora_dropout]
        attempts = self._attempts()
        for attempt in attempts:
            self.stack.grads[: len(slots)].zero_()
            losses: list[Losses] = [[] for _ in slots]
            for micro in range(max(len(plan.parts) for plan in plans)):
                self._forward_backward(slots, plans, micro, losses, attempt)
            self._share_out(plans, attempt)
            norm = torch.linalg.vector_norm(self.stack.grads[: len(slots)], dim=1)
            if attempt is attempts[-1] or bool(torch.isfinite(norm).all()):
                break
            for generator, state in drawn:
                generator.set_state(state)
        return losses, norm

    def _attempts(self) -> list[_Attempt]:
        """What to try, one after the other, as long as a gradient is not finite."""
        attempts = [_Attempt(shared=False)]
        if self.base.dtype == torch.float16:
            # The share of one token of thousands is so small that its gradients would be rounded to 0.
            attempts = [_Attempt(shared=False, token_weight=weight) for weight in FP16_TOKEN_WEIGHTS]
        if self.stack.shares_lines:
            # Behind a mask a number that is none is still none: a run that blew up has spoiled those
            # it shared lines with. Once more, each in lines of its own.
            attempts.insert(0, replace(attempts[0], shared=True))
        return attempts

    def _share_out(self, plans: Sequence[StepPlan], attempt: _Attempt) -> None:
        """Bring the gradients of tokens that had another weight to their share of the step."""
        if attempt.token_weight is not None:
            factors = [plan.token_share / attempt.token_weight for plan in plans]
            grads = self.stack.grads[: len(plans)]
            grads.mul_(torch.tensor(factors, device=grads.device).unsqueeze(1))

    def _forward_backward(
        self,
        slots: Sequence[Slot],
        plans: Sequence[StepPlan],
        micro: int,
        losses: list[Losses],
        attempt: _Attempt,
    ) -> None:
        indices = [plan.part(micro) for plan in plans]
        batches = [[slot.job.data.train[i] for i in own] for slot, own in zip(slots, indices, strict=True)]
        rates = [slot.job.recipe.lora_dropout for slot in slots]
        # With dropout each row draws a mask of its own, for its beginning too.
        whole = [rate > 0 for rate in rates]
        packed = pack_for(self.base, batches, self.stack, shared_by_slots=attempt.shared, whole=whole)
        self.stack.segments = packed.segments
        self.stack.dropout = (
            SlotDropout(rates, [slot.generator for slot in slots], packed.tokens) if any(rates) else None
        )
        with answer_head(self.base) as head:
            row_nll = rows_nll(self.base, head, packed)
            self.stack.dropout = None
            shares = [attempt.token_weight or plan.token_share for plan in plans]
            weights = [share for share, rows in zip(shares, indices, strict=True) for _ in rows]
            if row_nll.requires_grad:
                row_nll.backward(torch.tensor(weights, device=row_nll.device))  # type: ignore[no-untyped-call]
        self.stack.segments = None
        # Fetched once: each fetch from a GPU waits for it.
        nll = iter(row_nll.tolist())
        for found, rows in zip(losses, indices, strict=True):
            found += [(row, next(nll)) for row in rows]
