"""What `import tuneahead` promises: a pinned list of names, and next to no cost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tuneahead

NAMES = [
    "Assessment",
    "Attribution",
    "Benchmark",
    "Checkup",
    "ColumnMapping",
    "Dataset",
    "Example",
    "FeatureVector",
    "Finding",
    "Fix",
    "Forecast",
    "Goal",
    "Predictor",
    "ProbeTrace",
    "Recipe",
    "RunStore",
    "Setup",
    "TuneAheadError",
    "Verdict",
    "Workbench",
    "assess",
    "best_chances",
    "check",
    "decide",
    "load_predictor",
    "open_workbench",
    "probe",
    "rank",
    "read_assessment",
    "read_examples",
    "read_recipe",
    "record_run",
    "verify",
    "write_html",
]
HEAVY = {"torch", "transformers", "spacy", "sklearn", "lightgbm", "pandas", "ray", "numpy", "pyarrow"}


def run_python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_public_names_are_pinned() -> None:
    assert tuneahead.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_can_be_loaded_and_has_a_docstring(name: str) -> None:
    assert getattr(tuneahead, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'asess'"):
        tuneahead.asess  # noqa: B018


def test_a_verb_is_a_function_whatever_was_imported_before() -> None:
    code = (
        "import tuneahead.judge, tuneahead.cli, tuneahead as t; print(callable(t.assess), callable(t.check))"
    )
    assert run_python(code).split() == ["True", "True"]


@pytest.mark.parametrize("statement", ["import tuneahead", "import tuneahead.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = run_python(f"{statement}; import sys; print(*sys.modules)").split()
    assert not HEAVY & set(loaded)
