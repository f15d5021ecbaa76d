"""Checkups: streamed and bounded, with the same figures as in memory, and samples that say so."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneahead.assessment import checkup_from_json
from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.checks.encoding import find_window, measure_tokens
from tuneahead.checkup import check, examine
from tuneahead.dataset import ExampleFile, read_examples
from tuneahead.errors import DataError, ModelError
from tuneahead.examples import Example, Message
from tuneahead.features.extract import static_features
from tuneahead.features.rows import draw
from tuneahead.lab.bases import lab_base_path
from tuneahead.recipe import Recipe
from tuneahead.survey import Survey, take_survey
from tuneahead.workbench import Setup, Workbench, open_workbench

WORDS = "the cat dog house sees a red green big small tree runs sleeps under over quickly today"


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return open_workbench(Setup(), forecasts=False)


def write_rows(path: Path, count: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lines = []
    words: list[str] = []
    for i in range(count):
        if i % 10:
            words = rng.choice(WORDS.split(), rng.integers(12, 40)).tolist()
        row = {"prompt": f"{' '.join(words)} {i % (count // 2)}?", "answer": " ".join(words[:3])}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the data were larger: fewer rows are enough to be sampled."""
    for name, rows in (("TEXT_ROWS", 300), ("VECTOR_ROWS", 250), ("ANSWER_ROWS", 40)):
        monkeypatch.setattr(f"tuneahead.features.rows.{name}", rows)


@pytest.mark.usefixtures("small_samples")
def test_a_streamed_file_gives_the_figures_of_the_whole_one(tmp_path: Path, bench: Workbench) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 500)
    found, data = check(path, bench=bench), read_examples(path)
    whole = static_features(data.examples, base=bench.base, benchmarks=(bench.benchmark,))
    assert found.features.aligned(whole.values) == pytest.approx(whole.aligned(whole.values), nan_ok=True)
    assert found.data.fingerprint == data.fingerprint
    assert (found.data.rows, found.data.format) == (500, "prompt-answer")
    again = check(data, bench=bench)
    assert [f.message for f in again.findings] == [f.message for f in found.findings]
    assert again.data.tokens == found.data.tokens


@pytest.mark.usefixtures("small_samples")
def test_samples_are_stated_with_size_and_error(tmp_path: Path, bench: Workbench) -> None:
    samples = check(write_rows(tmp_path / "rows.jsonl", 500), bench=bench).data.samples
    sizes = {"length_mean_words": 300, "prompt_answer_similarity": 250, "parse_depth_mean": 200}
    assert {name: samples[name].rows for name in sizes} == sizes
    assert 0 < samples["reference_loss_nats"].rows <= 40
    assert all(sample.total == 500 for sample in samples.values())
    for name in (*sizes, "reference_loss_nats", "base_knows_fraction", "empty_answer_fraction"):
        assert 0 < samples[name].error < 3, name
    assert all(math.isnan(samples[name].error) for name in ("isolated_fraction", "compression_ratio"))
    # What is counted is counted over all rows.
    assert not {"near_duplicate_fraction", "contradiction_fraction", "examples"} & samples.keys()


def test_tokens_of_more_rows_than_are_tokenised_are_an_estimate_with_its_error(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 500)
    exact = check(path, bench=bench).data
    assert "tokens" not in exact.samples and "length_mean_words" not in exact.samples
    monkeypatch.setattr("tuneahead.features.rows.TEXT_ROWS", 100)
    estimate = check(path, bench=bench).data
    sample = estimate.samples["tokens"]
    assert (sample.rows, sample.total) == (100, 500)
    assert 0 < abs(estimate.tokens - exact.tokens) < 2 * sample.error < 0.3 * exact.tokens


def test_a_checkup_survives_json(tmp_path: Path, bench: Workbench) -> None:
    found = check(write_rows(tmp_path / "rows.jsonl", 100), bench=bench)
    # repr: NaN is not equal to itself
    back = checkup_from_json(found.to_json())
    assert back.to_json() == found.to_json() and repr(back) == repr(found)
    assert found.base == "lab-qwen2" and found.benchmark == "lab-exam" and found.created


