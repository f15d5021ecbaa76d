"""Tasks of lm-evaluation-harness: on the same items and model our scores are the harness's own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark.harness_fixtures import harness_samples, write_task, write_tasks
from training.training_fixtures import randomised_stack

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem
from tuneahead.benchmark.lm_eval import HarnessTasks, harness_benchmark
from tuneahead.dataset import Example
from tuneahead.errors import BenchmarkError
from tuneahead.survey import take_survey
from tuneahead.training.measure import CueMeter, ProbeSettings
from tuneahead.training.models import Base, load_base
from tuneahead.training.scoring import encode_benchmark, score_benchmark, score_stack
from tuneahead.workbench import cue_items, find_benchmark

FILTERS = ("first-word", "as-it-is")
Samples = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("lab", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def samples(base: Base, files: dict[str, Path]) -> Samples:
    return harness_samples(base, files["choices"].parent, list(files))


def values(samples: Samples, task: str, metric: str, answer_filter: str = "none") -> list[float]:
    own = [s for s in samples[task] if s["filter"] == answer_filter]
    return [100 * float(s[metric]) for s in sorted(own, key=lambda s: s["doc_id"])]


@pytest.mark.parametrize(
    ("name", "task", "metric", "kind"),
    [
        ("choices", "choices", "acc", "accuracy"),
        ("choices:acc_norm", "choices", "acc_norm", "acc_norm"),
        ("examples", "examples", "acc", "accuracy"),
        ("truth", "truth", "acc", "mc2"),
    ],
)
def test_choices_score_as_in_the_harness_item_by_item(
    base: Base, files: dict[str, Path], samples: Samples, name: str, task: str, metric: str, kind: str
) -> None:
    benchmark = find_benchmark(name.replace(task, str(files[task])))
    assert (benchmark.name, benchmark.metric, benchmark.harness) == (name, kind, None)
    score = score_benchmark(base, benchmark)
    expected = values(samples, task, metric)
    assert 0 < np.mean(expected) < 100
    np.testing.assert_allclose(score.item_pp, expected, rtol=1e-4)


def test_the_harness_scores_written_answers_with_its_own_filters(
    base: Base, files: dict[str, Path], samples: Samples
) -> None:
    for name, answer_filter in (("", "first-word"), ("exact_match,as-it-is", "as-it-is")):
        benchmark = harness_benchmark(str(files["written"]), name)
        assert benchmark.metric == "harness" and benchmark.chance_pp == 0
        score = score_benchmark(base, benchmark)
        assert score.item_pp.tolist() == values(samples, "written", "exact_match", answer_filter)
    assert 0 < np.mean(values(samples, "written", "exact_match", "first-word")) < 100


def test_scores_under_two_answer_filters_are_two_benchmarks(files: dict[str, Path]) -> None:
    named = [harness_benchmark(str(files["written"]), f"exact_match,{name}") for name in FILTERS]
    assert len({benchmark.fingerprint for benchmark in named}) == 2


@pytest.mark.parametrize("name", ["examples", "written"])
def test_a_question_with_examples_before_it_is_found_in_training_rows(
    files: dict[str, Path], name: str
) -> None:
    benchmark = harness_benchmark(str(files[name]))
    asked = [json.loads(line) for line in (files[name].parent / "rows.json").read_text().splitlines()]
    rows = [Example(row["question"], row["choices"][row["answer"]], i) for i, row in enumerate(asked, 1)]
    assert all(len(item.prompt) > 2 * len(item.question) for item in benchmark.items)
    (found,) = take_survey(rows[:5], benchmarks=[benchmark]).contamination
    assert found.rows.tolist() == [1, 2, 3, 4, 5]
    assert found.first_items == tuple(f"{name}:{number}" for number in range(5))


def test_the_harness_sees_each_adapter_in_its_place(base: Base, files: dict[str, Path]) -> None:
    own = harness_benchmark(str(files["choices"]))
    tasks = HarnessTasks(_tasks(files["choices"]), "acc", "none")
    theirs = Benchmark(own.name, "harness", own.items, Asking("raw"), tasks)
    stack = randomised_stack(base, 3, scale=0.05)
    try:
        ours = score_stack(base, encode_benchmark(base, own), stack, [2, 0])
        harness = score_stack(base, encode_benchmark(base, theirs), stack, [2, 0])
    finally:
        stack.detach()
    assert ours[0].item_pp.tolist() != ours[1].item_pp.tolist()
    for one, other in zip(ours, harness, strict=True):
        assert one.item_pp.tolist() == other.item_pp.tolist()


def test_a_cue_asks_a_selection_and_keeps_the_grades(
    base: Base, files: dict[str, Path], samples: Samples
) -> None:
    benchmark = harness_benchmark(str(files["written"]))
    few = dataclasses.replace(benchmark, items=benchmark.items[::5])
    stack = randomised_stack(base, 1, scale=0.0)
    try:
        (cue,) = CueMeter(base, ProbeSettings(cue_benchmark=few)).take(stack, [0], [5], [[]])
    finally:
        stack.detach()
    expected = values(samples, "written", "exact_match", "first-word")[::5]
    assert (100 * cue.item_scores("harness")).tolist() == expected
    assert cue_items(benchmark) is benchmark
    many = dataclasses.replace(benchmark, items=tuple(benchmark.items) * 30)
    assert len(cue_items(many).items) == 200


def test_options_inside_the_prompt_are_left_to_the_harness(base: Base, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('{"start": ["A cat is", "A stone is"], "end": "alive", "answer": 0}')
    body = (
        "output_type: multiple_choice\ndoc_to_text: answer\ndoc_to_choice: start\ndoc_to_target: end\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    benchmark = harness_benchmark(str(write_task(tmp_path, "winograd", body, rows)))
    assert benchmark.metric == "harness" and benchmark.chance_pp == 50
    item = benchmark.items[0]
    assert isinstance(item, ChoiceItem) and item.options == ("A cat is", "A stone is")
    assert score_benchmark(base, benchmark).item_pp[0] in (0, 100)


def test_wrong_tasks_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="has no metric 'bleu'(.|\n)*choices:acc, choices:acc_norm"):
        find_benchmark(f"{files['choices']}:bleu")
    rows = tmp_path / "rows.json"
    rows.write_text('{"question": "?", "choices": ["one"], "answer": 0}')
    body = files["choices"].read_text().split("test_split: test")[1]
    with pytest.raises(BenchmarkError, match="task 'lonely', document 0 has 1 option"):
        find_benchmark(str(write_task(tmp_path, "lonely", body, rows)))
    (tmp_path / "empty.yaml").write_text("group: nothing\n")
    with pytest.raises(BenchmarkError, match=r"empty\.yaml has no 'task:'"):
        find_benchmark(str(tmp_path / "empty.yaml"))
    with pytest.raises(BenchmarkError, match="can't read task file"):
        find_benchmark(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(BenchmarkError, match="can't load task 'gone'"):
        find_benchmark(str(write_task(tmp_path, "gone", body, tmp_path / "nowhere.json")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "doc_to_target: answer -> doc_to_target: nofield",
            "no document of task 'odd' has a target that is one",
        ),
        ("doc_to_target: answer -> ", "can't load task 'odd': TypeError"),
        ("doc_to_target: answer -> doc_to_nothing: answer", "can't load task 'odd': TypeError"),
        ("{{question}} -> {{question", "can't load task 'odd': TemplateSyntaxError"),
    ],
)
def test_a_task_file_with_a_mistake_is_named(
    files: dict[str, Path], tmp_path: Path, change: str, message: str
) -> None:
    body = files["choices"].read_text().split("test_split: test")[1]
    changed = body.replace(*change.split(" -> "))
    assert changed != body
    rows = files["choices"].parent / "rows.json"
    with pytest.raises(BenchmarkError, match=message):
        find_benchmark(str(write_task(tmp_path, "odd", changed, rows)))


def test_the_file_of_a_group_is_all_of_its_tasks(
    base: Base, files: dict[str, Path], samples: Samples, tmp_path: Path
) -> None:
    for name in ("choices", "examples"):
        (tmp_path / f"{name}.yaml").write_text(files[name].read_text())
    group = tmp_path / "both.yaml"
    group.write_text("group: both\ntask:\n  - choices\n  - {group: inner, task: [examples]}\n")
    benchmark = find_benchmark(f"{group}:acc_norm")
    assert (benchmark.name, benchmark.metric, len(benchmark.items)) == ("both:acc_norm", "acc_norm", 48)
    score = score_benchmark(base, benchmark)
    expected = values(samples, "choices", "acc_norm") + values(samples, "examples", "acc_norm")
    assert score.item_pp.tolist() == expected
    assert set(score.subject_pp) == {"choices", "examples"}


def test_a_task_without_rows_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    body = files["choices"].read_text().split("test_split: test")[1]
    (tmp_path / "none.json").write_text("")
    with pytest.raises(BenchmarkError, match="can't load task 'none'"):
        find_benchmark(str(write_task(tmp_path, "none", body, tmp_path / "none.json")))


def test_a_metric_that_the_harness_fails_on_is_named(
    base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    body = files["written"].read_text().split("test_split: test")[1].split("metric_list")[0]
    lists = body.replace("{{choices[answer]}}", "{{choices}}")
    metrics = "metric_list: [{metric: f1, aggregation: f1, higher_is_better: true}]\n"
    rows = files["written"].parent / "rows.json"
    benchmark = harness_benchmark(str(write_task(tmp_path, "lists", lists + metrics, rows)))
    with pytest.raises(BenchmarkError, match="lm-evaluation-harness fails on lists: "):
        score_benchmark(base, benchmark)


def test_an_unknown_task_is_an_error_with_its_neighbours() -> None:
    with pytest.raises(BenchmarkError, match="unknown benchmark 'hellaswagg'(.|\n)*did you mean hellaswag"):
        find_benchmark("hellaswagg")


def test_a_hub_out_of_reach_ends_with_code_2_and_the_remedy(tmp_path: Path) -> None:
    task = tmp_path / "far.yaml"
    task.write_text(
        "task: far\ndataset_path: Rowan/hellaswag\ntest_split: test\noutput_type: multiple_choice\n"
    )
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tuneahead", "assess", str(data), "--benchmark", str(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "error: can't load task 'far'" in done.stderr
    assert "reaches the Hugging Face hub" in done.stderr and "Traceback" not in done.stderr


def _tasks(path: Path) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    return dict(manager.load(path.stem)["tasks"])
