"""Bases are loaded frozen, or refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tuneahead.errors import ModelError
from tuneahead.training.models import Base, choose_dtype, load_base, weights_fingerprint


def test_a_base_is_frozen_and_knows_itself(tiny: Base, tiny_path: Path) -> None:
    assert not any(p.requires_grad for p in tiny.model.parameters())
    assert not tiny.model.training
    assert tiny.context_tokens == 128 and tiny.pad_id == 0 and tiny.dtype == torch.float32
    assert load_base(str(tiny_path), device="cpu").fingerprint == tiny.fingerprint
    with torch.no_grad():
        next(tiny.model.parameters()).add_(0.1)
    assert weights_fingerprint(tiny.model) != tiny.fingerprint


def test_a_missing_base_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't load base model") as caught:
        load_base(str(tmp_path / "nowhere"), device="cpu")
    assert "config.json" in caught.value.remedy
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        load_base(str(tmp_path), device="cpu")


def test_pickled_weights_are_never_read(tiny_path: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_path / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't load base model"):
        load_base(str(tmp_path), device="cpu")


def test_precision_is_chosen_by_size_and_device(tiny_path: Path) -> None:
    assert choose_dtype("auto", 1_000_000, "cpu") == torch.float32
    assert choose_dtype("bf16", 1_000_000, "cpu") == torch.bfloat16
    assert load_base(str(tiny_path), precision="bf16", device="cpu").dtype == torch.bfloat16


def test_torn_weights_are_refused(tiny_path: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_path / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes((tiny_path / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="can't load base model"):
        load_base(str(tmp_path), device="cpu")