def test_answers_dealt_to_other_prompts_warn(tmp_path: Path, bench: Workbench) -> None:
    things = (
        "river",
        "bridge",
        "garden",
        "engine",
        "pepper",
        "violin",
        "planet",
        "doctor",
        "window",
        "castle",
    )
    ways = (
        "painted",
        "broken",
        "golden",
        "frozen",
        "hidden",
        "wooden",
        "burning",
        "silent",
        "famous",
        "bent",
    )
    asked = [f"{way.title()} {thing}: what was it?" for way in ways for thing in things]
    told = [f"It was a {thing}, {way} as all knew." for way in ways for thing in things]
    order = np.random.default_rng(0).permutation(len(told))
    moved = [*told[:30], told[29], *told[30:69], *told[70:]]
    for name, answers in (("paired", told), ("dealt", [told[at] for at in order]), ("moved", moved)):
        rows = zip(asked, answers, strict=True)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"prompt": p, "answer": a}) for p, a in rows), encoding="utf-8")
        found = [one for one in check(path, bench=bench).findings if one.check == "mismatched-answers"]
        assert [one.severity for one in found] == ([] if name == "paired" else ["warn"])
        if name == "moved":
            assert "nearer to the answers of the rows after" in found[0].message and found[0].count > 30


def test_columns_and_layers_are_looked_at(tmp_path: Path, bench: Workbench) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"problem": "p {i}", "answer": "{i}", "solution": "s"}}\n' for i in range(20)))
    found = check(path, Recipe(target_modules=("nosuch", "q_proj")), bench=bench)
    assert found.data.columns == {"prompt": "problem", "answer": "answer"}
    assert found.data.unused_columns == ("solution",)
    said = {finding.check: finding.message for finding in found.findings}
    assert (
        found.stopped and "named nosuch:" in said["target-modules"] and "'solution'" in said["column-choice"]
    )
    document = json.loads(found.to_json())
    del document["checkup"]["data"]["columns"], document["checkup"]["data"]["unused_columns"]
    assert checkup_from_json(json.dumps(document)).data.columns == {}


def test_a_template_that_cannot_be_applied_is_a_finding_not_an_error(
    tmp_path: Path, bench: Workbench
) -> None:
    found = check(write_rows(tmp_path / "rows.jsonl", 20), Recipe(template="chat"), bench=bench)
    assert found.stopped and math.isnan(found.data.tokens)


def chats(path: Path) -> Path:
    words = WORDS.split()
    turn = " ".join(words[i % len(words)] for i in range(155))
    rows = (
        [{"role": "user", "content": f"{turn} {i}?"}, {"role": "assistant", "content": f"{turn} {i}"}]
        for i in range(20)
    )
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    return path


def test_without_a_named_base_nothing_is_said_of_its_window_template_and_layers(
    tmp_path: Path, bench: Workbench
) -> None:
    path = chats(tmp_path / "chats.jsonl")
    recipe = Recipe(target_modules=("c_attn",))
    of_a_base = {"cut-answers", "chat-template", "window-length", "target-modules"}
    assert of_a_base <= {finding.check for finding in check(path, recipe, bench=bench).findings}
    for unnamed in (None, Setup(benchmark="lab-exam")):
        found = check(path, recipe, bench=unnamed)
        assert not of_a_base & {finding.check for finding in found.findings} and not found.stopped
        assert not found.base_named and math.isnan(found.data.tokens)
        assert json.loads(found.to_json())["checkup"]["base_named"] is False
    assert check(path, recipe, bench=Setup(base="lab")).base_named
    short = check(write_rows(tmp_path / "rows.jsonl", 20))
    assert short.base == "lab-qwen2" and math.isfinite(short.features["reference_loss_nats"])


def test_a_base_without_weights_is_asked_for_tokens_and_layers_alone(
    tmp_path: Path, bench: Workbench
) -> None:
    path, recipe = chats(tmp_path / "chats.jsonl"), Recipe(target_modules=("c_attn",))
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((lab_base_path() / name).read_bytes())
    found, whole = (check(path, recipe, bench=one) for one in (Setup(base=str(folder), weights=False), bench))
    assert found.findings == whole.findings and found.data.tokens == whole.data.tokens
    assert math.isnan(found.features["reference_loss_nats"])
    assert found.features.absent["reference_loss_nats"] == "the base's weights were not read"
    with pytest.raises(ModelError, match="whose tokenizer"):
        check(path, bench=Setup(weights=False))
    with pytest.raises(ModelError, match="without its weights can't be trained"):
        open_workbench(Setup(base=str(folder), weights=False))


REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.mark.parametrize("template", ["auto", "raw"])
def test_rows_that_the_chat_template_refuses_get_a_card_without_the_bases_losses(
    tmp_path: Path, bench: Workbench, template: str
) -> None:
    tokenizer = copy.deepcopy(bench.base.tokenizer)
    tokenizer.chat_template = REFUSING
    refusing = replace(bench, base=replace(bench.base, tokenizer=tokenizer))
    path = tmp_path / "rows.jsonl"
    rows = [{"system": "Be kind.", "prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = check(path, Recipe(template=template), bench=refusing)
    stops = [finding for finding in found.findings if finding.severity == "stop"]
    assert [stop.check for stop in stops] == (["chat-template"] if template == "auto" else [])
    assert math.isnan(found.data.tokens) == (template == "auto")
    assert "System role not supported" in found.features.absent["reference_loss_nats"]
    assert found.features["prompt_length_mean_words"] == 6


def test_a_refused_row_among_those_counted_alone_stops_the_checkup(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneahead.survey.SAMPLE_ROWS", 10)
    tokenizer = copy.deepcopy(bench.base.tokenizer)
    tokenizer.chat_template = REFUSING
    refusing = replace(bench, base=replace(bench.base, tokenizer=tokenizer))
    rows = [Example(f"What is {i} + 1?", str(i + 1), i) for i in range(1, 500)]
    turns = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    survey = take_survey([*rows, Example("s\n\nu", "a", 500, turns)])
    assert all(row.messages is None for row in survey.sample)
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": row.prompt, "answer": row.answer} for row in rows]
    path.write_text("\n".join(map(json.dumps, [*lines, {"system": "s", "prompt": "u", "answer": "a"}])))
    found = check(path, bench=refusing)
    assert found.stopped and math.isnan(found.data.tokens)
    assert "row 500" in next(f.message for f in found.findings if f.check == "chat-template")


def test_the_survey_names_the_rows_of_the_checkup(tmp_path: Path, bench: Workbench) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}\n\n{"prompt": "p", "answer": " "}\n')
    examined = examine(path, bench=bench)
    assert examined.survey.row.tolist() == [1, 3]
    assert next(f.rows for f in examined.checkup.findings if f.check == "empty-answers") == (3,)


class Heard:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps = 0

    def stage(self, text: str, total_steps: int = 0) -> None:
        self.stages.append((text, total_steps))

    def advance(self, steps: int) -> None:
        self.steps += steps


def test_progress_counts_the_megabytes_that_were_read_in_both_passes(
    tmp_path: Path, bench: Workbench
) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "p", "answer": "a", "not read": "x" * 2**20}
    path.write_text("\n".join([json.dumps(row)] * 3))
    heard = Heard()
    check(path, bench=bench, watch=heard)
    assert [stage for stage in heard.stages if stage[1]] == [
        ("Reading rows, MB", 4),
        ("Drawing samples, MB", 4),
    ]
    assert heard.steps == 6


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_reading_says_how_far_it_is(tmp_path: Path, name: str) -> None:
    records = [{"prompt": f"p{i}", "answer": "a" * 50} for i in range(5_000)]
    path = tmp_path / name
    if name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif name == "rows.csv":
        path.write_text("prompt,answer\n" + "\n".join(",".join(row.values()) for row in records))
    else:
        path.write_text(json.dumps(records) if name == "rows.json" else "\n".join(map(json.dumps, records)))
    heard: list[int] = []
    assert len(list(ExampleFile(path, None, heard.append))) == 5_000
    assert heard == sorted(heard) and len(heard) > 2 and heard[-1] == path.stat().st_size


def long_rows(count: int, characters: int) -> Iterator[Example]:
    return (Example("p", f"{i} {'long ' * (characters // 5)}", i) for i in range(1, count + 1))


def test_long_rows_of_a_stream_are_not_held_while_rows_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneahead.features.rows.TEXT_CHARACTERS", 1_000_000)
    monkeypatch.setattr("tuneahead.features.rows.VECTOR_CHARACTERS", 500_000)
    monkeypatch.setattr("tuneahead.features.rows.ANSWER_ROWS", 4)
    lengths = [1 + len(row.answer) for row in long_rows(600, 20_000)]
    tracemalloc.start()
    drawn = draw(long_rows(600, 20_000), 600, lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 40 < len(drawn.texts) < 60 and peak < 3_000_000
    assert drawn == draw(list(long_rows(600, 20_000)), 600)


def test_the_survey_keeps_no_more_of_long_rows_than_is_tokenised(bench: Workbench) -> None:
    recipe, tokenizer = Recipe(max_length=16), bench.base.tokenizer
    survey = take_survey(long_rows(300, 20_000), window=find_window(tokenizer, recipe))
    assert survey.long_count == len(survey.long_rows) == len(survey.sample) == 300
    assert max(len(row.answer) for row in (*survey.long_rows, *survey.sample)) < 2_000
    whole = replace(survey, long_rows=tuple(long_rows(300, 20_000)), sample=tuple(long_rows(300, 20_000)))
    short, full = (measure_tokens(one, tokenizer, recipe) for one in (survey, whole))
    assert short.cut.tolist() == full.cut.tolist() == list(range(1, 301))
    assert (short.mean_tokens, short.examined) == (full.mean_tokens, full.examined)


def test_samples_of_a_survey_stay_random_and_below_their_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneahead.survey.KEPT_CHARACTERS", 100_000)
    sample = take_survey(long_rows(1_000, 1_000)).sample
    numbers = [row.row for row in sample]
    assert sum(len(row.prompt) + len(row.answer) for row in sample) <= 100_000
    assert 90 < len(sample) < 100 and numbers == sorted(numbers)
    assert 400 < np.mean(numbers) < 600


def test_a_file_that_shrinks_while_it_is_read_is_an_error() -> None:
    with pytest.raises(DataError, match="fewer the second time"):
        draw(iter([Example("p", "a", 1)]), 3)


def test_the_fingerprint_of_a_stream_is_that_of_the_read_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 30)
    stream = ExampleFile(path)
    assert stream.fingerprint == ""
    assert list(stream) == list(read_examples(path).examples) == list(stream)
    assert stream.fingerprint == read_examples(path).fingerprint


def columns(survey: Survey) -> dict[str, list[object]]:
    arrays = {name: value for name, value in vars(survey).items() if isinstance(value, np.ndarray)}
    near = {name: value for name, value in vars(survey.near).items() if isinstance(value, np.ndarray)}
    return {name: value.tolist() for name, value in {**arrays, **near}.items()}


def test_processes_beside_give_the_same_survey(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 22_000)
    item = ChoiceItem("e", next(iter(ExampleFile(path))).prompt, ("x",), (0,))
    exam = Benchmark("exam", "accuracy", (item,))
    alone, together = (
        take_survey(ExampleFile(path), benchmarks=(exam,), workers=workers) for workers in (1, 2)
    )
    assert columns(alone) == columns(together)
    assert len(alone.near.later) > 0
    assert alone.sample == together.sample
    assert alone.contamination[0].rows.tolist() == together.contamination[0].rows.tolist() == [1]


def test_an_error_in_a_late_row_ends_the_processes_too(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 22_000)
    with path.open("a") as handle:
        handle.write("\n{broken")
    with pytest.raises(DataError, match="row 22001"):
        take_survey(ExampleFile(path), workers=2)


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 22_000)
    code = (
        "import multiprocessing, sys\nfrom tuneahead.dataset import ExampleFile\n"
        "from tuneahead.survey import take_survey\n"
        "def rows():\n"
        "    for example in ExampleFile(sys.argv[1]):\n"
        "        yield example\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    input()\n"
        "if __name__ == '__main__':\n    take_survey(rows(), workers=2)\n"
    )
    script = tmp_path / "survey.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(path)]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment
    )
    assert started.stdout is not None
    workers = [int(word) for word in started.stdout.readline().split()]
    started.kill()
    started.communicate()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.2)


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process_id}/stat")
    # Ended but not waited for: nobody is left to do so in some containers.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
