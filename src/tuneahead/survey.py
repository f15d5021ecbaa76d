"""Survey of the training rows: one pass, a few numbers per row, texts not kept."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark
from tuneahead.contamination import Contamination, ContaminationSearch
from tuneahead.duplicates import NearDuplicates, NearDuplicateSearch
from tuneahead.examples import Example
from tuneahead.textstats import SCRIPTS, Damage, TextStats, find_damage, find_gibberish, measure_texts
from tuneahead.words import Hashes, WordHasher, Words

SAMPLE_ROWS = 2_000
"""Rows drawn at random for measures that need the texts themselves."""

LONG_ROWS = 50_000
"""Rows kept whole, at most, because they might not fit the training window."""

_BLOCK_ROWS = 2_048
_BLOCK_CHARACTERS = 4_000_000
_LEAK_CHARACTERS = 20

MARKERS = ("", "ChatML", "Llama 3", "Llama 2", "Gemma", "Zephyr", "Alpaca", "end of text")
"""Families of template markers; a row's code in the survey is an index into this."""

_MARKER = re.compile(
    r"(<\|im_(?:start|end)\|>)|(<\|(?:start_header_id|end_header_id|eot_id|begin_of_text)\|>)"
    r"|(\[/?INST\]|<</?SYS>>)|(<(?:start|end)_of_turn>)|(<\|(?:user|assistant|system|end)\|>)"
    r"|(### (?:Instruction|Response|Input) ?:)|(<\|end_?of_?text\|>|</s>\s*\Z|<eos>\s*\Z)"
)

# Frequent words of one language that hardly occur in the others.
_FUNCTION_WORDS = {
    "English": "the and of is that you it with this was are have not what which from",
    "German": "der und das ich ist nicht den von mit ein auf für sich auch dem wie sind",
    "French": "les est une des dans pour pas qui sur avec vous cette quelle être sont aux",
    "Spanish": "el los las del con una por para como pero más este cuál qué muy también",
    "Italian": "il che di non della sono per gli nel anche più come questo delle alla",
    "Portuguese": "não uma com os em são mais você foi isso pelo ao também das qual",
    "Dutch": "het een van niet dat voor ik zijn maar ook naar wordt deze wat heeft",
}
LANGUAGES = ("unclear", *_FUNCTION_WORDS, *(f"{name} script" for name in SCRIPTS[1:]))


@dataclass(frozen=True)
class Window:
    """What the rows have to fit: the window and what the template adds, in tokens.

    A row of fewer UTF-8 bytes than ``max_length`` less these additions surely fits, since no
    tokenizer makes more tokens than bytes; only longer rows need be tokenised.
    """

    max_length: int
    template_tokens: int
    turn_tokens: int

    def may_cut(self, example: Example, size_bytes: int) -> bool:
        """Whether the row could be too long for the window."""
        turns = len(example.messages or ())
        return size_bytes + self.template_tokens + turns * self.turn_tokens > self.max_length


@dataclass(frozen=True)
class Survey:
    """What one pass over the rows recorded; arrays are ``(rows,)``, in order of the rows.

    ``prompt`` and ``answer`` are hashes of the texts with spaces collapsed; ``loose_answer``
    also ignores case and closing punctuation. ``damage`` holds :class:`Damage` bits, ``marker``
    indices into ``MARKERS``, ``language`` into ``LANGUAGES``. ``long_rows`` are rows that might
    be too long for the window, of ``long_count`` met; ``sample`` is a random sample.
    """

    row: NDArray[np.int64]
    prompt: Hashes
    answer: Hashes
    loose_answer: Hashes
    prompt_characters: NDArray[np.int64]
    answer_characters: NDArray[np.int64]
    empty_prompt: NDArray[np.bool_]
    empty_answer: NDArray[np.bool_]
    conversation: NDArray[np.bool_]
    echo: NDArray[np.bool_]
    gibberish: NDArray[np.bool_]
    damage: NDArray[np.uint8]
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
    """A uniform sample of a stream (Vitter's algorithm R), in the order of the stream."""

    size: int
    rng: random.Random
    seen: int = 0
    kept: list[tuple[int, Example]] = field(default_factory=list)

    def offer(self, example: Example) -> None:
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append((self.seen, example))
            return
        place = self.rng.randrange(self.seen)
        if place < self.size:
            self.kept[place] = (self.seen, example)

    def result(self) -> tuple[Example, ...]:
        return tuple(example for _, example in sorted(self.kept, key=lambda pair: pair[0]))


def take_survey(
    examples: Iterable[Example], *, window: Window | None = None, benchmarks: Iterable[Benchmark] = ()
) -> Survey:
    """Go through the rows once and record what the checks need.

    Linear in the rows; memory about 0.7 kB a row of 60 words, whatever holds the texts. The
    sample is drawn with a fixed seed, so that the same rows give the same survey.
    """
    surveyor = _Surveyor(window, ContaminationSearch(benchmarks))
    for block in _blocks(examples):
        surveyor.add(block)
    return surveyor.finish()


def _blocks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    block: list[Example] = []
    characters = 0
    for example in examples:
        block.append(example)
        characters += len(example.prompt) + len(example.answer)
        if len(block) >= _BLOCK_ROWS or characters >= _BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


