"""JSON documents that hold rows otherwise than as a list of objects: by columns, or deeper inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DEEPEST = 4


@dataclass(frozen=True)
class Misfit:
    """What a document is, and how to make rows of it."""

    what: str
    remedy: str


def shape_of(value: object) -> str:
    """``column`` for the values of one column, ``turns`` for a conversation, or the path to rows inside.

    An empty text for anything else.
    """
    if _are_turns(value):
        return "turns"
    if isinstance(value, list) and value and not isinstance(value[0], (dict, list)):
        return "column"
    # Data frames are written as {"prompt": {"0": ..., "1": ...}}.
    if isinstance(value, dict) and "0" in value and not isinstance(value["0"], (dict, list)):
        return "column"
    return _path(value, _DEEPEST) or ""


def _are_turns(value: object) -> bool:
    turn = value[0] if isinstance(value, list) and value else None
    return isinstance(turn, dict) and ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys())


def _path(value: object, deep: int) -> str | None:
    """Path from ``value`` down to a list of objects, as jq writes it; None where there is none."""
    if isinstance(value, list):
        return "." if value and isinstance(value[0], dict) else None
    if not isinstance(value, dict) or not deep:
        return None
    for key, inner in value.items():
        if (found := _path(inner, deep - 1)) is not None:
            return f'."{key}"' + found.removesuffix(".")
    return None


def find_misfit(shapes: Mapping[str, str]) -> Misfit | None:
    """What a document is whose keys hold values of these shapes; None where that is not clear.

    >>> find_misfit({"prompt": "column", "completion": "column"}).what
    'a table by columns (prompt, completion), not by rows'
    """
    columns = [key for key, shape in shapes.items() if shape == "column"]
    if len(columns) == len(shapes) > 1:
        shown = ", ".join(key[:40] for key in columns[:10])
        return Misfit(
            f"a table by columns ({shown}), not by rows",
            "write one object a row; in pandas: "
            'DataFrame(...).to_json("NEW.jsonl", orient="records", lines=True)',
        )
    talk = next((key for key, shape in shapes.items() if shape == "turns"), "")
    if talk:
        return Misfit(
            f"one conversation (under {talk[:40]}) spread over several lines, not a list of rows",
            "write one object a line, for example with jq -c . FILE > NEW.jsonl",
        )
    for key, shape in shapes.items():
        if shape.startswith("."):
            path = f'."{key}"' + shape.removesuffix(".")
            plain = path.replace('"', "")[1:]
            return Misfit(
                f"the list of rows lies deeper, under {plain[:80]}",
                f"take it out, for example with jq -c '{path[:80]}[]' FILE > NEW.jsonl",
            )
    return None
