"""A user's own benchmark: a JSONL file of multiple-choice or free-answer items."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tuneahead.benchmark.items import Benchmark, ChoiceItem, GenerationItem, Metric
from tuneahead.errors import BenchmarkError

_HELP = (
    'one JSON object a line: {"prompt": "...", "options": ["...", "..."], "gold": 0} for choices '
    '(gold may be a list for MC2), {"prompt": "...", "answers": ["..."]} for free answers'
)


def read_benchmark(path: str | Path) -> Benchmark:
    """Read items from a JSONL file; the metric follows from the items.

    Items with ``options`` are scored by accuracy (MC2 where an item has several right ones), items
    with ``answers`` by exact match. Raises :class:`BenchmarkError` with file and line on
    anything that can't be asked: one option, equal options, no gold, an empty prompt, mixed kinds.
    """
    source = Path(path)
    try:
        # str.splitlines would cut at characters such as U+2028, which JSON allows inside a text.
        lines = source.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(
            f"can't read benchmark {source}: {error}", remedy="give a UTF-8 JSONL file"
        ) from None
    choices: list[ChoiceItem] = []
    free: list[GenerationItem] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            item = _item(line, f"{source}, row {number}", str(number))
            (choices if isinstance(item, ChoiceItem) else free).append(item)  # type: ignore[arg-type]
            if choices and free:
                raise BenchmarkError(
                    f"{source}, row {number}: choices and free answers are mixed", remedy="keep two files"
                )
    if not choices and not free:
        raise BenchmarkError(f"{source} holds no item", remedy=_HELP)
    return Benchmark(source.stem, _metric(choices), choices or free)


def _metric(choices: list[ChoiceItem]) -> Metric:
    if not choices:
        return "exact_match"
    return "mc2" if any(len(item.gold) > 1 for item in choices) else "accuracy"


def _item(line: str, where: str, number: str) -> ChoiceItem | GenerationItem:
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: not valid JSON ({error})", remedy=_HELP) from None
    if not isinstance(loaded, dict):
        raise BenchmarkError(f"{where}: a {type(loaded).__name__}, not an object", remedy=_HELP)
    prompt = loaded.get("prompt", loaded.get("question"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise BenchmarkError(f"{where}: no prompt", remedy=_HELP)
    name, subject = str(loaded.get("id", number)), str(loaded.get("subject", ""))
    if "options" in loaded or "choices" in loaded:
        options = _texts(loaded.get("options", loaded.get("choices")), where, "options")
        if len(options) < 2:
            raise BenchmarkError(f"{where}: {len(options)} option, at least two are needed", remedy=_HELP)
        twice = next((text for i, text in enumerate(options) if text in options[:i]), None)
        if twice is not None:
            raise BenchmarkError(
                f"{where}: option {twice!r} is there twice",
                remedy="give each option once: its score counts once",
            )
        return ChoiceItem(name, prompt, options, _gold(loaded, options, where), subject)
    answers = loaded.get("answers", loaded.get("answer"))
    texts = _texts([answers] if isinstance(answers, str) else answers, where, "answers")
    return GenerationItem(name, prompt, texts, subject)


def _texts(value: object, where: str, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(t, str) and t.strip() for t in value):
        raise BenchmarkError(f"{where}: {what} must be a list of non-empty texts", remedy=_HELP)
    return tuple(value)


def _gold(loaded: Mapping[str, object], options: tuple[str, ...], where: str) -> tuple[int, ...]:
    value = loaded.get("gold", loaded.get("answer"))
    found = value if isinstance(value, list) else [value]
    places = []
    for one in found:
        if isinstance(one, str) and one in options:
            places.append(options.index(one))
        elif isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(options):
            places.append(one)
        else:
            raise BenchmarkError(
                f"{where}: gold is {one!r}, not one of the {len(options)} options",
                remedy="give the place of the right option, counted from 0, or its text",
            )
    if not places or len(set(places)) == len(options):
        raise BenchmarkError(f"{where}: gold must leave at least one wrong option", remedy=_HELP)
    return tuple(sorted(set(places)))
