"""What the dynamic features share: windows, slopes, ratios, and why a value is absent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tuneahead.features.featurespec import Value
from tuneahead.trace import ProbeTrace

Floats = NDArray[np.float64]


def last_fifth(steps: int) -> int:
    """Number of steps that count as the probe's end: a fifth, at least two."""
    return min(steps, max(2, math.ceil(steps / 5)))


def slope(x: Floats, y: Floats) -> float:
    """Least-squares slope of ``y`` on ``x``."""
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def ratio(value: float, over: float, reason: str) -> Value:
    """``value / over``, or the reason where there is nothing to divide by."""
    return value / over if over > 0 else reason


def too_few(seen: int, needed: int, what: str = "finite loss") -> str:
    """The reason for a value that needs more steps than there are."""
    return f"needs {needed} steps with a {what}, the probe has {seen}"


def absence(trace: ProbeTrace, name: str, otherwise: str) -> str:
    """The reason that the trace itself gives for lacking a measurement."""
    return next((reason for what, reason in trace.absent if what == name), otherwise)
