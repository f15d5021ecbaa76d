"""Columns go in the order given, and only as many as have to."""

from __future__ import annotations

import pytest

from tuneahead.columnfit import fitting_columns

WIDTHS = [(28, [0, 1, 2]), (27, [0, 2]), (17, [0, 2]), (16, [2]), (1, [2])]


@pytest.mark.parametrize(("width", "kept"), WIDTHS)
def test_columns_are_left_out_until_the_rest_fits(width: int, kept: list[int]) -> None:
    assert fitting_columns(("Run", "Date", "Base"), (5, 8, 6), ("Date", "Gone", "Run"), width) == kept
