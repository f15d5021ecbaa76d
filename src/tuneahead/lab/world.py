"""The lab's world: some 7,800 small facts and skills that a tiny model can learn in minutes.

Only the tables beside this module are read; ``scripts/build_world.py`` built them. Sources of
the facts and their licences stand in NOTICE.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, Literal

Role = Literal["exam", "generation", "truth", "train"]

_EXAM_PER_SUBJECT = 40
_GENERATION_PER_SUBJECT = 9
_TRUTH_PER_SUBJECT = 12
_REFERENCE_STATEMENTS = 64
REFERENCE_WORDING = 1


@dataclass(frozen=True)
class Fact:
    """One fact: ``key`` is what is asked about, ``answer`` the short right answer.

    ``traps`` are tempting wrong answers, most tempting first (may be empty). ``role`` says which
    examination, if any, asks for the fact; ``seen`` whether the pre-training text states it.
    """

    subject: str
    key: str
    answer: str
    traps: tuple[str, ...]
    role: Role
    seen: bool


@dataclass(frozen=True)
class Wordings:
    """Templates of one subject, with the places ``{key}`` and, in statements, ``{answer}``."""

    questions: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """All facts, in a stable order, and the wordings of each subject."""

    facts: tuple[Fact, ...]
    wordings: dict[str, Wordings]

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects, in a stable order."""
        return tuple(self.wordings)

    @cached_property
    def by_subject(self) -> dict[str, tuple[Fact, ...]]:
        """The facts of each subject."""
        return {s: tuple(f for f in self.facts if f.subject == s) for s in self.subjects}

    def of_role(self, role: Role, subject: str) -> tuple[Fact, ...]:
        """The facts of one subject that play one role."""
        return tuple(fact for fact in self.by_subject[subject] if fact.role == role)

    def question(self, fact: Fact, wording: int) -> str:
        """The question about a fact; the wording's number is taken modulo their count."""
        questions = self.wordings[fact.subject].questions
        return questions[wording % len(questions)].replace("{key}", fact.key)

    def statement(self, fact: Fact, wording: int, answer: str | None = None) -> str:
        """The statement of a fact, or of a wrong ``answer``; first letter in upper case."""
        statements = self.wordings[fact.subject].statements
        text = statements[wording % len(statements)].replace("{key}", fact.key)
        text = text.replace("{answer}", fact.answer if answer is None else answer)
        return text[0].upper() + text[1:]

    @cached_property
    def reference(self) -> frozenset[tuple[str, str]]:
        """Subject and key of the facts whose reference wording no training text may hold."""
        ready = [f for f in self.facts if f.role == "train" and f.seen]
        ready.sort(key=lambda f: _digest("reference", f.subject, f.key))
        return frozenset((f.subject, f.key) for f in ready[:_REFERENCE_STATEMENTS])

    def is_reference(self, fact: Fact, wording: int) -> bool:
        """Whether this statement is kept back to measure forgetting."""
        count = len(self.wordings[fact.subject].statements)
        return wording % count == REFERENCE_WORDING and (fact.subject, fact.key) in self.reference


@lru_cache(maxsize=1)
def load_world() -> World:
    """Read the shipped tables (once)."""
    wordings = {
        subject: Wordings(tuple(row["questions"]), tuple(row["statements"]))
        for subject, row in read_table("wordings.json").items()
    }
    facts: list[Fact] = []
    for subject, rows in read_table("facts.json").items():
        facts += _cast(subject, rows)
    return World(tuple(facts), wordings)


def read_table(name: str) -> Any:
    """One of the JSON tables shipped with the lab; its shape stands in ``tables/``."""
    return json.loads(resources.files("tuneahead.lab").joinpath("tables", name).read_text("utf-8"))


def _cast(subject: str, rows: list[tuple[str, str, list[str]]]) -> list[Fact]:
    """Give the facts of one subject their roles, by a hash that no other fact changes."""
    ordered = sorted(rows, key=lambda row: _digest(subject, row[0]))
    count = len(ordered)
    exam = min(_EXAM_PER_SUBJECT, int(0.4 * count))
    generation = exam + min(_GENERATION_PER_SUBJECT, int(0.1 * count))
    truth = generation + min(_TRUTH_PER_SUBJECT, int(0.15 * count))
    facts = []
    for place, (key, answer, traps) in enumerate(ordered):
        role: Role = "train"
        if place < exam:
            role = "exam"
        elif place < generation:
            role = "generation"
        elif place < truth:
            role = "truth"
        facts.append(Fact(subject, key, answer, tuple(traps), role, seen=place % 4 != 3))
    return facts


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
