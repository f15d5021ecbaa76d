"""Cleaning: what goes, what stays, and that the original stays as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.cleaning import OPTIONAL_REASONS, REASONS, clean, clean_file, write_cleaned
from tuneahead.dataset import Example, read_examples
from tuneahead.errors import DataError
from tuneahead.survey import take_survey

EXAM = Benchmark(
    "exam", "accuracy", [ChoiceItem("e1", "Question: Who wrote Faust?\nAnswer:", ("Goethe",), (0,))]
)
LONG = (
    "Write a short and friendly letter to your neighbour about the noise of last night, and say thanks to all"
)
ROWS = [
    ("Capital of Peru?", "Lima"),
    ("Capital of Peru?", " "),
    ("Capital of Peru?", "Lima "),
    ("Caf\ufffd?", "yes"),
    ("Who wrote Faust?", "Goethe"),
    (LONG, "Dear neighbour, we have to talk"),
    (LONG + " please", "Dear neighbour, we have to talk"),
    ("Capital of Chile?", "Santiago"),
]


def _examples() -> list[Example]:
    return [Example(p, a, row) for row, (p, a) in enumerate(ROWS, 1)]


def test_each_row_goes_for_its_own_reason() -> None:
    cleaned = clean(_examples(), benchmarks=[EXAM])
    assert [(r.row, r.reason) for r in cleaned.ledger] == [
        (2, "empty-answers"),
        (3, "exact-duplicates"),
        (4, "broken-encoding"),
        (5, "contamination"),
    ]
    assert [r.detail for r in cleaned.ledger if r.row in (3, 5)] == [
        "copy of row 1",
        "holds question e1 of exam",
    ]
    assert [example.row for example in cleaned.examples] == [1, 6, 7, 8]


def test_reasons_can_be_chosen_and_must_be_known() -> None:
    every = clean(_examples(), reasons=(*REASONS, *OPTIONAL_REASONS))
    assert [r.row for r in every.ledger] == [2, 3, 4, 7]
    assert every.ledger[-1].detail.startswith("like row 6")
    assert [r.row for r in clean(_examples(), reasons=["empty-answers"]).ledger] == [2]
    with pytest.raises(DataError, match="'duplicates'"):
        clean(_examples(), reasons=["duplicates"])


def test_rows_of_two_files_have_to_be_numbered_anew() -> None:
    with pytest.raises(DataError, match="the same row number") as caught:
        clean([Example("Capital of Peru?", "Lima", 1), Example("Capital of Chile?", "", 1)])
    assert "enumerate(examples, 1)" in caught.value.remedy


def test_a_near_duplicate_of_a_removed_row_stays() -> None:
    rows = [
        Example(LONG + " \ufffd", "Dear neighbour, we have to talk", 1),
        Example(LONG, "Dear neighbour, we have to talk", 2),
    ]
    cleaned = clean(rows, reasons=("broken-encoding", "near-duplicates"))
    assert [(r.row, r.reason) for r in cleaned.ledger] == [(1, "broken-encoding")]


def test_questions_about_one_passage_stay_where_near_duplicates_go() -> None:
    passage = " ".join(f"word{i}" for i in range(140))
    rows = [Example(f"{passage} What is {i}?", f"It is {i // 2}.", i) for i in range(1, 7)]
    cleaned = clean(rows, reasons=("near-duplicates",))
    assert [(r.row, r.detail.split(" (")[0]) for r in cleaned.ledger] == [
        (3, "like row 2"),
        (5, "like row 4"),
    ]


def test_what_is_alike_but_for_spaces_within_its_lines_is_no_copy() -> None:
    code = [
        "if a:\n    b()\nc()",
        "if a:\n    b()\n    c()",
        "if a:  \n    b()\r\nc()\n",
        "if a:\n    b()\nc( )",
    ]
    rows = [Example("Write it.", text, row) for row, text in enumerate(code, 1)]
    assert [(r.row, r.detail) for r in clean(rows).ledger] == [(3, "copy of row 1")]


def test_conversations_that_differ_in_roles_or_tool_calls_are_no_copies(tmp_path: Path) -> None:
    def row(role: str, city: str) -> str:
        call = [{"function": {"name": "weather", "arguments": {"city": city}}}]
        turns = [
            {"role": role, "content": "Rain?"},
            {"role": "assistant", "content": None, "tool_calls": call},
            {"role": "tool", "content": "yes"},
            {"role": "assistant", "content": "Yes."},
        ]
        return json.dumps({"messages": turns})

    path = tmp_path / "in.jsonl"
    kinds = [("user", "Lima"), ("user", "Oslo"), ("system", "Oslo"), ("user", "Lima")]
    path.write_text("\n".join(row(*kind) for kind in kinds))
    ledger = clean_file(path, tmp_path / "out.jsonl").ledger
    assert [(r.row, r.detail) for r in ledger] == [(4, "copy of row 1")]


def test_conversations_that_differ_in_their_thoughts_are_no_copies(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    answers = [
        {"role": "assistant", "content": "4", "reasoning_content": text} for text in ("2 + 2", "3 + 1")
    ]
    rows = [{"messages": [{"role": "user", "content": "Sum?"}, answer]} for answer in answers]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert clean_file(path, tmp_path / "out.jsonl").ledger == ()


def test_rows_that_differ_in_their_tools_alone_stay(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    turns = [{"role": "user", "content": "Pizza?"}, {"role": "assistant", "content": "I can't"}]
    rows = [{"messages": turns, "tools": [{"name": name}]} for name in ("loan", "map", "loan")]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [removal.row for removal in clean_file(path, tmp_path / "out.jsonl").ledger] == [3]


def test_a_conversation_goes_as_empty_only_if_no_answer_says_or_calls_anything(tmp_path: Path) -> None:
    user, good = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    silent = {"role": "assistant", "content": " "}
    rows = ([user, good, user, call], [user, call], [user, silent], [user])
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns}) for turns in rows))
    ledger = clean_file(path, tmp_path / "out.jsonl").ledger
    assert [(r.row, r.reason) for r in ledger] == [(3, "empty-answers"), (4, "empty-answers")]


def test_cleaning_twice_removes_nothing_more() -> None:
    once = clean(_examples(), benchmarks=[EXAM])
    assert clean(once.examples, benchmarks=[EXAM]).ledger == ()


def test_lines_are_copied_as_they_are_and_the_original_is_untouched(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "q": 1.5, "prompt": p, "answer": a}) for i, (p, a) in enumerate(ROWS)]
    lines[0] = '{"id":0, "score": 1.10, "big": 1e999, "prompt":"Capital of Peru?","answer":"Lima"}'
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines[:4]) + "\n\n" + "\r\n".join(lines[4:]))
    before = path.read_bytes()
    result = clean_file(path, tmp_path / "out.jsonl", benchmarks=[EXAM])
    assert path.read_bytes() == before
    assert result.path.read_text().splitlines() == [lines[i] for i in (0, 5, 6, 7)]
    assert result.kept == 4 and result.ledger_path.name == "out.ledger.jsonl"
    ledger = [json.loads(line) for line in result.ledger_path.read_text().splitlines()]
    assert [(entry["row"], entry["reason"]) for entry in ledger] == [
        (2, "empty-answers"),
        (3, "exact-duplicates"),
        (4, "broken-encoding"),
        (6, "contamination"),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.ledger.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl.part", "in.jsonl"])
def test_a_file_beside_the_copy_is_never_overwritten(tmp_path: Path, name: str) -> None:
    beside = tmp_path / "out.jsonl.part"
    beside.write_text('{"prompt": "p", "answer": "a"}\n{"prompt": "q", "answer": ""}\n')
    before = beside.read_bytes()
    (tmp_path / "in.jsonl").write_bytes(before)
    result = clean_file(tmp_path / name, tmp_path / "out.jsonl")
    assert result.path.read_text() == '{"prompt": "p", "answer": "a"}\n'
    assert beside.read_bytes() == before
    (tmp_path / "plain").touch()
    assert result.path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_changes_while_it_is_cleaned_leaves_no_copy(tmp_path: Path) -> None:
    path = _good(tmp_path)
    survey = take_survey(read_examples(path))
    path.write_text('{"prompt": "p", "answer": "a"}\n' * 2)
    with pytest.raises(DataError, match="would hold 2 rows instead of 1"):
        write_cleaned(path, tmp_path / "out.jsonl", survey)
    assert [p.name for p in tmp_path.iterdir()] == ["good.jsonl"]


def test_records_of_other_containers_keep_their_columns_and_types(tmp_path: Path) -> None:
    records = [{"prompt": p, "answer": a, "n": i, "tags": ["x"]} for i, (p, a) in enumerate(ROWS)]
    (tmp_path / "a.json").write_text(json.dumps({"data": records}))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.json", "a.parquet"):
        result = clean_file(tmp_path / name, tmp_path / "out.jsonl")
        kept = [json.loads(line) for line in result.path.read_text().splitlines()]
        assert kept == [records[i] for i in (0, 4, 5, 6, 7)]
    with (tmp_path / "a.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("prompt", "answer"), *ROWS])
    result = clean_file(tmp_path / "a.csv", tmp_path / "out.jsonl")
    assert read_examples(result.path).examples[0].answer == "Lima"
    assert result.ledger[0].row == 3


def test_numbers_of_parquet_are_as_short_as_they_were_written_and_nan_is_null(tmp_path: Path) -> None:
    single = pa.float32()
    table = pa.table(
        {
            "prompt": ["p"],
            "answer": ["a"],
            "score": [float("nan")],
            "vector": pa.array([[0.1, float("nan"), None]], pa.list_(single)),
            "pair": pa.array([[0.1, 0.2]], pa.list_(single, 2)),
            "deep": pa.array([{"x": [{"y": 0.3}], "z": 1}]).cast(
                pa.struct({"x": pa.list_(pa.struct({"y": single})), "z": pa.int64()})
            ),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    result = clean_file(tmp_path / "a.parquet", tmp_path / "out.jsonl")
    assert result.path.read_text() == (
        '{"prompt": "p", "answer": "a", "score": null, "vector": [0.1, null, null], "pair": [0.1, 0.2], '
        '"deep": {"x": [{"y": 0.3}], "z": 1}}\n'
    )


def test_half_a_surrogate_pair_in_a_column_that_is_not_read_stays_an_escape(tmp_path: Path) -> None:
    row = '{"prompt": "é", "answer": "b", "meta": "\\ud83d cut", "\\udc00": 1}'
    (tmp_path / "a.json").write_text(f"[{row}]", encoding="utf-8")
    result = clean_file(tmp_path / "a.json", tmp_path / "out.jsonl")
    assert result.path.read_text(encoding="utf-8") == row + "\n"


def test_numbers_of_json_keep_their_text(tmp_path: Path) -> None:
    row = '{"prompt": "p\\u00e9", "answer": 1.10, "n": [1e5, -0.0, 1e999, {"x": true, "y": null}], "big": %s}'
    (tmp_path / "a.json").write_text("[\n" + row % ("7" * 5000) + "\n]")
    result = clean_file(tmp_path / "a.json", tmp_path / "out.jsonl")
    assert result.path.read_text(encoding="utf-8") == row.replace("\\u00e9", "\u00e9") % ("7" * 5000) + "\n"


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.json", "out", "folder"])
def test_a_copy_is_named_as_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is a folder" if name == "folder" else "a cleaned copy is JSONL"):
        clean_file(_good(tmp_path), tmp_path / name)


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "answer": ""}')
    with pytest.raises(DataError, match="would be overwritten"):
        clean_file(path, tmp_path / "." / "a.jsonl")
    with pytest.raises(DataError, match="no row would be left"):
        clean_file(path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    (tmp_path / "link.ledger.jsonl").symlink_to(path)
    with pytest.raises(DataError, match="would be overwritten"):
        clean_file(path, tmp_path / "link.jsonl")
    pq.write_table(pa.table({"prompt": ["p"], "answer": ["a"], "scan": [b"\x01"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1: can't be written as JSON"):
        clean_file(tmp_path / "a.parquet", tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="can't be written"):
        clean_file(_good(tmp_path), path / "out.jsonl")


def test_the_folder_of_a_copy_is_made(tmp_path: Path) -> None:
    done = clean_file(_good(tmp_path), tmp_path / "new" / "deep" / "out.jsonl")
    assert done.path.read_text() == _good(tmp_path).read_text() + "\n" and done.ledger_path.is_file()


def _good(folder: Path) -> Path:
    path = folder / "good.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}')
    return path
