"""A user's own benchmark: a JSONL file of multiple-choice or free-answer items."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneahead.benchmark.items import (
    ANSWER_METRICS,
    CHOICE_METRICS,
    WRITTEN,
    Asking,
    Benchmark,
    ChoiceItem,
    GenerationItem,
    Metric,
)
from tuneahead.counts import listed
from tuneahead.errors import BenchmarkError, DataError, why_unreadable
from tuneahead.jsonstream import decode_json

BUILT_IN = ("lab-exam", "lab-truth", "lab-generation")
"""Benchmarks of the lab. Predictors and histories know them by their names alone."""
_decode = decode_json(None)
_HELP = (
    'one JSON object a line: {"prompt": "...", "options": ["...", "..."], "gold": 0} for choices '
    '(gold may be a list for MC2), {"prompt": "...", "answers": ["..."]} for free answers'
)
_ASKED_TOO = frozenset(
    ("question", "instruction", "context", "passage", "article", "paragraph")
    + ("document", "background", "story", "premise", "input", "text")
    + ("system", "system_prompt", "history", "messages", "conversation", "conversations")
)
"""Fields of other formats that belong to what is asked."""
_OPTION = re.compile(
    r"(?:(?:option|choice|ending|answer|distractor)s?|sol|op)?[_ ]?(?:[a-f]|\d)", re.IGNORECASE
)
"""Names of fields that hold one option each."""


def read_benchmark(path: str | Path) -> Benchmark:
    """Read items from a JSONL file; the metric follows from the items, or stands in a first line of its own.

    Items with ``options`` are scored by accuracy (MC2 where an item has several right ones), items
    with ``answers`` by exact match. A first line such as ``{"metric": "f1", "max_new_tokens": 32}`` chooses
    another metric (``accuracy``, ``acc_norm``, ``mc2``; ``exact_match``, ``f1``, ``rouge_l``) and, for the
    last two, says when a written answer ends (``stop`` is a list of texts). Raises :class:`BenchmarkError`
    with file and line on anything that can't be asked: one option, equal options, no gold, an empty prompt,
    mixed kinds, a part of the question that is not read, an answer without a word for ``f1`` or ``rouge_l``;
    on two fields of an item that contradict each other; and for a file named as a built-in benchmark.
    """
    source = Path(path)
    if source.stem in BUILT_IN:
        raise BenchmarkError(
            f"{source} is named as the built-in benchmark {source.stem}, for which it would be taken",
            remedy=f"rename the file, for example to my-{source.name}",
        )
    choices: list[ChoiceItem] = []
    free: list[GenerationItem] = []
    header: _Header | None = None
    for number, line in enumerate(_lines(source), start=1):
        where = f"{source}, row {number}"
        if not line.strip():
            continue
        loaded = _object(line, source, number)
        if header is None and not choices and not free and "metric" in loaded:
            header = _header(loaded, where)
            continue
        item = _item(loaded, where, str(number))
        if header is not None and isinstance(item, GenerationItem):
            _require_words(item, header.metric, where)
        (choices if isinstance(item, ChoiceItem) else free).append(item)  # type: ignore[arg-type]
        if choices and free:
            raise BenchmarkError(f"{where}: choices and free answers are mixed", remedy="keep two files")
    if not choices and not free:
        raise BenchmarkError(f"{source} holds no item", remedy=_HELP)
    found = _metric(choices)
    if header is None:
        return Benchmark(source.stem, found, choices or free)
    if header.metric not in (CHOICE_METRICS if choices else ANSWER_METRICS):
        kind = "options" if choices else "free answers"
        raise BenchmarkError(
            f"{source}: metric {header.metric!r} does not score items with {kind}",
            remedy=f"use one of {', '.join(CHOICE_METRICS if choices else ANSWER_METRICS)}",
        )
    if header.metric == "rouge_l":
        from tuneahead.benchmark.generation import rouge_grader

        rouge_grader()
    return Benchmark(source.stem, header.metric, choices or free, header.asking)


@dataclass(frozen=True)
class _Header:
    metric: Metric
    asking: Asking


def _lines(source: Path) -> list[str]:
    try:
        # str.splitlines would cut at characters such as U+2028, which JSON allows inside a text.
        return source.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(
            f"can't read benchmark {source}: {why_unreadable(error)}", remedy="give a UTF-8 JSONL file"
        ) from None


def _header(loaded: Mapping[str, object], where: str) -> _Header:
    """The metric and the way of asking that a file's first line names."""
    remedy = 'write {"metric": "f1", "max_new_tokens": 32, "stop": ["\\n"]}, the last two if wanted'
    metric = next((one for one in (*CHOICE_METRICS, *ANSWER_METRICS) if one == loaded["metric"]), None)
    if metric is None:
        known = ", ".join((*CHOICE_METRICS, *ANSWER_METRICS))
        raise BenchmarkError(f"{where}: unknown metric {loaded['metric']!r}", remedy=f"use one of {known}")
    unknown = sorted(loaded.keys() - {"metric", "max_new_tokens", "stop"})
    if unknown:
        raise BenchmarkError(f"{where}: unknown field {unknown[0]!r} beside the metric", remedy=remedy)
    idle = next((name for name in ("max_new_tokens", "stop") if name in loaded), None)
    if idle and metric not in WRITTEN:
        raise BenchmarkError(
            f"{where}: {idle} does nothing under {metric}, for which no answer is written out",
            remedy=f"leave it out, or use one of {', '.join(WRITTEN)}",
        )
    tokens, stop = (
        loaded.get("max_new_tokens", Asking().max_new_tokens),
        loaded.get("stop", list(Asking().stop)),
    )
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise BenchmarkError(f"{where}: max_new_tokens is {tokens!r}, not a number of tokens", remedy=remedy)
    if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
        raise BenchmarkError(f"{where}: stop is {stop!r}, not a list of texts", remedy=remedy)
    return _Header(metric, Asking(max_new_tokens=tokens, stop=tuple(stop)))


