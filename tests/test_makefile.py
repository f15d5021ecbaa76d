"""The Makefile, as far as it can be tried without installing anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_environment_without_pip_does_not_count_as_made(tmp_path: Path) -> None:
    # As Debian's Python does where the package python3-venv is not there.
    broken = tmp_path / "python-without-ensurepip"
    broken.write_text(f'#!/bin/sh\n"{sys.executable}" -m venv --without-pip "$3"\nexit 1\n')
    broken.chmod(0o755)
    python = tmp_path / "venv" / "bin" / "python"
    made = [f"PYTHON={broken}", f"VENV={tmp_path / 'venv'}", str(python)]
    done = subprocess.run(["make", "-C", str(ROOT), *made], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (python.parent / "activate").exists() and not python.exists()


@pytest.mark.parametrize("name", ["check_against_data_juicer", "external_runs"])
def test_a_benchmark_without_the_files_it_wants_does_not_end_make_bench(name: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nothing is ")
