"""What is known of tasks before their probe, on the lab's base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tuneahead.conclusion import Task
from tuneahead.dataset import read_examples
from tuneahead.examples import Example
from tuneahead.lab.datasets import generate, healthy_example, write_jsonl
from tuneahead.lab.exam import lab_exam
from tuneahead.recipe import Recipe
from tuneahead.taskchecks import check_tasks
from tuneahead.training.models import load_base
from tuneahead.workbench import Setup, Workbench


class CountedRows(tuple[Example, ...]):
    """Rows that know how often they were gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Example]:
        self.passes += 1
        return super().__iter__()


def test_recipes_of_one_template_and_length_read_the_rows_together(tmp_path: Path) -> None:
    write_jsonl(generate(healthy_example())[:60], tmp_path / "rows.jsonl")
    dataset = read_examples(tmp_path / "rows.jsonl")
    exam = replace(lab_exam(), items=lab_exam().items[::20])
    bench = Workbench(Setup(), load_base("lab"), exam, None, "no predictor was fitted")
    alike = [Recipe(learning_rate=rate, template="raw", max_length=64) for rate in (1e-3, 20.0)]

    def checked(*recipes: Recipe) -> tuple[list[Task], int]:
        rows = CountedRows(dataset.examples)
        return check_tasks(replace(dataset, examples=rows), recipes, bench), rows.passes

    (alone,), _ = checked(alike[1])
    # The features of the data are kept by now.
    _, once = checked(alike[0])
    together, passes = checked(*alike)
    _, twice = checked(alike[0], alike[1].replace(max_length=8))
    assert passes == once < twice
    assert [task.checkup.recipe for task in together] == alike
    assert together[1].checkup.findings == alone.checkup.findings
    assert together[1].checkup.stopped and not together[0].checkup.stopped


def test_the_stages_before_a_probe_say_how_far_they_are(tmp_path: Path) -> None:
    write_jsonl(generate(healthy_example())[:60], tmp_path / "rows.jsonl")
    dataset = read_examples(tmp_path / "rows.jsonl")
    dataset = replace(dataset, examples=dataset.examples * 20)
    exam = replace(lab_exam(), items=lab_exam().items[::20])
    bench = Workbench(Setup(), load_base("lab"), exam, None, "no predictor was fitted")
    told: list[tuple[str, int, int]] = []

    class Noting:
        def stage(self, text: str, total_steps: int = 0) -> None:
            told.append((text, 0, total_steps))

        def advance(self, steps: int) -> None:
            text, done, total = told[-1]
            told[-1] = text, done + steps, total

    check_tasks(dataset, [Recipe(template="raw", max_length=64)], bench, Noting())
    assert told == [
        ("Rows into tokens", 1200, 1200),
        ("Preflight, rows", 1000, 1200),
        ("Static features", 0, 0),
    ]
