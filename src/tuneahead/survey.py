"""Survey of the training rows: one pass, a few numbers per row, texts not kept."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark
from tuneahead.blocks import (
    KINDS,
    LANGUAGES,
    MARKERS,
    BlockMeasures,
    BlockMeter,
    Window,
    blocks_of,
    pair_keys,
)
from tuneahead.blockworkers import measured_apart
from tuneahead.contamination import Contamination, ContaminationSearch
from tuneahead.duplicates import NearDuplicates, NearDuplicateSearch
from tuneahead.examples import Example, shortened
from tuneahead.words import Hashes

__all__ = [
    "LANGUAGES",
    "MARKERS",
    "Survey",
    "Window",
    "conflict_groups",
    "pair_keys",
    "repeated_rows",
    "take_survey",
]

SAMPLE_ROWS = 2_000
"""Rows drawn at random for measures that need the texts themselves."""

LONG_ROWS = 50_000
"""Rows kept, at most, because they might not fit the training window."""

KEPT_CHARACTERS = 400_000_000
"""Of rows with more characters together fewer are kept, of either kind."""

_WORKERS_FROM_BLOCKS = 8
"""Blocks measured in this process before others are started: smaller data are done by then."""


@dataclass(frozen=True)
class Survey:
    """What one pass over the rows recorded; arrays are ``(rows,)``, in order of the rows.

    ``prompt`` and ``answer`` are hashes of the texts with spaces collapsed, ``prompt`` with the row's
    tools; ``loose_answer`` also ignores case and closing punctuation. ``exact`` hashes roles, tools, calls,
    thoughts and texts, spaces at the ends of lines aside. ``silent`` marks rows none of whose answers says
    or calls anything, ``earlier_turns`` conversations with an assistant turn before the last, ``calls`` and
    ``thoughts`` those that hold any beside the content of a turn, ``tools`` rows that offer any. ``damage``
    holds :class:`Damage` bits, ``confidential`` those of :class:`Confidential`; ``markup`` is a
    :class:`Markup`, ``thinking`` a :class:`Thinking`, ``closing`` a :class:`Closing` of the answer.
    ``marker`` holds indices into ``MARKERS``, ``language`` into ``LANGUAGES``.
    ``long_rows`` are rows with an answer that might be too long for the window, of ``long_count`` met;
    ``sample`` is a random sample.
    """

    row: NDArray[np.int64]
    prompt: Hashes
    answer: Hashes
    loose_answer: Hashes
    exact: Hashes
    prompt_characters: NDArray[np.int64]
    answer_characters: NDArray[np.int64]
    empty_prompt: NDArray[np.bool_]
    empty_answer: NDArray[np.bool_]
    silent: NDArray[np.bool_]
    conversation: NDArray[np.bool_]
    earlier_turns: NDArray[np.bool_]
    calls: NDArray[np.bool_]
    thoughts: NDArray[np.bool_]
    tools: NDArray[np.bool_]
    echo: NDArray[np.bool_]
    gibberish: NDArray[np.bool_]
    damage: NDArray[np.uint8]
    confidential: NDArray[np.uint8]
    markup: NDArray[np.uint8]
    thinking: NDArray[np.uint8]
    closing: NDArray[np.uint8]
    marker: NDArray[np.uint8]
    language: NDArray[np.uint8]
    near: NearDuplicates
    contamination: tuple[Contamination, ...]
    long_rows: tuple[Example, ...]
    long_count: int
    sample: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.row)


@dataclass
class _Draw:
    """A uniform sample of a stream (Vitter's algorithm R), in the order of the stream.

    Texts are kept up to what the ``window`` needs. Where they still hold too much, rows drawn from
    those kept are dropped, and the sample stays that small.
    """

    size: int
    rng: random.Random
    window: Window | None
    seen: int = 0
    characters: int = 0
    kept: list[tuple[int, Example]] = field(default_factory=list)

    def offer(self, example: Example) -> None:
        self.seen += 1
        place = len(self.kept)
        if place >= self.size:
            place = self.rng.randrange(self.seen)
            if place >= self.size:
                return
            self.characters -= _characters(self.kept[place][1])
        short = example if self.window is None else shortened(example, self.window.read_characters)
        self.kept[place : place + 1] = [(self.seen, short)]
        self.characters += _characters(short)
        while self.characters > KEPT_CHARACTERS and len(self.kept) > 1:
            _, dropped = self.kept.pop(self.rng.randrange(len(self.kept)))
            self.characters -= _characters(dropped)
            self.size = len(self.kept)

    def result(self) -> tuple[Example, ...]:
        return tuple(example for _, example in sorted(self.kept, key=lambda pair: pair[0]))


def _characters(example: Example) -> int:
    turns = sum(len(m.content) + len(m.calls) + len(m.thoughts) for m in example.messages or ())
    return len(example.prompt) + len(example.answer) + len(example.tools) + turns


def take_survey(
    examples: Iterable[Example],
    *,
    window: Window | None = None,
    benchmarks: Iterable[Benchmark] = (),
    workers: int = 1,
) -> Survey:
    """Go through the rows once and record what the checks need.

    Linear in the rows; memory about 0.7 kB a row of 60 words, whatever holds the texts, and below
    some gigabytes however long the texts are. The sample is drawn with a fixed seed, so that the
    same rows give the same survey. More than one of ``workers`` measures the blocks in processes of
    their own (from 16,384 rows on), with the same result; a script that asks for them needs the
    usual ``if __name__ == "__main__":``.
    """
    search = ContaminationSearch(benchmarks)
    surveyor = _Surveyor(search, window)
    for block, measures in _measured(blocks_of(examples), BlockMeter(window, search), workers):
        surveyor.add(block, measures)
    return surveyor.finish()


def _measured(
    blocks: Iterator[list[Example]], meter: BlockMeter, workers: int
) -> Iterator[tuple[list[Example], BlockMeasures]]:
    for number, block in enumerate(blocks, 1):
        yield block, meter.measure(block)
        if workers > 1 and number == _WORKERS_FROM_BLOCKS:
            yield from measured_apart(blocks, meter, workers)


class _Surveyor:
    """Puts the measures of the blocks together, in the order of the rows."""

    def __init__(self, contamination: ContaminationSearch, window: Window | None) -> None:
        self._contamination = contamination
        self._near = NearDuplicateSearch()
        self._columns: dict[str, list[NDArray[np.generic]]] = {}
        self._copies: set[int] = set()
        self._sample = _Draw(SAMPLE_ROWS, random.Random(0), window)
        self._long = _Draw(LONG_ROWS, random.Random(1), window)

    def add(self, block: list[Example], measures: BlockMeasures) -> None:
        columns = measures.columns
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        first = self._first_copies(columns["prompt"], columns["answer"])
        self._near.add_sketches(measures.sketches.chosen(first), columns["row"][first])
        self._contamination.add(measures.hits)
        for example in block:
            self._sample.offer(example)
        for place in np.flatnonzero(measures.may_cut & ~columns["empty_answer"]).tolist():
            self._long.offer(block[place])

    def finish(self) -> Survey:
        def column(name: str, kind: type[np.generic]) -> NDArray[np.generic]:
            blocks = self._columns.get(name)
            return np.concatenate(blocks) if blocks else np.empty(0, kind)

        return Survey(
            **{name: column(name, kind) for name, kind in KINDS.items()},  # type: ignore[arg-type]
            near=self._near.finish(),
            contamination=self._contamination.finish(),
            long_rows=self._long.result(),
            long_count=self._long.seen,
            sample=self._sample.result(),
        )

    def _first_copies(self, prompt: Hashes, answer: Hashes) -> NDArray[np.bool_]:
        """Which rows of the block are the first with their prompt and answer."""
        keys = pair_keys(prompt, answer).tolist()
        first = np.zeros(len(keys), bool)
        for i, key in enumerate(keys):
            if key not in self._copies:
                self._copies.add(key)
                first[i] = True
        return first


def repeated_rows(survey: Survey) -> NDArray[np.bool_]:
    """Rows whose prompt and answer (spaces collapsed) an earlier row holds: ``(rows,)``."""
    _, first = np.unique(pair_keys(survey.prompt, survey.answer), return_index=True)
    mask = np.ones(len(survey), bool)
    mask[first] = False
    return mask


def conflict_groups(survey: Survey) -> NDArray[np.int64]:
    """For each row the number of its group of contradicting rows, or -1: ``(rows,)``.

    A group is all rows of one prompt that has two or more different answers, case and closing
    punctuation aside. Rows without prompt or answer are in none. Groups count from 0 in order
    of their first row.
    """
    usable = np.flatnonzero(~survey.empty_prompt & ~survey.empty_answer)
    groups = np.full(len(survey), -1, np.int64)
    prompts, first, inverse = np.unique(survey.prompt[usable], return_index=True, return_inverse=True)
    pairs = np.unique(np.stack([inverse.astype(np.uint64), survey.loose_answer[usable]]), axis=1)
    answers = np.bincount(pairs[0].astype(np.int64), minlength=len(prompts))
    clashing = np.flatnonzero(answers > 1)
    number = np.full(len(prompts), -1, np.int64)
    number[clashing[np.argsort(first[clashing])]] = np.arange(len(clashing))
    groups[usable] = number[inverse]
    return groups
