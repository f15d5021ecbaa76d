"""Storing a run so that it goes on bit for bit, and storing adapters in PEFT's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tuneahead.errors import TraceError
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace, StepColumns, trace_from_bytes
from tuneahead.training.lora import AdapterStack, layer_names
from tuneahead.training.measure import StepRows
from tuneahead.training.models import Base
from tuneahead.training.tensorfile import save_tensors
from tuneahead.wholefile import whole_file

_STATE = "state.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on: adapter, optimiser, meters, generator and trace so far.

    ``rows`` maps a name to a compact vector: the entries the recipe's adapter has, in the order
    of the layers.
    """

    step: int
    seconds: float
    rows: dict[str, Tensor]
    generator: Tensor
    trace: ProbeTrace

    def require(self, recipe: Recipe, data_fingerprint: str, base_fingerprint: str) -> None:
        """Raise :class:`TraceError` unless this state belongs to the same recipe, data and base."""
        info = self.trace.info
        for what, seen, wanted in (
            ("recipe", info.recipe.fingerprint, recipe.fingerprint),
            ("data set", info.data_fingerprint, data_fingerprint),
            ("base model", info.base_fingerprint, base_fingerprint),
        ):
            if seen != wanted:
                raise TraceError(
                    f"the checkpoint was made with another {what} ({seen}, now {wanted})",
                    remedy=f"use the same {what}, or start the run afresh",
                )

    def step_rows(self) -> StepRows:
        """The record so far, ready to grow."""
        names = [f.name for f in fields(StepColumns) if f.name != "layer_grad_norm"]
        columns = np.stack([getattr(self.trace.steps, name) for name in names], 1)
        visits = self.trace.visits
        return StepRows(
            [tuple(row) for row in columns.tolist()],
            list(self.trace.steps.layer_grad_norm),
            visits.step.tolist(),
            visits.row.tolist(),
            visits.nll_nats.tolist(),
            visits.tokens.tolist(),
        )


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: an interrupted write leaves the earlier checkpoint as it was.

    Raises :class:`OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: row.contiguous().cpu() for name, row in checkpoint.rows.items()}
    tensors["generator"] = checkpoint.generator
    # The trace lies in the same file: one rename makes both new, or neither.
    tensors["trace"] = torch.frombuffer(bytearray(checkpoint.trace.to_bytes()), dtype=torch.uint8)
    meta = {"step": str(checkpoint.step), "seconds": repr(checkpoint.seconds)}
    save_tensors(tensors, folder / _STATE, meta)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; raises :class:`TraceError` when it is missing, damaged or of a failed run."""
    try:
        with safe_open(folder / _STATE, framework="pt") as stored:
            meta = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        trace = trace_from_bytes(tensors.pop("trace").numpy().tobytes())
        generator = tensors.pop("generator")
        step, seconds = int(meta["step"]), float(meta["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TraceError(
            f"no usable checkpoint in {folder}: {error}", remedy="start the run afresh"
        ) from None
    if trace.info.failure:
        raise TraceError(
            f"the run in {folder} can't go on: {trace.info.failure}", remedy="start afresh with a lower rate"
        )
    return Checkpoint(step, seconds, tensors, generator, trace)


def save_adapter(folder: Path, base: Base, stack: AdapterStack, slot: int, recipe: Recipe) -> None:
    """Write one slot's adapter as PEFT does: ``adapter_model.safetensors`` and ``adapter_config.json``.

    Raises :class:`OSError`; an adapter that was in the folder is then left as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, a, b in stack.matrices(slot, recipe):
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach().cpu().clone().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach().cpu().clone().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": _target_names(base, [name for name, _, _ in stack.matrices(slot, recipe)]),
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": stack.fan_in_fan_out,
    }
    # What the disk has no room for fails before either takes its place: weights beside the configuration of
    # an earlier adapter would load as one.
    with whole_file(folder / "adapter_config.json") as part:
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def _target_names(base: Base, adapted: Sequence[str]) -> list[str]:
    """The adapted layers' last names, or whole ones where layers of the same last name have no adapter."""
    # A stack that is attached holds the layers it adapts as its own's inner ones.
    others = {name.removesuffix(".inner") for name in layer_names(base)} - {*adapted}
    left_out = {_leaf(name) for name in others}
    return sorted({name if _leaf(name) in left_out else _leaf(name) for name in adapted})


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
