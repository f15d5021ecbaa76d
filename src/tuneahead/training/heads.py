"""The vocabulary projection of a causal model, computed at the positions that are looked at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from tuneahead.errors import ModelError
from tuneahead.training.models import Base


class _Asked(threading.local):
    """The positions that the pass under way looks at; each thread has its own."""

    positions: Tensor | None = None


class AnswerHead(nn.Module):
    """The vocabulary projection, computed at chosen positions only.

    With 49k to 262k words it is most of the cost of short answers.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._asked = _Asked()

    @property
    def positions(self) -> Tensor | None:
        """Flat indices of the places that this thread's pass projects; None for all."""
        return self._asked.positions

    @positions.setter
    def positions(self, positions: Tensor | None) -> None:
        self._asked.positions = positions

    @property
    def weight(self) -> Tensor:
        """The projection's weight, which transformers looks up when embeddings are tied."""
        weight = self.inner.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """``hidden`` is (rows, T, width); with positions set (flat indices) returns (1, N, vocabulary)."""
        positions = self.positions
        if positions is not None:
            # Layers of a model that is spread over several devices end on another one than they begin on.
            positions = positions.to(hidden.device)
            hidden = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions).unsqueeze(0)
        projected: Tensor = self.inner(hidden)
        return projected


@contextmanager
def answer_head(base: Base) -> Iterator[AnswerHead]:
    """Project onto the vocabulary only where asked, inside the block.

    Raises :class:`ModelError` for a model that has no head to project with.
    """
    model = base.model
    inner = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if inner is None:
        raise ModelError(f"{base.name!r} has no language-model head", remedy="give a causal language model")
    head = AnswerHead(inner)
    model.set_output_embeddings(head)  # type: ignore[no-untyped-call]
    try:
        yield head
    finally:
        model.set_output_embeddings(inner)  # type: ignore[no-untyped-call]
