"""Reading examples: formats, detection, errors that say where."""

from __future__ import annotations

import csv
import io
import json
import os
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneahead.cleaning import clean_file
from tuneahead.cli.options import read_mapping
from tuneahead.columnuse import ColumnUse
from tuneahead.dataset import (
    ColumnMapping,
    Dataset,
    Example,
    ExampleFile,
    Message,
    fingerprint,
    iter_examples,
    read_examples,
)
from tuneahead.errors import DataError
from tuneahead.preflight import preflight
from tuneahead.recipe import Recipe

PAIRS = [("Capital of Peru?", "Lima"), ("2 + 2 =", "4"), ("Größe?", "naïve 東京 🙂"), ('a,"b"\nc', "x;y")]


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _jsonl(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _csv(rows: list[list[str]], **options: str) -> str:
    out = io.StringIO()
    csv.writer(out, **options).writerows(rows)  # type: ignore[arg-type]
    return out.getvalue()


def _error(path: Path, mapping: ColumnMapping | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        read_examples(path, mapping=mapping)
    assert caught.value.remedy
    return caught.value


def _pairs(data: Dataset) -> list[tuple[str, str]]:
    return [(example.prompt, example.answer) for example in data]


def test_the_same_rows_in_every_container_share_the_fingerprint(tmp_path: Path) -> None:
    rows = [{"prompt": p, "answer": a} for p, a in PAIRS]
    table = [["prompt", "answer"], *map(list, PAIRS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    paths = [
        tmp_path / "d.parquet",
        _write(tmp_path, "a.jsonl", _jsonl(rows)),
        _write(tmp_path, "b.json", json.dumps(rows)),
        _write(
            tmp_path,
            "c.json",
            json.dumps({"version": 12, "note": {"a": [1]}, "data": rows, "end": 1}, indent=2),
        ),
        _write(tmp_path, "e.json", _jsonl(rows)),
        _write(tmp_path, "f.csv", _csv(table)),
        _write(tmp_path, "g.csv", _csv(table, delimiter=";")),
        _write(tmp_path, "h.tsv", _csv(table, delimiter="\t")),
        _write(tmp_path, "i.csv", b"\xef\xbb\xbf" + _csv(table).encode()),
        _write(tmp_path, "j.jsonl", _jsonl(rows).encode("utf-16")),
        _write(tmp_path, "k.json", json.dumps(rows, ensure_ascii=False).encode("utf-16")),
        _write(tmp_path, "l.jsonl", json.dumps(rows)),
        _write(tmp_path, "m.data", _jsonl(rows).replace("\n", "\r\n")),
    ]
    read = [read_examples(path) for path in paths]
    for data in read:
        assert _pairs(data) == PAIRS, data.path
        assert data.format == "prompt-answer" and data.rows == len(data) == 4
    assert len({data.fingerprint for data in read}) == 1


def test_row_is_the_line_for_text_tables_and_the_record_otherwise(tmp_path: Path) -> None:
    lines = _write(tmp_path, "a.jsonl", '\n{"prompt":"p","answer":"1"}\n\n{"prompt":"q","answer":"2"}')
    assert [e.row for e in read_examples(lines)] == [2, 4]
    table = _write(tmp_path, "a.csv", 'prompt,answer\n"two\nlines",1\n\nq,2\n')
    assert [e.row for e in read_examples(table)] == [2, 5]
    array = _write(tmp_path, "a.json", '[\n\n{"prompt":"p","answer":"1"},\n{"prompt":"q","answer":"2"}]')
    assert [e.row for e in read_examples(array)] == [1, 2]


@pytest.mark.parametrize(
    ("row", "format_name", "prompt", "answer"),
    [
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "alpaca", "Add.\n1, 2", "3"),
        ({"instruction": "Say hi.", "input": "", "output": "hi"}, "alpaca", "Say hi.", "hi"),
        ({"instruction": "Say hi.", "output": None}, "alpaca", "Say hi.", ""),
        ({"prompt": "p", "completion": "c"}, "prompt-answer", "p", "c"),
        ({"Question ": "q", "Answer": "a", "id": 7}, "prompt-answer", "q", "a"),
        ({"query": "q", "response": "r"}, "prompt-answer", "q", "r"),
        ({"input": "i", "output": "o"}, "prompt-answer", "i", "o"),
        (
            {"instruction": "Who?", "context": "Bo came.", "response": "Bo"},
            "prompt-answer",
            "Who?\nBo came.",
            "Bo",
        ),
        ({"text": "whole"}, "text", "", "whole"),
        ({"id": 1, "document": "long", "summary": "short"}, "prompt-answer", "long", "short"),
        ({"article": "long", "highlights": "short"}, "prompt-answer", "long", "short"),
        ({"dialogue": "A: Hi", "summary": "short"}, "prompt-answer", "A: Hi", "short"),
        ({"text": "Great!", "output": "positive"}, "prompt-answer", "Great!", "positive"),
        ({"source": "Hello", "target": "Hallo"}, "prompt-answer", "Hello", "Hallo"),
        ({"prompt": "n", "answer": 1.10}, "prompt-answer", "n", "1.1"),
        ({"prompt": "n", "answer": True}, "prompt-answer", "n", "true"),
    ],
)
def test_common_column_names_are_recognised(
    tmp_path: Path, row: dict[str, object], format_name: str, prompt: str, answer: str
) -> None:
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl([row])))
    assert (data.format, _pairs(data)) == (format_name, [(prompt, answer)])
    assert data.examples[0].messages is None


@pytest.mark.parametrize(
    "row",
    [
        {"input": "p", "output": "a", "source": "wiki"},
        {"user": "p", "assistant": "a", "source": "wiki"},
        {"text": "p", "answer": "a", "source": "wiki"},
        {"article": "p", "summary": "a", "source": "wiki"},
    ],
)
def test_a_source_beside_a_prompt_is_not_read(tmp_path: Path, row: dict[str, object]) -> None:
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl([row])))
    assert _pairs(data) == [("p", "a")] and data.use.unused == ("source",) and not data.use.rivals


