"""Where a free answer ends, in the tokens of one base."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

_LINE_BREAK = re.compile(r"\.?[ \t]*[\r\n]")


class Endings:
    """What may follow a whole answer: a token of ``ends``, a new line, a full stop.

    The line may begin after a full stop in the same token. A full stop of its own ends an answer unless a
    letter or digit comes right after it: 3 is no answer where the model goes on to write 3.14.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.ends = ends
        self._texts: dict[int, str] = {}
        letter, dotted = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "a."))
        self._before = letter[-1:]
        self.full_stop: int | None = dotted[-1] if dotted[:-1] == letter else None

    @property
    def read_past(self) -> tuple[int, ...]:
        """Tokens to put after an answer in order to see what follows them."""
        return () if self.full_stop is None else (self.full_stop,)

    def ended(self, following: NDArray[np.int64], past: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether answers end where these tokens follow them, and ``past`` those a full stop: same shapes."""
        pairs = zip(following.ravel().tolist(), past.ravel().tolist(), strict=True)
        return np.array([self._ends(*pair) for pair in pairs], bool).reshape(following.shape)

    def _ends(self, token: int, past: int) -> bool:
        if token in self.ends or _LINE_BREAK.match(self._text(token)):
            return True
        goes_on = past not in self.ends and self._text(past)[:1].isalnum()
        return token == self.full_stop and not goes_on

    def _text(self, token: int) -> str:
        """What the token adds to a text; some tokenizers take off the space before the first."""
        if token not in self._texts:
            self._texts[token] = self._decode([*self._before, token])[len(self._letter) :]
        return self._texts[token]

    @cached_property
    def _letter(self) -> str:
        return self._decode(self._before)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
