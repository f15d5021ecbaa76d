"""Answers one row off: found in a part of the rows, and not where rows belong together otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneahead.examples import Example
from tuneahead.features.pairing import Moved, find_moved
from tuneahead.features.semantic import embed_pairs

_THINGS = ("river", "bridge", "garden", "engine", "pepper", "violin", "planet", "doctor", "window", "castle")
_KINDS = ("paint", "price", "music", "wheel", "storm", "bread", "paper", "horse", "stone", "light")


def _rows() -> list[Example]:
    pairs = [(kind, thing) for kind in _KINDS for thing in _THINGS]
    return [
        Example(f"Tell me of the {thing} and the {kind}.", f"A {kind} lies beside a {thing}.", row)
        for row, (kind, thing) in enumerate(pairs, 1)
    ]


def _with_answers(rows: list[Example], answers: list[str]) -> list[Example]:
    return [replace(row, answer=answer) for row, answer in zip(rows, answers, strict=True)]


def _moved(rows: list[Example], every_row: np.ndarray) -> Moved | None:
    return find_moved(rows, embed_pairs(rows), every_row)


@pytest.mark.parametrize("after", [True, False])
def test_a_run_of_answers_one_row_off_is_named(after: bool) -> None:
    rows = _rows()
    told = [row.answer for row in rows]
    part = [told[59], *told[30:59]] if after else [*told[31:60], told[30]]
    found = _moved(_with_answers(rows, [*told[:30], *part, *told[60:]]), np.arange(1, 101))
    assert found is not None and found.after is after
    assert set(found.rows.tolist()) <= set(range(30, 62)) and len(found.rows) >= 26


def test_rows_that_do_not_follow_each_other_are_not_compared() -> None:
    rows = _rows()
    told = [row.answer for row in rows]
    moved = _with_answers(rows, [told[-1], *told[:-1]])
    assert _moved(moved, np.arange(1, 101)) is not None
    assert _moved(moved[::2], np.arange(1, 101)) is None
    assert _moved([replace(row, row=1) for row in moved], np.ones(100, np.int64)) is None


def test_rows_as_they_are_and_turns_of_a_conversation_are_left_alone() -> None:
    rows = _rows()
    assert _moved(rows, np.arange(1, 101)) is None
    # Each prompt holds what was answered before it, and little of what is answered next.
    talk = [
        replace(row, prompt=f"{before.answer} Go on.", answer=row.answer)
        for before, row in zip(rows[:-1], rows[1:], strict=True)
    ]
    assert _moved(talk, np.arange(2, 101)) is None
    assert _moved(rows[:3], np.arange(1, 101)) is None