def _metric(choices: list[ChoiceItem]) -> Metric:
    if not choices:
        return "exact_match"
    return "mc2" if any(len(item.gold) > 1 for item in choices) else "accuracy"


def _object(line: str, source: Path, number: int) -> dict[str, object]:
    if number == 1 and line.lstrip().startswith("["):
        raise BenchmarkError(
            f"{source}, row {number}: a JSON array, not one object a line",
            remedy=f"write its items a line each, for example: jq -c '.[]' {source.name} > items.jsonl",
        )
    try:
        loaded = _decode(line, source, number)
    except DataError as error:
        raise BenchmarkError(error.message, remedy=_HELP) from None
    where = f"{source}, row {number}"
    if not isinstance(loaded, dict):
        raise BenchmarkError(f"{where}: a {type(loaded).__name__}, not an object", remedy=_HELP)
    try:
        json.dumps(loaded, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(error.object[error.start]):04x}"
        raise BenchmarkError(
            f"{where}: holds {code}, half of a surrogate pair", remedy="correct this row, or leave it out"
        ) from None
    return loaded


def _item(loaded: Mapping[str, object], where: str, number: str) -> ChoiceItem | GenerationItem:
    # Null is how tables write an empty cell.
    loaded = {key: value for key, value in loaded.items() if value is not None}
    prompt = loaded.get("prompt", loaded.get("question"))
    if not isinstance(prompt, str) or not prompt.strip():
        absent = prompt is None or isinstance(prompt, str)
        what = "no prompt" if absent else f"prompt is a {type(prompt).__name__}, not a text"
        raise BenchmarkError(f"{where}: {what}", remedy=_HELP)
    _refuse_unread(loaded, prompt, where)
    name, subject = str(loaded.get("id", number)), str(loaded.get("subject", ""))
    if "options" in loaded or "choices" in loaded:
        options = _texts(loaded.get("options", loaded.get("choices")), where, "options")
        if len(options) < 2:
            raise BenchmarkError(f"{where}: {len(options)} option, at least two are needed", remedy=_HELP)
        bare = [_said(text) for text in options]
        _refuse_other_options(loaded, bare, where)
        twice = next((text for i, text in enumerate(bare) if text in bare[:i]), None)
        if twice is not None:
            raise BenchmarkError(
                f"{where}: option {twice!r} is there twice",
                remedy="give each option once: its score counts once",
            )
        return ChoiceItem(name, prompt, options, _gold(loaded, options, where), subject)
    key = "answers" if "answers" in loaded else "answer"
    answers = loaded.get(key)
    texts = _texts([answers] if isinstance(answers, str) else answers, where, "answers")
    _refuse_other_texts(loaded, key, texts, where)
    return GenerationItem(name, prompt, texts, subject)