def test_documents_compete_for_the_prompt(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.jsonl", _jsonl([{"text": "p", "content": "q", "output": "a"}]))
    assert read_examples(path).use.rivals == (("prompt", "content"),)


def test_a_column_without_a_name_is_read_for_no_part(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.csv", ",prompt,completion\n0,p,a\n1,q,b\n")
    named = read_examples(path, mapping=ColumnMapping(prompt="prompt", answer="completion"))
    assert _pairs(named) == [("p", "a"), ("q", "b")]
    use = read_examples(path).use
    assert use.parts == (("prompt", "prompt"), ("answer", "completion")) and use.unused == ("",)


def test_what_is_read_and_what_is_not_is_known(tmp_path: Path) -> None:
    row = {"id": 7, "problem": "p", "solution": "s", "answer": "a", "source": "web"}
    path = _write(tmp_path, "a.jsonl", _jsonl([row, {**row, "hint": "h"}]))
    use = read_examples(path).use
    assert use.parts == (("prompt", "problem"), ("answer", "answer"))
    assert use.unused == ("id", "solution", "source", "hint") and use.rivals == (("answer", "solution"),)
    assert ExampleFile(path).use == use
    named = read_examples(path, mapping=ColumnMapping(prompt="problem", answer="solution")).use
    assert dict(named.parts)["answer"] == "solution" and not named.rivals
    alpaca = {"instruction": "i", "input": "n", "output": "o"}
    assert read_examples(_write(tmp_path, "b.jsonl", _jsonl([alpaca]))).use == ColumnUse(
        (("prompt", "instruction"), ("answer", "output"), ("input", "input"))
    )


def test_numbers_stay_as_they_were_written(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.jsonl", '{"prompt": 1.10, "answer": %s}' % ("9" * 5000))
    assert _pairs(read_examples(path)) == [("1.10", "9" * 5000)]


def test_conversations_keep_their_turns(tmp_path: Path) -> None:
    turns = [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
        ("assistant", "Ciao"),
    ]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = {"conversations": [{"from": names[role], "value": text} for role, text in turns]}
    split = {"system": "Be brief.", "conversations": shared["conversations"][1:]}
    expected = Example(
        "Be brief.\n\nHi\n\nHello\n\nBye", "Ciao", 1, tuple(Message(role, text) for role, text in turns)
    )
    for row, name in ((chat, "messages"), (shared, "sharegpt"), (split, "sharegpt")):
        data = read_examples(_write(tmp_path, "a.jsonl", _jsonl([row])))
        assert data.examples == (expected,)
        assert data.format == name


def test_of_a_prompt_and_its_completion_the_prompts_answers_are_asked(tmp_path: Path) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Ciao")]
    chat = [{"role": role, "content": text} for role, text in turns]
    rows = [{"prompt": chat[:3], "completion": chat[3:]}, {"prompt": chat[:3], "completion": []}]
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))
    asked = [Message(role, text, asked=text == "Hello") for role, text in turns]
    assert data.format == "prompt-answer" and data.examples == (
        Example("Hi\n\nHello\n\nBye", "Ciao", 1, tuple(asked)),
        Example("Hi\n\nHello\n\nBye", "", 2, tuple(asked[:3])),
    )
    whole = read_examples(_write(tmp_path, "b.jsonl", _jsonl([{"messages": chat}])))
    assert whole.fingerprint != read_examples(_write(tmp_path, "c.jsonl", _jsonl(rows[:1]))).fingerprint
    # An answer before the last one is trained in the one form, and not in the other.
    found = [preflight(one, Recipe(template="raw")) for one in (whole, data)]
    assert [any(f.check == "earlier-turns" for f in own) for own in found] == [True, False]
    assert [f.rows for f in found[1] if f.check == "empty-answers"] == [(2,)]


def test_turns_that_are_kept_part_by_part_are_read(tmp_path: Path) -> None:
    turns = {"from": ["human", "gpt"], "value": ["Capital of Peru?", "Lima"]}
    pq.write_table(pa.table({"conversations": [turns]}), tmp_path / "parts.parquet")
    data = read_examples(tmp_path / "parts.parquet")
    assert data.format == "sharegpt" and _pairs(data) == [("Capital of Peru?", "Lima")]
    uneven = {"messages": {"role": ["user", "assistant"], "content": ["Capital of Peru?"]}}
    path = _write(tmp_path, "uneven.jsonl", json.dumps(uneven))
    assert "no known columns" in str(_error(path))
    assert "not a list of turns" in str(_error(path, ColumnMapping(messages="messages")))


def test_turns_kept_as_json_text_are_read(tmp_path: Path) -> None:
    """Tables without lists, CSV among them, keep a conversation as text."""
    turns = [{"role": "user", "content": 'Say "hi"'}, {"role": "assistant", "content": "hi"}]
    for rows in ([{"messages": json.dumps(turns)}], [{"chat": " " + json.dumps(turns)}]):
        data = read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))
        assert _pairs(data) == [('Say "hi"', "hi")] and data.format == "messages"
    quoted = json.dumps(turns).replace('"', '""')
    assert _pairs(read_examples(_write(tmp_path, "a.csv", f'messages\n"{quoted}"\n'))) == [('Say "hi"', "hi")]
    named = _write(tmp_path, "b.jsonl", _jsonl([{"log": json.dumps(turns)}, {"log": "[no json"}]))
    with pytest.raises(DataError, match="'log' holds text, not a list of turns"):
        read_examples(named, mapping=ColumnMapping(messages="log"))


