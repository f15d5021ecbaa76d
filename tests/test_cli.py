"""The command line: fast help, clear errors, clean streams and exit codes."""

from __future__ import annotations

import io
import json
import math
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from made_assessment import RECIPE, made_assessment, made_table, made_trace
from rich.console import Console

from tuneahead.assessment import Assessment, Outcome, read_assessment
from tuneahead.build.execute import BuildProgress, BuildSummary
from tuneahead.cli import main
from tuneahead.cli.options import read_recipe_options
from tuneahead.cli.progress import ProgressBar
from tuneahead.errors import TuneAheadError
from tuneahead.features.catalogue import CATALOGUE_VERSION
from tuneahead.features.vector import FeatureVector
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.history.tables import EMBEDDING_VERSION
from tuneahead.lab.exam import lab_exam
from tuneahead.predictor.predictor import load_predictor
from tuneahead.predictor.table import write_table
from tuneahead.record import record_run, run_id
from tuneahead.trace import trace_from_bytes
from tuneahead.workbench import Setup

START = ("fit", "--start", "shipped")
COMMANDS = ("check", "clean", "assess", "rank", "probe", "report", "demo", "build", "fit", "backtest", "runs")


@dataclass(frozen=True)
class Done:
    """What a command left."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def tuneahead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in this process and checks its exit code."""

    def run(*arguments: str | Path, code: int = 0, width: int = 100) -> Done:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr(sys, "argv", ["tuneahead", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return Done(said.out, said.err)

    return run


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"What is {i} plus {i}?", "completion": str(2 * i)} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_names_every_command_and_shows_examples(tuneahead: Run) -> None:
    text = tuneahead("--help").stdout
    assert all(f" {name} " in text for name in COMMANDS)
    assert "tuneahead check data.jsonl -b ./my-model" in text
    own, lab = text.index("From your own runs"), text.index("In the lab")
    assert own < text.index("tuneahead runs record") < lab < text.index("tuneahead build")


@pytest.mark.parametrize("command", ["check", "assess"])
def test_a_path_that_is_mistyped_is_told_before_anything_heavy_is_imported(command: str) -> None:
    code = (
        "import sys\nfrom tuneahead.cli.app import main\n"
        f"sys.argv = ['tuneahead', '{command}', 'nofile.jsonl']\n"
        "try:\n    main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"] and "No such file" in done.stderr


def test_help_comes_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time\nbegan = time.process_time()\nfrom tuneahead.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit: pass\n"
        "print('SECONDS', time.process_time() - began)\nprint('LOADED', *sys.modules)"
    )
    text = python("-c", code).stdout
    loaded = set(text.split("LOADED")[1].split())
    assert not loaded & {"torch", "transformers", "numpy", "pydantic", "sklearn", "lightgbm", "spacy"}
    assert float(text.split("SECONDS")[1].split()[0]) < 0.5


