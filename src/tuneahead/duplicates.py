"""Near-duplicates: rows that share most of their words with an earlier row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneahead.words import Hashes, WordHasher, Words

_Kind = TypeVar("_Kind", bound=np.generic)

SHINGLE_WORDS = 3
THRESHOLD = 0.8
"""Jaccard similarity of word triples from which two rows count as near-duplicates."""

MAX_ROWS = 1_000_000
"""Distinct rows that are compared; further ones are left out, and the result says so."""

MAX_SHINGLES = 250_000_000
"""Word triples of the rows that are compared, together: 1 GB."""

# 16 bands of 4: a pair of similarity 0.8 meets in one of them with probability
# 1 - (1 - 0.8**4)**16 = 0.9998, and is then compared exactly.
_BANDS, _BAND_SLOTS = 16, 4
_SLOTS = _BANDS * _BAND_SLOTS
_SEED = 20_240_617
_COMMON_FRACTION = 0.9
_COMMON_MIN_ROWS = 50
_BLOCK_ROWS = 4096
# Two rows of one short answer that differ in so many words on end ask for different things.
_PHRASE_WORDS = 4
_CHUNK_PAIRS = 100_000


@dataclass(frozen=True)
class NearDuplicates:
    """Rows that resemble an earlier one: ``later[i]`` resembles ``earlier[i]`` at ``similarity[i]``.

    ``later`` and ``earlier`` are row numbers as given, each later one once. The earlier one is the first
    that is ``alike`` in its answer too (of one short answer, in what is asked), or else the first of all;
    ``examined`` rows were compared of ``total`` given.
    """

    later: NDArray[np.int64]
    earlier: NDArray[np.int64]
    similarity: NDArray[np.float64]
    alike: NDArray[np.bool_]
    examined: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the examined rows that resemble an earlier one; NaN without rows."""
        return len(self.later) / self.examined if self.examined else float("nan")

    def spare(self, gone: Iterable[int] = ()) -> list[tuple[int, int, float]]:
        """Rows to leave out so that one of each kind stays: row, the one like it, and their similarity.

        Rows with a question or an answer of their own stay, and so does what resembles a row that is
        ``gone`` anyway.
        """
        left = set(gone)
        spare = []
        found = (part[self.alike].tolist() for part in (self.later, self.earlier, self.similarity))
        for later, earlier, similarity in zip(*found, strict=True):
            if earlier not in left:
                left.add(later)
                spare.append((later, earlier, similarity))
        return spare


@dataclass(frozen=True)
class Sketches:
    """What the search keeps of a block of rows: word triples flat, band keys and a byte of each slot.

    Row i has the next ``lengths[i]`` of ``shingles``, of which the last ``answer_lengths[i]`` lie in its
    answer, whose hash is ``answers[i]``; ``bands`` is ``(rows, 16)``, ``slots`` ``(rows, 64)``.
    """

    lengths: NDArray[np.int64]
    answer_lengths: NDArray[np.int64]
    answers: Hashes
    shingles: NDArray[np.uint32]
    bands: Hashes
    slots: NDArray[np.uint8]

    def chosen(self, keep: NDArray[np.bool_]) -> Sketches:
        """Only the rows where ``keep`` holds."""
        if keep.all():
            return self
        kept = self.shingles[np.repeat(keep, self.lengths)]
        lengths, answer_lengths, answers = self.lengths[keep], self.answer_lengths[keep], self.answers[keep]
        return Sketches(lengths, answer_lengths, answers, kept, self.bands[keep], self.slots[keep])


def sketch_rows(words: Words, common: Hashes, answer_words: NDArray[np.int64], answers: Hashes) -> Sketches:
    """Sketch the rows of a block; triples in ``common`` (see :func:`common_shingles`) don't count.

    The last ``answer_words`` of a row's words are its answer, which hashes to ``answers``: both ``(rows,)``.
    """
    runs = words.runs(SHINGLE_WORDS)
    keep = ~np.isin(runs.hashes, common)
    kept = np.concatenate([[0], np.cumsum(keep)])
    shingles = Words(np.ascontiguousarray(runs.hashes[keep]), kept[runs.offsets])
    answer_starts = runs.offsets[1:] - np.maximum(answer_words - SHINGLE_WORDS + 1, 0)
    slots = _sketch(shingles)
    return Sketches(
        np.diff(shingles.offsets),
        shingles.offsets[1:] - kept[answer_starts],
        answers,
        (shingles.hashes >> np.uint64(32)).astype(np.uint32),
        _band_keys(slots),
        # A byte of each slot is enough to drop most pairs before the exact comparison.
        slots.astype(np.uint8),
    )


