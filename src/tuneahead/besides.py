"""What the rows of a file hold beside their texts: tools that may be called, pictures and sounds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from tuneahead.columnuse import column_names

TOOLS_NAMES = ("tools", "functions")
MEDIA_NAMES = ("image", "images", "video", "videos", "audio", "audios")

_PLACE = re.compile(r"<(?:image|video|audio|img)>")
_NONE = ("", "[]", "{}", "null")


def tools_text(value: object) -> str:
    """The tools of one row as text, the same for the same tools; empty where it offers none."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return "" if text.strip() in _NONE else text


def find_tools(records: Sequence[Mapping[str, object]]) -> str:
    """The column of tools that are described as objects, or as their JSON; empty where there is none."""
    return next((name for name in _columns(records, TOOLS_NAMES) if _describes(records, name)), "")


def find_media(records: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Columns of pictures and sounds that belong to the texts, by their content or by a mark in the texts.

    An address beside a text that has no such mark says no more than where an article has its picture.
    """
    return tuple(name for name in _columns(records, MEDIA_NAMES) if any(_shown(r, name) for r in records))


def _columns(records: Sequence[Mapping[str, object]], known: Sequence[str]) -> list[str]:
    return [name for name in column_names(records) if name.strip().lower() in known]


def _describes(records: Sequence[Mapping[str, object]], column: str) -> bool:
    texts = filter(None, (tools_text(record.get(column)) for record in records))
    return all(text.lstrip().startswith(("[{", "{", '["{')) for text in texts)


def _shown(record: Mapping[str, object], column: str) -> bool:
    value = record.get(column)
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str) and first:
        return any(_PLACE.search(str(told)) for name, told in record.items() if name != column)
    return isinstance(first, (dict, bytes)) and bool(first)
