"""Fields of a stored record, each taken only as the kind of value that was written.

All raise KeyError, TypeError, ValueError or OverflowError, which whoever reads the file turns into an
error that names it. Numbers and arrays are finite unless said otherwise; an array never holds NaN.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Plain = TypeVar("_Plain")
WRONG = (LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What a reader of JSON and of its fields may meet besides OSError."""
_MOST = 2**31 - 1


def mapping(found: object, what: str) -> Mapping[str, object]:
    """A JSON object."""
    return typing.cast("Mapping[str, object]", _of(found, dict, what))


def listing(found: object, what: str) -> list[object]:
    """A JSON list."""
    return typing.cast("list[object]", _of(found, list, what))


def text(found: object, what: str) -> str:
    """A text."""
    return typing.cast(str, _of(found, str, what))


def texts(found: object, what: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(one, f"an entry of {what}") for one in listing(found, what))


def word(found: object, what: str, among: Sequence[str]) -> str:
    """One of some texts."""
    if found not in among:
        raise ValueError(f"{what} is {found!r:.60}, not one of {', '.join(among)}")
    return text(found, what)


def flag(found: object, what: str) -> bool:
    """True or false."""
    return typing.cast(bool, _of(found, bool, what))


def whole(found: object, what: str, *, least: int = -_MOST) -> int:
    """A whole number from ``least`` to what C libraries can count to."""
    # To Python, true is a number too.
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= _MOST:
        raise ValueError(f"{what} is {found!r:.60}")
    return found


def number(found: object, what: str, *, absent: bool = False, infinite: bool = False) -> float:
    """A number; NaN only where ``absent``, an infinite one only where ``infinite``."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError(f"{what} is {found!r:.60}, not a number")
    value = float(found)
    if (math.isnan(value) and not absent) or (math.isinf(value) and not infinite):
        raise ValueError(f"{what} is {value}")
    return value


def floats(found: object, what: str, *shape: int | None, infinite: bool = False) -> Floats:
    """An array of this shape, where None stands for any length."""
    array = np.asarray(listing(found, what))
    if array.size and array.dtype.kind not in "if":
        raise TypeError(f"{what} holds something else than numbers")
    if len(array.shape) != len(shape) or any(
        wanted not in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{what} is an array of shape {array.shape}")
    values = array.astype(float)
    if np.isnan(values).any() or not (infinite or np.isfinite(values).all()):
        raise ValueError(f"{what} holds a value that is not finite")
    return values


def plain(kind: type[_Plain], found: object, what: str) -> _Plain:
    """A dataclass of texts, numbers (NaN where absent), words, and tuples of these or of such dataclasses."""
    hints = typing.get_type_hints(kind)
    stored = mapping(found, what)
    unknown = next((name for name in stored if name not in hints), None)
    if unknown is not None:
        raise TypeError(f"{what} has a field {unknown!r:.60}, which a later version may have written")
    return kind(**{name: _declared(hints[name], value, name) for name, value in stored.items()})


def _declared(kind: Any, value: object, what: str) -> object:
    if kind is float:
        return number(value, what, absent=True)
    if kind is int:
        return whole(value, what)
    if dataclasses.is_dataclass(kind):
        return plain(typing.cast("type[object]", kind), value, what)
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return tuple(_declared(inner[0], one, what) for one in listing(value, what))
    return word(value, what, inner) if inner else text(value, what)


def _of(found: object, kind: type, what: str) -> object:
    if not isinstance(found, kind):
        raise TypeError(f"{what} is {found!r:.60}")
    return found
