"""The scripts in examples/ do what the documentation says of them, run as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "110"}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_script_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(script.name in text for script in EXAMPLES.glob("*.py"))


@pytest.mark.slow
def test_the_library_judges_a_file_and_writes_a_report(tmp_path: Path) -> None:
    said = run(tmp_path, "assess_in_python.py")
    assert said.startswith("NO_GO") and "- remove" in said.lower()
    assert "<html" in (tmp_path / "broken.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["gate_in_a_trainer.py", "gate_in_trl.py"])
def test_the_gate_stops_a_doomed_run_with_a_checkpoint(tmp_path: Path, script: str) -> None:
    said = run(tmp_path, script)
    assert "NO GO  Expected to score" in said
    assert "NO_GO: trained for 100 steps" in said
    assert (tmp_path / "gated-run" / "checkpoint-100" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_the_gate_lets_a_good_run_pass_and_it_reaches_its_goal(tmp_path: Path) -> None:
    said = run(tmp_path, "gate_in_trl.py", str(EXAMPLES / "healthy.jsonl"))
    assert "GO  Expected to score" in said and "NO GO" not in said
    goal = re.search(r"reaches the goal of (\d+\.\d)", said)
    final = re.search(r"GO: trained for 400 steps, scores (\d+\.\d) %", said)
    assert goal and final and float(final[1]) >= float(goal[1])
