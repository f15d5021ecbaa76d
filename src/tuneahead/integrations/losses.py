"""The summed loss of a Trainer's optimiser steps, per row where rows can be told apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuneahead.errors import ModelError
from tuneahead.integrations.rows import IGNORED, Batch, lacking, row_keys, row_owners

if TYPE_CHECKING:
    from transformers import Trainer

_LOG = logging.getLogger(__name__)

_TOKENS_PER_PASS = 512
"""Answer positions whose logits are widened to fp32 at a time: 512 x 152k words are 300 MB."""


@dataclass(frozen=True)
class Visit:
    """One training row seen in one optimiser step on this process."""

    step: int
    key: int
    nll_nats: float
    tokens: int


class LossMeter:
    """Sums the loss over the answer tokens of the micro-batches of a step, on this process.

    The Trainer's own number can't serve: it is divided by tokens or by micro-batches depending on
    model and arguments, multiplied by the number of processes, and may hold label smoothing or
    router losses. So the loss is taken again from the logits (or token log-probabilities) that the
    training pass made anyway, at answer positions, without a second pass. Where that fails, for want of
    memory perhaps, it is logged, ``failed`` and not tried again: the training pass goes on.
    """

    def __init__(self, trainer: Trainer, model: nn.Module) -> None:
        self.trainer = trainer
        self.step = 0
        self.loss_sum_nats = 0.0
        self.tokens = 0
        self.visits: list[Visit] = []
        self.no_rows = ""
        """Why rows can't be told apart, or empty."""
        self.failed = False
        self._output: object = None
        self._open = False
        self._plain = trainer.compute_loss
        self._before = trainer.__dict__.get("compute_loss")
        self._hook = model.register_forward_hook(self._catch)
        trainer.compute_loss = self._compute_loss  # type: ignore[method-assign]

    def close(self) -> None:
        """Leave the Trainer as it was."""
        self._hook.remove()
        _restore(self.trainer, "compute_loss", self._compute_loss, self._before)

    def take(self) -> tuple[float, int]:
        """Loss sum in nats and answer tokens since the last call."""
        sums = self.loss_sum_nats, self.tokens
        self.loss_sum_nats, self.tokens = 0.0, 0
        self.step += 1
        return sums

    def _catch(self, module: nn.Module, inputs: object, output: object) -> None:
        # The first pass with gradients is the one that trains; a loss may ask a reference before it, without
        # them, and some trainers make more passes for their metrics.
        if self._open and self._output is None and torch.is_grad_enabled():
            self._output = output

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        if not model.training:
            return self._plain(model, inputs, *args, **options)
        batch = dict(inputs)  # before a trainer pops the labels
        self._output, self._open = None, True
        try:
            result = self._plain(model, inputs, *args, **options)
        finally:
            self._open = False
            # After an error too: logits are large, and a Trainer may begin again with smaller batches.
            output, self._output = self._output, None
        items = options.get("num_items_in_batch", args[1] if len(args) > 1 else None)
        if not self.failed:
            self._try_add(batch, output, result, items)
        return result

    @torch.no_grad()
    def _try_add(self, batch: Batch, output: object, result: Any, items: object) -> None:
        loss = result[0] if isinstance(result, tuple) else result
        try:
            self._add(batch, output, loss.detach(), items)
        except Exception as error:
            _LOG.warning("the probe is given up, training goes on: %s", error, exc_info=True)
            self.failed = True

    def _add(self, batch: Batch, output: object, loss: Tensor, items: object) -> None:
        if lack := lacking(batch):
            raise ModelError(f"the batches hold no {lack}")
        labels, shifted = batch.get("shift_labels"), True
        if not isinstance(labels, Tensor):
            labels, shifted = batch["labels"], False
        assert isinstance(labels, Tensor)
        target = labels if shifted else labels[:, 1:]
        tokens = int((target != IGNORED).sum())
        self.tokens += tokens
        nll = token_nll(output, target, shifted)
        if nll is None:
            self.no_rows = "the model's passes give neither logits nor token log-probabilities"
            self.loss_sum_nats += self._undivided(float(loss), tokens, items)
            return
        owners = row_owners(batch)
        owners = owners if shifted else owners[:, 1:]
        keys = row_keys(batch)
        kept = (target != IGNORED).to(nll.device)
        sums = torch.zeros(len(keys), device=nll.device).index_add(0, owners.to(nll.device)[kept], nll)
        counts = torch.bincount(owners.to(nll.device)[kept], minlength=len(keys))
        self.loss_sum_nats += float(sums.cpu().double().sum())
        for key, own, count in zip(keys, sums.tolist(), counts.tolist(), strict=True):
            self.visits.append(Visit(self.step, key, own, count))

    def _undivided(self, loss: float, tokens: int, items: object) -> float:
        """The sum behind the Trainer's own loss, when nothing better is to be had."""
        trainer = self.trainer
        by_items = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
        if items is None or not by_items:
            return loss * tokens  # a mean over this micro-batch
        count = float(items.flatten()[0]) if isinstance(items, Tensor) else float(str(items))
        averaged = trainer.args.average_tokens_across_devices
        return loss * count / (trainer.accelerator.num_processes if averaged else 1)


