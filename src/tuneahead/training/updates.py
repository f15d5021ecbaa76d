"""Low-rank updates of many adapters in one pass: batched over slots, or range by range; and their dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _LowRankUpdate(torch.autograd.Function):
    """``y + scale * x A^T B^T`` with every product laid out with the rank as its row axis.

    Products with r columns run several times slower on processors than the same with r rows.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        low = torch.bmm(a, x.transpose(1, 2)) * scale  # (S, r, tokens)
        ctx.save_for_backward(x, a, b, low, scale)
        return torch.baddbmm(y, low.transpose(1, 2), b.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, a, b, low, scale = ctx.saved_tensors
        d_low = torch.bmm(b.transpose(1, 2), dy.transpose(1, 2)) * scale  # (S, r, tokens)
        dx = torch.bmm(d_low.transpose(1, 2), a) if ctx.needs_input_grad[1] else None
        db = torch.bmm(low, dy).transpose(1, 2)
        return dy, dx, torch.bmm(d_low, x), db, None


def low_rank_update(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """``y`` (S, tokens, n_out) plus ``scale`` (S, 1, 1) times ``x`` (S, tokens, n_in) through A and B."""
    updated: Tensor = _LowRankUpdate.apply(y, x, a, b, scale)  # type: ignore[no-untyped-call]
    return updated


@dataclass(frozen=True)
class Matrices:
    """One slot's A (r, n_in) and B (n_out, r) of one layer, and where their gradients are summed up."""

    a: Tensor
    b_transposed: Tensor
    grad_a: Tensor
    grad_b_transposed: Tensor
    scale: float

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B transposed, both with the rank as row axis, in another number format."""
        return self.a.to(dtype), self.b_transposed.to(dtype)


@dataclass(frozen=True)
class Piece:
    """Which range of places one slot's rows lie in, its matrices, and what draws its dropout mask."""

    place: int
    matrices: Matrices
    dropped: Callable[[Tensor], Tensor] | None


class _SegmentUpdate(torch.autograd.Function):
    """A frozen linear layer and, range by range, each slot's own low-rank update, at its own rank.

    Gradients of A and B are added to the stack's storage at once; as in :class:`_LowRankUpdate` the
    rank is the row axis of every product.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, inner: nn.Linear, sizes: list[int], pieces: list[Piece]
    ) -> Tensor:
        y = functional.linear(x, inner.weight, inner.bias)
        flat = x.reshape(-1, x.shape[-1])
        rows, out = torch.split(flat, sizes), torch.split(y.view(-1, y.shape[-1]), sizes)
        lows, masks = [], []
        for piece in pieces:
            own = rows[piece.place]
            mask = piece.dropped(own) if piece.dropped is not None else None
            a, b = piece.matrices.cast(y.dtype)
            low = torch.mm(a, (own if mask is None else own * mask).t())  # (r, places)
            out[piece.place].addmm_(low.t(), b, alpha=piece.matrices.scale)
            lows.append(low)
            masks.append(mask)
        ctx.save_for_backward(flat)
        ctx.rest = inner, sizes, pieces, lows, masks, x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (flat,) = ctx.saved_tensors
        inner, sizes, pieces, lows, masks, shape = ctx.rest
        dy = grads[0].reshape(-1, grads[0].shape[-1])
        dx = torch.mm(dy, inner.weight) if ctx.needs_input_grad[0] else None
        rows, d_out = torch.split(flat, sizes), torch.split(dy, sizes)
        d_rows = torch.split(dx, sizes) if dx is not None else ()
        for piece, low, mask in zip(pieces, lows, masks, strict=True):
            m, own, d_own = piece.matrices, rows[piece.place], d_out[piece.place]
            a, b = m.cast(dy.dtype)
            d_low = torch.mm(b, d_own.t())  # (r, places)
            m.grad_a.add_(torch.mm(d_low, own if mask is None else own * mask), alpha=m.scale)
            m.grad_b_transposed.add_(torch.mm(low, d_own), alpha=m.scale)
            if dx is not None and mask is None:
                d_rows[piece.place].addmm_(d_low.t(), a, alpha=m.scale)
            elif dx is not None:
                d_rows[piece.place].add_(torch.mm(d_low.t(), a) * mask, alpha=m.scale)
        return dx if dx is None else dx.view(shape), None, None, None, None


def segment_update(
    x: Tensor, inner: nn.Module, sizes: list[int], pieces: list[Piece], anchor: Tensor
) -> Tensor:
    """``inner`` of ``x`` (lines, T, n_in) plus each piece's update of its range of the lines * T places.

    ``sizes`` are the lengths of the ranges, which follow each other. ``anchor`` is a leaf that needs a
    gradient and gets none: it makes the first adapted layer, whose input needs none, part of the graph.
    """
    y: Tensor = _SegmentUpdate.apply(x, anchor, inner, sizes, pieces)  # type: ignore[no-untyped-call]
    return y


class SlotDropout:
    """LoRA dropout with one generator per slot, so that a slot draws the same whatever runs beside it.

    Generators lie on the device that draws: masks made elsewhere would take longer to bring than to use.
    """

    def __init__(
        self, rates: Sequence[float], generators: Sequence[torch.Generator], tokens: Sequence[Tensor]
    ) -> None:
        self.rates = rates
        self.generators = generators
        self.tokens = tokens
        self._order: Tensor | None = None

    def __call__(self, rows: Tensor, targeted: Sequence[bool]) -> Tensor:
        """``rows`` is (S, places, n_in); masks are drawn for the slot's real tokens, in row order.

        Only slots whose recipe adapts this layer (``targeted``) draw: a layer wrapped for a
        neighbour's sake must not move a slot's generator on.
        """
        drawing = [slot for slot, rate in enumerate(self.rates) if rate > 0 and targeted[slot]]
        if not drawing:
            return rows
        mask = torch.ones_like(rows)
        if rows.device.type == "cpu":
            for slot in drawing:
                mask[slot] = self._drawn(slot, mask[slot])
        else:
            mask[drawing] = self._drawn_together(drawing, rows)
        return rows * mask

    def _drawn_together(self, drawing: Sequence[int], rows: Tensor) -> Tensor:
        """The masks of these slots, (slots, places, n_in), in one operation a slot and a few for all."""
        counts = [len(self.tokens[slot]) for slot in drawing]
        # A slot may have no rows in a micro-batch that its neighbours have some in.
        draws = torch.zeros(len(drawing), max(1, *counts), rows.shape[-1], device=rows.device)
        for own, slot, count in zip(draws, drawing, counts, strict=True):
            own[:count].uniform_(generator=self.generators[slot])
        rates = torch.tensor([self.rates[slot] for slot in drawing], device=rows.device).view(-1, 1, 1)
        kept = ((draws >= rates) / (1.0 - rates)).to(rows.dtype)
        number = torch.arange(len(drawing), device=rows.device).unsqueeze(1)
        return kept[number, self._places(rows.shape[1], rows.device)[list(drawing)]]

    def _places(self, places: int, device: torch.device) -> Tensor:
        """(S, places): which of its slot's tokens lies at a place; where none does, nobody looks."""
        if self._order is None:
            order = torch.zeros(len(self.tokens), places, dtype=torch.long)
            for own, tokens in zip(order, self.tokens, strict=True):
                own[tokens] = torch.arange(len(tokens))
            self._order = order.to(device)
        return self._order

    def mask(self, slot: int) -> Callable[[Tensor], Tensor] | None:
        """What draws the mask of a slot's places (places, n_in); None where its recipe has no dropout."""
        return partial(self._drawn, slot) if self.rates[slot] > 0 else None

    def _drawn(self, slot: int, rows: Tensor) -> Tensor:
        rate, tokens = self.rates[slot], self.tokens[slot]
        shape = (len(tokens), rows.shape[-1])
        draw = torch.rand(shape, generator=self.generators[slot], device=rows.device)
        mask = torch.ones_like(rows)
        mask[tokens] = (draw >= rate).to(rows.dtype) / (1.0 - rate)
        return mask
