"""Benchmark items: what a model is asked, and what counts as right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tuneahead.benchmark.lm_eval import HarnessTasks

Metric = Literal["accuracy", "acc_norm", "mc2", "exact_match", "f1", "rouge_l", "harness"]
CHOICE_METRICS: tuple[Metric, ...] = ("accuracy", "acc_norm", "mc2")
ANSWER_METRICS: tuple[Metric, ...] = ("exact_match", "f1", "rouge_l")
WRITTEN: tuple[Metric, ...] = ("f1", "rouge_l")
"""Metrics for which the model writes its answer out, token by token."""
GRADED: tuple[Metric, ...] = ("mc2", "f1", "rouge_l", "harness")
"""Metrics under which one item scores a share from 0 to 1, not just right or wrong."""


@dataclass(frozen=True)
class ChoiceItem:
    """One multiple-choice question.

    ``prompt`` is the whole text before the answer; each option is appended to it after a
    single space, unless one of them brings white space. ``gold`` holds the indices of the right
    options (one for accuracy, one or more for MC2). ``question`` is what is asked, where examples or
    a description stand before it.
    """

    item_id: str
    prompt: str
    options: tuple[str, ...]
    gold: tuple[int, ...]
    subject: str = ""
    # Part of the prompt already: a benchmark's fingerprint does not count it twice.
    question: str = field(default="", repr=False)


@dataclass(frozen=True)
class GenerationItem:
    """One free-answer question; any of ``answers`` counts as right. ``question`` as of a choice."""

    item_id: str
    prompt: str
    answers: tuple[str, ...]
    subject: str = ""
    question: str = field(default="", repr=False)


@dataclass(frozen=True)
class Asking:
    """How the items of a benchmark are put to a model.

    ``template`` is a recipe's (``auto`` takes the tokenizer's chat template where there is one).
    With ``joined`` the option follows the prompt after ``delimiter``, letter by letter, and both
    are tokenised as one text, as lm-evaluation-harness does. Written answers end at a ``stop``
    text, at the end token or after ``max_new_tokens``.
    """

    template: str = "auto"
    joined: bool = False
    delimiter: str = " "
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)


@dataclass(frozen=True)
class Benchmark:
    """A named set of items with one metric, in percentage points (0 to 100).

    ``accuracy``, ``acc_norm`` and ``mc2`` take :class:`ChoiceItem`; ``exact_match``, ``f1`` and
    ``rouge_l`` take :class:`GenerationItem`. Under ``harness`` lm-evaluation-harness scores the
    items itself, with the tasks in ``harness``. Of one that is ``known_by_name``, a benchmark of the lab or
    a task of the harness, there is no other of its name.
    """

    name: str
    metric: Metric
    items: Sequence[ChoiceItem] | Sequence[GenerationItem] = field(repr=False)
    asking: Asking = Asking()
    harness: HarnessTasks | None = None
    known_by_name: bool = False

    @property
    def identity(self) -> str:
        """Its fingerprint where others may bear its name, as files do; else empty."""
        return "" if self.known_by_name else self.fingerprint

    @property
    def chance_pp(self) -> float:
        """Score of a uniform guess, in percentage points."""
        shares = [len(item.gold) / len(item.options) for item in self.items if isinstance(item, ChoiceItem)]
        return 100.0 * sum(shares) / len(shares) if shares else 0.0

    @property
    def fingerprint(self) -> str:
        """Hash of the metric, the way of asking and every item: benchmarks agree exactly when this does."""
        harness = "" if self.harness is None else self.harness.metric
        if self.harness is not None and self.harness.filter != "none":
            harness += f",{self.harness.filter}"
        digest = hashlib.sha256(f"{self.metric} {self.asking} {harness}".encode())
        for item in self.items:
            digest.update(repr(item).encode())
        return digest.hexdigest()[:16]
