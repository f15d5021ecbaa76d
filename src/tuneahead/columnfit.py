"""Tables on narrow terminals: which of their columns to show."""

from __future__ import annotations

from collections.abc import Sequence

BETWEEN_COLUMNS = 3
"""Characters from one column to the next."""


def fitting_columns(
    titles: Sequence[str], widths: Sequence[int], least_telling: Sequence[str], width: int
) -> list[int]:
    """Places of the columns to show in ``width`` characters, ``widths`` being those of the columns' cells.

    Columns go in the order of ``least_telling`` until the rest fits; those that aren't named there stay.

    >>> fitting_columns(("Run", "Date", "Base"), (5, 8, 6), ("Date", "Run"), width=18)
    [0, 2]
    """
    kept = list(range(len(titles)))
    for title in least_telling:
        if sum(widths[place] + BETWEEN_COLUMNS for place in kept) <= width:
            break
        if title in titles:
            kept.remove(titles.index(title))
    return kept