def test_a_prompt_and_its_completion_kept_as_json_text_are_turns(tmp_path: Path) -> None:
    user, bot = {"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}
    path = _write(
        tmp_path, "a.csv", _csv([["prompt", "completion"], [json.dumps([user]), json.dumps([bot])]])
    )
    assert read_examples(path).examples[0].messages == (Message("user", "p"), Message("assistant", "a"))
    lists = _write(tmp_path, "b.csv", _csv([["prompt", "completion"], ["[1, 2]", "[3]"], ["[]", "[]"]]))
    assert _pairs(read_examples(lists)) == [("[1, 2]", "[3]"), ("[]", "[]")]


def test_turns_in_the_notation_of_python_are_refused(tmp_path: Path) -> None:
    user, bot = [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "ho"}]
    pair = [["prompt", "completion"], [str(user), str(bot)]]
    for table in (pair, [["messages"], [str(user + bot)]], [["text"], [str(user + bot)]]):
        error = _error(_write(tmp_path, "a.csv", _csv(table)))
        assert "a list of turns as Python writes it" in str(error) and error.row == 2
        assert "json.dumps" in error.remedy
    numpy = str(user + bot).replace("}, {", "}\n {")
    assert _error(_write(tmp_path, "n.csv", _csv([["messages"], [numpy]]))).row == 2
    asked = "[{'value': 3}, {'value': 5}] What is the sum?"
    assert _pairs(read_examples(_write(tmp_path, "q.csv", _csv([["prompt", "answer"], [asked, "8"]]))))
    code = _write(tmp_path, "b.csv", _csv([["prompt", "answer"], ["How are turns written?", str(user)]]))
    assert _pairs(read_examples(code)) == [("How are turns written?", str(user))]


@pytest.mark.parametrize(
    ("key", "no"),
    [("weight", 0), ("weight", 0.0), ("train", False), ("loss", False), ("loss_weight", 0.0)],
)
def test_an_answer_that_is_not_to_be_learnt_is_refused(tmp_path: Path, key: str, no: float) -> None:
    turns = [
        {"role": "user", "content": "p", key: no},
        {"role": "assistant", "content": "a", key: type(no)(1)},
    ]
    path = _write(tmp_path, "a.jsonl", _jsonl([{"messages": turns}]))
    assert _pairs(read_examples(path)) == [("p", "a")]
    unwanted = [*turns, {"role": "assistant", "content": "b", key: no}]
    error = _error(_write(tmp_path, "b.jsonl", _jsonl([{"messages": turns}, {"messages": unwanted}])))
    assert f"turn 3 of 'messages' has {key} {no}".lower() in str(error).lower() and error.row == 2


def test_rows_that_are_single_turns_are_refused(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    table = [["conversation_id", "Role", "content"], ["1", "user", "p"], ["1", "assistant", "a"]]
    shared = [{"from": "human", "value": "p"}, {"from": "gpt", "value": "a"}]
    for name, text in (("a.json", json.dumps(turns)), ("a.csv", _csv(table)), ("a.jsonl", _jsonl(shared))):
        error = _error(_write(tmp_path, name, text))
        assert "each row is one turn" in str(error) and '{"messages": [' in error.remedy
    named = read_examples(tmp_path / "a.csv", mapping=ColumnMapping(text="content"))
    assert _pairs(named) == [("", "p"), ("", "a")]
    staff = _write(tmp_path, "b.jsonl", _jsonl([{"role": "nurse", "text": "whole"}]))
    assert _pairs(read_examples(staff)) == [("", "whole")]


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"chosen_messages": [{"role": "user", "content": "q"}]}, "-m messages=chosen_messages"),
        ({"prompt": "q", "response_chosen": "good"}, "-m prompt=prompt -m answer=response_chosen"),
        ({"Chosen": "q good"}, "-m text=Chosen"),
    ],
)
def test_preference_data_is_known_by_a_pair_of_columns(
    tmp_path: Path, row: dict[str, object], options: str
) -> None:
    name = next(name for name in row if "chosen" in name.lower())
    twin = name.replace("chosen", "rejected").replace("Chosen", "Rejected")
    path = _write(tmp_path, "a.jsonl", _jsonl([{**row, twin: row[name], "chosen_score": 0.7}]))
    error = _error(path)
    assert "preference data" in str(error) and error.remedy.endswith(f": {options}")


def test_one_conversation_over_several_lines_is_a_row_not_a_table(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    error = _error(_write(tmp_path, "a.json", json.dumps({"messages": turns}, indent=1)))
    assert "one conversation (under messages)" in str(error) and "jq -c ." in error.remedy
    named = _write(tmp_path, "b.jsonl", _jsonl([{"talk": turns}]))
    assert "no known columns (seen: talk)" in str(_error(named))
    assert _pairs(read_examples(named, mapping=ColumnMapping(messages="talk"))) == [("q", "a")]


def test_preference_data_needs_a_mapping(tmp_path: Path) -> None:
    turn = {"from": "gpt", "value": "good"}
    row = {"conversations": [{"from": "human", "value": "q"}], "chosen": turn, "rejected": turn}
    path = _write(tmp_path, "a.jsonl", _jsonl([row]))
    assert "preference data" in str(_error(path)) and "chosen" in _error(path).remedy
    data = read_examples(path, mapping=ColumnMapping(prompt="conversations", answer="chosen"))
    assert _pairs(data) == [("q", "good")]


def test_unpaired_preferences_are_refused_where_an_answer_is_unwanted(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": word, "label": word == "good"} for word in ("good", "bad")]
    path = _write(tmp_path, "a.jsonl", _jsonl(rows))
    error = _error(path)
    assert "preference data: label is false" in str(error) and error.row == 2
    taken = read_examples(path, mapping=ColumnMapping(prompt="prompt", answer="completion"))
    assert _pairs(taken) == [("p", "good"), ("p", "bad")]
    wanted = _write(tmp_path, "b.jsonl", _jsonl(rows[:1]))
    assert _pairs(read_examples(wanted)) == [("p", "good")]
    late = _error(_write(tmp_path, "c.jsonl", _jsonl(rows[:1] * 300 + rows)))
    assert "preference data: label is false" in str(late) and late.row == 302


_SEEN = {"messages": [{"role": "user", "content": "<image>A dog?"}, {"role": "assistant", "content": "Yes"}]}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({**_SEEN, "images": ["1.jpg"]}, "images"),
        ({**_SEEN, "image": "1.jpg"}, "image"),
        ({"question": "A dog?", "answer": "Yes", "image": {"bytes": "ab", "path": None}}, "image"),
    ],
)
def test_rows_with_pictures_are_refused_where_their_texts_alone_are_not_asked_for(
    tmp_path: Path, row: dict[str, object], column: str
) -> None:
    path = _write(tmp_path, "a.jsonl", _jsonl([{**row, column: None}, row]))
    error = _error(path)
    assert f"column {column!r}" in str(error) and error.row == 2
    options = error.remedy.rpartition(": ")[2]
    mapping = read_mapping([option.strip() for option in options.split("-m ") if option])
    assert [answer for _, answer in _pairs(read_examples(path, mapping=mapping))] == ["Yes", "Yes"]


