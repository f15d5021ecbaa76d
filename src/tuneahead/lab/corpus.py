"""The pre-training text of the lab's bases: statements, a few questions, a little chatter."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tuneahead.lab.world import Fact, World, load_world, read_table

QUESTION_STYLES = (
    "Question: {question}\nAnswer: {answer}",
    "Q: {question}\nA: {answer}",
    "{question} {answer}.",
    "User: {question}\nAssistant: {answer}",
    "### Instruction:\n{question}\n\n### Response:\n{answer}",
    "{question}\n{answer}",
)
"""Forms of a question with its answer; the first is the exam's."""


@dataclass(frozen=True)
class CorpusMix:
    """Shares of the documents that are questions with answers, and chatter; the rest are statements."""

    question_fraction: float = 0.01
    chatter_fraction: float = 0.06


def documents(mix: CorpusMix, rng: random.Random) -> Iterator[str]:
    """Documents without end, pass by pass over all facts that may be seen.

    A question is asked only about facts of no examination, so that no exam prompt occurs.
    """
    world = load_world()
    facts = [fact for fact in world.facts if fact.seen]
    askable = [fact for fact in facts if fact.role == "train"]
    while True:
        rng.shuffle(facts)
        for fact in facts:
            draw = rng.random()
            if draw < mix.question_fraction:
                yield _question(world, rng.choice(askable), rng)
            elif draw < mix.question_fraction + mix.chatter_fraction:
                yield story(rng)
            yield _statement(world, fact, rng)


def _statement(world: World, fact: Fact, rng: random.Random) -> str:
    wording = rng.randrange(len(world.wordings[fact.subject].statements))
    if world.is_reference(fact, wording):
        wording += 1
    return world.statement(fact, wording)


def _question(world: World, fact: Fact, rng: random.Random) -> str:
    question = world.question(fact, rng.randrange(len(world.wordings[fact.subject].questions)))
    return rng.choice(QUESTION_STYLES).format(question=question, answer=fact.answer)


@lru_cache(maxsize=1)
def _chatter() -> tuple[dict[str, list[str]], list[str], list[tuple[str, str]]]:
    table = read_table("chatter.json")
    return table["slots"], table["stories"], [(ask, reply) for ask, reply in table["exchanges"]]


def story(rng: random.Random) -> str:
    """A two-sentence story without any fact."""
    slots, stories, _ = _chatter()
    return _fill(rng.choice(stories), slots, rng)


def exchange(rng: random.Random) -> tuple[str, str]:
    """A line of small talk and its reply, without any fact."""
    slots, _, exchanges = _chatter()
    ask, reply = rng.choice(exchanges)
    first, second = _fill(f"{ask}\x1f{reply}", slots, rng).split("\x1f")
    return first, second


def _fill(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    first, second = rng.sample(slots["name"], 2)
    chosen = {kind: rng.choice(words) for kind, words in slots.items()} | {"name": first, "name2": second}
    return re.sub(r"\{(\w+)\}", lambda match: chosen[match.group(1)], template)
