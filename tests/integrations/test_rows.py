"""Rows as a Trainer's collator makes them: what is read of them, and what tells them apart."""

from __future__ import annotations

import torch

from tuneahead.integrations.rows import data_lack

IDS = torch.tensor([[5, 6, 7]])


def test_batches_without_labels_of_their_tokens_say_so() -> None:
    def lack(batch: object) -> str:
        return data_lack([{}], lambda items: batch)  # type: ignore[arg-type, return-value]

    assert lack({"input_ids": IDS, "labels": IDS}) == lack({"input_ids": IDS, "shift_labels": IDS}) == ""
    assert lack({"input_ids": IDS, "completion_mask": IDS}) == "labels of their tokens"
    assert lack({"input_ids": IDS, "labels": torch.tensor([1])}) == "labels of their tokens"
    assert lack([{"prompt": "red"}]) == lack({"prompt_ids": IDS}) == "input_ids"
    assert data_lack(iter([{}]), lambda items: {}) == ""
