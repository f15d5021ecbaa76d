"""Blocks of rows and what can be measured of one without the others, here or in another process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneahead.closings import find_closing
from tuneahead.confidential import find_confidential
from tuneahead.contamination import ContaminationSearch, Hits
from tuneahead.duplicates import Sketches, common_shingles, sketch_rows
from tuneahead.examples import Example
from tuneahead.markup import find_markup
from tuneahead.textstats import SCRIPTS, Damage, TextStats, find_damage, find_gibberish, measure_texts
from tuneahead.thinking import find_thinking
from tuneahead.words import Hashes, WordHasher, Words

BLOCK_ROWS = 2_048
_BLOCK_CHARACTERS = 4_000_000
_LEAK_CHARACTERS = 20
_SCRIPT_CHARACTERS = 5

MARKERS = (
    "",
    "ChatML",
    "Llama 3",
    "Llama 2",
    "Gemma",
    "Zephyr",
    "Alpaca",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "Llama 4",
    "DeepSeek",
    "gpt-oss",
    "Command R",
    "Guanaco",
)
"""Families of template markers; a row's code in the survey is an index into this."""

_MARKER = re.compile(
    r"(<\|im_(?:start|end)\|>)|(<\|(?:start_header_id|end_header_id|eot_id|begin_of_text)\|>)"
    r"|(\[/?INST\]|<</?SYS>>)|(<(?:start|end)_of_turn>)|(<\|(?:user|assistant|system|end)\|>)"
    r"|(### (?:Instruction|Response) ?:)|(<\|endoftext\|>)|(<\|end_of_text\|>)|(</s>\s*\Z)|(<eos>\s*\Z)"
    r"|(<\|header_(?:start|end)\|>)|(<\uff5c(?:User|Assistant)\uff5c>)|(<\|(?:channel|message)\|>)"
    r"|(<\|(?:START|END)_OF_TURN_TOKEN\|>)|(### (?:Human|Assistant) ?:)"
)

# Letters of other scripts than Latin, and what stands between them.
_FOREIGN = re.compile("[\u0370-\u1cff\u3000-\ud7ff]")

# Frequent words that hardly occur in other languages than those they are listed of, nor in code (as "os" and
# "com" do). A word of several languages counts for each.
_FUNCTION_WORDS = {
    "English": "the and of is that you it with this was are have not what which from",
    "German": "der und das ich ist nicht den von mit ein auf für sich auch dem wie sind was",
    "French": "les est une des dans pour pas qui sur avec vous cette quelle être sont aux il mais",
    "Spanish": "el los las del con una por para como pero más este cuál qué muy también",
    "Italian": "il che di non della sono per gli nel anche più questo delle alla con una del",
    "Portuguese": "não uma seu muito em são mais você foi isso pelo ao também das qual para como por este",
    "Catalan": "els les el del una per amb és són aquest aquesta però més també està com dels pel quan",
    "Dutch": "het een van niet dat voor ik zijn maar ook naar wordt deze wat heeft met aan is was of",
}
_SPOKEN = len(_FUNCTION_WORDS) + 1
LANGUAGES = ("unclear", *_FUNCTION_WORDS, *(f"{name} script" for name in SCRIPTS[1:]))


@dataclass(frozen=True)
class Window:
    """What the rows have to fit: the window and what the template adds, in tokens.

    Of a text its first ``read_characters`` are tokenised, which surely overfill the window.
    A row of fewer UTF-8 bytes than ``max_length`` less these additions surely fits, since no
    tokenizer makes more tokens than bytes; only longer rows need be tokenised.
    """

    max_length: int
    template_tokens: int
    turn_tokens: int
    read_characters: int

    def may_cut(self, example: Example, size_bytes: int) -> bool:
        """Whether the row could be too long for the window."""
        turns = len(example.messages or ())
        return size_bytes + self.template_tokens + turns * self.turn_tokens > self.max_length


