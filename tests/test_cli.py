"""The command line: fast help, clear errors, clean streams and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_assessment import made_assessment

COMMANDS = ("check", "assess", "rank", "probe", "report", "demo", "build", "fit", "backtest", "runs")


def tuneahead(*arguments: str | Path, code: int = 0, width: int = 100) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "COLUMNS": str(width),
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [sys.executable, "-m", "tuneahead", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"What is {i} plus {i}?", "completion": str(2 * i)} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_names_every_command_and_comes_at_once() -> None:
    tuneahead("--help")  # the first start may have to compile
    began = time.perf_counter()
    text = tuneahead("--help").stdout
    seconds = time.perf_counter() - began
    assert all(f" {name} " in text for name in COMMANDS)
    assert "tuneahead assess data.jsonl --gain 3" in text
    assert seconds < 2.0  # half a second on an idle machine; tests may share it


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tuneahead.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "transformers", "numpy", "pydantic", "sklearn", "lightgbm", "spacy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits_80_columns(command: str) -> None:
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
        (["assess", "DATA", "--mapping", "question=prompt"], "question"),
        (["assess", "DATA", "--probe-steps", "2"], "2 steps"),
        (["assess", "DATA", "--benchmark", "no-such"], "no-such"),
        (["assess", "DATA", "--base", "./no-such-model"], "no-such-model"),
        (["rank", "DATA", "-r", "a.yaml"], "rank compares recipes"),
        (["report", "DATA"], "not a saved assessment"),
        (["fit", "--store", "no.sqlite"], "no.sqlite"),
        (["fit", "--table", "no.parquet"], "no.parquet"),
        (["runs", "list", "--store", "no.sqlite"], "no.sqlite"),
    ],
)
def test_a_user_error_is_one_message_with_a_remedy_and_exit_code_2(
    arguments: list[str], message: str, data: Path, tmp_path: Path
) -> None:
    done = tuneahead(*(str(data) if a == "DATA" else a for a in arguments), code=2)
    assert done.stdout == ""
    assert message in done.stderr
    assert "error:" in done.stderr
    assert "  -> " in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_ends_with_2(data: Path) -> None:
    assert "--no-such-option" in tuneahead("check", data, "--no-such-option", code=2).stderr


def test_a_saved_assessment_becomes_a_page(tmp_path: Path) -> None:
    saved, page = tmp_path / "a.json", tmp_path / "deep" / "a.html"
    made_assessment().save(saved)
    done = tuneahead("report", saved, "--html", page)
    assert done.stdout.strip() == str(page)
    assert "Expected to score 58.3" in page.read_text(encoding="utf-8")


def test_the_version_is_printed() -> None:
    assert tuneahead("--version").stdout.startswith("tuneahead ")


def test_a_probe_prints_json_only_and_keeps_the_trace(data: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.safetensors"
    done = tuneahead("probe", data, "--probe-steps", "6", "-s", "batch_size=4", "--out", trace, "--json")
    summary = json.loads(done.stdout)
    assert len(summary["loss_nats"]) == 6
    assert [cue["step"] for cue in summary["cues"]] == [0, 6]
    from tuneahead.trace import trace_from_bytes

    assert len(trace_from_bytes(trace.read_bytes()).steps) == 6
