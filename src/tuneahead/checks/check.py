"""What a check is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.recipe import Recipe
from tuneahead.survey import Survey
from tuneahead.verdict import Finding, Severity

if TYPE_CHECKING:
    from tuneahead.checks.encoding import TokenMeasures

MAX_SHOWN_ROWS = 20


@dataclass(frozen=True)
class Context:
    """Everything the checks look at. ``tokens`` is None when no tokenizer was given."""

    survey: Survey
    recipe: Recipe
    tokens: TokenMeasures | None = None


@dataclass(frozen=True)
class Check:
    """One check: ``name`` is that of its findings and its anchor in docs/checks.md."""

    name: str
    title: str
    run: Callable[[Context], Iterable[Finding]]


def found(
    check: str, severity: Severity, message: str, remedy: str, *, rows: NDArray[np.int64] | None = None
) -> Finding:
    """A finding about ``rows``, of which the first twenty are named and all are counted."""
    if rows is None:
        return Finding(check, severity, message, remedy)
    return Finding(check, severity, message, remedy, len(rows), tuple(rows[:MAX_SHOWN_ROWS].tolist()))


def share(count: int, total: int) -> str:
    """``count`` and what share of ``total`` it is, for a message."""
    if not total:
        return f"{count:,}"
    percent = 100 * count / total
    shown = f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{count:,} of {total:,} rows ({shown} %)"
