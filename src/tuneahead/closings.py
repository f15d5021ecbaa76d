"""How an answer closes: with a final sign, without one, or in mid-sentence."""

from __future__ import annotations

import re
from enum import IntEnum


class Closing(IntEnum):
    """How the last paragraph of an answer ends."""

    UNKNOWN = 0
    """It is no running text of some length: a word, a list, code, a heading."""
    CLOSED = 1
    """With a final sign, a closing bracket, a digit or another sign."""
    OPEN = 2
    """With a letter or a hyphen: cut off, or just without a full stop."""
    BROKEN = 3
    """With a comma, an opening bracket, or a word that goes on (``the``): surely in mid-sentence."""


_CHARACTERS = 60
_LEAST_WORDS = 10
_LEAST_SIGNS = 15
_READ_CHARACTERS = 400
"""Of a last paragraph its end is read."""
_ITEM = re.compile(r"[-*\u2022#|>+`]|\(?[\dA-Za-z]{1,2}[.)]\s")
_UNSPACED = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")

# Articles, conjunctions, prepositions and auxiliary verbs of the languages that the check of languages
# tells apart, without those that close a sentence in another of them.
_WORDS_OF = (
    "the a an and or of because whose their its your my our than into between every to in at for with by from"
    " is are was were be that which as if on when while where such including through can will would should"
    " has have had"
    " der die das den dem ein eine einen einem einer und oder aber dass weil zwischen für mit von im bei wie"
    " sind ist wird werden sich sowie durch"
    " le la les un une des du de et ou dans dont leur pour avec par sur que qui sont est plus"
    " el los las una unos del y o pero su sus con por para en como es son se"
    " il lo gli uno di della dei delle e nel nella per che è sono più"
    " os uma um do da dos das em são"
    " els amb"
    " het een van en maar met voor dat zijn"
)
_GOING_ON = frozenset(_WORDS_OF.split())


def find_closing(answer: str) -> Closing:
    """How ``answer`` closes.

    Judged are answers of 60 characters or more whose last paragraph has ten words or fifteen Chinese or
    Japanese signs and is no item of a list.
    """
    text = answer.rstrip()
    if len(text) < _CHARACTERS:
        return Closing.UNKNOWN
    begin = text.rfind("\n") + 1
    # The first word of a long paragraph that is cut may be half a word; it is not looked at.
    last = text[max(begin, len(text) - _READ_CHARACTERS) :].strip()
    words = last.split()
    if _ITEM.match(text[begin : begin + 8].lstrip()) or not (
        len(words) >= _LEAST_WORDS or len(_UNSPACED.findall(last)) >= _LEAST_SIGNS
    ):
        return Closing.UNKNOWN
    end = last[-1]
    if end in ",\uff0c\u3001(" or words[-1].lower().lstrip("\"'*(\u201c") in _GOING_ON:
        return Closing.BROKEN
    return Closing.OPEN if end.isalpha() or end in "-\u2013\u2014" else Closing.CLOSED