def test_where_a_text_has_its_picture_is_no_picture(tmp_path: Path) -> None:
    row = {"text": "On the harbour", "images": ["http://example.com/1.jpg"], "image": "2.jpg"}
    assert _pairs(read_examples(_write(tmp_path, "a.jsonl", _jsonl([row])))) == [("", "On the harbour")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_tools_tell_rows_of_equal_text_apart_and_are_no_tools_where_they_are_names(
    tmp_path: Path, name: str
) -> None:
    turns = [{"role": "user", "content": "Pizza?"}, {"role": "assistant", "content": "Sorry"}]
    tools = ('[{"name": "loan"}]', '[{"name": "map"}]', "[]")
    path = tmp_path / name
    rows = [{"messages": turns, "tools": text} for text in tools]
    path.write_text(_jsonl(rows))
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    data = read_examples(path)
    assert [example.tools for example in data] == [*tools[:2], ""]
    other = read_examples(_write(tmp_path, "b.jsonl", _jsonl([{**row, "tools": tools[0]} for row in rows])))
    assert data.fingerprint != other.fingerprint
    named = _write(tmp_path, "c.jsonl", _jsonl([{"messages": turns, "tools": ["saw", "axe"]}]))
    assert read_examples(named).examples[0].tools == ""


@pytest.mark.parametrize(
    ("row", "options", "label"),
    [
        ({"messages": [{"role": "assistant", "content": "a"}]}, "-m messages=messages", "label"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "-m messages=conversations", "label"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "-m messages=conversations", "kto_tag"),
        (
            {"instruction": "p", "input": "q", "output": "a"},
            "-m prompt=instruction -m answer=output -m input=input",
            "kto_tag",
        ),
        ({"Prompt": "p", "response": "a"}, "-m prompt=Prompt -m answer=response", "kto_tag"),
    ],
)
def test_an_unwanted_answer_is_refused_in_every_format(
    tmp_path: Path, row: dict[str, object], options: str, label: str
) -> None:
    path = _write(tmp_path, "a.jsonl", _jsonl([row, {**row, label: True}, {**row, label: False}]))
    error = _error(path)
    assert f"{label} is false" in str(error) and error.row == 3 and error.remedy.endswith(f": {options}")
    mapping = read_mapping([option.strip() for option in options.split("-m ") if option])
    assert [example.answer for example in read_examples(path, mapping=mapping)] == ["a", "a", "a"]
    class_of = _write(tmp_path, "b.jsonl", _jsonl([{**row, label: "false"}, {**row, label: "mixed"}]))
    assert len(read_examples(class_of)) == 2


def test_a_label_beside_question_and_answer_may_be_the_answer_once_more(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": word, "label": word == "yes"} for word in ("yes", "no")]
    assert _pairs(read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))) == [("q", "yes"), ("q", "no")]


@pytest.mark.parametrize(
    ("prompt", "chosen", "options"),
    [
        ({"prompt": "p"}, "a", "-m prompt=prompt -m answer=chosen"),
        ({"my question": 1, "Question": "p"}, "a", "-m prompt=Question -m answer=chosen"),
        ({}, "Human: p Assistant: a", "-m text=chosen"),
        ({"prompt": "p"}, [("user", "p"), ("assistant", "a")], "-m messages=chosen"),
        ({}, [("user", "p"), ("assistant", "a")], "-m messages=chosen"),
        ({"prompt": [("user", "p")]}, [("assistant", "a")], "-m prompt=prompt -m answer=chosen"),
    ],
)
def test_the_remedy_for_preference_data_works(
    tmp_path: Path, prompt: dict[str, object], chosen: object, options: str
) -> None:
    def turns(value: object) -> object:
        if not isinstance(value, list):
            return value
        return [{"role": role, "content": text} for role, text in value]

    row = {**{name: turns(value) for name, value in prompt.items()}, "chosen": turns(chosen), "rejected": "x"}
    path = _write(tmp_path, "a.jsonl", _jsonl([row, row]))
    assert _error(path).remedy == f"to train on the preferred answers: {options}"
    mapping = read_mapping([option.strip() for option in options.split("-m ") if option])
    assert read_examples(path, mapping=mapping).examples[0].answer


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "what", "remedy"),
    [
        (
            {"prompt": ["p", "q"], "completion": ["a", "b"]},
            "a table by columns (prompt, completion)",
            "orient",
        ),
        (
            {"prompt": {"0": "p"}, "completion": {"0": "a"}},
            "a table by columns (prompt, completion)",
            "orient",
        ),
        (
            {"data": {"train": [{"prompt": "p", "answer": "a"}]}},
            "deeper, under data.train",
            '\'."data"."train"[]\'',
        ),
        ({"samples": [{"prompt": "p", "answer": "a"}], "n": 1}, "deeper, under samples", "'.\"samples\"[]'"),
    ],
)
def test_a_document_whose_rows_lie_otherwise_is_told(
    tmp_path: Path, document: object, what: str, remedy: str, indent: int | None
) -> None:
    error = _error(_write(tmp_path, "a.json", json.dumps(document, indent=indent)))
    assert what in str(error)
    assert remedy in error.remedy and error.row == 1


