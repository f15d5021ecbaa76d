"""Benchmark items as trees of tokens, and the rows and passes in which a base reads them.

Options of a question share their prompt's work, and questions share that of what their prompts begin
with: examples, a system message. A row holds a trunk and the trees that grow from it, under a mask by
which each option sees the trunk, its own prompt and itself only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuneahead.training.endings import Endings
from tuneahead.training.heads import AnswerHead
from tuneahead.training.lines import SHORTEST_PREFIX, common_beginning
from tuneahead.training.models import Base

TOKENS_PER_POSITION = 4
"""A pass projects at most a quarter of its tokens onto the vocabulary."""
WORTH_A_PASS = 512
"""Tokens from which a pass costs in proportion to them, also on a tiny base."""
MOST_FILL = 1.1
"""Filled places a pass may have, as a multiple of its tokens, once it is worth a pass."""
_END, _PAST = -1, -2


@dataclass(frozen=True)
class Tree:
    """One item as a tree: a prompt and the branches that continue it."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    keep_last: bool
    """Whether the last token of a branch is an input too (needed to see what follows it)."""
    read_past: tuple[int, ...] = ()
    """Put after a branch whose last token is kept, to see what would follow (at most one token)."""

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """Branch tokens that enter the model."""
        return [(*branch, *self.read_past) if self.keep_last else branch[:-1] for branch in self.branches]

    @property
    def length(self) -> int:
        """Tokens of prompt and branches."""
        return len(self.prompt) + sum(len(branch) for branch in self.inputs)

    @property
    def reads(self) -> int:
        """Positions whose next token is looked at."""
        return 1 + sum(len(branch) for branch in self.inputs)


@dataclass(frozen=True)
class Row:
    """Trees that share a row, by their places in a list, and the tokens all their prompts begin with."""

    trees: tuple[int, ...]
    trunk: int
    length: int
    reads: int

    @classmethod
    def alone(cls, index: int, tree: Tree) -> Row:
        """A row that holds the ``index``-th tree only."""
        return cls((index,), 0, tree.length, tree.reads)


def grow_rows(trees: Sequence[Tree], most_tokens: int, attention_tokens: int) -> list[Row]:
    """Rows that hold every tree once, none longer than ``most_tokens`` unless a single tree is.

    Trees join a row while that costs less than the row's trees do on average: the longer the row, the
    more its attention takes. ``attention_tokens`` is the length at which attention costs as much as
    everything else.
    """

    def cost(length: int) -> float:
        return length * (1 + length / attention_tokens)

    order = sorted(range(len(trees)), key=lambda index: trees[index].prompt)
    rows: list[Row] = []
    for place, index in enumerate(order):
        tree = trees[index]
        if rows:
            last = rows[-1]
            trunk = common_beginning(trees[order[place - 1]].prompt, tree.prompt)
            trunk = min(trunk, last.trunk) if len(last.trees) > 1 else trunk
            whole = sum(trees[i].length for i in last.trees) + tree.length
            length = whole - trunk * len(last.trees)
            added = cost(length) - cost(last.length)
            worth = added <= min(cost(tree.length), cost(last.length) / len(last.trees))
            if trunk >= SHORTEST_PREFIX and length <= most_tokens and worth:
                rows[-1] = Row((*last.trees, index), trunk, length, last.reads + tree.reads)
                continue
        rows.append(Row.alone(index, tree))
    return rows