class _Surveyor:
    def __init__(self, window: Window | None, contamination: ContaminationSearch) -> None:
        self._window = window
        self._contamination = contamination
        self._near = NearDuplicateSearch()
        self._hasher = WordHasher()
        self._languages = _language_words(self._hasher)
        self._columns: dict[str, list[NDArray[np.generic]]] = {}
        self._copies: set[int] = set()
        self._sample = _Draw(SAMPLE_ROWS, random.Random(0))
        self._long = _Draw(LONG_ROWS, random.Random(1))

    def add(self, block: list[Example]) -> None:
        texts = [f"{e.prompt} {e.answer}" for e in block]
        rows = np.fromiter((e.row for e in block), np.int64, len(block))
        words = self._hasher.words(texts)
        stats = measure_texts(texts)
        columns = {
            "row": rows,
            "prompt_characters": np.fromiter((len(e.prompt) for e in block), np.int64, len(block)),
            "answer_characters": np.fromiter((len(e.answer) for e in block), np.int64, len(block)),
            "empty_prompt": np.fromiter((not e.prompt.strip() for e in block), bool, len(block)),
            "empty_answer": np.fromiter((not e.answer.strip() for e in block), bool, len(block)),
            "conversation": np.fromiter((e.messages is not None for e in block), bool, len(block)),
            "echo": np.fromiter(map(_echoes, block), bool, len(block)),
            "gibberish": find_gibberish(stats),
            "damage": _damage(texts, stats),
            "marker": np.fromiter(map(_marker, texts), np.uint8, len(block)),
            "language": self._language(words, stats),
            **_hash_columns(block),
        }
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        first = self._first_copies(columns["prompt"], columns["answer"])
        self._near.add(*_chosen(words, rows, first))
        self._contamination.add(words, rows, block)
        for example, text in zip(block, texts, strict=True):
            self._sample.offer(example)
            if self._window and self._window.may_cut(example, _bytes(text)):
                self._long.offer(example)

    def finish(self) -> Survey:
        def column(name: str, kind: type[np.generic]) -> NDArray[np.generic]:
            blocks = self._columns.get(name)
            return np.concatenate(blocks) if blocks else np.empty(0, kind)

        return Survey(
            **{name: column(name, kind) for name, kind in _KINDS.items()},  # type: ignore[arg-type]
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

    def _language(self, words: Words, stats: TextStats) -> NDArray[np.uint8]:
        hashes, codes = self._languages
        place = np.minimum(np.searchsorted(hashes, words.hashes), len(hashes) - 1)
        known = hashes[place] == words.hashes
        owner = np.repeat(np.arange(len(words)), np.diff(words.offsets))
        width = len(_FUNCTION_WORDS) + 1
        votes = np.bincount(owner[known] * width + codes[place[known]], minlength=len(words) * width)
        table = votes.reshape(len(words), width)
        ranked = np.sort(table, axis=1)
        # Two function words, and more of this language than of any other.
        clear = (ranked[:, -1] >= 2) & (ranked[:, -1] > ranked[:, -2])
        language = np.where(clear, table.argmax(axis=1), 0)
        script = stats.scripts.argmax(axis=1)
        foreign = (script > 0) & (stats.scripts.max(axis=1) >= 5)
        return np.where(foreign, width - 1 + script, language).astype(np.uint8)


_KINDS: dict[str, type[np.generic]] = {
    "row": np.int64, "prompt": np.uint64, "answer": np.uint64, "loose_answer": np.uint64,
    "prompt_characters": np.int64, "answer_characters": np.int64, "empty_prompt": np.bool_,
    "empty_answer": np.bool_, "conversation": np.bool_, "echo": np.bool_, "gibberish": np.bool_,
    "damage": np.uint8, "marker": np.uint8, "language": np.uint8,
}  # fmt: skip


def pair_keys(prompt: Hashes, answer: Hashes) -> Hashes:
    """One hash per row of prompt and answer together."""
    key = (prompt ^ (prompt >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + answer
    return (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def _hash_columns(block: list[Example]) -> dict[str, NDArray[np.generic]]:
    answers = [" ".join(e.answer.split()) for e in block]
    loose = [text.casefold().rstrip(" .!?,;:\"'") or text for text in answers]
    return {
        "prompt": np.array([_hash(" ".join(e.prompt.split())) for e in block], np.uint64),
        "answer": np.array([_hash(text) for text in answers], np.uint64),
        "loose_answer": np.array([_hash(text) for text in loose], np.uint64),
    }


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _damage(texts: list[str], stats: TextStats) -> NDArray[np.uint8]:
    damage = np.fromiter(map(find_damage, texts), np.uint8, len(texts))
    return np.where(stats.controls > 0, damage | Damage.CONTROL, damage).astype(np.uint8)


def _marker(text: str) -> int:
    if "<" not in text and "[" not in text and "#" not in text:
        return 0
    found = _MARKER.search(text)
    return 0 if found is None else int(found.lastindex or 0)


def _echoes(example: Example) -> bool:
    asked = example.prompt
    if example.messages:
        asked = next((m.content for m in reversed(example.messages) if m.role == "user"), asked)
    asked = asked.strip()
    return len(asked) >= _LEAK_CHARACTERS and asked in example.answer


def _chosen(
    words: Words, rows: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[Words, NDArray[np.int64]]:
    if keep.all():
        return words, rows
    lengths = np.diff(words.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])])
    return Words(words.hashes[np.repeat(keep, lengths)], offsets), rows[keep]


def _language_words(hasher: WordHasher) -> tuple[Hashes, NDArray[np.int64]]:
    words = hasher.words(list(_FUNCTION_WORDS.values()))
    codes = np.repeat(np.arange(1, len(_FUNCTION_WORDS) + 1), np.diff(words.offsets))
    order = np.argsort(words.hashes)
    return words.hashes[order], codes[order]