def blocks_of(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The rows in lists of at most 2,048, fewer where texts are long."""
    block: list[Example] = []
    characters = 0
    for example in examples:
        block.append(example)
        characters += len(example.prompt) + len(example.answer)
        if len(block) >= BLOCK_ROWS or characters >= _BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


@dataclass(frozen=True)
class BlockMeasures:
    """One block: a column per name of ``KINDS``, each ``(rows,)``, sketches, and benchmark items found.

    ``may_cut`` marks rows that could be too long for the window.
    """

    columns: dict[str, NDArray[Any]]
    sketches: Sketches
    hits: Hits
    may_cut: NDArray[np.bool_]


class BlockMeter:
    """Measures blocks; the first one settles which word triples are a fixed instruction.

    A meter of another process is given that first one's ``common`` triples.
    """

    def __init__(
        self, window: Window | None, contamination: ContaminationSearch, common: Hashes | None = None
    ) -> None:
        self.common = common
        self._window = window
        self._contamination = contamination
        self._hasher = WordHasher()
        self._languages = _language_words(self._hasher)

    def measure(self, block: list[Example]) -> BlockMeasures:
        """Everything of one block."""
        texts = [f"{e.prompt} {e.answer}" for e in block]
        parts = self._hasher.words([part for e in block for part in _parts(e)])
        words = Words(parts.hashes, parts.offsets[::3])
        columns = self._columns(block, texts, words)
        lengths = np.diff(parts.offsets).reshape(-1, 3)
        # Rows under one system prompt are no more alike for it.
        said = _chosen(parts, np.arange(len(lengths) * 3) % 3 > 0)
        compared = Words(said.hashes, said.offsets[::2])
        if self.common is None:
            first = first_places(pair_keys(columns["prompt"], columns["answer"]))
            self.common = common_shingles(_chosen(compared, first))
        window = self._window
        may_cut = (
            (window is not None and window.may_cut(e, _bytes(text)))
            for e, text in zip(block, texts, strict=True)
        )
        return BlockMeasures(
            columns,
            sketch_rows(compared, self.common, lengths[:, 2], columns["loose_answer"]),
            self._contamination.look_up(words, columns["row"], block),
            np.fromiter(may_cut, bool, len(block)),
        )

    def _columns(self, block: list[Example], texts: list[str], words: Words) -> dict[str, NDArray[Any]]:
        stats = measure_texts(texts)
        count = len(block)
        return {
            "row": np.fromiter((e.row for e in block), np.int64, count),
            "prompt_characters": np.fromiter((len(e.prompt) for e in block), np.int64, count),
            "answer_characters": np.fromiter((len(e.answer) for e in block), np.int64, count),
            "empty_prompt": np.fromiter((not e.prompt.strip() for e in block), bool, count),
            "empty_answer": np.fromiter((not e.answer.strip() for e in block), bool, count),
            "silent": np.fromiter(map(_says_nothing, block), bool, count),
            "conversation": np.fromiter((e.messages is not None for e in block), bool, count),
            "earlier_turns": np.fromiter(map(_answers_before, block), bool, count),
            "calls": np.fromiter((any(m.calls for m in e.messages or ()) for e in block), bool, count),
            "thoughts": np.fromiter((any(m.thoughts for m in e.messages or ()) for e in block), bool, count),
            "tools": np.fromiter((bool(e.tools) for e in block), bool, count),
            "echo": np.fromiter(map(_echoes, block), bool, count),
            "gibberish": find_gibberish(stats),
            "damage": _damage(texts, stats),
            "confidential": np.fromiter(
                map(find_confidential, texts, stats.digits.tolist()), np.uint8, count
            ),
            "markup": np.fromiter(map(find_markup, texts), np.uint8, count),
            "thinking": np.fromiter((find_thinking(e.answer) for e in block), np.uint8, count),
            "closing": np.fromiter((find_closing(e.answer) for e in block), np.uint8, count),
            "marker": np.fromiter(map(_marker, texts), np.uint8, count),
            "language": self._language(words, _scripts(block, stats)),
            **_hash_columns(block),
        }

    def _language(self, words: Words, script: NDArray[np.int64]) -> NDArray[np.uint8]:
        hashes, spoken = self._languages
        place = np.minimum(np.searchsorted(hashes, words.hashes), len(hashes) - 1)
        known = hashes[place] == words.hashes
        owner = np.repeat(np.arange(len(words)), np.diff(words.offsets))
        # Each word once a row: code repeats its own names, some of which are words elsewhere.
        once = np.unique(owner[known] * len(hashes) + place[known])
        owner, place = np.divmod(once, len(hashes))
        votes = [np.bincount(owner[spoken[place, code]], minlength=len(words)) for code in range(_SPOKEN)]
        table = np.stack(votes, axis=1)
        ranked = np.sort(table, axis=1)
        # Two different function words, and more of this language than of any other.
        clear = (ranked[:, -1] >= 2) & (ranked[:, -1] > ranked[:, -2])
        language = np.where(clear, table.argmax(axis=1), 0)
        return np.where(script > 0, _SPOKEN - 1 + script, language).astype(np.uint8)


KINDS: dict[str, type[np.generic]] = {
    "row": np.int64, "prompt": np.uint64, "answer": np.uint64, "loose_answer": np.uint64,
    "exact": np.uint64, "prompt_characters": np.int64, "answer_characters": np.int64,
    "empty_prompt": np.bool_, "empty_answer": np.bool_, "silent": np.bool_, "conversation": np.bool_,
    "earlier_turns": np.bool_, "calls": np.bool_, "thoughts": np.bool_, "tools": np.bool_,
    "echo": np.bool_, "gibberish": np.bool_, "damage": np.uint8, "confidential": np.uint8, "markup": np.uint8,
    "thinking": np.uint8, "closing": np.uint8, "marker": np.uint8, "language": np.uint8,
}  # fmt: skip


def pair_keys(prompt: Hashes, answer: Hashes) -> Hashes:
    """One hash per row of prompt and answer together."""
    key = (prompt ^ (prompt >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + answer
    return (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def first_places(keys: Hashes) -> NDArray[np.bool_]:
    """Which of the keys are the first of their value."""
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _hash_columns(block: list[Example]) -> dict[str, NDArray[Any]]:
    answers = [" ".join(e.answer.split()) for e in block]
    loose = [text.casefold().rstrip(" .!?,;:\"'") or text for text in answers]
    return {
        "prompt": np.array([_hash(_asked(e)) for e in block], np.uint64),
        "answer": np.array([_hash(text) for text in answers], np.uint64),
        "loose_answer": np.array([_hash(text) for text in loose], np.uint64),
        "exact": np.array([_hash(_exact_text(e)) for e in block], np.uint64),
    }


def _asked(example: Example) -> str:
    """The prompt, spaces collapsed; under other tools the same words ask for another answer."""
    asked = " ".join(example.prompt.split())
    return f"{asked}\n{example.tools}" if example.tools else asked


def _parts(example: Example) -> tuple[str, str, str]:
    """The system prompt that a conversation opens with, the rest of the prompt, and the answer."""
    first = example.messages[0] if example.messages else None
    system = first.content if first is not None and first.role == "system" else ""
    if not example.prompt.startswith(system):
        system = ""
    return system, example.prompt[len(system) :], example.answer


def _exact_text(example: Example) -> str:
    parts = [example.prompt, example.answer]
    if example.messages is not None:
        turns = example.messages
        parts = [part for m in turns for part in (m.role, m.content, m.calls, m.thoughts)]
    if example.tools:
        parts.append(example.tools)
    trimmed = ["\n".join([line.rstrip(" \t\r") for line in part.split("\n")]).rstrip("\n") for part in parts]
    # With their lengths: without them ("ab", "c") and ("a", "bc") would hash alike.
    return "".join([f"{len(part)} {part}" for part in trimmed])


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


PLACEHOLDERS = np.array([_hash(text) for text in ("nan", "none", "null", "n/a", "#n/a", "<na>")], np.uint64)
"""Hashes in ``loose_answer`` of what exports write where an answer is missing."""


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


def _says_nothing(example: Example) -> bool:
    """Whether no assistant turn says or calls anything."""
    if example.messages is None:
        return not example.answer.strip()
    return not any(
        turn.role == "assistant" and not turn.asked and (turn.calls or turn.content.strip())
        for turn in example.messages
    )


def _answers_before(example: Example) -> bool:
    """Whether an assistant turn that is trained comes before the last one."""
    return any(turn.is_trained for turn in (example.messages or ())[:-1])


def _scripts(block: list[Example], stats: TextStats) -> NDArray[np.int64]:
    """The script of each row, or of its answer below a longer prompt; 0 for Latin and what is unclear."""
    script = _foreign_scripts(stats)
    beyond = [i for i in np.flatnonzero(script == 0).tolist() if _FOREIGN.search(block[i].answer)]
    script[beyond] = _foreign_scripts(measure_texts([block[i].answer for i in beyond]))
    return script


def _foreign_scripts(stats: TextStats) -> NDArray[np.int64]:
    script = stats.scripts.argmax(axis=1)
    return np.where(stats.scripts.max(axis=1) >= _SCRIPT_CHARACTERS, script, 0)


def _echoes(example: Example) -> bool:
    asked = example.prompt
    if example.messages:
        asked = next((m.content for m in reversed(example.messages) if m.role == "user"), asked)
    asked = asked.strip()
    if len(asked) < _LEAK_CHARACTERS:
        return False
    return asked in example.answer or _holds_lines(example.answer, asked)


def _holds_lines(text: str, asked: str) -> bool:
    """Whether every line of a prompt stands in the text, in order: labels may stand before each part."""
    at = 0
    for line in filter(None, map(str.strip, asked.split("\n"))):
        found = text.find(line, at)
        if found < 0:
            return False
        at = found + len(line)
    return True


def _chosen(words: Words, keep: NDArray[np.bool_]) -> Words:
    if keep.all():
        return words
    lengths = np.diff(words.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])])
    return Words(words.hashes[np.repeat(keep, lengths)], offsets)


def _language_words(hasher: WordHasher) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hashes of all function words, ascending, and of which languages each is: ``(words, _SPOKEN)``."""
    words = hasher.words(list(_FUNCTION_WORDS.values()))
    codes = np.repeat(np.arange(1, _SPOKEN), np.diff(words.offsets))
    hashes, place = np.unique(words.hashes, return_inverse=True)
    spoken = np.zeros((len(hashes), _SPOKEN), bool)
    spoken[place, codes] = True
    return hashes, spoken
