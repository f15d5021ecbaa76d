"""Lines that rows share: nothing lost, nothing seen that is not a row's own."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tuneahead.training.batches import pack
from tuneahead.training.encode import Encoded
from tuneahead.training.lines import (
    LONGEST_SHARED_LINE,
    SHORTEST_PREFIX,
    Placed,
    fill_lines,
    share_lines,
    shared_prefix,
)

OPENING = tuple(range(100, 120))


def row(opening: tuple[int, ...], prompt: int, answer: int, seed: int = 0) -> Encoded:
    drawn = np.random.default_rng(seed).integers(1, 90, prompt + answer).tolist()
    trained = (False,) * (len(opening) + prompt) + (True,) * answer
    return Encoded((*opening, *drawn), trained, 1)


def test_the_prefix_is_what_all_rows_begin_with_before_any_trains() -> None:
    assert shared_prefix([row(OPENING, 3, 2, 1), row(OPENING, 5, 1, 2)]) == 20
    assert shared_prefix([row(OPENING, 3, 2)]) == 0, "one row shares with nobody"
    assert shared_prefix([row(OPENING[: SHORTEST_PREFIX - 1], 9, 2, s) for s in (1, 2)]) == 0
    # The 20th token predicts the first trained one, so 19 are shared.
    assert shared_prefix([row(OPENING, 0, 2, 1), row(OPENING, 4, 2, 2)]) == 19
    same = [row(OPENING, 4, 2, 7), row(OPENING, 4, 2, 7)]
    assert shared_prefix(same) == 23, "copies share their whole prompt but its last token"
    assert shared_prefix([Encoded(OPENING, (False,) * 20, 1)] * 2) == 18, "a row without an answer"
    assert shared_prefix([Encoded((), (), 1), *same]) == 0


def test_rows_fill_lines_behind_one_copy_of_the_prefix() -> None:
    # By hand: line 0 is used up to 6 of 12; 2 + 4 fit there, then 3 + 2 in a new one behind its prefix.
    assert fill_lines([4, 3, 2], 12, prefix=2, begin=6) == Placed([(0, 8), (1, 2), (1, 5)], [(0, 6), (1, 0)])
    assert fill_lines([4, 3, 2], 12, prefix=5, begin=6) == Placed([(1, 5), (1, 9), (2, 5)], [(1, 0), (2, 0)])
    assert fill_lines([4, 3, 2], 8, begin=6) == Placed([(1, 0), (1, 4), (0, 6)], [])


def test_one_line_for_all_rows_where_the_prefix_is_long() -> None:
    found = share_lines([[10] * 8], [200], 210, by_slots=False, large_base=True)
    assert (found.lines, found.length) == (1, 280)
    plain = share_lines([[210] * 8], [0], 210, by_slots=False, large_base=True)
    assert plain.lines * plain.length == 8 * 210


@pytest.mark.parametrize("by_slots", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_each_trained_place_sees_its_own_row_and_nothing_else(by_slots: bool, large: bool) -> None:
    rng = np.random.default_rng(5)
    for case in range(12):
        batches = []
        for slot in range(int(rng.integers(1, 5))):
            opening = tuple(int(i) for i in 1000 * (slot + 1) + np.arange(rng.integers(0, 40)))
            sizes = rng.integers((1, 1), (9, 5), (int(rng.integers(1, 7)), 2))
            batches.append(
                [row(opening, int(p), int(a), seed=case * 100 + n) for n, (p, a) in enumerate(sizes)]
            )
        prefixes = [shared_prefix(own) if rng.random() < 0.7 else 0 for own in batches]
        packed = pack(
            batches,
            0,
            "cpu",
            several_per_line=True,
            shared_by_slots=by_slots,
            large_base=large,
            prefixes=prefixes,
        )
        assert packed.visible is not None and packed.places is not None
        rows = [one for batch in batches for one in batch]
        length = packed.ids.shape[1]
        left = {i: one.answer.index(True) for i, one in enumerate(rows)}
        for position, label, owner in zip(
            packed.positions.tolist(), packed.labels.tolist(), packed.owner.tolist(), strict=True
        ):
            line, at = divmod(position, length)
            seen = packed.visible[line, 0, at].nonzero().flatten()
            order = packed.places[line, seen].argsort()
            assert packed.places[line, seen][order].tolist() == list(range(left[owner]))
            assert tuple(packed.ids[line, seen][order].tolist()) == rows[owner].ids[: left[owner]]
            assert label == rows[owner].ids[left[owner]]
            left[owner] += 1
        assert all(left[i] == len(one.ids) for i, one in enumerate(rows))


def test_rows_too_long_for_a_shared_line_have_one_each_and_no_mask() -> None:
    batch = [row(OPENING, LONGEST_SHARED_LINE, 3, seed) for seed in range(4)]
    packed = pack([batch], 0, "cpu", several_per_line=True, prefixes=[shared_prefix(batch)])
    assert packed.visible is None and packed.ids.shape == (4, LONGEST_SHARED_LINE + 22)


def test_few_lengths_are_tried_and_one_where_it_is_given() -> None:
    batches = [[row(OPENING, 5 + n, 3, n) for n in range(32)] for _ in range(8)]
    began = time.perf_counter()
    packed = pack(
        batches,
        0,
        "cpu",
        several_per_line=True,
        shared_by_slots=True,
        prefixes=[shared_prefix(own) for own in batches],
    )
    # A second would be many times what a step of a small base takes; usual are 20 ms.
    assert time.perf_counter() - began < 1
    plain = pack(batches, 0, "cpu", several_per_line=True, shared_by_slots=True)
    assert packed.ids.numel() < 0.7 * plain.ids.numel()
    forced = pack(
        [batches[0]], 0, "cpu", several_per_line=True, prefixes=[shared_prefix(batches[0])], line=300
    )
    assert forced.ids.shape[1] == 300