def token_nll(output: object, target: Tensor, shifted: bool) -> Tensor | None:
    """Loss in fp32 of every answer token of ``target`` (lines, T), in order: (tokens,), or None.

    ``output`` is what the model's forward pass gave: logits, or log-probabilities that a fused
    head made of them (zero at ignored places).
    """
    kept = target != IGNORED
    fused = _part(output, "log_probs")
    if fused is not None and fused.shape == target.shape:
        return -fused.detach()[kept.to(fused.device)].float()
    logits = _part(output, "logits")
    if logits is None or logits.ndim != 3 or logits.shape[0] != target.shape[0]:
        return None
    logits = logits.detach() if shifted else logits.detach()[:, :-1]
    if logits.shape[1] != target.shape[1]:
        return None
    where = kept.to(logits.device).nonzero()
    words = target.to(logits.device)[where[:, 0], where[:, 1]]
    parts = [
        functional.cross_entropy(logits[at[:, 0], at[:, 1]].float(), own, reduction="none")
        for at, own in zip(
            torch.split(where, _TOKENS_PER_PASS), torch.split(words, _TOKENS_PER_PASS), strict=True
        )
    ]
    return torch.cat(parts) if parts else torch.zeros(0, device=logits.device)


def _part(output: object, name: str) -> Tensor | None:
    found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return found if isinstance(found, Tensor) else None


class ClipMeter:
    """What gradient clipping found: the norm before it, and the factor it applied.

    transformers clips before ``on_pre_optimizer_step``, so callbacks see clipped gradients. But it calls
    ``Accelerator.clip_grad_norm_`` once a step, when the gradients of all micro-batches are summed,
    averaged over processes (DDP) and, for fp16, about to be unscaled. That call returns the norm before
    clipping, from which the factor follows; gradients seen later are divided by it. Hooks on single
    parameters would see local, scaled, half-accumulated gradients instead; the logged ``grad_norm`` comes
    only every ``logging_steps``. With clipping off transformers 5.0 makes no such call, later versions do:
    see :meth:`complete`.
    """

    def __init__(self, trainer: Trainer, model: nn.Module) -> None:
        self.norm = float("nan")
        self.factor = 1.0
        self._seen = False
        self._model, self._arguments = model, trainer.args
        self._accelerator = trainer.accelerator
        self._plain: Callable[..., Any] = trainer.accelerator.clip_grad_norm_
        self._before = trainer.accelerator.__dict__.get("clip_grad_norm_")
        trainer.accelerator.clip_grad_norm_ = self._clip

    def close(self) -> None:
        """Leave the Accelerator as it was."""
        _restore(self._accelerator, "clip_grad_norm_", self._clip, self._before)

    def complete(self) -> None:
        """Take the norm of a step for which the Trainer, told not to clip, has not asked."""
        if not self._seen and not (self._arguments.max_grad_norm or 0.0) > 0.0:
            self._accelerator.clip_grad_norm_(self._model.parameters(), float("inf"))
        self._seen = False

    def _clip(self, parameters: Any, max_norm: float, *args: Any, **options: Any) -> Any:
        norm = self._plain(parameters, max_norm, *args, **options)
        self._seen = True
        self.norm = float(norm) if norm is not None else float("nan")
        # As torch.nn.utils.clip_grad_norm_ computes it.
        self.factor = min(1.0, float(max_norm) / (self.norm + 1e-6))
        return norm


def _restore(owner: object, name: str, ours: object, before: object) -> None:
    """Take our wrapper off again, unless somebody has put another one over it meanwhile."""
    if owner.__dict__.get(name) == ours:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
