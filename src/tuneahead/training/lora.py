"""Stacked LoRA: K adapters trained at once on one frozen base.

The rows of all adapters share one forward pass of the base; each adapter's low-rank update is a
batched product with a leading adapter axis. Ranks and targets may differ: entries that an adapter
does not have stay zero, and so do their gradients (LoRA: Hu et al. 2021, arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tuneahead.errors import ModelError
from tuneahead.recipe import Recipe, is_adapted, leaf_names, unknown_targets
from tuneahead.training.adaptable import refuse_expert_targets
from tuneahead.training.models import Base
from tuneahead.training.updates import Matrices, Piece, SlotDropout, low_rank_update, segment_update


@dataclass(frozen=True)
class Target:
    """One adapted layer and where its matrices lie in the flat parameter row."""

    name: str
    layer: int
    n_in: int
    n_out: int
    offset: int
    """Start of A (rank x n_in), followed by B (n_out x rank)."""


class StackedLinear(nn.Module):
    """A frozen linear layer plus the low-rank updates of the stack's active slots."""

    def __init__(self, inner: nn.Module, stack: AdapterStack, name: str) -> None:
        super().__init__()
        self.inner = inner
        self.name = name
        # Kept out of the module tree: the stack holds the model, not the other way round.
        self._stack = [stack]
        self.a: Tensor = torch.empty(0)  # (S, r, n_in)
        self.b: Tensor = torch.empty(0)  # (S, n_out, r)

    @property
    def weight(self) -> Tensor:
        """Refused with a :class:`ModelError`: what reads it (Mamba's ``dt_proj``) would miss the updates."""
        name = self._stack[0].base.name
        raise self._refusal(f"{name!r} reads the weight of its layer {self.name} itself, past any adapter")

    def _refusal(self, why: str) -> ModelError:
        leaf = self.name.rsplit(".", 1)[-1]
        others = sorted(leaf_names(self._stack[0].targeted) - {leaf})
        remedy = f"leave {leaf} out of target_modules" + (f": {', '.join(others)}" if others else "")
        return ModelError(why, remedy=remedy)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is (S*rows, ..., n_in) with the rows of slot 0 first; returns (S*rows, ..., n_out)."""
        stack = self._stack[0]
        if stack.segments is not None and not stack.disabled:
            # Some bases flatten lines before a layer (OPT, a mixture's shared expert).
            sizes, pieces = stack.pieces(self.name, x.shape[:-1].numel())
            return segment_update(x, self.inner, sizes, pieces, stack.anchor)
        y: Tensor = self.inner(x)
        if stack.disabled:
            return y
        if not isinstance(y, Tensor):
            # Routers of mixtures that are made of a linear layer: Llama 4's, Phi-3.5-MoE's.
            what = f"layer {self.name} of {stack.base.name!r} gives several values, to which no adapter adds"
            raise self._refusal(what)
        a, b, scale = self.a, self.b, stack.scale
        if stack.chosen is not None:
            a, b, scale = a[stack.chosen], b[stack.chosen], scale[stack.chosen]
        # A quantized layer may answer in another format than it was asked in.
        rows = x.reshape(a.shape[0], -1, x.shape[-1]).to(y.dtype)
        if stack.dropout is not None:
            rows = stack.dropout(rows, stack.targeted[self.name])
        wide = y.reshape(a.shape[0], -1, y.shape[-1])
        # One cast of the small matrices beats autocast's cast of every product.
        updated = low_rank_update(wide, rows, a.to(y.dtype), b.to(y.dtype), scale.to(y.dtype))
        return updated.view_as(y)


def adapters_act(model: nn.Module) -> bool:
    """Whether a stack that is attached to the model takes part in its passes."""
    return any(isinstance(m, StackedLinear) and not m._stack[0].disabled for m in model.modules())


class AdapterStack:
    """The adapters of up to ``capacity`` runs, in flat storage, attached to a base.

    ``values`` and ``grads`` are (capacity, parameters): one row per slot, so that norms, dot
    products, clipping and AdamW are single passes over contiguous memory.
    """

    def __init__(
        self, base: Base, capacity: int, rank: int, targets: Sequence[str] = ("all-linear",)
    ) -> None:
        self.base = base
        self.rank = rank
        self.capacity = capacity
        self.disabled = False
        self.chosen: Tensor | None = None
        self.dropout: SlotDropout | None = None
        self.segments: tuple[tuple[int, int], ...] | None = None
        """Where slots share lines: the flat range of places that each slot's rows lie in."""
        self.anchor = torch.zeros((), requires_grad=True)
        self._recipes: dict[int, Recipe] = {}
        self._matrices: dict[tuple[str, int], Matrices] = {}
        self._modules: list[StackedLinear] = []
        self._parents: list[tuple[nn.Module, str]] = []
        self.targets = self._plan(targets)
        self.targeted = {target.name: [False] * capacity for target in self.targets}
        """For each wrapped layer, which slots' recipes adapt it."""
        self.parameters = sum((t.n_in + t.n_out) * rank for t in self.targets)
        device = base.device
        self.values = torch.zeros(capacity, self.parameters, device=device)
        self.grads = torch.zeros(capacity, self.parameters, device=device)
        self.initial = torch.zeros(capacity, self.parameters, device=device)
        self.scales = torch.ones(capacity, 1, 1, device=device)
        self._attach()
        self.resize(capacity)

    def _plan(self, wanted: Sequence[str]) -> tuple[Target, ...]:
        linear = _linear_layers(self.base)
        plan = [(name, module) for name, module in linear if is_adapted(name, wanted)]
        layers = [name for name, _ in linear]
        refuse_expert_targets(self.base.name, self.base.model, layers, wanted)
        unknown = unknown_targets(wanted, layers)
        if unknown:
            names = sorted(leaf_names(layers))
            raise ModelError(
                f"no linear layer of {self.base.name!r} matches target_modules {', '.join(unknown)}",
                remedy="choose among: " + (", ".join(names) or "(this model has no linear layers)"),
            )
        targets = []
        offset = 0
        for name, module in plan:
            n_in, n_out = _sizes(module)
            targets.append(Target(name, _layer_index(name), n_in, n_out, offset))
            offset += (n_in + n_out) * self.rank
        return tuple(targets)

    def _attach(self) -> None:
        model = self.base.model
        for target in self.targets:
            parent_name, _, leaf = target.name.rpartition(".")
            parent = model.get_submodule(parent_name)
            stacked = StackedLinear(getattr(parent, leaf), self, target.name)
            setattr(parent, leaf, stacked)
            self._parents.append((parent, leaf))
            self._modules.append(stacked)

    def detach(self) -> None:
        """Give the base its own layers back."""
        for (parent, leaf), stacked in zip(self._parents, self._modules, strict=True):
            setattr(parent, leaf, stacked.inner)
            # Each holds the other, and so the adapters' memory until Python looks for such circles.
            stacked._stack.clear()
        self._parents, self._modules = [], []

    def resize(self, slots: int) -> None:
        """Bind the layers to the first ``slots`` rows (only they take part in forward and backward)."""
        self.slots = slots
        for target, module in zip(self.targets, self._modules, strict=True):
            module.a = self._leaf(target.offset, (self.rank, target.n_in), slots)
            module.b = self._leaf(target.offset + self.rank * target.n_in, (target.n_out, self.rank), slots)
        self.scale = self.scales[:slots]

    def _leaf(self, offset: int, shape: tuple[int, int], slots: int) -> Tensor:
        # A leaf whose storage is the flat row and whose gradient lands in the flat gradient.
        stop = offset + shape[0] * shape[1]
        leaf = self.values[:slots, offset:stop].view(slots, *shape).detach().requires_grad_()
        leaf.grad = self.grads[:slots, offset:stop].view(slots, *shape)
        return leaf

    def initialise(self, slot: int, recipe: Recipe) -> None:
        """Fresh adapter in ``slot``: A uniform as in PEFT (Kaiming, a = sqrt 5), B zero."""
        generator = torch.Generator().manual_seed(recipe.seed)
        row = torch.zeros(self.parameters)
        for target in self.targets:
            if is_adapted(target.name, recipe.target_modules):
                bound = 1.0 / math.sqrt(target.n_in)
                drawn = torch.rand(recipe.lora_rank, target.n_in, generator=generator) * 2 * bound - bound
                a, _ = self.views(row, target)
                a[: recipe.lora_rank] = drawn
        self.load(slot, row, recipe)
        self.initial[slot].copy_(self.values[slot])
        for target in self.targets:
            self.targeted[target.name][slot] = is_adapted(target.name, recipe.target_modules)
        self._recipes[slot] = recipe
        self._matrices.clear()

    def load(self, slot: int, row: Tensor, recipe: Recipe) -> None:
        """Put stored values (flat, this stack's layout) into ``slot``."""
        self.values[slot].copy_(row)
        self.grads[slot].zero_()
        self.scales[slot] = recipe.lora_alpha / recipe.lora_rank

    def move(self, source: int, destination: int) -> None:
        """Copy everything a slot holds into another slot."""
        for tensor in (self.values, self.grads, self.initial, self.scales):
            tensor[destination] = tensor[source]
        for slots in self.targeted.values():
            slots[destination] = slots[source]
        self._recipes[destination] = self._recipes[source]
        self._matrices.clear()

    @property
    def shares_lines(self) -> bool:
        """Whether slots may share lines: plain linear layers on a processor, where small products are cheap.

        On a GPU one batched product for all slots beats one for each.
        """
        return self.base.device == "cpu" and all(type(module.inner) is nn.Linear for module in self._modules)

    def pieces(self, name: str, places: int) -> tuple[list[int], list[Piece]]:
        """Lengths of the slots' ranges and of what is left of ``places``; the slots that adapt this layer."""
        assert self.segments is not None
        sizes = [stop - start for start, stop in self.segments]
        found = []
        for slot, size in enumerate(sizes):
            if self.targeted[name][slot] and size:
                dropped = self.dropout.mask(slot) if self.dropout is not None else None
                found.append(Piece(slot, self._matrices_of(name, slot), dropped))
        return [*sizes, places - self.segments[-1][1]], found

    def _matrices_of(self, name: str, slot: int) -> Matrices:
        key = name, slot
        if key not in self._matrices:
            target = next(target for target in self.targets if target.name == name)
            rank = self._recipes[slot].lora_rank
            a, b = self.views(self.values[slot], target)
            grad_a, grad_b = self.views(self.grads[slot], target)
            scale = float(self.scales[slot])
            self._matrices[key] = Matrices(
                a[:rank], b[:, :rank].t(), grad_a[:rank], grad_b[:, :rank].t(), scale
            )
        return self._matrices[key]

    def active_mask(self, recipe: Recipe) -> Tensor:
        """Boolean (parameters,): which entries belong to an adapter of this recipe."""
        mask = torch.zeros(self.parameters, dtype=torch.bool)
        for target in self.targets:
            if is_adapted(target.name, recipe.target_modules):
                a, b = self.views(mask, target)
                a[: recipe.lora_rank] = True
                b[:, : recipe.lora_rank] = True
        return mask.to(self.values.device)

    def views(self, row: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """A (rank, n_in) and B (n_out, rank) of one layer inside a flat row."""
        middle = target.offset + self.rank * target.n_in
        a = row[target.offset : middle].view(self.rank, target.n_in)
        b = row[middle : middle + target.n_out * self.rank].view(target.n_out, self.rank)
        return a, b

    def matrices(self, slot: int, recipe: Recipe) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, A (r, n_in) and B (n_out, r) of every layer this slot's recipe adapts, as views."""
        for target in self.targets:
            if is_adapted(target.name, recipe.target_modules):
                a, b = self.views(self.values[slot], target)
                yield target.name, a[: recipe.lora_rank], b[:, : recipe.lora_rank]

    def compact(self, row: Tensor, recipe: Recipe) -> Tensor:
        """The entries of a flat row that the recipe's adapter has, as one vector."""
        return row.detach()[self.active_mask(recipe)].clone()

    def expand(self, values: Tensor, recipe: Recipe) -> Tensor:
        """The inverse of :meth:`compact`, in this stack's layout."""
        row = torch.zeros(self.parameters, device=self.values.device)
        row[self.active_mask(recipe)] = values.to(row.device)
        return row

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the adapted layers store their weight as (in, out), as GPT-2's do."""
        return any(isinstance(module.inner, Conv1D) for module in self._modules)

    @contextmanager
    def using(self, slots: Sequence[int]) -> Iterator[None]:
        """Evaluate only these slots (in this order) inside the block, without dropout."""
        before, dropout = self.chosen, self.dropout
        self.chosen = (
            None if list(slots) == list(range(self.slots)) else torch.tensor(slots, device=self.base.device)
        )
        self.dropout = None
        try:
            yield
        finally:
            self.chosen, self.dropout = before, dropout

    @contextmanager
    def base_only(self) -> Iterator[None]:
        """The plain base inside the block."""
        self.disabled = True
        try:
            yield
        finally:
            self.disabled = False

    def layer_slices(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """Flat (start, stop) ranges of each decoder layer, in order."""
        grouped: dict[int, list[tuple[int, int]]] = {}
        for target in self.targets:
            stop = target.offset + (target.n_in + target.n_out) * self.rank
            spans = grouped.setdefault(target.layer, [])
            if spans and spans[-1][1] == target.offset:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((target.offset, stop))
        return [
            (f"layer {index}" if index >= 0 else "other", spans) for index, spans in sorted(grouped.items())
        ]


def _linear_layers(base: Base, others: tuple[type[nn.Module], ...] = ()) -> list[tuple[str, nn.Module]]:
    head = base.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D, *others)
    return [
        (name, module)
        for name, module in base.model.named_modules()
        if isinstance(module, kinds) and module is not head
    ]


def layer_names(base: Base, others: tuple[type[nn.Module], ...] = ()) -> tuple[str, ...]:
    """Full names of the layers that can get an adapter: linear ones, those of ``others``' classes too."""
    return tuple(name for name, _ in _linear_layers(base, others))


def _sizes(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def _layer_index(name: str) -> int:
    numbers = [part for part in name.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else -1
