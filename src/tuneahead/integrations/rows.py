"""Training rows as a Trainer's collator makes them, and which row a batch line is."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from tuneahead.training.encode import Encoded

Batch = Mapping[str, object]
MOST_ROWS = 50_000
"""Rows whose tokens are looked at."""
MOST_PICTURED = 2_000
"""Rows with images that are looked at: a collator takes tens of milliseconds for each."""
MOST_TOKENS = 4_000_000
"""Tokens that are kept, at most: some 200 MB. Of longer data every second, fourth, ... row is kept."""
IGNORED = -100
_CHUNK_ROWS = 64
_LONG_SECONDS = 30.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerRows:
    """Rows of a data set after the collator, ``Encoded.row`` counting from 1.

    ``rows`` are those that are kept: all, or every second, fourth, ... of long data. ``keys`` are the
    hashes of all that were read, ``tokens`` and ``answer_tokens`` how many those hold, ``items`` how many of
    the data set's they were. ``identified`` is
    False where items and rows are not one to one (packing), or where not all rows could be read; ``reason``
    then says why. Rows that are ``pictured`` hold images, which their tokens alone don't give.
    """

    rows: tuple[Encoded, ...]
    identified: bool
    reason: str = ""
    keys: tuple[int, ...] = ()
    tokens: int = 0
    answer_tokens: int = 0
    pictured: bool = False
    items: int = 0


def read_rows(
    dataset: object, collate: Callable[[list[object]], Batch], most: int = MOST_ROWS, *, packed: bool = False
) -> TrainerRows:
    """Collate the first ``most`` items of a map-style data set; nothing is drawn from the run's order.

    Items that are ``packed`` hold several rows or parts of some, and are read where batches tell those apart.
    """
    if not is_indexed(dataset):
        return TrainerRows((), False, "the data set is a stream")
    count = min(most, len(dataset))
    kept, whole, began = _Kept(), True, time.perf_counter()
    while kept.items < count:
        places = range(kept.items, min(kept.items + _CHUNK_ROWS, count))
        batch = _collated(dataset, collate, places)
        if "input_ids" not in batch:
            return TrainerRows((), False, "the collator's batches hold no input_ids")
        kept.pictured |= any(name.startswith("pixel_values") for name in batch)
        if packed and not _tells_rows_apart(batch):
            return TrainerRows((), False, "rows are packed together, and nothing tells where one ends")
        found = list(batch_rows(batch))
        whole = whole and len(found) == len(places)
        for ids, answer in found:
            kept.add(ids, answer)
        kept.items = places.stop
        if kept.pictured:
            count = min(count, max(MOST_PICTURED, kept.items))
        seconds = (time.perf_counter() - began) * count / kept.items
        if places.start == 0 and seconds > _LONG_SECONDS:
            _LOG.warning("reading %d rows before the first step, for about %.0f seconds", count, seconds)
    if not whole:
        return kept.result("rows are packed together")
    if count < len(dataset):
        return kept.result(f"only the first {count:,} of {len(dataset):,} rows were read")
    return kept.result("")


def _collated(
    dataset: Sequence[object], collate: Callable[[list[object]], Batch], places: Sequence[int]
) -> Batch:
    items = [dataset[i] for i in places]
    # Collators may pop columns from the items they are given.
    return collate([dict(item) if isinstance(item, dict) else item for item in items])


class _Kept:
    """Keys of all rows, and rows spread evenly that hold no more than ``MOST_TOKENS``."""

    def __init__(self) -> None:
        self.rows: list[Encoded] = []
        self.keys: list[int] = []
        self.tokens = self.answer_tokens = 0
        self.items = 0
        self.pictured = False
        self._every = 1
        self._held = 0

    def add(self, ids: NDArray[np.int64], answer: NDArray[np.bool_]) -> None:
        place = len(self.keys)
        self.keys.append(row_key(ids))
        self.tokens += len(ids)
        self.answer_tokens += int(answer[1:].sum())
        if place % self._every:
            return
        self.rows.append(Encoded(tuple(ids.tolist()), tuple(answer.tolist()), place + 1))
        self._held += len(ids)
        while self._held > MOST_TOKENS and len(self.rows) > 1:
            self._every *= 2
            self.rows = self.rows[::2]
            self._held = sum(len(row.ids) for row in self.rows)

    def result(self, reason: str) -> TrainerRows:
        return TrainerRows(
            tuple(self.rows),
            not reason,
            reason,
            tuple(self.keys),
            self.tokens,
            self.answer_tokens,
            self.pictured,
            self.items,
        )


def is_indexed(dataset: object) -> TypeGuard[Sequence[object]]:
    """Whether rows can be read by their place; drawing them from a stream would take them from the run."""
    # torch's streams inherit a __getitem__ that fails, and may say a length.
    stream = isinstance(dataset, IterableDataset)
    return not stream and hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")


def known_length(dataset: object) -> int | None:
    """Rows of a data set, over all processes; None for a stream that does not say."""
    from accelerate.data_loader import IterableDatasetShard

    # A process's share of a stream has a length that asks for the stream's.
    whole = dataset.dataset if isinstance(dataset, IterableDatasetShard) else dataset
    return len(whole) if isinstance(whole, Sized) else None


def lacking(batch: object) -> str:
    """What the loss per token needs and a batch doesn't hold, or empty."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(batch, Mapping) or not isinstance(ids, Tensor):
        return "input_ids"
    labels = batch.get("shift_labels", batch.get("labels"))
    return "" if isinstance(labels, Tensor) and labels.shape == ids.shape else "labels of their tokens"


