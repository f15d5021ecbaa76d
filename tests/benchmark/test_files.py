"""Reading a user's own benchmark."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tuneahead.benchmark.choice import summarise_choices
from tuneahead.benchmark.files import BUILT_IN, read_benchmark
from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem
from tuneahead.errors import BenchmarkError
from tuneahead.workbench import find_benchmark


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


@pytest.mark.parametrize(("metric", "bare"), [("f1", "A"), ("f1", "+"), ("f1", "The"), ("rouge_l", "+")])
def test_an_answer_without_a_word_of_the_metric_is_refused(tmp_path: Path, metric: str, bare: str) -> None:
    items = [{"prompt": "?", "answer": "red"}, {"prompt": "!", "answers": ["plus", bare]}]
    file = write(tmp_path / "x.jsonl", {"metric": metric}, *items)
    with pytest.raises(BenchmarkError, match="row 3: answer .* has no word that"):
        read_benchmark(file)
    assert read_benchmark(write(tmp_path / "y.jsonl", *items)).metric == "exact_match"


def test_a_first_line_chooses_the_metric_and_the_end_of_answers(tmp_path: Path) -> None:
    item = {"prompt": "?", "options": ["a", "b"], "gold": 0}
    assert read_benchmark(write(tmp_path / "n.jsonl", {"metric": "acc_norm"}, item)).metric == "acc_norm"
    header = {"metric": "rouge_l", "max_new_tokens": 8, "stop": ["END"]}
    written = read_benchmark(write(tmp_path / "r.jsonl", "", header, {"prompt": "?", "answer": "a"}))
    assert (written.metric, written.asking) == ("rouge_l", Asking(max_new_tokens=8, stop=("END",)))
    assert written.items == [GenerationItem("3", "?", ("a",))]
    assert written.fingerprint != dataclasses.replace(written, asking=Asking()).fingerprint


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"metric": "bleu"}, "row 1: unknown metric 'bleu'"),
        ({"metric": ["f1"]}, "row 1: unknown metric"),
        ({"metric": "f1"}, "metric 'f1' does not score items with options"),
        ({"metric": "f1", "max_new_tokens": 0}, "row 1: max_new_tokens is 0"),
        ({"metric": "f1", "stop": "x"}, "row 1: stop is 'x'"),
        ({"metric": "accuracy", "stop": ["x"]}, "row 1: stop does nothing under accuracy"),
        ({"metric": "exact_match", "max_new_tokens": 8}, "row 1: max_new_tokens does nothing under exact_"),
        ({"metric": "accuracy", "tokens": 3}, "row 1: unknown field 'tokens'"),
    ],
)
def test_a_wrong_first_line_is_named(tmp_path: Path, header: object, message: str) -> None:
    file = write(tmp_path / "bad.jsonl", header, {"prompt": "?", "options": ["a", "b"], "gold": 0})
    with pytest.raises(BenchmarkError, match=message):
        read_benchmark(file)


def test_length_normalised_accuracy_divides_by_characters() -> None:
    items = [ChoiceItem("1", "?", ("ab", "abcd"), (1,)), ChoiceItem("2", "?", ("abc", "abc d", "a"), (0,))]
    logprob = np.array([[-2.0, -3.0, np.nan], [-3.0, -4.0, -2.0]])
    # Nats a character: -1 and -0.75, so the longer one wins; then -1, -0.8 and -2.
    assert summarise_choices(Benchmark("b", "accuracy", items), logprob).item_pp.tolist() == [0, 0]
    normed = summarise_choices(Benchmark("b", "acc_norm", items), logprob)
    assert normed.item_pp.tolist() == [100, 0]
    # Margins are in nats of an option of mean length: 3 characters in both items.
    np.testing.assert_allclose(normed.margin_nats, [3 * 0.25, 3 * -0.2], rtol=1e-6)


def test_the_first_of_tied_options_counts_where_the_harness_would_count_it() -> None:
    items = [ChoiceItem("1", "?", ("a", "b"), (0,)), ChoiceItem("2", "?", ("a", "b"), (1,))]
    tied = np.full((2, 2), -1.5)
    assert summarise_choices(Benchmark("b", "accuracy", items), tied).item_pp.tolist() == [0, 0]
    joined = summarise_choices(Benchmark("b", "accuracy", items, Asking(joined=True)), tied)
    assert joined.item_pp.tolist() == [100, 0]
    # As a trace holds it.
    assert (joined.margin_nats.astype(np.float16) > 0).tolist() == [True, False]


@pytest.mark.parametrize("broken", [np.nan, -np.inf])
def test_an_answer_that_is_no_number_is_no_score(broken: float) -> None:
    items = [ChoiceItem("1", "?", ("a", "b"), (0,)), ChoiceItem("2", "?", ("a", "b", "c"), (1,))]
    logprob = np.array([[-1.0, -2.0, np.nan], [-1.0, broken, -3.0]])
    for metric in ("accuracy", "acc_norm", "mc2"):
        score = summarise_choices(Benchmark("b", metric, items), logprob)  # type: ignore[arg-type]
        assert np.isnan(score.score_pp)
        assert np.isnan([score.item_pp, score.margin_nats, score.right_probability]).all(0).tolist() == [
            False,
            True,
        ]


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
        ({"prompt": "?", "options": ["a", " a"], "gold": 1}, "row 2: option 'a' is there twice"),
        (
            {"prompt": "?", "options": ["\u00e9", "e\u0301"], "gold": 1},
            "row 2: option '\u00e9' is there twice",
        ),
        ({"prompt": ["?"], "options": ["a", "b"], "gold": 1}, "row 2: prompt is a list, not a text"),
        ({"prompt": "?"}, "row 2: answers must be a list"),
        ({"prompt": "?", "answer": "a"}, "row 2: choices and free answers are mixed"),
        ("{broken", "row 2: not valid JSON"),
        ([1], "row 2: a list, not an object"),
        ('{"prompt": "a\\ud800", "options": ["a", "b"], "gold": 0}', r"row 2: holds .ud800, half of a"),
        ('{"prompt": "?", "answer": "a", "id": "\\udfff"}', r"row 2: holds .udfff, half of a"),
        ('{"prompt": "?", "prompt": "!", "answer": "a"}', "row 2: the key 'prompt' stands twice"),
        ('{"prompt": "?", "options": ["a", "b"], "gold": NaN}', "row 2: NaN is not JSON"),
    ],
)
def test_items_that_cannot_be_asked_are_named(tmp_path: Path, row: object, message: str) -> None:
    file = write(tmp_path / "bad.jsonl", {"prompt": "?", "options": ["a", "b"], "gold": 0}, row)
    with pytest.raises(BenchmarkError, match=message):
        read_benchmark(file)


@pytest.mark.parametrize("answer", ["b", 1, "B", ["a", "b"]])
def test_an_answer_other_than_the_gold_is_an_error(tmp_path: Path, answer: object) -> None:
    item = {"prompt": "?", "options": ["a", "b", "c"], "gold": 0}
    file = write(tmp_path / "bad.jsonl", item, {**item, "answer": answer})
    with pytest.raises(BenchmarkError, match="row 2: gold is option 0, but answer is"):
        read_benchmark(file)


@pytest.mark.parametrize("answer", ["a", 0, "A", "because it comes first", None])
def test_an_answer_may_say_the_gold_again_or_why(tmp_path: Path, answer: object) -> None:
    item = {"prompt": "?", "options": ["a", "b", "c"], "gold": 0, "answer": answer}
    (read,) = read_benchmark(write(tmp_path / "good.jsonl", item)).items
    assert isinstance(read, ChoiceItem) and read.gold == (0,)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"answers": ["Paris"], "answer": "London"}, "answer 'London' contradicts answers 'Paris'"),
        ({"answer": "Paris", "gold": "London"}, "gold 'London' contradicts answer 'Paris'"),
        ({"answers": ["Rome", "Paris"], "gold": 1}, "gold 1 contradicts answers 'Rome'"),
        ({"options": ["a", "b"], "choices": ["b", "a"], "gold": 0}, "options and choices differ"),
        ({"options": ["a", "b"], "gold": 0, "answers": ["b"]}, "gold is option 0, but answers is 'b'"),
        ({"options": ["a", "b"], "answer": "a", "answers": ["b"]}, "gold is option 0, but answers is 'b'"),
    ],
)
def test_fields_that_contradict_each_other_are_an_error(
    tmp_path: Path, item: dict[str, object], message: str
) -> None:
    with pytest.raises(BenchmarkError, match=f"row 1: {message}"):
        read_benchmark(write(tmp_path / "bad.jsonl", {"prompt": "?", **item}))


def test_fields_that_say_the_same_are_read(tmp_path: Path) -> None:
    free = {"prompt": "?", "answers": ["Paris", "Lut\u00e8ce"], "answer": " Lute\u0300ce", "gold": ["Paris"]}
    assert read_benchmark(write(tmp_path / "f.jsonl", free)).items == [
        GenerationItem("1", "?", ("Paris", "Lut\u00e8ce"))
    ]
    choice = {"prompt": "?", "options": ["a", "b"], "choices": ["a", "b "], "gold": 1, "answers": ["b"]}
    assert read_benchmark(write(tmp_path / "c.jsonl", choice)).items == [
        ChoiceItem("1", "?", ("a", "b"), (1,))
    ]


def test_space_after_an_option_or_an_answer_is_not_asked(tmp_path: Path) -> None:
    choices = write(tmp_path / "c.jsonl", {"prompt": "?", "options": ["a ", " b\n"], "gold": "b"})
    assert read_benchmark(choices).items == [ChoiceItem("1", "?", ("a", " b"), (1,))]
    free = write(tmp_path / "f.jsonl", {"prompt": "?", "answers": ["a \n"]})
    assert read_benchmark(free).items == [GenerationItem("1", "?", ("a",))]


def test_empty_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no item"):
        read_benchmark(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(BenchmarkError, match="can't read benchmark"):
        read_benchmark(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_file_can_not_pass_for_a_built_in_benchmark(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / f"{name}.jsonl", {"prompt": "?", "options": ["a", "b"], "gold": 0})
    with pytest.raises(BenchmarkError, match=f"named as the built-in benchmark {name}(.|\n)*rename"):
        find_benchmark(str(file))
    assert find_benchmark(name).name == name


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "Which?", "A": "red", "B": "stone", "answer": "A"},
            "'A' would not be read as an option",
        ),
        ({"question": "Which?", "choice_1": "red", "answer": "red"}, "'choice_1' would not be read"),
        ({"prompt": "Who?", "context": "Bob did.", "answers": ["Bob"]}, "'context' would not be asked"),
        ({"prompt": "Say.", "question": "Who?", "answer": "Bob"}, "'question' would not be asked"),
        ({"prompt": "Who?", "system": "Be terse.", "answer": "Bob"}, "'system' would not be asked"),
    ],
)
def test_a_part_of_the_question_that_is_not_read_is_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    with pytest.raises(BenchmarkError, match=f"row 1: {message}"):
        read_benchmark(write(tmp_path / "m.jsonl", row))


def test_fields_that_the_prompt_holds_or_that_are_empty_do_no_harm(tmp_path: Path) -> None:
    row = {"prompt": "Bob did. Who?", "context": "Bob did.", "input": "", "source": "x", "answer": "Bob"}
    empty = {
        "prompt": None,
        "question": "Who?",
        "id": None,
        "subject": None,
        "context": None,
        "answer": "Bob",
    }
    assert read_benchmark(write(tmp_path / "m.jsonl", row, {**empty}, {**empty, "id": 0})).items == [
        GenerationItem("1", "Bob did. Who?", ("Bob",)),
        GenerationItem("2", "Who?", ("Bob",)),
        GenerationItem("0", "Who?", ("Bob",)),
    ]


def test_a_json_array_is_told_from_lines(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="row 1: a JSON array, not one object a line") as caught:
        read_benchmark(write(tmp_path / "m.json", '[{"prompt": "?",', '"answer": "a"}]'))
    assert "jq" in caught.value.remedy