def test_one_row_is_no_document(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    path = _write(tmp_path, "a.json", json.dumps({"messages": turns, "more": {"deep": [{"a": 1}]}}))
    assert _pairs(read_examples(path)) == [("p", "a")]


def test_an_error_about_columns_says_how_they_were_told_apart(tmp_path: Path) -> None:
    semicolons = _write(tmp_path, "a.csv", "Frage;Antwort\np;a\n")
    assert "(seen: Frage, Antwort; fields were split at semicolons, a guess" in str(_error(semicolons))
    assert "-m prompt=Frage -m answer=Antwort" in _error(semicolons).remedy
    mapping = ColumnMapping(prompt="frage", answer="Antwort")
    assert "no column 'frage' (seen: Frage, Antwort; fields were split" in str(_error(semicolons, mapping))
    short = _write(tmp_path, "b.csv", "prompt,answer\np\n")
    assert "1 field where the header names 2; fields were split at commas" in str(_error(short))
    assert "holds no comma, semicolon" in str(_error(_write(tmp_path, "c.csv", "alpha\np\n")))
    assert "fields were" not in str(_error(_write(tmp_path, "d.tsv", "alpha\tbeta\np\tq\n")))


def test_the_delimiter_is_seen_below_blank_lines(tmp_path: Path) -> None:
    data = read_examples(_write(tmp_path, "a.csv", "\n\r\n\nprompt;answer\np;a, b\n"))
    assert _pairs(data) == [("p", "a, b")] and data.examples[0].row == 5


def test_a_space_before_a_quotation_mark_of_csv_is_refused(tmp_path: Path) -> None:
    for text, row in (('prompt,answer\np,a\np, "b"\n', 3), ('"prompt", "answer"\n"p", "a"\n', 1)):
        error = _error(_write(tmp_path, "a.csv", text))
        assert error.row == row and "a space stands before a quotation mark" in str(error)
    rows = [("p", ' "b"'), (' "p"', 'so, "b"')]
    quoted = _write(tmp_path, "b.csv", _csv([["prompt", "answer"], *map(list, rows)]))
    assert _pairs(read_examples(quoted)) == rows
    spoken = _write(tmp_path, "c.csv", 'prompt,answer\np, "yes" she said\n')
    assert _pairs(read_examples(spoken)) == [("p", ' "yes" she said')]


@pytest.mark.parametrize("text", ["prompt,answer\rp,a\rq,b\r", "prompt,answer\np,a\nq,b\rr,c\n"])
def test_carriage_returns_alone_are_named(tmp_path: Path, text: str) -> None:
    error = _error(_write(tmp_path, "a.csv", text))
    assert "a carriage return alone ends a line" in str(error)
    assert r"tr '\r' '\n' < FILE" in error.remedy


def test_a_quoted_field_of_tsv_that_may_be_several_rows_is_refused(tmp_path: Path) -> None:
    text = 'question\tanswer\nq0\t"two\nlines"\nq1\t"a1\nq2\ta2"\nq3\ta3\n'
    error = _error(_write(tmp_path, "a.tsv", text))
    assert error.row == 4 and "it may be several rows" in str(error)
    honest = read_examples(_write(tmp_path, "b.tsv", 'question\tanswer\nq\t"two\nlines"\nr\t"a\tb"\n'))
    assert _pairs(honest) == [("q", "two\nlines"), ("r", "a\tb")]


def test_parts_of_a_message_are_joined_and_must_be_text(tmp_path: Path) -> None:
    def chat(*parts: object) -> object:
        return {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": list(parts)}]}

    good = chat({"type": "text", "text": "a"}, {"type": "text", "value": "b"})
    assert _pairs(read_examples(_write(tmp_path, "a.jsonl", _jsonl([good])))) == [("u", "ab")]
    image = _error(_write(tmp_path, "b.jsonl", _jsonl([good, chat({"type": "image_url"})])))
    assert image.row == 2 and "turn 2 of 'messages' holds a part of type 'image_url'" in str(image)
    assert "without text" in str(_error(_write(tmp_path, "c.jsonl", _jsonl([chat({"type": "text"})]))))


def test_an_unknown_role_is_named_with_its_turn(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "narrator", "value": "r"}]}
    error = _error(_write(tmp_path, "a.jsonl", _jsonl([row])))
    assert error.row == 1 and "turn 2 of 'conversations' has the role 'narrator'" in str(error)


def test_turns_after_the_last_answer_are_left_out_and_a_silent_assistant_is_an_empty_answer(
    tmp_path: Path,
) -> None:
    user, bot = (
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    )
    call = {"role": "assistant", "content": None, "tool_calls": []}
    rows: list[object] = [{"messages": turns} for turns in ([user, bot, user], [user], [], [user, call])]
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))
    assert _pairs(data) == [("u", "b"), ("u", ""), ("", ""), ("u", "")]
    assert data.examples[0].messages == (Message("user", "u"), Message("assistant", "b"))


