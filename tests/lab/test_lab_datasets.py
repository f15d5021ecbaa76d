"""Generated data sets: same spec, same rows; defects grow with their severity; nothing leaks."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from tuneahead.errors import DataError
from tuneahead.lab.datasets import (
    DatasetSpec,
    Row,
    broken_example,
    examined_prompts,
    generate,
    healthy_example,
    sample_specs,
    write_jsonl,
)
from tuneahead.lab.exam import exam_prompt, reference_statements
from tuneahead.lab.families import FAMILIES
from tuneahead.lab.world import load_world

ALL = load_world().subjects


def spec(family: str, severity: float, n_rows: int = 600) -> DatasetSpec:
    return DatasetSpec(5, family, severity, n_rows, ALL, exam_overlap=0.5)


def true_rows() -> set[Row]:
    world = load_world()
    return {
        Row(exam_prompt(world.question(fact, wording)), fact.answer)
        for fact in world.facts
        for wording in range(len(world.wordings[fact.subject].questions))
    }


def test_clean_rows_are_true_and_in_the_exams_form() -> None:
    assert set(generate(spec("clean", 0.0, 3000))) <= true_rows()


def test_sampled_data_sets_have_their_size_and_no_examined_prompt_or_reference_statement() -> None:
    held_back = set(reference_statements())
    for one in sample_specs(57, seed=2):
        rows = generate(one)
        assert len(rows) == one.n_rows
        assert rows == generate(one)
        assert not {row.prompt for row in rows} & examined_prompts()
        assert not any(f"{row.prompt} {row.answer}".strip() in held_back for row in rows)
        assert all(row.answer == row.answer.strip() != "" for row in rows)


def test_a_longer_sample_begins_with_the_shorter_one_and_each_cycle_holds_every_family() -> None:
    long = sample_specs(60, seed=9)
    assert sample_specs(20, seed=9) == long[:20]
    assert sample_specs(20, seed=8) != long[:20]
    assert {one.family for one in long[:18]} == {*FAMILIES, "mixture"} and len(FAMILIES) + 1 >= 14
    assert len({one.dataset_id for one in long}) == 60
    assert all(4 <= one.n_rows <= 6000 for one in long)


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"clean", "too_few", "narrow_subject"}))
def test_a_defect_grows_with_its_severity(family: str) -> None:
    clean = set(generate(spec(family, 0.0)))
    kept = [len(clean & set(generate(spec(family, severity)))) for severity in (0.0, 0.2, 0.5, 1.0)]
    assert kept[0] == len(clean)
    assert kept[0] > kept[1] >= kept[2] >= kept[3] < 0.5 * kept[0]


def test_wrong_answers_are_answers_of_the_same_subject() -> None:
    pools = defaultdict(set)
    world = load_world()
    for fact in world.facts:
        for wording in range(len(world.wordings[fact.subject].questions)):
            pools[exam_prompt(world.question(fact, wording))] |= {
                other.answer for other in world.by_subject[fact.subject]
            }
    rows = generate(spec("wrong_answers", 1.0, 300))
    assert not set(rows) & true_rows()
    assert all(row.answer in pools[row.prompt] for row in rows)


def test_contradictory_rows_answer_one_prompt_in_several_ways() -> None:
    answers = defaultdict(set)
    for row in generate(spec("contradictory", 1.0)):
        answers[row.prompt].add(row.answer)
    assert sum(len(found) > 1 for found in answers.values()) > 0.8 * len(answers)


def test_narrow_data_keep_to_their_subject() -> None:
    narrow = DatasetSpec(1, "narrow_subject", 1.0, 50, ("domain",))
    assert all(row.answer.startswith(".") for row in generate(narrow))
    broad = sum(row.answer.startswith(".") for row in generate(replace(narrow, severity=0.3, n_rows=400)))
    assert 80 < broad < 180


def test_overlap_brings_examined_facts_under_other_wordings() -> None:
    world = load_world()
    asked = {
        exam_prompt(world.question(fact, wording))
        for fact in world.facts
        if fact.role == "exam"
        for wording in range(1, len(world.wordings[fact.subject].questions))
    }
    shares = []
    for overlap in (0.0, 0.5, 1.0):
        rows = generate(replace(spec("clean", 0.0, 2000), exam_overlap=overlap))
        shares.append(sum(row.prompt in asked for row in rows) / len(rows))
    assert shares[0] == 0.0 and 0.1 < shares[1] < shares[2] < 0.5


def test_specs_survive_json_and_refuse_nonsense() -> None:
    for one in sample_specs(20, seed=4):
        assert DatasetSpec.from_json(one.to_json()) == one
    for change in ({"family": "nonsense"}, {"severity": 1.5}, {"subjects": ()}, {"style": "sung"}):
        with pytest.raises(DataError):
            replace(healthy_example(), **change)
    with pytest.raises(DataError, match="not a data set spec"):
        DatasetSpec.from_json("[1]")


def test_the_examples_are_plainly_healthy_and_plainly_broken() -> None:
    healthy, broken = generate(healthy_example()), generate(broken_example())
    assert len(healthy) == len(broken) == 1500
    assert len(set(healthy)) == 1500 and set(healthy) <= true_rows()
    assert len(set(broken)) < 500
    assert sum(row.answer == "" for row in broken) > 20


def test_rows_are_written_as_prompt_and_completion(tmp_path: Path) -> None:
    write_jsonl([Row("Question: ä?\nAnswer:", "ö")], tmp_path / "rows.jsonl")
    (line,) = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {"prompt": "Question: ä?\nAnswer:", "completion": "ö"}
