"""The adapter of a live PEFT model, seen as a stack of one, so that the loop's own meters measure it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from tuneahead.errors import ModelError
from tuneahead.recipe import Recipe
from tuneahead.training.lora import AdapterStack, Target, _layer_index
from tuneahead.training.models import Base, weights_fingerprint

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EXPLICIT_MASKS = ("eager", "sdpa")
"""Attention kernels that take the masks with which scoring keeps rows apart."""


class LiveAdapter(AdapterStack):
    """LoRA matrices that belong to PEFT and its optimiser, mirrored in the flat row of one slot.

    ``values`` and ``grads`` are (1, parameters) copies in fp32: :meth:`pull`, after each update, and
    :meth:`pull_gradients` refresh them, and passes inside :meth:`using` write ``values`` back
    first, so that a meter may perturb the row and measure. Trained weights that are not LoRA
    matrices are ``others``; :meth:`as_begun` alone touches them, with a copy that lies in main memory.
    """

    def __init__(self, base: Base, model: PeftModel) -> None:
        self.base = base
        self.pairs = _lora_pairs(base)
        if not self.pairs:
            raise ModelError(
                "the model has no trainable LoRA matrices",
                remedy="wrap it with peft.get_peft_model(model, LoraConfig(...)), or load an adapter with "
                "is_trainable=True; AdaLoRA and other variants are not measured",
            )
        self.rank = max(a.shape[0] for _, a, _ in self.pairs)
        self.capacity = self.slots = 1
        self.disabled, self.chosen, self.dropout = False, None, None
        targets, offset = [], 0
        for name, a, b in self.pairs:
            targets.append(Target(name, _layer_index(name), a.shape[1], b.shape[0], offset))
            offset += (a.shape[1] + b.shape[0]) * self.rank
        self.targets = tuple(targets)
        self.parameters = offset
        self.values, self.grads = (torch.zeros(1, offset, device=base.device) for _ in range(2))
        self.scale = self.scales = torch.ones(1, 1, 1, device=base.device)
        self.pull()
        self.initial = self.values.clone()
        own = {id(matrix) for _, a, b in self.pairs for matrix in (a, b)}
        self.others = tuple(p for p in model.parameters() if p.requires_grad and id(p) not in own)
        self._others_begun = _copies(self.others)

    def pull(self) -> None:
        """Copy the live matrices into ``values``."""
        self._read(self.values[0], [(a.detach(), b.detach()) for _, a, b in self.pairs])

    def pull_gradients(self, factor: float) -> None:
        """Copy the live gradients, times ``factor``, into ``grads``; a missing gradient is zero."""
        pairs = [
            tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in pair[1:]) for pair in self.pairs
        ]
        self._read(self.grads[0], cast("list[tuple[Tensor, Tensor]]", pairs))
        if factor != 1.0:
            self.grads.mul_(factor)

    def with_gradient(self, names: Collection[str]) -> Iterator[str]:
        """Those of the named layers of which a matrix has a live gradient that is not zero."""
        for name, *pair in self.pairs:
            if name in names and any(p.grad is not None and bool(p.grad.any()) for p in pair):
                yield name

    def _read(self, row: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        for target, (a, b) in zip(self.targets, pairs, strict=True):
            flat_a, flat_b = self.views(row, target)
            flat_a[: a.shape[0]].copy_(a)
            flat_b[:, : a.shape[0]].copy_(b)

    @torch.no_grad()
    def push(self) -> None:
        """Write ``values`` into the live matrices."""
        for target, (_, a, b) in zip(self.targets, self.pairs, strict=True):
            flat_a, flat_b = self.views(self.values[0], target)
            a.copy_(flat_a[: a.shape[0]])
            b.copy_(flat_b[:, : a.shape[0]])
        _forget_casts()

    @contextmanager
    def using(self, slots: Sequence[int]) -> Iterator[None]:
        """Passes inside the block see the matrices as ``values`` holds them."""
        self.push()
        yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The live matrices are after the block as they were before, whatever it tried out."""
        before = [(a.detach().clone(), b.detach().clone()) for _, a, b in self.pairs]
        self.pull()
        try:
            yield
        finally:
            with torch.no_grad():
                for (_, a, b), (old_a, old_b) in zip(self.pairs, before, strict=True):
                    a.copy_(old_a)
                    b.copy_(old_b)
            _forget_casts()
            self.pull()

    @contextmanager
    def as_begun(self) -> Iterator[None]:
        """Inside the block all trained weights are those that the run began with, mostly the plain base."""
        now = _copies(self.others)
        with self.kept():
            self.values.copy_(self.initial)
            try:
                _write(self.others, self._others_begun)
                self.push()
                yield
            finally:
                _write(self.others, now)

    def active_mask(self, recipe: Recipe) -> Tensor:
        """Boolean (parameters,): which entries exist (ranks may differ from layer to layer)."""
        row = torch.zeros(self.parameters, device=self.values.device)
        self._read(row, [(torch.ones_like(a), torch.ones_like(b)) for _, a, b in self.pairs])
        return row > 0

    def matrices(self, slot: int, recipe: Recipe) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, A (r, n_in) and B (n_out, r) of every adapted layer, as views of the flat row."""
        for target, (name, live, _) in zip(self.targets, self.pairs, strict=True):
            a, b = self.views(self.values[slot], target)
            yield name, a[: live.shape[0]], b[:, : live.shape[0]]


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().to("cpu", copy=True) for weight in weights]


@torch.no_grad()
def _write(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def _forget_casts() -> None:
    """Have autocast read the matrices anew: until its block ends it keeps their first 16-bit copies."""
    torch.clear_autocast_cache()


def _lora_pairs(base: Base) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    """Layer name, A (r, n_in) and B (n_out, r) of every trained pair of LoRA matrices, in model order."""
    return [(name, a, b) for name, _, a, b in _lora_matrices(base) if a.requires_grad and b.requires_grad]


def frozen_layers(base: Base) -> list[str]:
    """Layers on which an adapter is frozen that is trained on others, in model order."""
    found = [
        (name, adapter, a.requires_grad or b.requires_grad) for name, adapter, a, b in _lora_matrices(base)
    ]
    trained = {adapter for _, adapter, on in found if on}
    return [name for name, adapter, on in found if adapter in trained and not on]


def _lora_matrices(base: Base) -> Iterator[tuple[str, str, nn.Parameter, nn.Parameter]]:
    """Layer and adapter name, A and B of every pair of LoRA matrices that acts, in model order."""
    from peft.tuners.lora import LoraLayer

    for name, layer in base.model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                # Variants such as AdaLoRA hold bare parameters, of another product.
                a, b = (getattr(m[adapter], "weight", None) for m in (layer.lora_A, layer.lora_B))
                if not (isinstance(a, nn.Parameter) and isinstance(b, nn.Parameter)):
                    continue
                if a.ndim == b.ndim == 2:
                    yield name, adapter, a, b


def live_base(model: PeftModel, tokenizer: PreTrainedTokenizerBase, name: str, device: str) -> Base:
    """The model under a PEFT wrapper with its adapters in place, as scoring wants it."""
    inner = cast("PreTrainedModel", model.get_base_model())
    plain = cast("PreTrainedModel", _PlainView(inner))
    shown = name or str(getattr(inner.config, "_name_or_path", "")) or "unnamed"
    return Base(shown, inner, tokenizer, weights_fingerprint(plain), device, in_training=True)


class _PlainView:
    """Configuration and weights of an adapted model under the names that they have without adapters."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config = copy(model.config)
        # A Trainer turns the cache off while it trains; models come with it on.
        self.config.use_cache = True
        self._model = model

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, weight in self._model.named_parameters():
            if ".lora_" not in name and ".modules_to_save." not in name:
                yield name.replace(".base_layer.", ".").replace(".original_module.", "."), weight


@contextmanager
def same_draws() -> Iterator[None]:
    """Whatever the block draws, the run's own random numbers are those that they would have been."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode inside the block; modes, attention and random states are afterwards as before."""
    modes = [(module, module.training) for module in model.modules()]
    attention = str(getattr(model.config, "_attn_implementation", None) or "eager")
    switched = attention not in _EXPLICIT_MASKS and hasattr(model, "set_attn_implementation")
    if switched:
        # Flash kernels ignore or refuse the explicit masks of shared lines.
        try:
            model.set_attn_implementation("sdpa")
        except ValueError:
            # Some architectures have their own kernels and the plain form only.
            model.set_attn_implementation("eager")
    torch.nn.Module.eval(model)
    try:
        own = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(own), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        if switched:
            model.set_attn_implementation(attention)
