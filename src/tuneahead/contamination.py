"""Contamination: benchmark questions that stand in the training rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark, ChoiceItem, GenerationItem
from tuneahead.examples import Example
from tuneahead.words import Hashes, WordHasher, Words, spaceless_characters

RUN_WORDS = 13
"""Words in a row that a training row and a question must share. Source: GPT-3, appendix C."""

COVERED_FRACTION = 0.5
"""Share of a long question's runs that one row must hold. Single shared runs are set phrases: clinical
questions of MMLU and MedQA share 13 words of vital signs, and GPT-3's rule then calls 3 % of MedQA known."""

SHORTEST_RUN_WORDS = 8
"""Questions of 8 to 12 words match when they stand whole in a row; shorter ones must be its prompt, and
so must those that live by their options or whose script sets no spaces."""

BOILERPLATE_ITEMS = 5
"""A run of words that more items of one benchmark share is part of how it asks, and is ignored."""

Hits = tuple[tuple[tuple[int, int], ...], ...]
"""For each benchmark the pairs (training row, number of the item) that were found."""

_ASK = (
    "question|q|problem|instruction|input|user|human|prompt"
    "|frage|pregunta|pergunta|domanda|вопрос|问题|问|質問|질문|سؤال"
)
_TELL = (
    "answer|a|response|output|assistant"
    "|antwort|respuesta|réponse|resposta|risposta|ответ|答案|答|回答|답|الجواب"
)
_LABEL = re.compile(rf"^[\s#*]*(?:{_ASK})\s*[:：.)]\s*[\s*#]*", re.IGNORECASE)
_CUE = re.compile(rf"[\s#*]*\b(?:{_TELL}|solution)[\s*#]*[:：][\s*#]*$", re.IGNORECASE)
_CUE_CHARACTERS = 40
_OPTION = re.compile(r"\n[ \t]*\(?([A-H])[.):][ \t]")
# Options of one line; where A stands alone it is no option.
_INLINE = re.compile(r"(?<=\S)[ \t]+\(?A[.):][ \t]+\S[^\n]{0,200}?[ \t]\(?B[.):] ")
_SECOND_MARKS = ("B. ", "B) ", "B: ")
_MARK = re.compile(r"(?<=\S)[ \t]+(?=\(?[A-H][.):][ \t])")
_CHOICE = re.compile(r"\s*\(?([A-H])(?:[.):]+(?:\s+(.*))?|\)?)\s*\Z", re.DOTALL)
_INNER_LABEL = re.compile(rf"\n[ \t#*]*(?:{_TELL})[ \t*]*[:：][ \t#*]*", re.IGNORECASE)
_OPERATOR = re.compile(r"(?<=\d) ?([-+*/=×÷^−]) ?(?=\d|\Z)")
_SUM_CHARACTERS = 200
_PAIR_CHARACTERS = 300
# Such questions live by their options: alone they say nothing. "The following" in 17 languages.
_OPEN = re.compile(
    r"\b(?:which|what|all|one|none) of (?:the following|these)\b|\bfollowing (?:is|are)\b"
    r"|\b(?:der folgenden|suivante?s?|siguientes|seguintes|seguenti|van de volgende|następujących)\b"
    r"|\b(?:aşağıdaki|sau đây|berikut ini)|следующ|перечисленн"
    r"|下列|以下|下面|次の|다음 중|التالية|مما يلي|निम्नलिखित"
)
_EDGES = " \t\r\n.!?:;,\"'`*_-。？！：；，؟“”‘’„«»「」¿¡"
_MOST_LINES = 40


@dataclass(frozen=True)
class Contamination:
    """What of one benchmark stands in the training rows.

    ``rows`` are the training rows (``(n,)``, ascending), ``item_ids`` the benchmark's items that
    were found, of ``items`` in all. ``first_items[i]`` is an item found in ``rows[i]``.
    """

    benchmark: str
    items: int
    item_ids: tuple[str, ...]
    rows: NDArray[np.int64]
    first_items: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """Share of the benchmark's items that were found; NaN for an empty benchmark."""
        return len(self.item_ids) / self.items if self.items else float("nan")


class ContaminationSearch:
    """Looks for the questions of several benchmarks in training rows, block by block.

    A question counts as found when a training row (prompt and answer) holds half of its runs of
    13 words; when a question of 8 to 12 words stands in it whole; or when a shorter one, or one
    that asks which "of the following", is the row's prompt or one of its lines, with its right
    answer if need be, or comes with half of its options' runs. Words are compared without
    case and punctuation; short questions keep their inner signs (``2 + 2`` is not ``2 - 2``).
    Exact up to collisions of 64-bit hashes. Source: runs of 13 words as in GPT-3 (Brown et al.
    2020, appendix C) and lm-evaluation-harness; the rule for short questions is ours.
    """

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self._indices = [_Index(benchmark) for benchmark in benchmarks]
        self._found: list[defaultdict[int, set[int]]] = [defaultdict(set) for _ in self._indices]

    def look_up(self, words: Words, rows: NDArray[np.int64], examples: Sequence[Example]) -> Hits:
        """What stands in a block: the words of prompt and answer of each row, its number and its example."""
        return tuple(
            (*index.look_up_runs(words, rows), *index.look_up_keys(rows, examples)) for index in self._indices
        )

    def add(self, hits: Hits) -> None:
        """Keep what :meth:`look_up` gave, here or in another process."""
        for found, pairs in zip(self._found, hits, strict=True):
            for row, item in pairs:
                found[row].add(item)

    def finish(self) -> tuple[Contamination, ...]:
        """One result per benchmark, in the order given."""
        return tuple(index.result(found) for index, found in zip(self._indices, self._found, strict=True))


