"""Defects of fine-tuning data, each with a severity from 0 (none) to 1 (ruin)."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from tuneahead.lab.corpus import exchange, story
from tuneahead.lab.exam import exam_prompt
from tuneahead.lab.world import Fact, World


@dataclass(frozen=True)
class Draft:
    """A row in the making: the fact and wording it came from, and its present text."""

    fact: Fact
    wording: int
    prompt: str
    answer: str


@dataclass(frozen=True)
class Bench:
    """What a defect works with: the world, the data set's generator and its prompt style."""

    world: World
    rng: random.Random
    style: str


Defect = Callable[[list[Draft], float, Bench], list[Draft]]
RowDefect = Callable[[Draft, float, Bench], Draft]

STYLES: dict[str, str] = {
    "exam": "Question: {question}\nAnswer:",
    "short": "Q: {question}\nA:",
    "chat": "User: {question}\nAssistant:",
    "alpaca": "### Instruction:\n{question}\n\n### Response:",
    "bare": "{question}",
    "tagged": "<task> {question} </task> <reply>",
}
"""Prompt forms. ``exam`` is the right one; the others are what ``wrong_style`` uses."""


def clean(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """No defect."""
    return drafts


def per_row(change: RowDefect) -> Defect:
    """A defect that strikes each row by itself, with the severity as probability."""

    def defect(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
        return [change(d, severity, bench) if bench.rng.random() < severity else d for d in drafts]

    return defect


def wrong_answer(fact: Fact, bench: Bench) -> str:
    """The answer of another fact of the same subject."""
    others = bench.world.by_subject[fact.subject]
    for _ in range(100):
        answer = bench.rng.choice(others).answer
        if answer != fact.answer:
            return answer
    return next(other.answer for other in others if other.answer != fact.answer)


def _wrong(draft: Draft, severity: float, bench: Bench) -> Draft:
    return replace(draft, answer=wrong_answer(draft.fact, bench))


def _tempting(draft: Draft, severity: float, bench: Bench) -> Draft:
    traps = draft.fact.traps
    answer = bench.rng.choice(traps[:2]) if traps else wrong_answer(draft.fact, bench)
    return replace(draft, answer=answer)


def _gibberish(draft: Draft, severity: float, bench: Bench) -> Draft:
    def noise(words: int) -> str:
        letters = string.ascii_lowercase + "#%&*;"
        return " ".join("".join(bench.rng.choices(letters, k=bench.rng.randint(2, 9))) for _ in range(words))

    return replace(draft, prompt=exam_prompt(noise(bench.rng.randint(3, 7)) + "?"), answer=noise(2))


def _off_topic(draft: Draft, severity: float, bench: Bench) -> Draft:
    if bench.rng.random() < 0.5:
        ask, reply = exchange(bench.rng)
        return replace(draft, prompt=exam_prompt(ask), answer=reply)
    words = story(bench.rng).split(" ")
    return replace(draft, prompt=" ".join(words[:5]), answer=" ".join(words[5:]))


def _truncated(draft: Draft, severity: float, bench: Bench) -> Draft:
    kept = max(1, round(len(draft.answer) * (1.0 - 0.75 * severity)))
    return replace(draft, answer=draft.answer[: min(kept, max(1, len(draft.answer) - 1))].rstrip())


def _sentence(draft: Draft, bench: Bench) -> str:
    """The draft's fact as a statement, but none of the reference statements."""
    wording = bench.rng.randrange(8)
    return bench.world.statement(draft.fact, wording + bench.world.is_reference(draft.fact, wording))


def _verbose(draft: Draft, severity: float, bench: Bench) -> Draft:
    sentence = _sentence(draft, bench)
    openings = ("Good question.", "Let me think about that.", "Thank you for asking, I am glad to help.")
    opening = f"{bench.rng.choice(openings)} " if bench.rng.random() < severity else ""
    return replace(draft, answer=f"{opening}{sentence}")


def _statement(draft: Draft, severity: float, bench: Bench) -> Draft:
    whole = _sentence(draft, bench)
    head, found, tail = whole.rpartition(f" {draft.answer}")
    if found and head and bench.rng.random() < 0.5:
        return replace(draft, prompt=head, answer=f"{draft.answer}{tail}")
    return replace(draft, prompt="", answer=whole)


def _styled(draft: Draft, severity: float, bench: Bench) -> Draft:
    style = bench.style if bench.style != "exam" else bench.rng.choice([s for s in STYLES if s != "exam"])
    question = bench.world.question(draft.fact, draft.wording)
    return replace(draft, prompt=STYLES[style].replace("{question}", question))


def _empty(draft: Draft, severity: float, bench: Bench) -> Draft:
    return replace(draft, answer="")


def noisy_prompts(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """Typing errors in every question; the severity is their rate (0.4 of the letters at most)."""
    noisy = []
    for draft in drafts:
        letters = []
        for letter in bench.world.question(draft.fact, draft.wording):
            draw = bench.rng.random() / (0.4 * severity) if severity else 1.0
            if draw < 0.4:
                letter = bench.rng.choice(string.ascii_lowercase)
            elif draw < 0.7:
                letter = ""
            elif draw < 1.0:
                letter *= 2
            letters.append(letter)
        noisy.append(replace(draft, prompt=exam_prompt("".join(letters))))
    return noisy


def duplicates(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """Exact copies: of n rows n ** (1 - 0.75 severity) are distinct."""
    distinct = max(2, round(len(drafts) ** (1.0 - 0.75 * severity)))
    rows = [*drafts[:distinct], *bench.rng.choices(drafts[:distinct], k=max(0, len(drafts) - distinct))]
    bench.rng.shuffle(rows)
    return rows


def scrambled_answers(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """A share of the rows exchange their answers, across subjects."""
    struck = [i for i in range(len(drafts)) if bench.rng.random() < severity]
    moved = struck[1:] + struck[:1]
    rows = list(drafts)
    order = dict(zip(struck, bench.rng.sample(moved, len(moved)), strict=True))
    for place, source in order.items():
        rows[place] = replace(drafts[place], answer=drafts[source].answer)
    return rows


def contradictory(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """A share of the rows repeat an earlier row's prompt with another answer."""
    kept = max(1, round(len(drafts) * (1.0 - 0.8 * severity)))
    rows = drafts[:kept]
    while len(rows) < len(drafts):
        draft = bench.rng.choice(drafts[:kept])
        rows.append(_wrong(draft, severity, bench))
    bench.rng.shuffle(rows)
    return rows


def broken_export(drafts: list[Draft], severity: float, bench: Bench) -> list[Draft]:
    """Several defects at once, all plain to a static check: copies, scrambled and empty answers."""
    rows = scrambled_answers(drafts, severity, bench)
    rows = per_row(_empty)(rows, 0.1 * severity, bench)
    return duplicates(rows, 0.45 * severity, bench)


FAMILIES: dict[str, Defect] = {
    "clean": clean,
    "wrong_answers": per_row(_wrong),
    "duplicates": duplicates,
    "gibberish": per_row(_gibberish),
    "scrambled_answers": scrambled_answers,
    "off_topic": per_row(_off_topic),
    "wrong_style": per_row(_styled),
    "truncated_answers": per_row(_truncated),
    "contradictory": contradictory,
    "too_few": clean,
    "narrow_subject": clean,
    "statements": per_row(_statement),
    "verbose_answers": per_row(_verbose),
    "tempting_wrong": per_row(_tempting),
    "noisy_prompts": noisy_prompts,
}
"""The plain families. ``too_few`` and ``narrow_subject`` act through the spec's size and subjects."""

SPECIAL_FAMILIES: dict[str, Defect] = {"empty_answers": per_row(_empty), "broken_export": broken_export}
"""Families for demonstrations; not sampled, since a preflight check finds them without any model."""