def data_lack(dataset: object, collate: Callable[[list[object]], Batch]) -> str:
    """What batches of a map-style data set are :func:`lacking`; empty of a stream, which isn't drawn from."""
    if not is_indexed(dataset) or not len(dataset):
        return ""
    return lacking(_collated(dataset, collate, [0]))


def batch_rows(batch: Batch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Token ids and trained mask of every row in a batch, without padding."""
    ids, trained = _cpu(batch, "input_ids"), _trained(batch)
    for line, own in _row_places(batch):
        answer = trained[line, own]
        if "attention_mask" not in batch and len(own) < ids.shape[1] and len(answer) > 1:
            # The first token of a row has no label where rows follow one another, be it a prompt or not.
            answer[0] = answer[1]
        yield ids[line, own], answer


def row_owners(batch: Batch) -> Tensor:
    """Index of the row that each place of the batch belongs to, (lines, T)."""
    ids = batch["input_ids"]
    assert isinstance(ids, Tensor)
    owners, before = np.zeros(ids.shape, np.int64), -1
    for index, (line, own) in enumerate(_row_places(batch)):
        # Padding too, which some collators label.
        owners[line, own[0] if line == before else 0 :] = index
        before = line
    return torch.from_numpy(owners).to(ids.device)


def row_keys(batch: Batch) -> list[int]:
    """A hash of every row's tokens, by which a row is found again in the data set."""
    return [row_key(ids) for ids, _ in batch_rows(batch)]


def row_key(ids: Sequence[int] | NDArray[np.int64]) -> int:
    """Signed 64-bit hash of token ids."""
    digest = hashlib.blake2b(np.asarray(ids, np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _row_places(batch: Batch) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Line and places of every row, in order; a line of nothing but padding is a row without tokens."""
    for line, numbers in enumerate(_row_numbers(batch)):
        found = np.unique(numbers[numbers > 0])
        for number in found if len(found) else [1]:
            yield line, np.flatnonzero(numbers == number)


def _row_numbers(batch: Batch) -> NDArray[np.int64]:
    """Which row of its line each place belongs to, (lines, T): from 1, and 0 for padding."""
    shape = _cpu(batch, "input_ids").shape
    mask, places = _of_places(batch, "attention_mask"), _of_places(batch, "position_ids")
    real = np.ones(shape, np.int64) if mask is None else mask
    if places is None or real.max(initial=0) > 1:
        return real
    # Padding to a multiple has place 0 too, and so would be rows of one token each.
    further = (places != 0)[:, ::-1].cumsum(axis=1)[:, ::-1]
    real = real * ((further > 0) | ~(places != 0).any(axis=1, keepdims=True))
    begins = (places == 0) | (real.cumsum(axis=1) == 1)
    numbers: NDArray[np.int64] = (begins * real).cumsum(axis=1) * real
    return numbers


def _tells_rows_apart(batch: Batch) -> bool:
    """Whether a line of several rows would show it: by positions that restart or a mask with numbers."""
    mask = _of_places(batch, "attention_mask")
    numbered = mask is not None and mask.max(initial=0) > 1
    return numbered or _of_places(batch, "position_ids") is not None


def _of_places(batch: Batch, name: str) -> NDArray[np.int64] | None:
    """A tensor of the batch that holds one number for each place, or None."""
    tensor, ids = batch.get(name), batch["input_ids"]
    fits = isinstance(tensor, Tensor) and isinstance(ids, Tensor) and tensor.shape == ids.shape
    return _cpu(batch, name) if fits else None


def _trained(batch: Batch) -> NDArray[np.bool_]:
    ids = _cpu(batch, "input_ids")
    trained = np.zeros(ids.shape, bool)
    if isinstance(batch.get("shift_labels"), Tensor):
        trained[:, 1:] = _cpu(batch, "shift_labels")[:, :-1] != IGNORED
    elif isinstance(batch.get("labels"), Tensor):
        trained = _cpu(batch, "labels") != IGNORED
    return trained


def _cpu(batch: Batch, name: str) -> NDArray[np.int64]:
    tensor = batch[name]
    assert isinstance(tensor, Tensor)
    return tensor.cpu().numpy().astype(np.int64)
