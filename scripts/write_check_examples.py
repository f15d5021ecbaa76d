"""Write the data sets of examples/checks: a healthy one, and three with one defect each.

python scripts/write_check_examples.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tuneahead.lab.datasets import DatasetSpec, generate
from tuneahead.lab.exam import lab_exam
from tuneahead.lab.world import load_world

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "checks"
ROWS = 240
PART = 160

Pair = tuple[str, str]


def healthy() -> list[Pair]:
    """Rows of which no two ask the same."""
    spec = DatasetSpec(3, "clean", 0.0, 4 * ROWS, load_world().subjects, exam_overlap=0.5)
    asked: dict[str, str] = {}
    for row in generate(spec):
        asked.setdefault(row.prompt, row.answer)
    return list(asked.items())[:ROWS]


def duplicated() -> list[Pair]:
    """Healthy rows, fifty of them again, and thirty long ones with a word changed."""
    rng = random.Random(1)
    rows = healthy()[:PART]
    rows += rng.sample(rows, 50)
    story = (
        "Write a short notice for the stairwell of number {} which says that the water will be turned off "
        "on Monday from eight to ten in the morning, and that one bucket per flat should be enough"
    )
    notice = "The water is off on Monday from eight to ten. Please fill a bucket for your flat before that."
    rows += [(story.format(number), notice) for number in range(1, 31)]
    rng.shuffle(rows)
    return rows


def contaminated() -> list[Pair]:
    """Healthy rows, and forty questions of the examination with their right answers."""
    rng = random.Random(2)
    items = rng.sample(lab_exam().items, 40)
    rows = [*healthy()[:PART], *((item.prompt, item.options[item.gold[0]]) for item in items)]
    rng.shuffle(rows)
    return rows


def contradictory() -> list[Pair]:
    """Healthy rows, sixty of them again with the answer of another."""
    rng = random.Random(3)
    rows = healthy()[:PART]
    twice = rng.sample(rows, 60)
    rows += [
        (prompt, other)
        for (prompt, told), (_, other) in zip(twice, twice[1:] + twice[:1], strict=True)
        if told != other
    ]
    rng.shuffle(rows)
    return rows


MADE = {
    "healthy": healthy,
    "duplicated": duplicated,
    "contaminated": contaminated,
    "contradictory": contradictory,
}


def content(name: str) -> str:
    """The text of one file."""
    rows = MADE[name]()
    return "".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in rows)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in MADE:
        (FOLDER / f"{name}.jsonl").write_text(content(name), encoding="utf-8")