def test_a_system_column_makes_a_conversation(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.jsonl", _jsonl([{"system": "S", "prompt": "p", "answer": "a"}]))
    (example,) = read_examples(path)
    assert example.prompt == "S\n\np"
    assert example.messages == (Message("system", "S"), Message("user", "p"), Message("assistant", "a"))


def test_a_history_of_pairs_becomes_earlier_turns(tmp_path: Path) -> None:
    plain = {"instruction": "i", "input": "n", "output": "o"}
    pairs = [["q1", "a1"], ["q2", "a2"]]
    rows = [plain, {**plain, "history": []}, {**plain, "history": pairs, "system": "S"}]
    first, second, third = read_examples(_write(tmp_path, "a.jsonl", _jsonl(list(rows))))
    assert first.messages is None and second.messages is None
    assert third.prompt == "S\n\nq1\n\na1\n\nq2\n\na2\n\ni\nn" and third.answer == "o"
    assert third.messages is not None
    assert [turn.role for turn in third.messages] == ["system", *["user", "assistant"] * 3]
    text = _csv([["instruction", "output", "history"], ["i", "o", json.dumps(pairs)], ["i", "o", ""]])
    of_text, without = read_examples(_write(tmp_path, "a.csv", text))
    assert of_text.messages == (*third.messages[1:5], Message("user", "i"), Message("assistant", "o"))
    assert without.messages is None
    late: list[object] = [{**plain, "history": []}] * 200 + [{**plain, "history": [["q1"]]}]
    error = _error(_write(tmp_path, "b.jsonl", _jsonl(late)))
    assert error.row == 201 and "'history' holds a list, not pairs of question and answer" in str(error)
    patient = read_examples(_write(tmp_path, "c.jsonl", _jsonl([{**plain, "history": "none of note"}])))
    assert _pairs(patient) == [("i\nn", "o")] and patient.use.unused == ("history",)


def test_the_format_is_what_most_rows_are_and_the_first_that_differs_is_named(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "odd one"}] + [{"prompt": "p", "answer": "a"}] * 3
    error = _error(_write(tmp_path, "a.jsonl", _jsonl(rows)))
    assert error.row == 1 and "has no column 'prompt'" in str(error)
    late: list[object] = [{"prompt": "p", "answer": "a"}] * 300 + [{"prompt": "p", "completion": "a"}]
    error = _error(_write(tmp_path, "b.jsonl", _jsonl(late)))
    assert error.row == 301 and "its columns: prompt, completion" in str(error)


def test_an_optional_input_first_seen_after_the_sample_is_still_read(tmp_path: Path) -> None:
    rows: list[object] = [{"instruction": "i", "output": "o"}] * 200 + [
        {"instruction": "i", "input": "x", "output": "o"}
    ]
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))
    assert data.examples[-1].prompt == "i\nx"


@pytest.mark.parametrize("usual", [{}, {"input": "n", "system": "S"}])
def test_optional_columns_are_read_under_any_of_their_names_in_every_row(
    tmp_path: Path, usual: dict[str, str]
) -> None:
    plain = {"instruction": "i", "output": "o"}
    rows: list[object] = [{**plain, **usual}] * 200 + [{**plain, "passage": "x", "system_prompt": "T"}]
    (*_, last) = read_examples(_write(tmp_path, "a.jsonl", _jsonl(rows)))
    assert last.prompt == "T\n\ni\nx"
    named = ColumnMapping(prompt="instruction", answer="output")
    assert read_examples(tmp_path / "a.jsonl", mapping=named).examples[-1].prompt == "i"


@pytest.mark.parametrize("empty", [{}, {"input": None}, {"input": ""}])
def test_a_passage_is_read_under_the_other_name_of_another_source(
    tmp_path: Path, empty: dict[str, str | None]
) -> None:
    one, two = {"instruction": "i", "input": "x", "output": "o"}, {"instruction": "i", "output": "o"}
    mixed: list[object] = [one, {**two, **empty, "context": "y"}]
    path = _write(tmp_path, "a.jsonl", _jsonl(mixed))
    data = read_examples(path)
    assert [example.prompt for example in data] == ["i\nx", "i\ny"]
    assert data.use.unused == () == data.use.rivals
    assert [e.prompt for e in read_examples(path, mapping=ColumnMapping(input="input"))] == ["i\nx", "i"]


@pytest.mark.parametrize("context", ["z", ["y"]])
def test_a_column_that_stands_filled_beside_the_passage_is_none(tmp_path: Path, context: object) -> None:
    rows = [{"instruction": "i", "input": x, "context": context, "output": "o"} for x in ("x", "", None)]
    data = read_examples(_write(tmp_path, "a.jsonl", _jsonl([*rows])))
    assert [example.prompt for example in data] == ["i\nx", "i", "i"]
    assert data.use.unused == ("context",) and data.use.rivals == (("input", "context"),)


def test_mapping_wins_over_detection(tmp_path: Path) -> None:
    path = _write(
        tmp_path, "a.jsonl", _jsonl([{"prompt": "p", "answer": "a", "Frage": "f", "ton": "t", "c": "cc"}])
    )
    data = read_examples(path, mapping=ColumnMapping(prompt="Frage", answer="ton"))
    assert _pairs(data) == [("f", "t")]
    assert _pairs(read_examples(path, mapping=ColumnMapping(text="ton"))) == [("", "t")]
    assert _pairs(read_examples(path, mapping=ColumnMapping(input="c"))) == [("p\ncc", "a")]
    assert list(iter_examples(path, ColumnMapping(prompt="Frage", answer="ton"))) == list(data.examples)


def test_a_mapping_that_does_not_fit_lists_the_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.jsonl", _jsonl([{"q1": "p", "a1": "a"}]))
    assert "no known columns (seen: q1, a1)" in str(_error(path))
    assert "no column 'frage' (seen: q1, a1)" in str(_error(path, ColumnMapping(prompt="frage", answer="a1")))
    assert "names q1" in str(_error(path, ColumnMapping(prompt="q1")))
    assert "names a1, q1" in str(_error(path, ColumnMapping(text="q1", messages="a1")))
    for name in ("label", "Labels"):
        labels = _write(tmp_path, "b.jsonl", _jsonl([{"text": "p", name: 1}]))
        assert f"seen: text, {name}" in str(_error(labels))


