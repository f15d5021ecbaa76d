"""The answer head gives the full projection's rows, and leaves the model as it was."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tuneahead.errors import ModelError
from tuneahead.training.heads import AnswerHead, answer_head
from tuneahead.training.models import load_base


def test_chosen_positions_get_the_full_projections_rows_and_the_model_its_head_back() -> None:
    base = load_base("lab", device="cpu")
    ids = torch.arange(24).reshape(2, 12) % 7
    inner = base.model.get_output_embeddings()
    with torch.no_grad():
        whole = base.model(input_ids=ids).logits.reshape(24, -1)
        with answer_head(base) as head:
            assert isinstance(base.model.get_output_embeddings(), AnswerHead)
            head.positions = torch.tensor([3, 23])
            some = base.model(input_ids=ids).logits
            head.positions = None
            assert base.model(input_ids=ids).logits.shape == (2, 12, whole.shape[1])
    torch.testing.assert_close(some[0], whole[[3, 23]])
    assert base.model.get_output_embeddings() is inner


def test_a_model_without_a_head_is_refused() -> None:
    headless = SimpleNamespace(get_output_embeddings=lambda: None)
    base = replace(load_base("lab", device="cpu"), model=headless)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no language-model head"), answer_head(base):
        pass