def test_the_module_can_be_run_and_shows_no_traceback_for_a_user_error() -> None:
    done = python("-m", "tuneahead", "assess", "nowhere.jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nowhere.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits_80_columns(tuneahead: Run, command: str) -> None:
    lines = tuneahead(command, "--help", width=80).stdout.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assess", "nowhere.jsonl"], "nowhere.jsonl"),
        (["assess", "DATA", "--set", "learning_rate=fast"], "learning_rate"),
        (["assess", "DATA", "--set", "learning_rat=1e-3"], "learning_rat"),
        (["assess", "DATA", "--set", "learning_rate"], "NAME=VALUE"),
        (["assess", "DATA", "--goal", "50", "--gain", "3"], "--goal and --gain"),
        (["assess", "DATA", "--goal", "500"], "500"),
        (["assess", "DATA", "--goal", "nan"], "--goal nan"),
        (["assess", "DATA", "--gain", "nan"], "--gain nan"),
        (["assess", "DATA", "--gain", "inf"], "--gain inf"),
        (["assess", "DATA", "--set", "seed=" + "9" * 5000], "can't read the value of --set seed=999"),
        (["assess", "DATA", "--set", "seed=2026-13-45"], "can't read the value of --set seed=2026"),
        (["assess", "DATA", "--set", "seed=" + "[" * 5000], "can't read the value of --set seed=[[["),
        (["assess", "DATA", "--set", "max_steps=10:30"], "--set max_steps: 10:30, which is no decimal"),
        (["check", "DATA", "--set", "target_modules=[]"], "'target_modules' is []"),
        (["check", "DATA", "--set", "batch_size=yes"], "'batch_size' is True"),
        (["check", "DATA", "--set", "stop_after=9"], "stop_after is no field to set"),
        (["check", "DATA", "-r", "STEPS", "-s", "epochs=1"], "epochs=1 has no effect: max_steps is 600"),
        (["check", "DATA", "-s", "seed=1", "-s", "seed=2"], "--set seed was given twice, as 1 and as 2"),
        (["check", "DATA", "-m", "text=a", "-m", "text=b"], "--mapping text was given twice, as a and as b"),
        (
            ["check", "DATA", "-r", "RECIPE", "--recipe", "STEPS"],
            "--recipe is given twice and takes one value",
        ),
        (["assess", "DATA", "--benchmark", "EXAM", "--benchmark=lab-exam"], "--benchmark is given twice"),
        (["check", "DATA", "--benchmark", ""], "--benchmark is given without a value"),
        (["clean", "DATA", "-o", "x.jsonl", "--benchmark="], "--benchmark is given without a value"),
        (["rank", "DATA", "-r", "RECIPE", "-r", ""], "--recipe is given without a value"),
        (["backtest", "--json", "--markdown"], "--json and --markdown were both given"),
        (["runs", "list", "--store", "a.sqlite", "--store", "b.sqlite"], "--store is given twice"),
        (["rank", "DATA", "-r", "RECIPE", "-r", "WRONG"], "wrong.yaml: recipe field 'batch_size' is 0"),
        (["assess", "DATA", "--mapping", "question=prompt"], "question"),
        (["assess", "DATA", "--probe-steps", "2"], "2 steps"),
        (["assess", "DATA", "--benchmark", "no-such"], "no-such"),
        (["assess", "DATA", "--base", "./no-such-model"], "there is no folder ./no-such-model"),
        (["assess", "DATA", "--base", "~/no-such-model"], "there is no folder ~/no-such-model"),
        (["assess", "DATA", "-b", "./no-such-model", "--predictor", "nix"], "nix holds no predictor"),
        (["assess", "DATA", "--benchmark", "no-such.jsonl"], "no-such.jsonl"),
        (["clean", "DATA", "--out", "DATA"], "overwritten"),
        (["check", "DATA", "--fix", "DATA"], "overwritten"),
        (["check", "DATA", "--html", "DATA"], "overwritten"),
        (["check", "DATA", "--html", "EXAM", "--benchmark", "EXAM"], "overwritten"),
        (["check", "DATA", "--html", "RECIPE", "--recipe", "RECIPE"], "overwritten"),
        (["clean", "DATA", "--out", "EXAM", "--benchmark", "EXAM"], "overwritten"),
        (["assess", "DATA", "--html", "DATA"], "overwritten"),
        (["assess", "DATA", "--html", "RECIPE", "-r", "RECIPE"], "overwritten"),
        (["assess", "DATA", "--html", "EXAM", "--benchmark", "EXAM"], "overwritten"),
        (["probe", "DATA", "--out", "DATA"], "overwritten"),
        (["report", "DATA", "--html", "DATA"], "overwritten"),
        (["check", "nowhere.jsonl", "--fix", "x.jsonl"], "nowhere.jsonl"),
        (["clean", "DATA", "--out", "x.jsonl", "--also", "typos"], "typos"),
        (["rank", "DATA", "-r", "a.yaml"], "rank compares recipes"),
        (["rank", "DATA", "-r", "RECIPE", "-r", "RECIPE"], "is given twice"),
        (["report", "DATA"], "not a saved assessment"),
        (["demo", "--out", "DATA"], "can't make the folder"),
        (["demo", "--out", "DEMO"], "healthy.jsonl: is a folder, and --out writes a file"),
        (["fit", "--store", "no.sqlite"], "no.sqlite"),
        (["fit", "--table", "no.parquet"], "no.parquet"),
        (["fit"], "it is not said which runs to fit to"),
        (["fit", "--start", "shipped"], "your own runs"),
        (["fit", "--start", "shipped"], "--base smollm2 for the packaged ones alone"),
        (["fit", "--base", "smollm2"], "add --start shipped"),
        (["fit", "--start", "x", "--base", "smollm2"], "add --start shipped"),
        (
            [*START, "--base", "lab-llama", "--store", "s"],
            "--base lab-llama has no effect",
        ),
        (
            [*START, "--base", "lab-llama", "--benchmark", "x"],
            "--benchmark x has no effect",
        ),
        ([*START, "--base", "gpt2"], "no runs on base 'gpt2'"),
        ([*START, "--base", "../lab-llama"], "no runs on base '../lab-llama'"),
        (
            [*START, "--base", "smollm2", "--probe-steps", "200"],
            "after 50 and 100 steps",
        ),
        (
            ["fit", "--table", "t.parquet", "--start", "x", "--preset", "paper"],
            "--preset paper has no effect",
        ),
        (["fit", "--table", "t.parquet", "--start", "x", "--level", "0.5"], "--level 0.5 has no effect"),
        (["fit", "--table", "t.parquet", "--start", "x", "--seed", "0"], "--seed 0 has no effect"),
        (["fit", "--table", "t.parquet", "--start", "no-folder"], "t.parquet"),
        (["fit", "--benchmark", "mmlu"], "--benchmark mmlu has no effect"),
        (["fit", "--table", "t.parquet", "--benchmark", "mmlu"], "--benchmark mmlu has no effect"),
        (["fit", "--table", "t.parquet", "--out", "DATA"], "--out needs a folder"),
        (["backtest", "--benchmark", "nosuch"], "--benchmark nosuch has no effect"),
        (["backtest", "--table", "t.parquet", "--benchmark", "mmlu"], "--benchmark mmlu has no effect"),
        (["assess", "DATA", "--adapter", "FOLDER"], "without --verify there is none"),
        (["assess", "DATA", "--adapter", "RECIPE", "--verify"], "--adapter needs a folder"),
        (["assess", "DATA", "--html", "FOLDER"], "is a folder, and --html writes a file"),
        (["assess", "DATA", "--html", "x", "--store", "x"], "what both --html and --store would write"),
        (["assess", "DATA", "--html", "./x", "--adapter", "x", "--verify"], "both --html and --adapter"),
        (["assess", "DATA", "--base", "FOLDER", "--adapter", "FOLDER", "--verify"], "overwritten"),
        (["assess", "DATA", "--base", "RECIPE"], "is a file and no .gguf file"),
        (
            ["assess", "DATA", "--predictor", "no-folder"],
            "no-folder/predictor.json: No such file or directory\n  -> give the folder that 'fit' wrote",
        ),
        (["check", "DATA", "--html", "FOLDER"], "is a folder, and --html writes a file"),
        (["check", "DATA", "--html", "o.jsonl", "--fix", "o.jsonl"], "both --html and --fix"),
        (["check", "DATA", "--html", "o.ledger.jsonl", "--fix", "o.jsonl"], "the ledger of --fix"),
        (["clean", "DATA", "--out", "FOLDER"], "is a folder"),
        (["probe", "DATA", "--probe-steps", "4"], "a probe of 4 steps tells nothing, 5 are the least"),
        (["report", "nofile"], "can't read assessment nofile: No such file"),
        (["report", "EXAM"], "exam.jsonl: not a saved assessment"),
        (["runs", "list", "--store", "no.sqlite"], "no.sqlite"),
        (["runs", "list", "--store", "no.sqlite"], "as 'assess --store', 'runs import' and 'build' write it"),
        (["runs", "show", "x", "--store", "FOLDER"], "is a folder, not a store"),
    ],
)
def test_a_user_error_is_one_message_with_a_remedy_and_exit_code_2(
    tuneahead: Run, arguments: list[str], message: str, data: Path, tmp_path: Path
) -> None:
    files = {"DATA": data, "EXAM": tmp_path / "exam.jsonl", "RECIPE": tmp_path / "r.yaml"}
    files["WRONG"], files["STEPS"] = tmp_path / "wrong.yaml", tmp_path / "steps.yaml"
    files["EXAM"].write_text('{"prompt": "1 + 1 =", "options": ["2", "3"], "gold": 0}\n')
    files["RECIPE"].write_text("batch_size: 4\n")
    files["WRONG"].write_text("batch_size: 0\n")
    files["STEPS"].write_text("max_steps: 600\n")
    before = {path: path.read_bytes() for path in files.values()}
    (tmp_path / "demo" / "healthy.jsonl").mkdir(parents=True)
    named = {**files, "FOLDER": tmp_path, "DEMO": tmp_path / "demo"}
    done = tuneahead(*(named.get(argument, argument) for argument in arguments), code=2)
    assert {path: path.read_bytes() for path in files.values()} == before
    assert done.stdout == ""
    assert message in done.stderr
    assert "error:" in done.stderr
    assert "  -> " in done.stderr
    assert "Traceback" not in done.stderr
    assert "[Errno" not in done.stderr


def test_a_setting_is_read_as_in_a_file() -> None:
    settings = ["batch_size=1e1", "max_steps=none", "target_modules=q_proj, v_proj"]
    recipe = read_recipe_options(None, settings)
    assert (recipe.batch_size, recipe.max_steps, recipe.target_modules) == (10, None, ("q_proj", "v_proj"))


