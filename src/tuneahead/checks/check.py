"""What a check is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.columnuse import ColumnUse
from tuneahead.counts import counted
from tuneahead.recipe import Recipe
from tuneahead.survey import Survey
from tuneahead.verdict import Finding, Severity

if TYPE_CHECKING:
    from tuneahead.checks.encoding import TokenMeasures
    from tuneahead.features.pairing import Moved

MAX_SHOWN_ROWS = 20


@dataclass(frozen=True)
class RunLength:
    """How long a run is where somebody knows: a Trainer that packs rows, or holds more than were surveyed.

    ``rows`` are its training rows, or lines of packed ones, of ``tokens_a_row`` tokens on average (NaN if
    unknown), ``steps`` its optimiser steps. ``heldout_rows`` are not among the rows.
    """

    rows: int
    steps: int
    tokens_a_row: float = float("nan")
    heldout_rows: int = 0


@dataclass(frozen=True)
class Context:
    """Everything the checks look at. ``tokens`` is None when no tokenizer was given.

    Without ``length`` the run's length follows from recipe and rows. ``layers`` are the full names of the
    base's linear layers, empty where no base is known; ``columns`` says how a file was read. ``static`` holds
    static features by name, none where they were not measured, ``moved`` rows with a neighbour's answer.
    """

    survey: Survey
    recipe: Recipe
    tokens: TokenMeasures | None = None
    length: RunLength | None = None
    layers: tuple[str, ...] = ()
    columns: ColumnUse = ColumnUse()
    static: Mapping[str, float] = field(default_factory=dict)
    moved: Moved | None = None

    @property
    def run(self) -> RunLength:
        """The run's length; without rows it has no steps."""
        if self.length is not None:
            return self.length
        rows = int(np.count_nonzero(self.answered))
        return RunLength(rows, self.recipe.total_steps(rows) if rows else 0)

    @property
    def trains_every_turn(self) -> bool:
        """Whether earlier assistant turns are trained as well: under a chat template, or what may be one."""
        template = self.recipe.template if self.tokens is None else self.tokens.template
        return template in ("auto", "chat", "")

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Rows with an answer that is trained, whatever the window leaves of it: ``(rows,)``."""
        given = ~self.survey.empty_answer
        return given | self.survey.earlier_turns if self.trains_every_turn else given


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
    return f"{count:,} of {counted(total, 'row')} ({shown} %)"
