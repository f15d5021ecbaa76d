"""What ranking eight recipes takes over assessing one, and what a probe's questions take over its steps.

``tuneahead assess`` with one recipe and ``tuneahead rank`` with eight (learning rates, the same rows) on the
example data set, each in a process of its own with nothing kept but the converted model: seconds of the
clock from start to end, loading and features included. Then one probe on the opened base, from whose trace
the seconds of its steps and of its questions are read. Wants a quiet machine. Needs, for SmolLM2: make
smollm2. Writes benchmarks/results/ranking_speed.json.

python benchmarks/ranking_speed.py [--base lab smollm2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tuneahead.judge import probe
from tuneahead.kept import cache_folder
from tuneahead.recipe import Recipe
from tuneahead.workbench import Setup, open_workbench

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "ranking_speed.json"
DATA = ROOT / "examples" / "healthy.jsonl"
RATES = {
    "lab": (1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3, 6e-3, 8e-3, 1e-2),
    "smollm2": (1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3),
}
SHAPE = {"max_steps": 400, "batch_size": 8, "max_length": 96, "lora_rank": 8, "template": "raw"}


def main() -> None:
    """Time both commands and one probe on every base asked for, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", nargs="+", choices=list(RATES), default=list(RATES))
    found = {base: measure(base) for base in parser.parse_args().base}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(base: str) -> dict[str, float]:
    """Seconds of one and of eight, and the parts of one probe."""
    return {**of_commands(base), **of_probe(base)}


def of_commands(base: str) -> dict[str, float]:
    """Seconds of the clock of one assessment and of a ranking of eight recipes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [recipe_file(Path(scratch), place, rate) for place, rate in enumerate(RATES[base])]
        one, eight = timed("assess", base, files[4:5]), timed("rank", base, files)
    return {
        "assess_seconds": round(one, 1),
        "rank_eight_seconds": round(eight, 1),
        "eight_over_one": round(eight / one, 2),
    }


def of_probe(base: str) -> dict[str, float]:
    """Seconds of the steps and of the questions of one probe."""
    recipe = Recipe(learning_rate=RATES[base][4], **SHAPE)  # type: ignore[arg-type]
    opened = open_workbench(Setup(base=base), forecasts=False)
    with nothing_kept() as cache, patch.dict(os.environ, {"TUNEAHEAD_CACHE": cache}):
        trace = probe(DATA, recipe, bench=opened)
    steps, questions = float(trace.steps.seconds.sum()), sum(cue.seconds for cue in trace.cues)
    return {
        "probe_step_seconds": round(steps, 2),
        "probe_question_seconds": round(questions, 2),
        "questions_over_steps": round(questions / steps, 2),
    }


def recipe_file(folder: Path, place: int, rate: float) -> Path:
    """A recipe of this learning rate."""
    path = folder / f"{place}.yaml"
    path.write_text(json.dumps({"learning_rate": rate, **SHAPE}), encoding="utf-8")
    return path


@contextmanager
def nothing_kept() -> Iterator[str]:
    """A cache in which models converted before are found, and nothing that was measured."""
    with tempfile.TemporaryDirectory() as cache:
        for converted in cache_folder().glob("gguf-*"):
            Path(cache, converted.name).symlink_to(converted)
        yield cache


def timed(command: str, base: str, recipes: list[Path]) -> float:
    """Seconds of the clock of one command."""
    given = [part for recipe in recipes for part in ("--recipe", str(recipe))]
    call = [sys.executable, "-m", "tuneahead", command, str(DATA), *given, "--base", base, "--json"]
    with nothing_kept() as cache:
        began = time.perf_counter()
        environment = {**os.environ, "TUNEAHEAD_CACHE": cache}
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
