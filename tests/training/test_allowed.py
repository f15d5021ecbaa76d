"""What bases allow is found out by asking them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_fixtures import write_tiny_model

from tuneahead.training.allowed import obeys_gaps
from tuneahead.training.encode import Encoded
from tuneahead.training.models import Base, load_base
from tuneahead.training.scoring import read_answers


def place_bound_model(kind: str) -> Base:
    """A model whose attention goes by the place in the line: a local window, or a bias by distance."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM, MptConfig, MptForCausalLM

    torch.manual_seed(1)
    model = (
        GPTNeoForCausalLM(
            GPTNeoConfig(
                vocab_size=48,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=128,
                max_position_embeddings=1024,
            )
        )
        if kind == "gpt-neo"
        else MptForCausalLM(MptConfig(vocab_size=48, d_model=32, n_heads=4, n_layers=2, max_seq_len=1024))
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    model.eval()
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    return Base(kind, model, tokenizer, kind, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gpt-neo", "mpt"])
def test_bases_bound_to_places_hold_no_beginning_once_for_all_rows(kind: str) -> None:
    base = place_bound_model(kind)
    drawn = np.random.default_rng(3).integers(4, 40, (8, 30)).tolist()
    rows = [Encoded((*drawn[0], *drawn[0], *own), (False,) * 70 + (True,) * 20, 1) for own in drawn]
    assert not obeys_gaps(base)
    ((together, _),) = read_answers(base, [rows])
    alone = np.concatenate([nll for nll, _ in read_answers(base, [[row] for row in rows])])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_usual_bases_hold_it_once(tmp_path: Path, architecture: str) -> None:
    assert obeys_gaps(load_base(str(write_tiny_model(tmp_path, architecture=architecture)), device="cpu"))