def test_epochs_are_set_in_place_of_a_files_steps(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("max_steps: 600\n")
    recipe = read_recipe_options(path, ["epochs=1", "max_steps=none"])
    assert (recipe.epochs, recipe.max_steps) == (1.0, None)


def test_wrong_usage_ends_with_2(tuneahead: Run, data: Path) -> None:
    assert "--no-such-option" in tuneahead("check", data, "--no-such-option", code=2).stderr


@pytest.mark.parametrize("seed", ["-5", "2147483648"])
def test_a_seed_that_no_fit_can_have_is_wrong_usage(tuneahead: Run, tmp_path: Path, seed: str) -> None:
    table = tmp_path / "table.parquet"
    write_table(made_table(), table)
    for command in ("fit", "backtest"):
        said = tuneahead(command, "--table", table, f"--seed={seed}", code=2).stderr
        assert "--seed" in said and "Traceback" not in said


def test_a_saved_assessment_becomes_a_page(tuneahead: Run, tmp_path: Path) -> None:
    saved, page = tmp_path / "a.json", tmp_path / "deep" / "a.html"
    made_assessment().save(saved)
    done = tuneahead("report", saved, "--html", page)
    assert done.stdout.strip() == str(page)
    assert "Expected to score 58.3" in page.read_text(encoding="utf-8")


def test_the_version_is_printed(tuneahead: Run) -> None:
    assert tuneahead("--version").stdout.startswith("tuneahead ")


def test_a_probe_prints_json_only_and_keeps_the_trace(tuneahead: Run, data: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.safetensors"
    done = tuneahead("probe", data, "--probe-steps", "6", "-s", "batch_size=4", "--out", trace, "--json")
    summary = json.loads(done.stdout)
    assert len(summary["loss_nats"]) == 6
    assert [cue["step"] for cue in summary["cues"]] == [0, 6]
    assert len(trace_from_bytes(trace.read_bytes()).steps) == 6


def test_a_cleaned_copy_is_written_with_its_ledger(tuneahead: Run, data: Path, tmp_path: Path) -> None:
    rows = data.read_text().splitlines()
    data.write_text("\n".join([*rows, rows[0], '{"prompt": "q", "completion": " "}']) + "\n")
    said = tuneahead("clean", data, "--out", tmp_path / "clean.jsonl").stdout
    assert "40 rows kept, 2 left out" in said
    assert "exact-duplicates: 1" in said
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 40
    assert (tmp_path / "clean.ledger.jsonl").exists()


def test_a_check_shows_json_a_page_and_a_cleaned_copy_and_touches_nothing_else(
    tuneahead: Run, data: Path, tmp_path: Path
) -> None:
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines, lines[0], '{"prompt": "q", "completion": " "}']) + "\n")
    before = data.read_bytes()
    page, copy = tmp_path / "deep" / "page.html", tmp_path / "clean.jsonl"
    done = tuneahead("check", data, "--json", "--html", page, "--fix", copy)
    found = json.loads(done.stdout)["checkup"]
    assert {f["check"]: f["rows"] for f in found["findings"] if f["rows"]} == {
        "empty-answers": [42],
        "exact-duplicates": [41],
    }
    assert "40 rows kept, 2 left out" in done.stderr and str(page) in done.stderr
    assert "Look first" in page.read_text(encoding="utf-8")
    assert copy.read_text().splitlines() == lines
    ledger = [json.loads(line) for line in (tmp_path / "clean.ledger.jsonl").read_text().splitlines()]
    assert [(entry["row"], entry["reason"]) for entry in ledger] == [
        (41, "exact-duplicates"),
        (42, "empty-answers"),
    ]
    assert data.read_bytes() == before
    card = tuneahead("check", data)
    assert "LOOK FIRST" in card.stdout and "Kept from" in card.stdout
    again = tuneahead("check", data, "--fix", tmp_path / "again.jsonl")
    assert "40 rows kept, 2 left out" in again.stdout
    assert (tmp_path / "again.jsonl").read_bytes() == copy.read_bytes()


def test_rows_go_for_a_benchmarks_sake_only_where_it_was_named(
    tuneahead: Run, data: Path, tmp_path: Path
) -> None:
    lines = data.read_text().splitlines()
    asked = [
        json.dumps({"prompt": item.question or item.prompt, "completion": "?"})
        for item in lab_exam().items[:3]
    ]
    data.write_text("\n".join([*lines, *asked]) + "\n")
    copy = tmp_path / "copy.jsonl"
    for named, kept in (((), 43), (("--benchmark", "lab-exam"), 40)):
        said = tuneahead("check", data, "--fix", copy, *named).stdout
        assert f"{kept} rows kept" in said
        assert len(copy.read_text().splitlines()) == kept
        assert ("kept: rows that hold questions of lab-exam" in said) == (not named)
        assert f"{kept} rows kept" in tuneahead("clean", data, "--out", copy, *named).stdout