class _Index:
    def __init__(self, benchmark: Benchmark) -> None:
        items: Sequence[ChoiceItem | GenerationItem] = benchmark.items
        self._name = benchmark.name
        self._ids = [item.item_id for item in items]
        self._keys: dict[str, list[int]] = defaultdict(list)
        # Examples before a question are not what a row must hold: they are most of such a prompt.
        prompts = [item.question or item.prompt for item in items]
        stems = [question_stem(prompt) for prompt in prompts]
        asked = Counter(question_key(stem) for stem in stems)
        for i, (item, stem) in enumerate(zip(items, stems, strict=True)):
            key = question_key(stem)
            if key and asked[key] == 1 and not _OPEN.search(key):
                self._keys[key].append(i)
            for answer in _right_answers(item):
                # The letter of a right option alone fits every question of this wording.
                told = _answers(answer, _options(prompts[i]))[-1]
                self._keys[question_key(f"{stem.strip()} {told}")].append(i)
        self._keys.pop("", None)
        self._runs = _run_indices(stems, [_unlabelled(prompt) for prompt in prompts])

    def look_up_runs(self, words: Words, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        for index in self._runs:
            owner, item = index.look_up(words)
            yield from zip(rows[owner].tolist(), item.tolist(), strict=True)

    def look_up_keys(self, rows: NDArray[np.int64], examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        for row, example in zip(rows.tolist(), examples, strict=True):
            for key in _row_keys(example):
                for item in self._keys.get(key, ()):
                    yield row, item

    def result(self, hits: Mapping[int, set[int]]) -> Contamination:
        rows = sorted(hits)
        found = sorted(set().union(*hits.values()))
        return Contamination(
            self._name,
            len(self._ids),
            tuple(self._ids[i] for i in found),
            np.array(rows, np.int64),
            tuple(self._ids[min(hits[row])] for row in rows),
        )


def question_stem(prompt: str) -> str:
    """The question itself: without ``Question:`` before it, options and ``Answer:`` after it."""
    stem = _listed(_unlabelled(prompt))
    option = _OPTION.search(stem)
    return stem[: option.start()] if option else stem


def _unlabelled(prompt: str) -> str:
    text = _LABEL.sub("", prompt, count=1).rstrip()
    head, tail = text[:-_CUE_CHARACTERS], text[-_CUE_CHARACTERS:]
    return head + _CUE.sub("", tail, count=1)


def _listed(text: str) -> str:
    """The text with options that follow each other in one line on lines of their own."""
    if not any(mark in text for mark in _SECOND_MARKS) or _OPTION.search(text):
        return text
    if (options := _INLINE.search(text)) is None:
        return text
    # From the sign before the first of them on.
    start = options.start() - 1
    return text[:start] + _MARK.sub("\n", text[start:])


def _options(prompt: str) -> dict[str, str]:
    """The options that a prompt lists, by letter."""
    text = _listed(_unlabelled(prompt))
    found = [*_OPTION.finditer(text)]
    stops = [*(option.start() for option in found[1:]), len(text)]
    spans = zip(found, stops, strict=bool(found))
    return {option[1]: text[option.end() : stop].partition("\n")[0] for option, stop in spans}


def _answers(told: str, options: Mapping[str, str]) -> list[str]:
    """An answer as it was told and, where it names an option by its letter, that option's text."""
    chosen = _CHOICE.match(told)
    text = chosen and (options.get(chosen[1]) or chosen[2])
    return [told, text] if text else [told]


def question_key(text: str) -> str:
    """``text`` without case, repeated spaces and outer punctuation."""
    return _folded(text).strip(_EDGES)


def _folded(text: str) -> str:
    return _closed(" ".join(text.casefold().split()))


def _closed(text: str) -> str:
    """The text with no spaces around the signs of sums, which are short."""
    return text if len(text) > _SUM_CHARACTERS else _OPERATOR.sub(r"\1", text)


def _right_answers(item: ChoiceItem | GenerationItem) -> tuple[str, ...]:
    if isinstance(item, GenerationItem):
        return item.answers
    return tuple(item.options[i] for i in item.gold)


def _row_keys(example: Example) -> Iterator[str]:
    for asked, told in _exchanges(example):
        yield from _exchange_keys(asked, told)


def _exchanges(example: Example) -> Iterator[tuple[str, str]]:
    """What was asked and what was told: in a conversation each turn of the user's, with the answer to it."""
    turns = example.messages or ()
    asked = [i for i, turn in enumerate(turns) if turn.role == "user"]
    if not asked:
        yield example.prompt, example.answer
    for start, stop in pairwise([*asked, len(turns)]):
        told = (turn.content for turn in reversed(turns[start:stop]) if turn.role == "assistant")
        yield turns[start].content, next(told, "")


def _exchange_keys(asked: str, told: str) -> Iterator[str]:
    plain = _INNER_LABEL.sub(" ", _LABEL.sub("", told, count=1))
    answers = [_folded(text) for text in _answers(plain, _options(asked))]
    if not asked.strip():
        # A plain text may hold question and right answer in lines that follow each other.
        for line, after in pairwise(filter(str.strip, _lines(told))):
            if len(line) + len(after) > _PAIR_CHARACTERS:
                continue
            answer = _INNER_LABEL.sub("", f"\n{after}", count=1)
            yield question_key(f"{question_stem(line)} {answer}")
    parts = [_folded(question_stem(text)) for text in (asked, *_lines(asked))]
    for folded in (parts[0], *filter(None, parts[1:])):
        yield folded.strip(_EDGES)
        for answer in answers:
            yield _closed(f"{folded} {answer}").strip(_EDGES)


def _lines(text: str) -> list[str]:
    """Lines of a text of several, of a long one the first and the last: a question ends many a passage."""
    if "\n" not in text:
        return []
    first, last = text.split("\n", _MOST_LINES), text.rsplit("\n", _MOST_LINES)
    return first if len(first) <= _MOST_LINES else [*first[:_MOST_LINES], *last[-_MOST_LINES:]]


@dataclass(frozen=True)
class _RunIndex:
    """Runs of ``size`` words: run i belongs to ``items[starts[i] : starts[i + 1]]``.

    ``needed[item]`` is how many of its runs a row must hold.
    """

    size: int
    hashes: Hashes
    starts: NDArray[np.int64]
    items: NDArray[np.int64]
    needed: NDArray[np.float64]

    def look_up(self, words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs (text, item) where the text holds enough of the item's runs."""
        runs = words.runs(self.size)
        if not len(runs.hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(self.hashes, runs.hashes), len(self.hashes) - 1)
        hit = np.flatnonzero(self.hashes[place] == runs.hashes)
        owner = np.searchsorted(runs.offsets, hit, side="right") - 1
        once = np.unique(owner * len(self.hashes) + place[hit])
        owner, place = np.divmod(once, len(self.hashes))
        owners = self.starts[place + 1] - self.starts[place]
        ends = np.cumsum(owners)
        at = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - owners, owners)
        item = self.items[np.repeat(self.starts[place], owners) + at]
        pairs, held = np.unique(np.repeat(owner, owners) * len(self.needed) + item, return_counts=True)
        owner, item = np.divmod(pairs, len(self.needed))
        enough = held >= self.needed[item]
        return owner[enough], item[enough]


def _run_indices(stems: Sequence[str], prompts: Sequence[str]) -> list[_RunIndex]:
    """Runs of the ``stems``, or of the whole ``prompts`` where the stems say too little."""
    hasher = WordHasher()
    asked = hasher.words(stems)
    whole = hasher.words(prompts)
    lengths = np.diff(asked.offsets)
    bare = np.fromiter((_OPEN.search(question_key(stem)) is not None for stem in stems), bool, len(stems))
    # Where each character counts as a word, a dozen of them are no more than a phrase.
    bare |= np.fromiter(map(spaceless_characters, stems), np.int64, len(stems)) > lengths / 2
    # A question too short for runs, or for runs of its own, may still come with long options.
    short = (lengths < SHORTEST_RUN_WORDS) | (bare & (lengths < RUN_WORDS))
    found = [_run_index(RUN_WORDS, ((asked, lengths >= RUN_WORDS), (whole, short)))]
    for size in range(SHORTEST_RUN_WORDS, RUN_WORDS):
        found.append(_run_index(size, ((asked, (lengths == size) & ~short),)))
    return [index for index in found if len(index.hashes)]


def _run_index(size: int, parts: Sequence[tuple[Words, NDArray[np.bool_]]]) -> _RunIndex:
    hashes, items = [], []
    for words, chosen in parts:
        runs = words.runs(size)
        owner = np.repeat(np.arange(len(words)), np.diff(runs.offsets))
        hashes.append(runs.hashes[chosen[owner]])
        items.append(owner[chosen[owner]])
    value, item = np.concatenate(hashes), np.concatenate(items)
    order = np.lexsort((item, value))
    value, item = value[order], item[order]
    fresh = np.ones(len(value), bool)
    fresh[1:] = (value[1:] != value[:-1]) | (item[1:] != item[:-1])
    value, item = value[fresh], item[fresh]
    _, inverse, owners = np.unique(value, return_inverse=True, return_counts=True)
    kept = owners[inverse] <= BOILERPLATE_ITEMS
    value, item = value[kept], item[kept]
    hashes_kept, starts = np.unique(value, return_index=True)
    needed = (COVERED_FRACTION * np.bincount(item, minlength=len(parts[0][0]))).astype(np.float64)
    return _RunIndex(size, hashes_kept, np.append(starts, len(value)), item, needed)