@dataclass
class NearDuplicateSearch:
    """Collects rows block by block, then finds near-duplicates with MinHash bands and exact checks.

    Cost is linear in the rows; memory about 0.5 kB a row of 60 words. Source: MinHash (Broder
    1997) with banding; sketches by ``rensa``; parameters ours.
    """

    threshold: float = THRESHOLD
    max_rows: int = MAX_ROWS
    max_shingles: int = MAX_SHINGLES
    _rows: list[NDArray[np.int64]] = field(default_factory=list)
    _shingles: list[NDArray[np.uint32]] = field(default_factory=list)
    _lengths: list[NDArray[np.int64]] = field(default_factory=list)
    _answer_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    _answers: list[Hashes] = field(default_factory=list)
    _bands: list[Hashes] = field(default_factory=list)
    _sketches: list[NDArray[np.uint8]] = field(default_factory=list)
    _common: Hashes | None = None
    _examined: int = 0
    _held: int = 0
    _total: int = 0

    def add(self, words: Words, rows: NDArray[np.int64]) -> None:
        """Add a block of texts without answers: their words and their numbers, ascending over all blocks."""
        if self._common is None:
            self._common = common_shingles(words)
        none = np.zeros(len(words), np.int64)
        self.add_sketches(sketch_rows(words, self._common, none, none.astype(np.uint64)), rows)

    def add_sketches(self, sketches: Sketches, rows: NDArray[np.int64]) -> None:
        """Add a block that was sketched already; all blocks with the same common triples."""
        self._total += len(rows)
        held = self._held + np.cumsum(sketches.lengths)
        first = (np.arange(len(rows)) < self.max_rows - self._examined) & (held <= self.max_shingles)
        if not first.all():
            rows, sketches = rows[first], sketches.chosen(first)
            # No shorter row may follow: those compared are the first ones.
            self.max_rows = self._examined + len(rows)
        if not len(rows):
            return
        self._examined += len(rows)
        self._held += int(sketches.lengths.sum())
        self._rows.append(rows)
        self._lengths.append(sketches.lengths)
        self._answer_lengths.append(sketches.answer_lengths)
        self._answers.append(sketches.answers)
        self._shingles.append(sketches.shingles)
        self._bands.append(sketches.bands)
        self._sketches.append(sketches.slots)

    def finish(self) -> NearDuplicates:
        """Compare the rows that share a band; each row is paired with one earlier one that it resembles."""
        if not self._rows:
            none = np.empty(0, np.int64)
            return NearDuplicates(none, none, np.empty(0), np.empty(0, bool), 0, self._total)
        rows = _joined(self._rows)
        offsets = np.concatenate([[0], np.cumsum(_joined(self._lengths))])
        pairs = _candidates(
            _joined(self._bands), _joined(self._sketches), np.diff(offsets) > 0, self.threshold
        )
        texts = _Texts(
            _joined(self._shingles), offsets, _joined(self._answer_lengths), _joined(self._answers)
        )
        later, earlier, similarity, alike = _compare(pairs, texts, self.threshold)
        return NearDuplicates(rows[later], rows[earlier], similarity, alike, self._examined, self._total)


def find_near_duplicates(texts: Iterable[str], *, threshold: float = THRESHOLD) -> NearDuplicates:
    """Near-duplicates among ``texts``; row numbers count from 0. Exact copies count too.

    >>> first = "the cat sat on the mat and then it slept all day"
    >>> find_near_duplicates([first, "a dog", first + " long"]).later.tolist()
    [2]
    """
    search = NearDuplicateSearch(threshold=threshold)
    hasher = WordHasher()
    rest = iter(texts)
    start = 0
    while block := list(islice(rest, _BLOCK_ROWS)):
        search.add(hasher.words(block), np.arange(start, start + len(block)))
        start += len(block)
    return search.finish()


def _joined(blocks: list[NDArray[_Kind]]) -> NDArray[_Kind]:
    """All blocks as one array; the list is emptied, so that both are not held for long."""
    whole = np.concatenate(blocks)
    blocks.clear()
    return whole


def common_shingles(words: Words) -> Hashes:
    """Word triples in nine of ten rows of a block of 50 or more: a fixed instruction, not likeness."""
    shingles = words.runs(SHINGLE_WORDS)
    if len(shingles) < _COMMON_MIN_ROWS:
        return np.empty(0, np.uint64)
    row = np.repeat(np.arange(len(shingles), dtype=np.uint64), np.diff(shingles.offsets))
    once = np.unique(np.stack([shingles.hashes, row]), axis=1)[0]
    values, rows = np.unique(once, return_counts=True)
    return values[rows >= _COMMON_FRACTION * len(shingles)]


def _sketch(shingles: Words) -> NDArray[np.uint32]:
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.offsets.astype(np.uint64), _SLOTS, _SEED
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(shingles), _SLOTS)


