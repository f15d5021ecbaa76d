"""Words of a block of texts, as numbers: what the searches for copies and contamination share."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_CACHE_WORDS = 400_000
_find_ascii = re.compile(r"\w+").findall
# Scripts written without spaces: each character counts as a word.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS_BELOW = 0x20000
# Case folding makes an i and this of the Turkish capital I. The shipped predictors know words parted by it.
_DOT_ABOVE = "\u0307"
# They steer how letters join and stand inside words.
JOINERS = _NON_JOINER, _JOINER = "\u200c", "\u200d"

# Inverse of BASE modulo 2**64 exists because it is odd.
_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 2**64)


@dataclass(frozen=True)
class Words:
    """Word hashes of several texts, flat: text i is ``hashes[offsets[i] : offsets[i + 1]]``."""

    hashes: Hashes
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def runs(self, size: int) -> Words:
        """Hashes of all runs of ``size`` consecutive words within each text, in order.

        A text of fewer words has none. Equal runs have equal hashes wherever they stand.
        """
        lengths = np.maximum(np.diff(self.offsets) - size + 1, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if not offsets[-1]:
            return Words(np.empty(0, np.uint64), offsets)
        starts = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], lengths)
        # A polynomial of the words, from differences of prefix sums, all modulo 2**64.
        count = len(self.hashes)
        terms = self.hashes * _powers(_BASE, count)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        value = (sums[starts + size] - sums[starts]) * _powers(_BASE_INVERSE, count)[starts]
        return Words(_mixed(value), offsets)


class WordHasher:
    """Turns texts into :class:`Words`; keeps the hashes of frequent words between calls.

    Words are runs of letters, their marks, digits and underscores after NFKC and case folding, so that
    punctuation, case and spacing don't count. Hashes are 64 bits of BLAKE2b, the same on every machine.
    """

    def __init__(self) -> None:
        self._known = _Known()

    def words(self, texts: Sequence[str]) -> Words:
        """The words of each text."""
        if len(self._known) > _CACHE_WORDS:
            self._known.clear()
        flat = array("Q")
        offsets = np.zeros(len(texts) + 1, np.int64)
        look_up = self._known.__getitem__
        for i, text in enumerate(texts):
            flat.extend(map(look_up, split_words(text)))
            offsets[i + 1] = len(flat)
        return Words(np.frombuffer(flat, np.uint64) if flat else np.empty(0, np.uint64), offsets)


class _Known(dict[str, int]):
    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value


def split_words(text: str) -> list[str]:
    """The words of one text, folded as :class:`WordHasher` does."""
    if text.isascii():
        return _find_ascii(text.lower())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _find_any()(folded.replace(_NON_JOINER, "").replace(_JOINER, ""))


def is_mark(character: str) -> bool:
    """Whether it belongs to the letter before it: a vowel sign, a virama, an accent."""
    # Variation selectors are of the same category, but choose a glyph, mostly of emoji.
    selects = "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0100"
    return not selects and unicodedata.category(character) in ("Mn", "Mc")


def is_lettered(word: str) -> bool:
    """Whether a word is made of letters and their marks alone."""
    if word.isalpha() or word.isascii():
        return word.isalpha()
    return "".join(sign for sign in word if not is_mark(sign)).isalpha()


def spaceless_characters(text: str) -> int:
    """How many characters of a text are words of their own, in scripts written without spaces."""
    return 0 if text.isascii() else len(re.findall(f"[{_SPACELESS}]", text))


@lru_cache(maxsize=1)
def _find_any() -> Callable[[str], list[str]]:
    """What finds the words of any script; made when first needed, since it looks at every character."""
    spaceless = re.compile(f"[{_SPACELESS}]")
    signs = set(map(chr, range(0x80, _MARKS_BELOW))) - {_DOT_ABOVE}
    marks = "".join(sorted(sign for sign in signs if is_mark(sign) and not spaceless.match(sign)))
    letters = rf"[^\W{_SPACELESS}]"
    return re.compile(rf"[{_SPACELESS}]|{letters}+(?:[{marks}]+{letters}*)*").findall


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mixed(value: Hashes) -> Hashes:
    # splitmix64's finaliser: the low bits of a polynomial hash are not spread well.
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
