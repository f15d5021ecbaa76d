"""What is known of one feature besides its value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal["static", "dynamic", "recipe", "cue"]

Value = float | str
"""A measured value, or the reason why there is none."""


@dataclass(frozen=True)
class FeatureSpec:
    """One row of the catalogue.

    ``low`` and ``high`` bound every possible value; ``direction`` is +1 where more is expected to
    mean a better final score, -1 where less is, 0 where neither holds. ``estimate`` says what the
    value is on data too large to be looked at whole: still exact, an estimated mean or share over
    rows (whose error is stated), or a property of the sample itself. ``sentence`` states a
    ``{value}`` in a diagnosis and ``remedy`` what a user can do about it, ``remedy_side`` whether that is
    for values above what most runs have (+1) or below (-1); 0 means what ``direction`` says, and without one
    either. Values within ``usual`` are what the remedy asks for and need none. ``paper`` marks the 14 static
    and 10 dynamic features of the notes; ``scale_free`` those whose values compare between bases, benchmarks
    and lengths of run.

    >>> FeatureSpec("x", "fraction", 0, 1, "static", "-", "ours", 0, "{value} of the rows").describe(0.5)
    '50 % of the rows'
    """

    name: str
    unit: str
    low: float
    high: float
    group: Group
    formula: str
    source: str
    direction: Literal[-1, 0, 1]
    sentence: str
    remedy: str = ""
    remedy_side: Literal[-1, 0, 1] = 0
    usual: tuple[float, float] | None = None
    estimate: Literal["exact", "mean", "share", "sample"] = "exact"
    paper: bool = False
    scale_free: bool = False

    def is_remedied_at(self, value: float, typical: float) -> bool:
        """Whether the remedy is for such a value; ``typical`` is what most runs have, NaN if that is unknown.

        >>> FeatureSpec("x", "", 0, 1, "static", "-", "ours", 1, "{value}").is_remedied_at(0.9, typical=0.5)
        False
        """
        if self.usual is not None and self.usual[0] <= value <= self.usual[1]:
            return False
        side = self.remedy_side or -self.direction
        return side == 0 or math.isnan(typical) or side * (value - typical) > 0

    def format_value(self, value: float) -> str:
        """The value with its unit, as a reader wants it: percent, and numbers instead of logarithms.

        >>> FeatureSpec("x", "log10", 0, 9, "static", "-", "ours", 0, "{value}").format_value(3.0)
        '1,000'
        >>> FeatureSpec("x", "words", 0, 9, "static", "-", "ours", 0, "{value}").format_value(1.0)
        '1 word'
        """
        if math.isnan(value):
            return "absent"
        if self.unit in _BASES:
            return _plain(_BASES[self.unit] ** value)
        if self.unit == "fraction":
            return f"{100 * value:.3g} %"
        if self.unit == "flag":
            return "yes" if value > 0.5 else "no"
        if self.unit in ("", "ratio", "count"):
            return _plain(value)
        number, unit = _plain(value), _SHORT_UNITS.get(self.unit, self.unit)
        return f"{number} {unit.removesuffix('s') if number == '1' else unit}"

    def format_error(self, value: float, error: float) -> str:
        """``error`` as it stands beside the formatted value: in percent of it where it is a logarithm.

        >>> FeatureSpec("x", "fraction", 0, 1, "static", "-", "ours", 0, "{value}").format_error(0.5, 0.012)
        '± 1.2'
        """
        if self.unit in _BASES:
            return f"± {100 * (_BASES[self.unit] ** error - 1):.2g} %"
        scaled = 100 * error if self.unit == "fraction" else error
        return f"± {scaled:,.0f}" if scaled >= 100 else f"± {scaled:.2g}"

    def describe(self, value: float) -> str:
        """The sentence with the value in it."""
        return self.sentence.format(value=self.format_value(value))


_SHORT_UNITS = {"pp": "points"}
_BASES = {"log10": 10.0, "log2": 2.0}


def _plain(value: float) -> str:
    if abs(value) >= 1e15 or not math.isfinite(value):
        return f"{value:.3g}"
    if abs(value) >= 100 or abs(value - round(value)) < 1e-9:
        return f"{round(value):,}"
    return f"{value:.3g}"