def _band_keys(sketches: NDArray[np.uint32]) -> Hashes:
    slots = sketches.reshape(len(sketches), _BANDS, _BAND_SLOTS).astype(np.uint64)
    key = np.zeros(slots.shape[:2], np.uint64)
    for i in range(_BAND_SLOTS):
        key = (key ^ slots[:, :, i]) * np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(29)
    return key


def _candidates(
    bands: Hashes, sketches: NDArray[np.uint8], usable: NDArray[np.bool_], threshold: float
) -> NDArray[np.int64]:
    """Pairs (later, earlier) that share a band and whose sketches agree enough: ``(pairs, 2)``.

    Within a band a row is paired with the first and the previous row of its group only, which
    keeps the number of pairs linear in the rows.
    """
    found = [np.empty((0, 2), np.int64)]
    rows = np.flatnonzero(usable)
    for band in range(_BANDS):
        keys = bands[rows, band]
        order = np.argsort(keys, kind="stable")
        same = np.concatenate([[False], keys[order][1:] == keys[order][:-1]])
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        place = np.flatnonzero(same)
        for partner in (first[place], place - 1):
            found.append(_agreeing(rows[order[place]], rows[order[partner]], sketches, threshold))
    pairs: NDArray[np.int64] = np.unique(np.concatenate(found), axis=0)
    return pairs


def _agreeing(
    later: NDArray[np.int64], earlier: NDArray[np.int64], sketches: NDArray[np.uint8], threshold: float
) -> NDArray[np.int64]:
    # Bytes agree by chance once in 256. The estimate's standard deviation is 0.03 at 64
    # slots, measured; five of them below the threshold nothing is lost.
    least = (threshold - 0.15) * 255 / 256 + 1 / 256
    kept = [np.empty((0, 2), np.int64)]
    for at in range(0, len(later), _CHUNK_PAIRS):
        a, b = later[at : at + _CHUNK_PAIRS], earlier[at : at + _CHUNK_PAIRS]
        agree = np.mean(sketches[a] == sketches[b], axis=1) >= least
        kept.append(np.stack([a[agree], b[agree]], axis=1))
    return np.concatenate(kept)


@dataclass(frozen=True)
class _Texts:
    """The word triples of all rows, flat, and which of them are the answers'."""

    shingles: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    answer_lengths: NDArray[np.int64]
    answers: Hashes

    def whole(self, row: int) -> set[int]:
        return set(self.shingles[self.offsets[row] : self.offsets[row + 1]].tolist())

    def answers_alike(self, row: int, other: int, threshold: float) -> bool:
        """Whether the answers are as similar as the rows; those too short for triples have to be equal.

        Many rows of one short answer, such as yes, ask different things about one text: those are not alike.
        """
        if self.answers[row] == self.answers[other]:
            return bool(self.answer_lengths[row]) or not self._ask_apart(row, other)
        ends = (self.offsets[at + 1] for at in (row, other))
        lengths = (self.answer_lengths[at] for at in (row, other))
        one, two = (set(self.shingles[end - n : end].tolist()) for end, n in zip(ends, lengths, strict=True))
        return bool(one or two) and _jaccard(one, two) >= threshold

    def _ask_apart(self, row: int, other: int) -> bool:
        """Whether one of two rows holds a phrase, most likely the question, that the other does not."""
        one, two = (self.shingles[self.offsets[at] : self.offsets[at + 1]] for at in (row, other))
        return max(_phrase_words(~np.isin(one, two)), _phrase_words(~np.isin(two, one))) >= _PHRASE_WORDS


def _phrase_words(apart: NDArray[np.bool_]) -> int:
    """Words on end that at most differ, from which triples of a row, in order, another row has not."""
    # A word inside stands in three triples, the first word of all in one.
    padded = np.concatenate([[False], np.repeat(apart[:1], SHINGLE_WORDS - 1), apart, [False]])
    edges = np.flatnonzero(np.diff(padded))
    return int((edges[1::2] - edges[::2]).max(initial=0)) - SHINGLE_WORDS + 1


def _jaccard(one: set[int], two: set[int]) -> float:
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def _compare(
    pairs: NDArray[np.int64], texts: _Texts, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Exact Jaccard similarity of the candidates: of each row the pair that :class:`NearDuplicates` keeps."""
    found: dict[int, tuple[int, float, bool]] = {}
    own: set[int] = set()
    current = -1
    for row, other in pairs.tolist():
        if row in found and found[row][2]:
            continue
        if row != current:
            own, current = texts.whole(row), row
        likeness = _jaccard(own, texts.whole(other))
        if likeness >= threshold:
            alike = texts.answers_alike(row, other, threshold)
            if alike or row not in found:
                found[row] = other, likeness, alike
    kept = zip(*found.values(), strict=True) if found else ((), (), ())
    earlier, similarity, same = (list(column) for column in kept)
    return (
        np.array([*found], np.int64),
        np.array(earlier, np.int64),
        np.array(similarity),
        np.array(same, bool),
    )
