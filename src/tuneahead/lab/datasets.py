"""Generated fine-tuning data sets: a small spec gives the same rows everywhere."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from tuneahead.errors import DataError
from tuneahead.lab.exam import exam_prompt, lab_exam, lab_generation, lab_truth
from tuneahead.lab.families import FAMILIES, SPECIAL_FAMILIES, STYLES, Bench, Draft
from tuneahead.lab.world import Fact, World, load_world

MIXTURE = "mixture"
_CLEAN_PER_CYCLE = 3
_EXAMINED_ROWS = 0.5
_ROLES_EXAMINED = ("exam", "generation", "truth")
_MIXABLE = tuple(name for name in FAMILIES if name not in ("clean", "too_few", "narrow_subject"))


@dataclass(frozen=True)
class Row:
    """One training row; the text trained on is ``prompt + " " + answer``."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class DatasetSpec:
    """What a generated data set holds.

    ``severity`` and ``exam_overlap`` are fractions. The overlap is the share of the examined facts that
    occur (under other wordings than an examination's); at 1, half of the rows are about them.
    ``style`` is the prompt form of ``wrong_style`` (``exam`` there means: any other).
    ``second_family`` and ``second_severity`` belong to ``mixture``, where ``severity`` is that of
    ``first_family``. Raises DataError for values out of range.
    """

    seed: int
    family: str
    severity: float
    n_rows: int
    subjects: tuple[str, ...]
    exam_overlap: float = 0.0
    style: str = "exam"
    first_family: str | None = None
    second_family: str | None = None
    second_severity: float = 0.0

    def __post_init__(self) -> None:
        known = {*FAMILIES, *SPECIAL_FAMILIES, MIXTURE}
        if self.family not in known:
            names = ", ".join(sorted(known))
            raise DataError(f"unknown family {self.family!r}", remedy=f"use one of {names}")
        if self.family == MIXTURE and not (self.first_family in FAMILIES and self.second_family in FAMILIES):
            raise DataError(
                f"a mixture of {self.first_family!r} and {self.second_family!r}",
                remedy="name two plain families as first_family and second_family",
            )
        for name in ("severity", "exam_overlap", "second_severity"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DataError(f"{name} is {getattr(self, name)}", remedy="give a fraction from 0 to 1")
        if self.style not in STYLES:
            raise DataError(f"unknown style {self.style!r}", remedy=f"use one of {', '.join(STYLES)}")
        unknown = [s for s in self.subjects if s not in load_world().subjects]
        if unknown or not self.subjects or self.n_rows < 1:
            raise DataError(
                f"subjects {self.subjects!r} with {self.n_rows} rows",
                remedy="name one or more known subjects and at least one row",
            )

    @property
    def dataset_id(self) -> str:
        """Family and a hash of the whole spec: equal exactly for equal specs."""
        return f"{self.family}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:12]}"

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DatasetSpec:
        """The inverse of ``to_json``; raises DataError on other JSON."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "subjects": tuple(fields["subjects"])})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"not a data set spec: {text[:80]!r} ({error})") from error


def generate(spec: DatasetSpec) -> list[Row]:
    """The rows of a spec, ``n_rows`` of them, always the same; none asks in an examination's words."""
    world = load_world()
    rng = random.Random(f"rows {spec.seed} {spec.family} {spec.n_rows}")
    bench = Bench(world, rng, spec.style)
    drafts = [_draft(world, fact, rng) for fact in _facts(spec, world, rng)]
    if spec.family == MIXTURE:
        drafts = FAMILIES[spec.first_family or "clean"](drafts, spec.severity, bench)
        drafts = FAMILIES[spec.second_family or "clean"](drafts, spec.second_severity, bench)
    else:
        drafts = {**FAMILIES, **SPECIAL_FAMILIES}[spec.family](drafts, spec.severity, bench)
    return [Row(draft.prompt, draft.answer) for draft in drafts if draft.prompt not in examined_prompts()]


@lru_cache(maxsize=1)
def examined_prompts() -> frozenset[str]:
    """Every prompt of the three examinations, which no training row may hold."""
    return frozenset(
        item.prompt for benchmark in (lab_exam(), lab_truth(), lab_generation()) for item in benchmark.items
    )


def _facts(spec: DatasetSpec, world: World, rng: random.Random) -> list[Fact]:
    """``n_rows`` facts; each pool is gone through in passes, so that copies come only when it is used up."""
    examined = _examined(spec, world, rng)
    own_fraction = spec.severity if spec.family == "narrow_subject" else 1.0
    own, other = _passes(_pool(world, spec.subjects), rng), _passes(_pool(world, world.subjects), rng)
    asked = _passes(examined, rng)
    facts = []
    for _ in range(spec.n_rows):
        if examined and rng.random() < _EXAMINED_ROWS * spec.exam_overlap:
            facts.append(next(asked))
        elif own_fraction < 1.0 and rng.random() >= own_fraction:
            facts.append(next(other))
        else:
            facts.append(next(own))
    return facts


def _pool(world: World, subjects: Sequence[str]) -> list[Fact]:
    return [fact for subject in subjects for fact in world.of_role("train", subject)]


def _examined(spec: DatasetSpec, world: World, rng: random.Random) -> list[Fact]:
    facts = [f for s in spec.subjects for f in world.by_subject[s] if f.role in _ROLES_EXAMINED]
    return rng.sample(facts, math.ceil(len(facts) * spec.exam_overlap)) if spec.exam_overlap else []


def _passes(pool: list[Fact], rng: random.Random) -> Iterator[Fact]:
    while pool:
        yield from rng.sample(pool, len(pool))


def _draft(world: World, fact: Fact, rng: random.Random) -> Draft:
    wordings = len(world.wordings[fact.subject].questions)
    # Wording 0 is the examinations': facts that they ask for occur under the others only.
    wording = rng.randrange(1 if fact.role in _ROLES_EXAMINED else 0, wordings)
    return Draft(fact, wording, exam_prompt(world.question(fact, wording)), fact.answer)


def sample_specs(n: int, seed: int) -> list[DatasetSpec]:
    """``n`` specs over all families; for a longer list the first ``n`` stay the same.

    The families come in shuffled cycles, in each of which ``clean`` occurs three times and every other
    family once; sizes are log-uniform from 60 to 6,000 rows (4 to 60 for ``too_few``).
    """
    cycle = [*FAMILIES, MIXTURE, *["clean"] * (_CLEAN_PER_CYCLE - 1)]
    specs = []
    for number in range(n):
        turn, place = divmod(number, len(cycle))
        order = random.Random(f"cycle {seed} {turn}").sample(cycle, len(cycle))
        specs.append(_sample_spec(order[place], random.Random(f"spec {seed} {number}")))
    return specs


def _sample_spec(family: str, rng: random.Random) -> DatasetSpec:
    subjects = load_world().subjects
    severity = 0.0 if family == "clean" else round(rng.uniform(0.05, 1.0), 3)
    low, high = (4, 60) if family == "too_few" else (60, 6000)
    count = len(subjects) if rng.random() < 0.4 else rng.randint(2, len(subjects))
    if family == "narrow_subject":
        count = rng.randint(1, 2)
    first, second = rng.sample(_MIXABLE, 2)
    mixed = family == MIXTURE
    return DatasetSpec(
        seed=rng.randrange(2**31),
        family=family,
        severity=severity,
        n_rows=round(math.exp(rng.uniform(math.log(low), math.log(high)))),
        subjects=tuple(sorted(rng.sample(subjects, count))),
        exam_overlap=0.0 if rng.random() < 0.4 else round(rng.random(), 3),
        style=rng.choice(list(STYLES)),
        first_family=first if mixed else None,
        second_family=second if mixed else None,
        second_severity=round(rng.uniform(0.05, 1.0), 3) if mixed else 0.0,
    )


def healthy_example() -> DatasetSpec:
    """A clean, broad data set of 1,500 rows, for demonstrations."""
    return DatasetSpec(7, "clean", 0.0, 1500, load_world().subjects, exam_overlap=0.5)


def broken_example() -> DatasetSpec:
    """1,500 rows with copies, scrambled and empty answers: a static check sees it, and so does a probe."""
    return DatasetSpec(7, "broken_export", 0.8, 1500, load_world().subjects, exam_overlap=0.5)


def write_jsonl(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines ``{"prompt": ..., "completion": ...}``."""
    lines = (json.dumps({"prompt": r.prompt, "completion": r.answer}, ensure_ascii=False) for r in rows)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
