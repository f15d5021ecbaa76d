"""The four example files: made as the script says, and each found to be what it is named after."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from tuneahead.checkup import check
from tuneahead.verdict import Finding
from tuneahead.workbench import Setup, Workbench, open_workbench

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "checks"
NAMES = ("healthy", "duplicated", "contaminated", "contradictory")
PAGE = ROOT / "docs" / "check.md"


def script(name: str) -> ModuleType:
    loaded = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def findings() -> dict[str, dict[str, Finding]]:
    bench: Workbench = open_workbench(Setup(), forecasts=False)
    checked = {name: check(FOLDER / f"{name}.jsonl", bench=bench).findings for name in NAMES}
    return {name: {finding.check: finding for finding in found} for name, found in checked.items()}


def rows_of(name: str) -> list[tuple[str, str]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["prompt"], row["answer"]) for row in map(json.loads, lines)]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_those_of_the_script(name: str) -> None:
    written = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    assert written == script("write_check_examples").content(name), "run scripts/write_check_examples.py"


def test_a_healthy_file_has_no_warning(findings: dict[str, dict[str, Finding]]) -> None:
    assert {finding.severity for finding in findings["healthy"].values()} == {"note"}


def test_copies_are_found_with_their_rows(findings: dict[str, dict[str, Finding]]) -> None:
    found = findings["duplicated"]
    rows = rows_of("duplicated")
    copies = [number for number, row in enumerate(rows, 1) if row in rows[: number - 1]]
    assert found["exact-duplicates"].rows == tuple(copies[:20])
    assert found["exact-duplicates"].count == len(copies) == 50
    alike = [number for number, (prompt, _) in enumerate(rows, 1) if "stairwell" in prompt]
    assert found["near-duplicates"].rows == tuple(alike[1:21])
    assert found["near-duplicates"].count == 29
    assert (
        "in 1 cluster, for example rows " + ", ".join(map(str, alike[:4])) in found["near-duplicates"].message
    )


def test_questions_of_the_examination_are_found_with_their_rows(
    findings: dict[str, dict[str, Finding]],
) -> None:
    healthy = set(rows_of("healthy"))
    asked = [number for number, row in enumerate(rows_of("contaminated"), 1) if row not in healthy]
    found = findings["contaminated"]["contamination"]
    assert (found.severity, found.count, found.rows) == ("stop", 40, tuple(asked[:20]))


def test_contradictions_are_found_with_their_rows(findings: dict[str, dict[str, Finding]]) -> None:
    answers: dict[str, set[str]] = defaultdict(set)
    for prompt, answer in rows_of("contradictory"):
        answers[prompt].add(answer)
    torn = [n for n, (prompt, _) in enumerate(rows_of("contradictory"), 1) if len(answers[prompt]) > 1]
    found = findings["contradictory"]["conflicting-answers"]
    assert found.severity == "warn" and found.count == len(torn)
    assert set(found.rows) <= set(torn)


def test_the_page_shows_what_is_found_and_the_stored_times(findings: dict[str, dict[str, Finding]]) -> None:
    written = PAGE.read_text(encoding="utf-8")
    plain = re.sub(r"\s+", " ", written)
    for found in findings.values():
        for finding in found.values():
            assert finding.message[1:] in plain, f"run scripts/write_check_page.py ({finding.message})"
    made = script("write_check_page")
    assert made.speed_section() in written, "run scripts/write_check_page.py"