def test_a_second_check_is_kept_unless_something_changed(
    tuneahead: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tuneahead("check", data, "--json").stdout

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("checked again")

    with monkeypatch.context() as patch:
        patch.setattr("tuneahead.checkup.examine", never)
        assert tuneahead("check", data, "--json").stdout == first
        for options in (
            ["--no-cache"],
            ["-s", "max_length=99"],
            ["-m", "prompt=prompt", "-m", "answer=completion"],
        ):
            with pytest.raises(AssertionError, match="checked again"):
                tuneahead("check", data, *options)
    data.write_text(data.read_text() + '{"prompt": "q", "completion": "r"}\n')
    assert json.loads(tuneahead("check", data, "--json").stdout)["checkup"]["data"]["rows"] == 41


def test_a_sure_failure_ends_a_check_with_3_where_that_is_asked_for(tuneahead: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"prompt": "p", "answer": ""}\n' * 9)
    assert "STOP" in tuneahead("check", path).stdout
    tuneahead("check", path, "--exit-code", code=3)


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "runs.sqlite"
    return path, record_run(made_assessment(), RunStore(path))


def test_a_stored_run_is_listed_scored_and_shown(tuneahead: Run, store: tuple[Path, str]) -> None:
    path, name = store
    listed = json.loads(tuneahead("runs", "list", "--store", path, "--json").stdout)
    assert [run["run"] for run in listed] == [name]
    assert listed[0]["scores"] == {}
    tuneahead("runs", "record", name, "--score", "61.5", "--store", path)
    shown = tuneahead("runs", "show", name, "--store", path).stdout
    assert "61.5" in shown
    assert "Gradient norm" in shown


def test_a_column_s_name_in_an_error_does_not_steer_the_terminal(tuneahead: Run, tmp_path: Path) -> None:
    data = tmp_path / "odd.jsonl"
    data.write_text(json.dumps({"\x1b[31mred\u202e": "a", "b": "c"}) + "\n")
    assert "seen: ?[31mred?, b" in tuneahead("check", data, code=2).stderr


def test_the_runs_of_another_store_are_brought_in(
    tuneahead: Run, store: tuple[Path, str], tmp_path: Path
) -> None:
    path, name = store
    RunStore(path).record_score(name, "lab-exam", 61.5)
    said = tuneahead("runs", "import", path, "--store", tmp_path / "all.sqlite").stdout
    assert "1 run imported, 0 were there, 1 got a score" in said
    assert "They count as 1 task on 1 data set\n" in said
    assert RunStore(tmp_path / "all.sqlite").get(name).scores == {"lab-exam": 61.5}
    refused = tuneahead("runs", "import", path, "--store", tmp_path / "all.sqlite", "--base", "x", code=2)
    assert "--base says how to read a log" in refused.stderr


def test_what_a_log_calls_its_base_does_not_steer_the_terminal(tuneahead: Run, tmp_path: Path) -> None:
    path, found = tmp_path / "runs.sqlite", made_assessment()
    task = replace(found.task, base="evil\x1b[31mred\u202egnp")
    name = record_run(replace(found, task=task), RunStore(path))
    for command in (("list",), ("show", name)):
        shown = tuneahead("runs", *command, "--store", path).stdout
        assert "evil?[31mred?gnp" in shown


def test_a_narrow_terminal_lists_a_run_in_few_lines_without_its_least_telling_columns(
    tuneahead: Run, store: tuple[Path, str]
) -> None:
    path, name = store
    history = RunStore(path)
    record = replace(history.get(name), base="lab-qwen2", family="scrambled_answers")
    history.forget(name)
    history.add(record)
    history.record_score(name, "lab-exam", 61.5)
    for width, gone, lines in (
        (140, (), 1),
        (80, ("Family", "Data"), 1),
        (60, ("Family", "Data", "Date"), 2),
    ):
        said = tuneahead("runs", "list", "--store", path, width=width).stdout
        table, _, note = said.partition("Left out for want of width (--json has all): ")
        head, _, *run = [line for line in table.splitlines() if line.strip()]
        assert name in run[0] and "lab-qwen2" in run[0] and len(run) == lines
        assert all((title in head) == (title not in gone) for title in ("Date", "Data", "Family"))
        assert all(title in note for title in gone) and bool(note) == bool(gone)


def test_stored_text_is_shown_as_it_is_and_no_more_runs_than_asked_for(
    tuneahead: Run, store: tuple[Path, str]
) -> None:
    path, name = store
    history = RunStore(path)
    odd = replace(history.get(name), run_id="odd", base="org/[bold]x[/]", family="[/red]", failure="[a]")
    history.add(odd)
    said = tuneahead("runs", "list", "--store", path, width=200).stdout
    assert all(text in said for text in ("org/[bold]x[/]", "[/red]", "[a]"))
    limited = tuneahead("runs", "list", "--store", path, "--limit", "1", "--json")
    assert [run["run"] for run in json.loads(limited.stdout)] == ["odd"], "the latest"
    assert "1 earlier; see --limit" in limited.stderr


@pytest.mark.parametrize("arguments", [["show", "nobody"], ["record", "nobody", "--score", "50"]])
def test_a_run_that_is_not_there_is_a_user_error(
    tuneahead: Run, arguments: list[str], store: tuple[Path, str]
) -> None:
    assert "nobody" in tuneahead("runs", *arguments, "--store", store[0], code=2).stderr


def test_a_run_is_named_by_the_beginning_of_its_id_and_listed_with_what_is_known(
    tuneahead: Run, store: tuple[Path, str]
) -> None:
    path, name = store
    said = tuneahead("runs", "record", name[:5], "--score", "61.5", "--store", path)
    assert said.stdout == f"{name}: lab-exam 61.50\n" and said.stderr == ""
    again = tuneahead("runs", "record", name[:5], "--score", "62", "--store", path)
    assert again.stdout == f"{name}: lab-exam 62.00 (was 61.50)\n"
    assert name in tuneahead("runs", "show", name[:5], "--store", path).stdout
    record = RunStore(path).get(name)
    listed = tuneahead("runs", "list", "--store", path, width=200).stdout
    steps = f"{len(record.trace.steps):,} of {record.trace.info.total_steps:,}"
    scores = f"lab-exam 62.0 (base {record.base_scores['lab-exam']:.1f})"
    for shown in (record.data_id[:6], record.created[:10], steps, scores):
        assert shown in listed


def test_what_was_recorded_forgotten_or_cleaned_is_told_as_json_too(
    tuneahead: Run, store: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    path, name = store

    def said(*arguments: str | Path) -> object:
        return json.loads(tuneahead(*arguments, "--json").stdout)

    recorded = {"run": name, "benchmark": "lab-exam", "score": 61.5, "earlier": None}
    record = ("runs", "record", name, "--score", "61.5", "--store", path)
    assert said(*record) == recorded and said(*record) == {**recorded, "earlier": 61.5}
    gone = {"run": name, "benchmark": None, "runs_left": 0}
    assert said("runs", "forget", name, "--store", path) == gone
    copy = tmp_path / "copy.jsonl"
    cleaned = {"path": str(copy), "kept": 40, "left_out": {}, "ledger": None}
    assert said("clean", data, "--out", copy) == cleaned


def test_a_fraction_is_no_score_in_points_unless_that_is_said(
    tuneahead: Run, store: tuple[Path, str]
) -> None:
    path, name = store
    arguments = ("runs", "record", name, "--store", path, "--score")
    wrong = tuneahead(*arguments, "0.61", code=2).stderr
    assert "0.61 looks like a fraction" in wrong and "--score 61," in wrong
    tuneahead(*arguments, "1", code=2)
    assert RunStore(path).get(name).scores == {}
    assert "0.61" in tuneahead(*arguments, "0.61", "--points").stdout
    assert "0.00" in tuneahead(*arguments, "0").stdout


def test_a_score_needs_a_benchmark_where_several_are_known(tuneahead: Run, store: tuple[Path, str]) -> None:
    path, name = store
    arguments = ("runs", "record", name, "--store", path, "--score", "50")
    said = tuneahead(*arguments, "--benchmark", "mmlu").stderr
    assert "mmlu is new in" in said and "knows lab-exam" in said
    assert "lab-exam, mmlu" in tuneahead(*arguments, code=2).stderr
    assert tuneahead(*arguments, "--benchmark", "mmlu").stderr == ""


def test_a_run_and_a_score_are_forgotten(tuneahead: Run, store: tuple[Path, str]) -> None:
    path, name = store
    tuneahead("runs", "record", name, "--score", "50", "--store", path)
    arguments = ("runs", "forget", name[:6], "--store", path)
    assert "no score on 'mmlu'" in tuneahead(*arguments, "--benchmark", "mmlu", code=2).stderr
    said = tuneahead(*arguments, "--benchmark", "lab-exam").stdout
    assert f"{name}: the score on lab-exam is forgotten (was 50.00)" in said
    assert "holds 0 runs" in tuneahead(*arguments).stdout
    assert json.loads(tuneahead("runs", "list", "--store", path, "--json").stdout) == []


def test_a_run_that_can_not_be_read_hides_no_other_and_can_be_forgotten(
    tuneahead: Run, store: tuple[Path, str]
) -> None:
    path, name = store
    RunStore(path).add(replace(RunStore(path).get(name), run_id="later"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET trace = x'00' WHERE run_id = 'later'")
    said = tuneahead("runs", "list", "--store", path)
    assert name in said.stdout and "unreadable" in said.stdout
    assert f"tuneahead runs forget later --store {path}" in said.stderr
    listed = json.loads(tuneahead("runs", "list", "--store", path, "--json").stdout)
    assert [one["run"] for one in listed] == [name, "later"] and "later" in listed[1]["unreadable"]
    for command in (["runs", "show", "later"], ["fit"]):
        assert "runs forget later" in tuneahead(*command, "--store", path, code=2).stderr
    assert "later is forgotten" in tuneahead("runs", "forget", "lat", "--store", path).stdout


def test_an_impossible_score_is_not_recorded(tuneahead: Run, store: tuple[Path, str]) -> None:
    path, name = store
    assert "610" in tuneahead("runs", "record", name, "--score", "610", "--store", path, code=2).stderr


def test_old_runs_come_in_from_their_logs_and_are_shown_with_what_they_lack(
    tuneahead: Run, tmp_path: Path
) -> None:
    logs = Path(__file__).parent / "history" / "logs" / "mlflow_files.json"
    for name, text in json.loads(logs.read_text()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    path, mlruns = tmp_path / "runs.sqlite", tmp_path / "mlruns"
    scored = ("runs", "import", mlruns, "--score", "eval_exam")
    wanted = (*scored, "--benchmark", "exam")
    arguments = (*wanted, "--store", path)
    said = tuneahead(*arguments).stdout
    assert "3 runs imported, 0 were there, 3 got a score" in said
    assert "eval_exam was read as a fraction of 1, as the score on exam" in said
    assert "They count as 3 tasks on 2 data sets; if they are more, import into a new store" in said
    named = ("--store", tmp_path / "named.sqlite", "--data-by", "learning_rate")
    assert "They count as 3 tasks on 3 data sets\n" in tuneahead(*wanted, *named).stdout
    (line,) = [line for line in said.splitlines() if line.endswith("(a log holds no such measurement)")]
    assert line.startswith("absent in 3: ") and "flatness" in line and "row visits" in line
    assert "absent" not in tuneahead(*arguments).stdout
    again = json.loads(tuneahead(*arguments, "--json").stdout)
    assert (again["added"], again["present"], again["left_out"]) == (0, 3, [])
    assert "3 known runs keep their earlier" in tuneahead(*arguments, "--base", "other").stderr
    run = json.loads(tuneahead("runs", "list", "--store", path, "--json").stdout)[0]["run"]
    shown = tuneahead("runs", "show", run, "--store", path).stdout
    assert "exam" in shown and "org/base" in shown
    lines = {
        line.split(maxsplit=1)[0]: line
        for line in shown.splitlines()
        if line.startswith("  ") and line.strip()
    }
    assert lines["lora_rank"].split() == ["lora_rank", "16"] and "q_proj, v_proj" in lines["target_modules"]
    assert "not known: the log does not say" in lines["max_length"]
    assert "not known: the log gives the batch of one process" in lines["batch_size"]
    assert "template" not in lines and "epochs" not in lines
    summary = json.loads(tuneahead("runs", "show", run, "--store", path, "--json").stdout)
    assert "batch_size" not in summary["recipe"] and "batch_size" in summary["unknown"]
    assert summary["seed"] is None
    loss = sorted(mlruns.glob("*/*/metrics/loss"))[0]
    loss.write_text("not a line\n")
    assert f"left out: {loss}, row 1: 'not a line'" in tuneahead(*arguments).stderr
    for impossible in ((*arguments, "--chance", "250"), (*scored, "--store", path)):
        assert "error:" in tuneahead(*impossible, code=2).stderr
    wrong = tuneahead("runs", "import", tmp_path / "nowhere", "--store", path, code=2).stderr
    assert "there is no" in wrong and "mlruns" in wrong


def test_a_history_without_scores_says_how_to_add_one(tuneahead: Run, store: tuple[Path, str]) -> None:
    assert "runs record" in tuneahead("fit", "--store", store[0], code=2).stderr


def test_a_predictor_is_fitted_to_a_table_and_backtested(tuneahead: Run, tmp_path: Path) -> None:
    table, folder = tmp_path / "table.parquet", tmp_path / "mine"
    write_table(made_table(), table)
    said = tuneahead("fit", "--table", table, "--out", folder, "--preset", "quick").stdout
    assert "40 tasks on 20 data sets" in said and f"--predictor {folder}" in said
    assert load_predictor(folder).origin.bases == ("lab-qwen2",)
    told = json.loads(tuneahead("fit", "--table", table, "-o", folder, "--preset", "quick", "--json").stdout)
    assert (told["predictor"], told["rows"], told["bases"]) == (str(folder), 40, ["lab-qwen2"])
    result = tuneahead("backtest", "--table", table, "--system", "persistence", "--json").stdout
    assert json.loads(result)["tasks"] == 40


def test_a_fit_to_shorter_probes_says_how_to_forecast_with_it(tuneahead: Run, tmp_path: Path) -> None:
    table, folder = tmp_path / "table.parquet", tmp_path / "mine"
    write_table(replace(made_table(), probe_steps=50), table)
    said = tuneahead("fit", "--table", table, "--out", folder, "--preset", "quick").stdout
    assert f"--predictor {folder} --probe-steps 50\n" in said


def test_a_fit_says_how_many_tasks_it_left_out(tuneahead: Run, tmp_path: Path) -> None:
    table, made = tmp_path / "table.parquet", made_table()
    made.probe_pp[0] = float("nan")
    write_table(made, table)
    done = tuneahead("fit", "--table", table, "--out", tmp_path / "mine", "--preset", "quick")
    assert "39 tasks on 20 data sets" in done.stdout and "1 task left out" in done.stderr


def test_a_fit_to_too_few_data_sets_says_that_no_interval_is_known(tuneahead: Run, tmp_path: Path) -> None:
    table, made = tmp_path / "table.parquet", made_table()
    for count, told in ((1, True), (8, True), (9, False)):
        few = set(list(dict.fromkeys(made.data_ids))[:count])
        write_table(made.select([i for i, name in enumerate(made.data_ids) if name in few]), table)
        done = tuneahead("fit", "--table", table, "--out", tmp_path / "mine", "--preset", "quick")
        said = f"0.9 scored runs on 9 data sets are the least, these are on {count}"
        assert (said in done.stderr) is told


def test_a_fit_names_the_base_whose_data_sets_are_too_few(tuneahead: Run, tmp_path: Path) -> None:
    table, made = tmp_path / "table.parquet", made_table()
    few = set(list(dict.fromkeys(made.data_ids))[:2])
    bases = ["my-llm" if name in few else "other" for name in made.data_ids]
    write_table(replace(made, bases=tuple(bases)), table)
    said = tuneahead("fit", "--table", table, "--out", tmp_path / "mine", "--preset", "quick").stderr
    told = [line for line in said.splitlines() if "whole scale" in line]
    assert len(told) == 1 and told[0].startswith(f"Every interval on my-llm {made.benchmarks[0]} is")
    assert told[0].endswith("these are on 2")


def test_a_fit_tells_where_one_name_stands_for_several_bases(tuneahead: Run, tmp_path: Path) -> None:
    table, made = tmp_path / "table.parquet", made_table()
    bases = tuple("my-llm" if i % 2 else "other" for i in range(len(made)))
    for apart, told in ((1.5, 0), (6.3, 1)):
        made.base_pp[:] = 40.0
        made.base_pp[1] += apart
        write_table(replace(made, bases=bases), table)
        said = tuneahead("fit", "--table", table, "--out", tmp_path / "mine", "--preset", "quick").stderr
        assert said.count(f"my-llm {made.benchmarks[0]}: the base scored 40.0 in some runs and 46.3") == told
        assert f"other {made.benchmarks[0]}: the base" not in said


def test_a_fit_tells_of_the_data_sets_that_a_stopped_build_has_not_measured(
    tuneahead: Run, tmp_path: Path
) -> None:
    store, scores = RunStore(tmp_path / "runs.sqlite"), {"exam": 55.0}
    for data_id, spec in (
        ("clean-1", '{"family": "clean"}'),
        ("clean-2", '{"family": "clean"}'),
        ("own", ""),
    ):
        run = RunRecord(f"r-{data_id}", data_id, data_id, "clean", "lab", 0, RECIPE, made_trace(), scores)
        store.add(replace(run, data_spec=spec))
    for version in (CATALOGUE_VERSION, EMBEDDING_VERSION):
        store.add_static("clean-1", "lab", version, FeatureVector({"examples": 60.0}))
    fit = (
        "fit",
        "--store",
        store.path,
        "--benchmark",
        "exam",
        "--out",
        tmp_path / "mine",
        "--preset",
        "quick",
    )
    assert "lab: of 1 of 3 data sets in" in (said := tuneahead(*fit).stderr) and "start it again" in said
    store.forget("r-clean-2")
    assert "not measured" not in tuneahead(*fit).stderr


def test_a_fit_to_equal_scores_says_that_the_benchmark_tells_no_runs_apart(
    tuneahead: Run, tmp_path: Path
) -> None:
    table, made = tmp_path / "table.parquet", made_table()
    made.score_pp[:] = 0.0
    write_table(made, table)
    said = tuneahead("fit", "--table", table, "--out", tmp_path / "mine", "--preset", "quick").stderr
    assert f"lab-qwen2 {made.benchmarks[0]}: all runs scored 0.0" in said


def test_a_predictor_is_corrected_by_the_runs_of_a_new_base(tuneahead: Run, tmp_path: Path) -> None:
    old, own, start, mine = (tmp_path / name for name in ("old.parquet", "own.parquet", "start", "mine"))
    table = made_table()
    write_table(table, old)
    few = table.select(range(8))
    write_table(replace(few, bases=("my-llm",) * 8, score_pp=few.score_pp + 5), own)
    tuneahead("fit", "--table", old, "--out", start, "--preset", "quick")
    said = tuneahead("fit", "--table", own, "--start", start, "--out", mine).stdout
    assert "corrected by 8 own tasks" in said
    assert "my-llm" in load_predictor(mine).origin.bases
    assert load_predictor(mine).shift_pp > 0


def test_runs_that_a_predictor_was_fitted_to_are_told_to_correct_nothing(
    tuneahead: Run, tmp_path: Path
) -> None:
    """Ten data sets and one more: the interval would be the whole scale, as if there were one."""
    old, own, start, mine = (tmp_path / name for name in ("old.parquet", "own.parquet", "start", "mine"))
    write_table(made_table().select(range(20)), old)
    write_table(made_table().select(range(22)), own)
    tuneahead("fit", "--table", old, "--out", start, "--preset", "quick")
    made = tuneahead("fit", "--table", own, "--start", start, "--out", mine)
    assert "corrected by 2 own tasks" in made.stdout
    assert f"10 data sets corrected nothing, for the predictor in {start} was fitted to them" in made.stderr


@pytest.mark.parametrize(("installed", "base"), [(True, "smollm2"), (False, "lab")])
def test_the_demo_runs_on_the_real_model_where_it_is_installed(
    tuneahead: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, base: str
) -> None:
    def stop(setup: Setup, watch: object) -> None:
        raise TuneAheadError(f"stopped before loading {setup.base}")

    monkeypatch.setattr("tuneahead.training.sources.is_installed", lambda name: installed)
    monkeypatch.setattr("tuneahead.workbench.open_workbench", stop)
    said = tuneahead("demo", "--out", tmp_path, code=2).stderr
    assert f"stopped before loading {base}" in said


@pytest.mark.slow
def test_the_demo_tells_the_healthy_data_set_from_the_broken_one(tuneahead: Run, tmp_path: Path) -> None:
    tuneahead("demo", "--base", "lab", "--out", tmp_path)
    healthy, broken = (read_assessment(tmp_path / f"{name}.json") for name in ("healthy", "broken"))
    assert healthy.probe_pp > broken.probe_pp + 10
    assert healthy.verdict.decision != "NO_GO"
    assert (tmp_path / "healthy.html").exists() and (tmp_path / "broken.html").exists()


@pytest.mark.slow
def test_an_assessment_as_json_is_the_only_thing_on_stdout(
    tuneahead: Run, data: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    options = ("-s", "max_steps=60", "-s", "batch_size=4", "--probe-steps", "8", "--html", page, "--json")
    done = tuneahead("assess", data, *options, "--exit-code", code=4)  # no predictor knows 8 steps: unsure
    assert json.loads(done.stdout)["kind"] == "assessment"
    assert page.exists()


def assessing(monkeypatch: pytest.MonkeyPatch, found: Assessment) -> list[str]:
    """``assess`` gives ``found`` without training; returns what was loaded and trained, in order."""
    done: list[str] = []

    def judged(*arguments: object, **options: object) -> Assessment:
        done.append("probe")
        return found

    def verified(*arguments: object, **options: object) -> Assessment:
        done.append("full run")
        raise MemoryError("the full run failed")

    monkeypatch.setattr("tuneahead.workbench.open_workbench", lambda setup, **_: done.append("bench"))
    monkeypatch.setattr("tuneahead.judge.assess", judged)
    monkeypatch.setattr("tuneahead.judge.verify", verified)
    return done


def test_a_probed_run_is_kept_before_it_is_shown_and_before_the_full_run(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessing(monkeypatch, made_assessment())
    shown, verified = tmp_path / "shown.sqlite", tmp_path / "verified.sqlite"
    page = tmp_path / "page.html"

    def meanwhile(setup: Setup, **options: object) -> None:
        # The place was a good one when the command began.
        page.mkdir()

    monkeypatch.setattr("tuneahead.workbench.open_workbench", meanwhile)
    assert "can't write" in tuneahead("assess", data, "--store", shown, "--html", page, code=2).stderr
    monkeypatch.setattr("tuneahead.workbench.open_workbench", lambda setup, **_: None)
    assert len(RunStore(shown)) == 1
    with pytest.raises(MemoryError, match="full run"):
        tuneahead("assess", data, "--store", verified, "--verify")
    assert len(RunStore(verified)) == 1


def test_the_command_that_records_a_score_runs_whatever_store_and_benchmark_are_called(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_assessment()
    found = replace(made, task=replace(made.task, benchmark="their exam"))
    assessing(monkeypatch, found)
    store = tmp_path / "my runs.sqlite"
    said = tuneahead("assess", data, "--store", store).stderr
    command = said.split("once the full run is scored: ")[1].splitlines()[0]
    _, *arguments = shlex.split(command.replace("POINTS", "61.5"))
    tuneahead(*arguments)
    assert RunStore(store).get(run_id(found)).scores == {"their exam": 61.5}


def test_a_changed_model_under_an_old_name_is_told_when_its_run_is_kept(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = made_assessment(), tmp_path / "runs.sqlite"
    assert made.trace is not None
    for weights, is_told in (("first", False), ("second", True), ("second", False)):
        trace = replace(made.trace, info=replace(made.trace.info, base_fingerprint=weights))
        found = replace(made, task=replace(made.task, base_fingerprint=weights), trace=trace)
        assessing(monkeypatch, found)
        said = tuneahead("assess", data, "--store", store).stderr
        assert ("other weights or in another number format" in said) == is_told, weights
    other = replace(found, task=replace(found.task, base="another", base_fingerprint="third"))
    assessing(monkeypatch, other)
    assert "other weights" not in tuneahead("assess", data, "--store", store).stderr


def test_a_base_that_the_store_knows_under_another_name_is_told(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = made_assessment(), tmp_path / "runs.sqlite"
    monkeypatch.chdir(tmp_path)
    Path("my-model").mkdir()
    assessing(monkeypatch, replace(made, task=replace(made.task, base="./my-model")))
    for name, is_told in (("./my-model", False), ("my-model/", True), ("./my-model", False), ("lab", False)):
        said = tuneahead("assess", data, "--store", store, "--base", name).stderr
        assert ("is the same folder: name the base ./my-model, as its runs do" in said) == is_told, name


def test_a_run_that_ended_early_is_kept_with_the_reason_told_and_no_score_asked_for(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, why = made_assessment(), "the loss was not finite at step 347"
    assessing(monkeypatch, found)
    full = replace(found, outcome=Outcome(math.nan, 347, 1.0, failure=why))
    monkeypatch.setattr("tuneahead.judge.verify", lambda *_, **__: full)
    said = tuneahead("assess", data, "--store", tmp_path / "full.sqlite", "--verify").stderr
    assert f"has no score, for the full run ended early: {why}" in said
    assert found.trace is not None
    failed = replace(found.trace, info=replace(found.trace.info, failure=why))
    assessing(monkeypatch, replace(found, trace=failed, forecast=None))
    said = tuneahead("assess", data, "--store", tmp_path / "probe.sqlite", "--verify").stderr
    assert "kept as run" in said and "once the full run is scored" not in said


def test_a_stage_of_unknown_length_counts_nothing() -> None:
    stream = io.StringIO()
    with ProgressBar(Console(file=stream, force_terminal=True, width=120)) as bar:
        bar.stage("Loading base lab")
        bar._progress.refresh()
        assert "Loading base lab" in stream.getvalue() and "0/?" not in stream.getvalue()
        bar.stage("Training", 5)
        bar._progress.refresh()
    assert "0/5" in stream.getvalue()


def test_brackets_in_a_stage_are_shown_not_obeyed() -> None:
    stream = io.StringIO()
    with ProgressBar(Console(file=stream, force_terminal=True, width=120)) as bar:
        bar.stage("Loading base ./runs[/x]/[v2]/m")
    assert "./runs[/x]/[v2]/m" in stream.getvalue()


def test_progress_is_silent_where_stderr_is_no_terminal() -> None:
    stream = io.StringIO()
    with ProgressBar(Console(file=stream)) as bar:
        bar.stage("Probe", 100)
        bar.advance(3)
        bar.measure("Probe", 5, 100)
    assert stream.getvalue() == ""


def test_a_score_that_can_not_be_kept_is_shown_and_told_with_the_command_that_records_it(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, store = made_assessment(), tmp_path / "s.sqlite"
    assessing(monkeypatch, found)

    def verified(*arguments: object, **options: object) -> Assessment:
        store.write_text("no database any more, " * 100)
        return replace(found, outcome=Outcome(55.5, 120, 1.0))

    monkeypatch.setattr("tuneahead.judge.verify", verified)
    said = tuneahead("assess", data, "--store", store, "--verify", "--json", code=2)
    assert json.loads(said.stdout)["assessment"]["outcome"]["score_pp"] == 55.5
    name = run_id(found)
    assert "the full run scored 55.50, which was not kept" in said.stderr
    assert f"runs record {name} --score 55.5 --benchmark lab-exam --store {store}" in said.stderr


def test_an_assessment_that_can_not_be_kept_is_shown(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, store = assessing(monkeypatch, made_assessment()), tmp_path / "s.sqlite"

    def meanwhile(setup: Setup, **options: object) -> None:
        store.write_text("no database any more, " * 100)

    monkeypatch.setattr("tuneahead.workbench.open_workbench", meanwhile)
    said = tuneahead("assess", data, "--store", store, "--verify", code=2)
    assert "58.3" in said.stdout and "the run was not kept" in said.stderr
    assert done == ["probe"], "no full run"


def test_a_build_tells_how_far_it_is_where_stderr_is_no_terminal(
    tuneahead: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(plan: object, store: Path, options: object, show: Callable[..., None]) -> BuildSummary:
        show(BuildProgress(1, 2, 50, 100, 60.0, ("a worker died",)))
        return BuildSummary(2, 0)

    monkeypatch.setattr("tuneahead.build.execute.execute", execute)
    RunStore(tmp_path / "s.sqlite")
    said = tuneahead("build", "--store", tmp_path / "s.sqlite", "--json")
    assert "a worker died\n1 of 2 runs, 1 min left" in said.stderr
    assert json.loads(said.stdout)["stored"] == 2


def test_a_build_that_ctrl_c_ends_says_what_it_leaves(
    tuneahead: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(plan: object, store: Path, *further: object) -> BuildSummary:
        record_run(made_assessment(), RunStore(store))
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneahead.build.execute.execute", execute)
    said = tuneahead("build", "--store", tmp_path / "s.sqlite", code=130).stderr
    assert "stopped with 1 run in" in said and "the same command goes on from there" in said


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_command_that_is_stopped_says_that_it_wrote_nothing(
    tuneahead: Run, data: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    monkeypatch.setattr("tuneahead.checkup.examine", _raising(stop))
    assert tuneahead("check", data, code=code) == Done("", "stopped, nothing was written\n")


def test_a_reader_that_has_enough_of_the_results_stops_nothing(
    tuneahead: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneahead.checkup.examine", _raising(SystemExit(1)))
    assert tuneahead("check", data, code=1) == Done("", "")


def test_a_full_run_that_is_stopped_leaves_what_its_probe_told(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessing(monkeypatch, made_assessment())
    store = tmp_path / "s.sqlite"
    monkeypatch.setattr("tuneahead.judge.verify", _raising(KeyboardInterrupt()))
    said = tuneahead("assess", data, "--verify", "--store", store, code=130)
    assert "58.3" in said.stdout and "what is shown is what its probe told" in said.stderr
    monkeypatch.setattr("tuneahead.judge.verify", _raising(SystemExit(143)))
    said = tuneahead("assess", data, "--verify", "--store", store, code=143)
    assert not said.stdout and f"stopped, the probed run is kept in {store}" in said.stderr


def _raising(stop: BaseException) -> Callable[..., None]:
    def raises(*arguments: object, **options: object) -> None:
        raise stop

    return raises


def test_the_verdict_is_told_before_the_full_run_begins(
    tuneahead: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessing(monkeypatch, made_assessment())

    def fails(*arguments: object, **options: object) -> None:
        raise TuneAheadError("the full run failed")

    monkeypatch.setattr("tuneahead.judge.verify", fails)
    said = tuneahead("assess", data, "--verify", code=2).stderr
    verdict, failure = said.index("GO  Expected to score 58.3 %"), said.index("error: the full run failed")
    assert verdict < said.index("full run of 840 steps") < said.index("--adapter") < failure


def test_a_verdict_is_shown_though_the_full_run_or_its_adapter_is_lost(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made_assessment()
    assessing(monkeypatch, found)
    full = replace(found, outcome=Outcome(55.5, 120, 1.0, adapter_absent="No space left on device"))
    monkeypatch.setattr("tuneahead.judge.verify", lambda *_, **__: full)
    said = tuneahead("assess", data, "--verify", "--adapter", tmp_path / "a", "--json", code=2)
    assert json.loads(said.stdout)["assessment"]["outcome"]["score_pp"] == 55.5
    assert "error: the adapter was not kept: No space left on device" in said.stderr

    def fails(*arguments: object, **options: object) -> None:
        raise TuneAheadError("the full run failed")

    monkeypatch.setattr("tuneahead.judge.verify", fails)
    said = tuneahead("assess", data, "--verify", code=2)
    assert "58.3" in said.stdout and "error: the full run failed" in said.stderr


def test_recipes_that_setting_a_field_makes_equal_keep_their_names(
    tuneahead: Run, data: Path, tmp_path: Path
) -> None:
    paths = []
    for rank in (4, 8):
        paths.append(tmp_path / f"{rank}.yaml")
        paths[-1].write_text(f"lora_rank: {rank}\nmax_steps: 60\nbatch_size: 4\n")
    named = [part for path in paths for part in ("-r", path)]
    done = tuneahead("rank", data, *named, "-s", "lora_rank=2", "--probe-steps", "5", "--json")
    assert {one["recipe_file"] for one in json.loads(done.stdout)} == set(map(str, paths))


def test_a_store_that_can_not_be_used_is_refused_before_any_training(
    tuneahead: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = assessing(monkeypatch, made_assessment())
    other = data.with_name("notes.txt")
    other.write_text("this is not a database, " * 100)
    assert "not a database" in tuneahead("assess", data, "--store", other, code=2).stderr
    assert "overwritten" in tuneahead("assess", data, "--store", data, code=2).stderr
    closed = data.with_name("closed.sqlite")
    record_run(made_assessment(), RunStore(closed))
    with sqlite3.connect(closed) as connection:
        # What a full disk does to the first row that is written.
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    assert "disk is full" in tuneahead("assess", data, "--store", closed, code=2).stderr
    assert done == []


@pytest.mark.parametrize("price", ["0", "-2", "nan", "inf"])
def test_a_price_that_is_none_is_refused_before_any_work(tuneahead: Run, data: Path, price: str) -> None:
    assert "an hour is none" in tuneahead("assess", data, f"--price={price}", code=2).stderr


def test_a_task_stopped_before_its_probe_is_not_kept_and_ends_with_3(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made_assessment()
    stop = replace(found, trace=None, verdict=replace(found.verdict, decision="NO_GO"))
    assessing(monkeypatch, stop)
    said = tuneahead("assess", data, "--store", tmp_path / "s.sqlite", "--exit-code", code=3)
    assert "not kept" in said.stderr and "no probe" in said.stderr
    assert len(RunStore(tmp_path / "s.sqlite")) == 0
    said = tuneahead("assess", data, "--verify", "--adapter", tmp_path / "adapter")
    assert "no full run, and there is no adapter: preflight stopped it" in said.stderr


def test_a_run_is_kept_once_for_each_benchmark_and_probe_length(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, store = made_assessment(), tmp_path / "s.sqlite"
    assert found.trace is not None
    shorter = replace(found, trace=found.trace.truncate(50))
    other = replace(found, task=replace(found.task, benchmark="mmlu"))
    for one, said in (
        (found, "kept as"),
        (found, "was there already"),
        (shorter, "kept as"),
        (other, "kept as"),
    ):
        assessing(monkeypatch, one)
        assert said in tuneahead("assess", data, "--store", store).stderr
    kept = list(RunStore(store).records())
    assert [len(record.trace.steps) for record in kept] == [100, 50, 100]
    assert [list(record.base_scores) for record in kept] == [["lab-exam"], ["lab-exam"], ["mmlu"]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_one_line_and_exit_code_2(store: tuple[Path, str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "tuneahead", "runs", "list", "--store", str(store[0]), *more]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
        assert done.returncode == 2
        assert done.stderr.startswith("error: no space is left") and len(done.stderr.splitlines()) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit on the size of files")
def test_a_file_that_may_not_grow_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    import resource

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open(tmp_path / "help.txt", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tuneahead", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: a file would become larger") and len(done.stderr.splitlines()) == 2


def test_a_copy_is_written_though_nobody_reads_the_card(tuneahead: Run, data: Path, tmp_path: Path) -> None:
    tuneahead("check", data)
    copy = tmp_path / "clean.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tuneahead", "check", str(data), "--fix", str(copy)]
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert copy.is_file() and copy.with_name("clean.ledger.jsonl").is_file()


def test_a_place_that_can_not_be_written_to_is_refused_before_any_work(
    tuneahead: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "locked" / "deep"
    (tmp_path / "locked").mkdir()
    # Who runs the tests may be allowed to write anywhere.
    monkeypatch.setattr(os, "access", lambda path, wanted: Path(path) != tmp_path / "locked")
    for arguments in (
        ("assess", data, "--html", below / "p.html"),
        ("assess", data, "--verify", "--adapter", below),
        ("check", data, "--html", below / "p.html"),
        ("probe", data, "--out", below / "t"),
    ):
        said = tuneahead(*arguments, code=2).stderr
        assert f"{tmp_path / 'locked'}: can't be written to, as {arguments[-2]} needs" in said
    said = tuneahead("assess", data, "--html", data / "p.html", code=2).stderr
    assert "is a file, and --html needs a folder" in said
    assert not below.exists()