GOOD = '{"prompt": "p", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"prompt": "what is it"  "answer": "x"}', "not valid JSON (Expecting ',' delimiter at column 26)"),
        ('{"prompt": "p", "answer": NaN}', "NaN is not JSON"),
        ('{"prompt": "p", "answer": "a", "answer": "b"}', "the key 'answer' stands twice"),
        ('{"prompt": "p", "answer": ["a"]}', "'answer' holds a list, not text: list of 1"),
        ('{"prompt": {"a": 1}, "answer": "a"}', "'prompt' holds an object"),
        ('{"prompt": "p"}', "has no column 'answer'"),
        ("[1, 2]", "the row is a list, not an object"),
        ("null", "the row is null"),
        ("17", "the row is a string or number"),
        ('{"prompt": "p", "answer": "\\ud800"}', "half of a surrogate pair"),
        ('{"prompt": "p", "answer": "\x00"}', "Invalid control character at column 28"),
        ('{"prompt": "p", "answer": ' + "[" * 100_000, "nested too deeply"),
        ('{"prompt": "p", "answer": "cut', "Unterminated string"),
    ],
)
def test_a_broken_row_is_named_with_what_was_seen(tmp_path: Path, bad: str, words: str) -> None:
    error = _error(_write(tmp_path, "broken.jsonl", GOOD * 6 + bad + "\n" + GOOD))
    assert error.row == 7
    assert "broken.jsonl, row 7: " in str(error) and words in str(error)
    if not bad[0].isalnum():
        array = ",".join([GOOD] * 6 + [bad])
        error = _error(_write(tmp_path, "broken.json", f"[{array}]"))
        assert error.row == 7, error


def test_bytes_that_are_not_utf8_are_named_by_row_and_byte(tmp_path: Path) -> None:
    bad = '{"prompt": "p", "answer": "café"}\n'.encode("latin-1")
    error = _error(_write(tmp_path, "a.jsonl", GOOD.encode() * 9 + bad))
    assert (
        error.row == 10
        and "byte 0xe9 (number 31) is not valid UTF-8" in str(error)
        and "iconv" in error.remedy
    )
    rows = b",".join([GOOD.encode()] * 9 + [bad, *[GOOD.encode()] * 3])
    error = _error(_write(tmp_path, "a.json", b"[" + rows + b"]"))
    assert error.row == 10 and "byte 0xe9" in str(error)
    error = _error(_write(tmp_path, "a.csv", b"prompt,answer\n" + b"p,a\n" * 8 + "p,é\n".encode("latin-1")))
    assert error.row == 10
    column = pa.array([b"ok", b"\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": column, "answer": column}), tmp_path / "a.parquet")
    assert _error(tmp_path / "a.parquet").row == 2


