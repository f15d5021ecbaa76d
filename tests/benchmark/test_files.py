"""Reading a user's own benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuneahead.benchmark.files import read_benchmark
from tuneahead.benchmark.items import ChoiceItem, GenerationItem
from tuneahead.errors import BenchmarkError


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_choices_are_read_with_gold_by_place_or_by_text(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.jsonl",
        {"prompt": "2 + 2 =", "options": ["3", "4"], "gold": 1, "subject": "sums"},
        "",
        {"question": "Sky?", "choices": ["blue", "red", "green"], "answer": "blue"},
    )
    benchmark = read_benchmark(file)
    assert (benchmark.name, benchmark.metric) == ("mine", "accuracy")
    assert benchmark.items == [
        ChoiceItem("1", "2 + 2 =", ("3", "4"), (1,), "sums"),
        ChoiceItem("3", "Sky?", ("blue", "red", "green"), (0,)),
    ]
    assert benchmark.chance_pp == pytest.approx((50 + 100 / 3) / 2)


def test_several_right_options_make_it_mc2_and_answers_exact_match(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.jsonl", {"prompt": "?", "options": ["a", "b", "c"], "gold": [0, 2]})
    assert read_benchmark(truth).metric == "mc2"
    free = write(tmp_path / "f.jsonl", {"prompt": "?", "answers": ["a", "b"]}, {"prompt": "!", "answer": "c"})
    assert read_benchmark(free).metric == "exact_match"
    assert read_benchmark(free).items[1] == GenerationItem("2", "!", ("c",))


def test_only_line_feeds_end_a_row(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0cfour"
    row = json.dumps({"prompt": text, "answer": "a"}, ensure_ascii=False).replace("\\f", "\\u000c")
    (tmp_path / "w.jsonl").write_bytes(f"{row}\r\n{row}\n".encode())
    assert [item.prompt for item in read_benchmark(tmp_path / "w.jsonl").items] == [text, text]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "options": ["only"], "gold": 0}, "row 2: 1 option, at least two"),
        ({"prompt": "?", "options": ["a", "b"]}, "row 2: gold is None, not one of the 2 options"),
        ({"prompt": "?", "options": ["a", "b"], "gold": 2}, "row 2: gold is 2"),
        ({"prompt": "?", "options": ["a", "b"], "gold": True}, "row 2: gold is True"),
        ({"prompt": "?", "options": ["a", "b"], "gold": [0, 1]}, "row 2: gold must leave at least one wrong"),
        ({"prompt": " ", "options": ["a", "b"], "gold": 0}, "row 2: no prompt"),
        ({"prompt": "?", "options": ["a", " "], "gold": 0}, "row 2: options must be a list of non-empty"),
        ({"prompt": "?", "options": ["a", "b", "a"], "gold": 1}, "row 2: option 'a' is there twice"),
        ({"prompt": "?"}, "row 2: answers must be a list"),
        ({"prompt": "?", "answer": "a"}, "row 2: choices and free answers are mixed"),
        ("{broken", "row 2: not valid JSON"),
        ([1], "row 2: a list, not an object"),
    ],
)
def test_items_that_cannot_be_asked_are_named(tmp_path: Path, row: object, message: str) -> None:
    file = write(tmp_path / "bad.jsonl", {"prompt": "?", "options": ["a", "b"], "gold": 0}, row)
    with pytest.raises(BenchmarkError, match=message):
        read_benchmark(file)


def test_empty_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no item"):
        read_benchmark(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(BenchmarkError, match="can't read benchmark"):
        read_benchmark(tmp_path / "nowhere.jsonl")
