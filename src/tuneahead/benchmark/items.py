"""Benchmark items: what a model is asked, and what counts as right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Metric = Literal["accuracy", "mc2", "exact_match"]


@dataclass(frozen=True)
class ChoiceItem:
    """One multiple-choice question.

    ``prompt`` is the whole text before the answer; each option is appended to it after a
    single space. ``gold`` holds the indices of the right options (one for accuracy, one or
    more for MC2).
    """

    item_id: str
    prompt: str
    options: tuple[str, ...]
    gold: tuple[int, ...]
    subject: str = ""


@dataclass(frozen=True)
class GenerationItem:
    """One free-answer question; any of ``answers`` counts as right."""

    item_id: str
    prompt: str
    answers: tuple[str, ...]
    subject: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A named set of items with one metric, in percentage points (0 to 100).

    ``accuracy`` and ``mc2`` take :class:`ChoiceItem`, ``exact_match`` takes
    :class:`GenerationItem`.
    """

    name: str
    metric: Metric
    items: Sequence[ChoiceItem] | Sequence[GenerationItem]

    @property
    def chance_pp(self) -> float:
        """Score of a uniform guess, in percentage points."""
        shares = [len(item.gold) / len(item.options) for item in self.items if isinstance(item, ChoiceItem)]
        return 100.0 * sum(shares) / len(shares) if shares else 0.0

    @property
    def fingerprint(self) -> str:
        """Hash of the metric and every item: two benchmarks agree exactly when this does."""
        digest = hashlib.sha256(self.metric.encode())
        for item in self.items:
            digest.update(repr(item).encode())
        return digest.hexdigest()[:16]
