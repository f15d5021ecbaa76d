"""Rows as a Trainer's collator makes them: what is read of them, and what tells them apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest
import torch

from tuneahead.integrations.rows import Batch, data_lack, read_rows, row_keys, row_owners

IDS = torch.tensor([[5, 6, 7]])


def test_batches_without_labels_of_their_tokens_say_so() -> None:
    def lack(batch: object) -> str:
        return data_lack([{}], lambda items: batch)  # type: ignore[arg-type, return-value]

    assert lack({"input_ids": IDS, "labels": IDS}) == lack({"input_ids": IDS, "shift_labels": IDS}) == ""
    assert lack({"input_ids": IDS, "completion_mask": IDS}) == "labels of their tokens"
    assert lack({"input_ids": IDS, "labels": torch.tensor([1])}) == "labels of their tokens"
    assert lack([{"prompt": "red"}]) == lack({"prompt_ids": IDS}) == "input_ids"
    assert data_lack(iter([{}]), lambda items: {}) == ""


@pytest.mark.parametrize("told_by", ["positions", "mask"])
def test_rows_that_share_padded_lines_are_told_apart(told_by: str) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 0], [4, 3, 2, 0, 0, 0]])
    batch: dict[str, object] = {"input_ids": ids, "labels": ids.clone()}
    if told_by == "positions":
        # As LLaMA-Factory packs: padding has place 0, and the mask does not tell it.
        batch["position_ids"] = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 0, 0, 0]])
        batch["attention_mask"] = torch.ones_like(ids)
    else:
        # As Axolotl packs.
        batch["attention_mask"] = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 0, 0, 0]])
    found = read_rows([{}, {}], lambda items: batch)
    assert [row.ids for row in found.rows] == [(5, 6, 7), (8, 9), (4, 3, 2)]
    assert found.reason == "rows are packed together" and found.keys == tuple(row_keys(batch))
    assert row_owners(batch).tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 2, 2]]


def test_positions_of_padded_rows_are_no_sign_of_packing() -> None:
    ids = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]])
    batch: dict[str, object] = {
        "input_ids": ids,
        "labels": ids.clone(),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
        "position_ids": torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]),
    }
    found = read_rows([{}, {}], lambda items: batch)
    assert [row.ids for row in found.rows] == [(5, 6), (1, 2, 3, 4)] and found.identified
    assert row_owners(batch).tolist() == [[0] * 4, [1] * 4]


def test_packed_lines_that_tell_no_rows_apart_are_not_taken_for_rows() -> None:
    batch = {"input_ids": IDS, "labels": IDS, "attention_mask": torch.ones_like(IDS)}
    found = read_rows([{}], lambda items: batch, packed=True)
    assert (found.rows, found.identified) == ((), False) and "nothing tells where one ends" in found.reason
    assert read_rows([{}], lambda items: batch).identified


def lines_of(**more: torch.Tensor) -> Callable[[Sequence[object]], Batch]:
    """A collator that gives every item the same tokens."""

    def collate(items: Sequence[object]) -> Batch:
        ids = IDS.expand(len(items), -1)
        return {"input_ids": ids, "labels": ids, **more}

    return collate


def test_of_rows_with_images_few_are_read() -> None:
    found = read_rows(range(9_000), lines_of(pixel_values=torch.zeros(1)))
    assert (found.items, len(found.rows), found.tokens) == (2_000, 2_000, 6_000)
    assert found.reason == "only the first 2,000 of 9,000 rows were read"


def test_a_long_reading_is_said_beforehand(caplog: pytest.LogCaptureFixture) -> None:
    plain = lines_of()
    said: list[str] = []

    def collate(items: Sequence[object]) -> Batch:
        if 0 in items:
            time.sleep(0.3)
        said.append(caplog.text)
        return plain(items)

    read_rows(range(9_000), collate)
    assert said[0] == "" and "reading 9000 rows before the first step" in said[1]
    assert caplog.text == said[1]