def by_width(rows: Sequence[Row], most: int, limit: int) -> dict[int, list[Row]]:
    """Rows by how many slots, up to ``most``, read them in one pass within the bounds of :func:`passes`.

    One slot at least: a single tree has to be read however long it is.
    """
    found: dict[int, list[Row]] = {}
    for row in rows:
        width = min(most, limit // row.length, limit // TOKENS_PER_POSITION // row.reads)
        found.setdefault(max(1, width), []).append(row)
    return found


def passes(rows: Sequence[Row], width: int, limit: int) -> Iterator[list[Row]]:
    """Rows by the pass, each bounded in tokens and in projected positions, unless a single row is beyond.

    Sorted by length, and ended where filling would cost more than a pass of its own does.
    """
    current: list[Row] = []
    positions = real = 0
    for row in sorted(rows, key=lambda row: row.length):
        filled = width * row.length * (len(current) + 1)
        wasteful = width * real > WORTH_A_PASS and filled > MOST_FILL * width * (real + row.length)
        full = filled > limit or width * (positions + row.reads) > limit // TOKENS_PER_POSITION
        if current and (full or wasteful):
            yield current
            current, positions, real = [], 0, 0
        current.append(row)
        positions += row.reads
        real += row.length
    if current:
        yield current


@dataclass(frozen=True)
class _Read:
    """One look at what the base expects next: ``tree`` and ``branch`` within the batch, and the token."""

    row: int
    tree: int
    branch: int
    position: int
    token: int
    """The token that is there; ``_END`` where the base should stop, ``_PAST`` after what is read past it."""


class TreeBatch:
    """A padded batch of rows with everything the pass needs: (B, T) tokens.

    ``trees`` are their trees' places in the list, in the order in which :meth:`run` answers.
    """

    def __init__(self, trees: Sequence[Tree], rows: Sequence[Row], pad_id: int, device: str) -> None:
        self.trees = [index for row in rows for index in row.trees]
        self.branches = max(len(trees[index].branches) for index in self.trees)
        length = max(row.length for row in rows)
        ids = np.full((len(rows), length), pad_id, np.int64)
        places = np.zeros((len(rows), length), np.int64)
        # Which tree and branch a place belongs to; the trunk to all trees, a prompt to all its branches.
        tree_at = np.full((len(rows), length), -1, np.int64)
        branch_at = np.full((len(rows), length), -1, np.int64)
        reads: list[_Read] = []
        first = 0
        for number, row in enumerate(rows):
            ids[number, : row.trunk] = trees[row.trees[0]].prompt[: row.trunk]
            places[number] = np.arange(length)
            at = row.trunk
            for own, index in enumerate(row.trees, start=first):
                tree = trees[index]
                start, prompt = at, tree.prompt[row.trunk :]
                at += len(prompt)
                ids[number, start:at] = prompt
                places[number, start:at] = row.trunk + np.arange(len(prompt))
                root = at - 1 if prompt else row.trunk - 1
                for branch, (tokens, inputs) in enumerate(zip(tree.branches, tree.inputs, strict=True)):
                    stop = at + len(inputs)
                    ids[number, at:stop] = inputs
                    places[number, at:stop] = len(tree.prompt) + np.arange(len(inputs))
                    branch_at[number, at:stop] = branch
                    for offset, token in enumerate(tokens):
                        reads.append(
                            _Read(number, own, branch, root if offset == 0 else at + offset - 1, token)
                        )
                    if tree.keep_last:
                        last = stop - 1 - len(tree.read_past)
                        reads.append(_Read(number, own, branch, last, _END))
                        reads += [_Read(number, own, branch, stop - 1, _PAST) for _ in tree.read_past]
                    at = stop
                tree_at[number, start:at] = own
            first += len(row.trees)
            # Fill beyond the row's end may look anywhere: nobody reads it.
            places[number, at:] = 0
        visible = _seen(tree_at) & _seen(branch_at)
        causal = np.tril(np.ones((length, length), bool))
        self.branching = bool((~visible[:, causal]).any())
        self.device = device
        self.ids = torch.from_numpy(ids).to(device)
        self.places = torch.from_numpy(places).to(device)
        self.visible = torch.from_numpy((visible & causal)[:, None]).to(device)
        self.cell = np.array([read.tree * self.branches + read.branch for read in reads], np.int64)
        self.tokens = np.array([read.token for read in reads], np.int64)
        flat = np.array([read.row * length + read.position for read in reads], np.int64)
        self.unique, self.lookup = np.unique(flat, return_inverse=True)

    def run(
        self, base: Base, head: AnswerHead, width: int, endings: Endings | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Log-probability sums (width, trees, branches) and greedy matches (width, trees)."""
        rows, length = self.ids.shape
        unique = torch.from_numpy(self.unique).to(self.device)
        shift = torch.arange(width, device=self.device).unsqueeze(1) * (rows * length)
        head.positions = (unique.unsqueeze(0) + shift).flatten()
        arguments: dict[str, Tensor] = {}
        if self.branching:
            hidden = torch.zeros(self.visible.shape, dtype=base.dtype, device=self.device)
            hidden.masked_fill_(~self.visible, torch.finfo(base.dtype).min)
            arguments = {
                "attention_mask": hidden.repeat(width, 1, 1, 1),
                "position_ids": self.places.repeat(width, 1),
            }
        logits = base.model(input_ids=self.ids.repeat(width, 1), use_cache=False, **arguments).logits[0]
        head.positions = None
        logits = logits.float().view(width, len(self.unique), -1)
        lookup = torch.from_numpy(self.lookup).to(self.device)
        target = torch.from_numpy(self.tokens).to(self.device)
        best = logits.argmax(-1)[:, lookup]  # (width, reads)
        log_z = torch.logsumexp(logits, -1)
        chosen = logits[:, lookup, target.clamp(min=0)] - log_z[:, lookup]
        hit = np.where(self.tokens >= 0, (best == target).cpu().numpy(), self._ended(best, endings))
        return self._collect(chosen.cpu().double().numpy(), hit)

    def _ended(self, best: Tensor, endings: Endings | None) -> NDArray[np.bool_]:
        """Whether the base stops, (width, reads), at the reads for the end; true at all others."""
        ended = np.ones(tuple(best.shape), bool)
        at = np.flatnonzero(self.tokens == _END)
        if endings is not None:
            past = at + len(endings.read_past)
            following, after = (
                best[:, torch.from_numpy(i).to(self.device)].cpu().numpy() for i in (at, past)
            )
            ended[:, at] = endings.ended(following, after)
        return ended

    def _collect(
        self, chosen: NDArray[np.float64], hit: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        shape = (len(self.trees), self.branches)
        size = shape[0] * shape[1]
        token = self.tokens >= 0
        sums = np.full((len(chosen), *shape), np.nan)
        matched = np.zeros((len(chosen), shape[0]), bool)
        present = np.bincount(self.cell, minlength=size).reshape(shape)
        for slot in range(len(chosen)):
            total = np.bincount(self.cell[token], chosen[slot][token], size).reshape(shape)
            sums[slot] = np.where(present > 0, total, np.nan)
            hits = np.bincount(self.cell, hit[slot], size).reshape(shape)
            matched[slot] = ((hits == present) & (present > 0)).any(1)
        return sums, matched


def _seen(owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which places (last axis) may be seen from which (last but one): one's own owner's, and those of none.

    From places of no owner, the trunk and the fill, all that come before may be.
    """
    asking, asked = owner[:, :, None], owner[:, None, :]
    return np.asarray((asking == asked) | (asking == -1) | (asked == -1), bool)