def _require_words(item: GenerationItem, metric: Metric, where: str) -> None:
    from tuneahead.benchmark.generation import is_wordless

    bare = next((text for text in item.answers if metric in WRITTEN and is_wordless(text, metric)), None)
    if bare is not None:
        raise BenchmarkError(
            f"{where}: answer {bare!r} has no word that {metric} compares",
            remedy="give an answer in words, or take metric exact_match, which compares whole answers",
        )


def _refuse_unread(loaded: Mapping[str, object], prompt: str, where: str) -> None:
    """Without a field that belongs to the question another benchmark would be scored."""
    listed = "options" in loaded or "choices" in loaded
    for key, value in loaded.items():
        if key.lower() in _ASKED_TOO and value and str(value).strip() not in prompt:
            raise BenchmarkError(
                f"{where}: {key!r} would not be asked, the prompt does not hold it",
                remedy="write it into the prompt, or leave it out",
            )
        if not listed and _OPTION.fullmatch(key):
            raise BenchmarkError(
                f"{where}: {key!r} would not be read as an option", remedy="list the options: " + _HELP
            )


def _texts(value: object, where: str, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(t, str) and t.strip() for t in value):
        raise BenchmarkError(
            f"{where}: {what} must be a list of non-empty texts (numbers in quotes)", remedy=_HELP
        )
    # The model would have to write the space after an answer too, and be asked for that after an option.
    return tuple(text.rstrip() for text in value)


def _said(text: str) -> str:
    """What a text says, in the form in which equal ones are equal: space around it is no part of that."""
    return unicodedata.normalize("NFC", text.strip())


def _refuse_other_options(loaded: Mapping[str, object], said: list[str], where: str) -> None:
    """Options under both names have to be the same, in one order: a gold may be a place."""
    if "options" in loaded and "choices" in loaded:
        others = _texts(loaded["choices"], where, "choices")
        if [_said(text) for text in others] != said:
            raise BenchmarkError(
                f"{where}: options and choices differ", remedy="leave out the field that is not meant"
            )


def _refuse_other_texts(loaded: Mapping[str, object], key: str, answers: tuple[str, ...], where: str) -> None:
    """What stands beside free answers under another name of theirs has to be one of them."""
    known = {_said(text) for text in answers}
    for name in ("answer", "gold"):
        value = None if name == key else loaded.get(name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and _said(str(one)) not in known:
                raise BenchmarkError(
                    f"{where}: {name} {one!r} contradicts {key} {answers[0]!r}",
                    remedy=f"correct the wrong one of the two, or leave {name} out",
                )


def _gold(loaded: Mapping[str, object], options: tuple[str, ...], where: str) -> tuple[int, ...]:
    value = loaded.get("gold", loaded.get("answer"))
    found = value if isinstance(value, list) else [value]
    places = []
    for one in found:
        if (place := _place(one, options)) is None:
            raise BenchmarkError(
                f"{where}: gold is {one!r}, not one of the {len(options)} options",
                remedy="give the right option's text, or its place as a number from 0 on (0 for A)",
            )
        places.append(place)
    if not places or len(set(places)) == len(options):
        raise BenchmarkError(f"{where}: gold must leave at least one wrong option", remedy=_HELP)
    for name in ("answer", "answers"):
        _refuse_other_answer(name, loaded.get(name), options, places, where)
    return tuple(sorted(set(places)))


def _place(one: object, options: tuple[str, ...]) -> int | None:
    """The option that a text or a number names; None for anything else."""
    if isinstance(one, str):
        said = [_said(text) for text in options]
        return said.index(_said(one)) if _said(one) in said else None
    return one if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(options) else None


def _refuse_other_answer(
    name: str, answer: object, options: tuple[str, ...], gold: list[int], where: str
) -> None:
    """Beside the gold an answer may say the same, or something that names no option, such as a reason."""
    for one in answer if isinstance(answer, list) else [answer]:
        place = _place(one, options)
        letter = one.strip() if isinstance(one, str) else ""
        if place is None and len(letter) == 1 and "A" <= letter < chr(ord("A") + len(options)):
            place = ord(letter) - ord("A")
        if place is not None and place not in gold:
            raise BenchmarkError(
                f"{where}: gold is option {listed([str(at) for at in gold])}, but {name} is {one!r}, option "
                f"{place} (counted from 0)",
                remedy=f"correct the wrong one of the two, or leave {name} out",
            )