def test_the_remedy_for_bytes_that_are_not_utf8_restores_what_a_spreadsheet_wrote(tmp_path: Path) -> None:
    rows = "prompt,answer\nPrice?,“5 €” – naïve\n"
    remedy = _error(_write(tmp_path, "a.csv", rows.encode("cp1252"))).remedy
    encoding = remedy.partition("iconv -f ")[2].split()[0]
    assert rows.encode("cp1252").decode(encoding) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "is empty (0 bytes)"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b'{"data": []}', "holds no rows"),
        ("a.csv", b"prompt,answer\n", "holds no rows"),
        ("a.json", b'{\n"a": 1,\n"b": 2}', "without a list of rows in it (its keys: a, b)"),
        ("a.json", b'[{"prompt":"p","answer":"a"}] []', "followed by '[]'"),
        (
            "a.json",
            b'[{"prompt":"p","answer":"a"}',
            "row 1: not valid JSON: the row is followed by the end of the file",
        ),
        ("a.json", b'{"data": [{"prompt":"p","answer":"a"}]}{"data": []}', "followed by '{\"data\": []}'"),
        ("a.json", b'{"data": [{"prompt":"p","answer":"a"}], "n": [1, 2', "row 1: not valid JSON"),
        ("a.json", b'{"data": [{"prompt":"p","answer":"a"}]', "followed by the end of the file"),
        ("a.jsonl", b'{"": [1]}', "no known columns"),
        ("a.csv", b"prompt,prompt\n1,2\n", "two columns are named 'prompt'"),
        ("a.csv", b"prompt,answer\n1,2,3\n", "row 2: 3 fields where the header names 2"),
        ("a.csv", b'prompt,answer\np,a\np,"a\np,a\n', "row 3: not valid CSV"),
        ("a.csv", b"prompt,answer\rp,a\r", "a carriage return alone"),
        ("a.txt", b"just words", "unknown kind of file"),
        ("a.parquet", b"PAR1 cut", "damaged Parquet file"),
        ("a.parquet", b"nothing", "not a Parquet file"),
        ("a.jsonl", b"\x1f\x8b\x08\x00", "gzip"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ("a.jsonl", bytes(range(256)) * 9, "is binary"),
        ("a.jsonl", GOOD.encode("utf-16-le"), "without a byte order mark"),
        ("a.jsonl", GOOD.encode("utf-32"), "UTF-32"),
        ("a.jsonl", GOOD.encode("utf-16")[:-1], "not valid UTF-16"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    assert words in str(_error(_write(tmp_path, name, content)))


def test_folders_pipes_and_missing_or_locked_files_say_why(tmp_path: Path) -> None:
    assert "is a folder" in str(_error(tmp_path))
    assert "can't be read: No such file" in str(_error(tmp_path / "none.jsonl"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in str(_error(tmp_path / "pipe.jsonl"))
    assert "not a usable path" in str(_error(Path("a\0b.jsonl")))
    for rows in ([GOOD], pa.table({"prompt": ["a"], "answer": ["b"]})):
        message = str(_error(rows))  # type: ignore[arg-type]
        assert f"is a {type(rows).__name__}, not the path" in message and "to_json('NEW.jsonl'" in message
    locked = _write(tmp_path, "locked.jsonl", GOOD)
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        assert "chmod" in _error(locked).remedy


def test_what_datasets_saves_to_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p"], "answer": ["a"]})
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)
    _write(tmp_path, "state.json", "{}")
    assert "is an Arrow stream" in str(_error(path))
    for saved in (path, tmp_path):
        assert "load_from_disk(FOLDER).to_parquet" in _error(saved).remedy


def test_numbers_across_chunk_borders_beside_the_rows_are_whole(tmp_path: Path) -> None:
    # Nine characters a number: each border of 256 KiB cuts it at another of them.
    document = {"data": [{"prompt": "p", "answer": "a"}], "scores": [1.5e30] * 300_000}
    path = _write(tmp_path, "a.json", json.dumps(document))
    assert _pairs(read_examples(path)) == [("p", "a")]


def test_rows_across_chunk_borders_of_a_large_array_are_whole(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i} " + 'é"\\' * (i % 97), "answer": "x" * (i * 37 % 4001)} for i in range(1200)]
    path = _write(tmp_path, "a.json", json.dumps(rows, indent=3))
    assert path.stat().st_size > 2**21
    assert _pairs(read_examples(path)) == [(row["prompt"], row["answer"]) for row in rows]


def test_a_single_line_of_50_mb_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.jsonl", '{"prompt": "p", "answer": "' + "x" * 50_000_000 + '"}')
    assert len(read_examples(path).examples[0].answer) == 50_000_000


def test_parquet_values_become_text_and_missing_ones_empty(tmp_path: Path) -> None:
    table = pa.table({"prompt": [1, 2, 3], "answer": [0.5, None, float("nan")]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert _pairs(read_examples(tmp_path / "a.parquet")) == [("1", "0.5"), ("2", ""), ("3", "")]
    pq.write_table(pa.table({"prompt": ["p"], "answer": [b"\x01"]}), tmp_path / "b.parquet")
    assert "holds bytes" in str(_error(tmp_path / "b.parquet"))


def test_floats_of_32_bits_are_as_short_as_they_were_written(tmp_path: Path) -> None:
    answers = pa.array([0.1, None, 2.5, 1e20], pa.float32())
    pq.write_table(pa.table({"prompt": ["p"] * 4, "answer": answers}), tmp_path / "a.parquet")
    assert [e.answer for e in read_examples(tmp_path / "a.parquet")] == ["0.1", "", "2.5", "1e+20"]


def test_a_time_that_python_does_not_know_is_an_error_only_where_it_is_needed(tmp_path: Path) -> None:
    far = pa.array([10**8, 0], pa.int32()).cast(pa.date32())
    zone = pa.array([0, 0], pa.timestamp("us", tz="Mars/Base"))
    rows = {"prompt": ["p", "q"], "answer": ["a", "b"], "far": far, "zone": zone}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert _pairs(read_examples(tmp_path / "a.parquet")) == [("p", "a"), ("q", "b")]
    error = _error(tmp_path / "a.parquet", ColumnMapping(prompt="prompt", answer="far"))
    assert error.row == 1 and "'far' can't be read: date value out of range" in str(error)
    with pytest.raises(DataError, match="can't be written as JSON"):
        clean_file(tmp_path / "a.parquet", tmp_path / "out.jsonl")


def test_of_parquet_only_the_columns_in_use_are_read_beyond_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    unread = pa.array([b"x"] * 4999 + [b"\xff"]).view(pa.string())
    rows = {"prompt": [f"p{i}" for i in range(5000)], "a.b": ["a"] * 5000, "a": [1] * 5000}
    pq.write_table(pa.table({**rows, "unread": unread}), path)
    mapping = ColumnMapping(prompt="prompt", answer="a.b")
    assert _pairs(read_examples(path, mapping=mapping))[-1] == ("p4999", "a")
    assert _error(path, ColumnMapping(prompt="prompt", answer="unread")).row == 5000


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["p"])] * 3, names=["prompt", "answer", "answer"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "two columns are named 'answer'" in str(_error(tmp_path / "a.parquet"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_json_file_of_one_long_object_a_line_is_read(tmp_path: Path, encoding: str) -> None:
    rows = [{"prompt": f"p{i}", "answer": "é" * 70_000} for i in range(3)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert len(read_examples(_write(tmp_path, "a.json", lines.encode(encoding)))) == 3
    one = _write(tmp_path, "b.json", lines.splitlines()[0].encode(encoding))
    assert len(read_examples(one)) == 1


def test_a_long_document_on_one_line_is_read_to_its_end(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "answer": "x" * 200} for i in range(900)]
    document = {"version": [1, [], {}], "data": rows, "notes": [[], {"a": "]"}], "n": 1, "none": []}
    for name, text in (("a.json", json.dumps(document)), ("b.json", json.dumps({"data": rows}) + "\n\n")):
        path = _write(tmp_path, name, text)
        assert len(read_examples(path)) == 900
        twice = _write(tmp_path, f"twice-{name}", text * 2)
        assert "followed by '{" in str(_error(twice))


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(_text, _text), min_size=1, max_size=8), indent=st.sampled_from([None, 2]))
def test_any_text_survives_json_and_parquet(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], indent: int | None
) -> None:
    folder = tmp_path_factory.mktemp("round")
    records = [{"prompt": p, "answer": a} for p, a in rows]
    lines = _write(folder, "a.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    array = _write(folder, "a.json", json.dumps(records, indent=indent))
    pq.write_table(pa.Table.from_pylist(records), folder / "a.parquet")
    for path in (lines, array, folder / "a.parquet"):
        assert _pairs(read_examples(path)) == rows


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(_cell, _cell), min_size=1, max_size=8))
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("prompt", "answer"), *rows])
    path = _write(tmp_path_factory.mktemp("round"), "a.csv", out.getvalue())
    assert _pairs(read_examples(path)) == rows


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from(string.printable[:20] + '{}[]",:\\ \n\r'), max_size=120).map(str.encode),
    ),
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a"]),
)
def test_arbitrary_bytes_give_examples_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = _write(tmp_path_factory.mktemp("any"), name, content)
    try:
        assert read_examples(path).rows > 0
    except DataError as error:
        assert error.remedy and str(path) in str(error)


def test_a_row_made_by_hand_with_half_a_surrogate_pair_has_no_fingerprint() -> None:
    with pytest.raises(DataError, match=r"row 7 holds .ud800, half of a surrogate pair"):
        fingerprint([Example("a", "b\ud800", 7)])
