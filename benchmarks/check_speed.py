"""Time and memory of ``tuneahead check`` on 10,000, 100,000 and 1,000,000 rows, in one run.

Rows are made from English words by their frequency, 47 words each on average (about 60 tokens of a
large vocabulary): 94 % are distinct, 2 % exact copies, 2 % near-copies, 1 % contradict another row, 1 %
have no answer; ten hold a question of the examination. Every file is checked by the command line in a
process of its own with an empty cache, and then once more. Peak memory is the largest sum of the resident
memory of all processes of the check, looked at ten times a second (Linux). Processor time is that of all
its processes together: unlike the seconds on the clock it hardly depends on what else the machine does.
Writes benchmarks/results/check_speed.json and docs/images/check_speed.svg.

python benchmarks/check_speed.py [--rows 10000 100000] [--folder DIR, kept, with the files]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "check_speed.json"
PLOT = ROOT / "docs" / "images" / "check_speed.svg"
SIZES = (10_000, 100_000, 1_000_000)
BLOCK = 5_000


STYLE = (
    ":root{color-scheme:light dark}text{fill:#454c59}.g{stroke:#d5d9e0}.l{stroke:#2f5bd7;fill:none;"
    "stroke-width:2.2}.p{fill:#2f5bd7}.d{stroke:#666e7c;stroke-dasharray:5 5;fill:none}.s{fill:#9a6700}"
    "@media(prefers-color-scheme:dark){text{fill:#bac2ce}.g{stroke:#2a303a}.l{stroke:#8bacff}"
    ".p{fill:#8bacff}.d{stroke:#8f98a7}.s{fill:#e3b341}}"
)


@dataclass(frozen=True)
class Timing:
    """One size: seconds of the first and of the second check, processor time and peak memory of the first,
    and what was found."""

    rows: int
    file_mb: float
    seconds: float
    cpu_seconds: float
    seconds_again: float
    peak_mb: float
    exact_copies: int
    near_copies: int
    contradictions: int
    empty_answers: int
    questions: int


def write_rows(path: Path, rows: int) -> None:
    """Make a file of ``rows`` rows; the same every time."""
    from wordfreq import top_n_list, word_frequency

    from tuneahead.lab.exam import lab_exam

    words = np.array([word for word in top_n_list("en", 30_000) if word.isalpha()])
    share = np.array([word_frequency(word, "en") for word in words])
    rng = np.random.default_rng(0)
    questions = [item.prompt for item in lab_exam().items[:10]]
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            block = list(_block(rng, words, share / share.sum(), count))
            if start == 0:
                for i, question in enumerate(questions):
                    block[97 * i + 3] = (question, "It is known.")
            for prompt, answer in block:
                file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")


def _block(
    rng: np.random.Generator, words: np.ndarray, share: np.ndarray, count: int
) -> Iterator[tuple[str, str]]:
    asked, told = rng.integers(8, 30, count), rng.integers(8, 50, count)
    flat = rng.choice(words, int(asked.sum() + told.sum()), p=share).tolist()
    kinds = rng.random(count)
    at, before = 0, ("", "")
    for i in range(count):
        prompt = " ".join(flat[at : at + asked[i]]).capitalize() + "?"
        at += asked[i]
        answer = " ".join(flat[at : at + told[i]]).capitalize() + "."
        at += told[i]
        if before[0]:
            if kinds[i] < 0.02:
                prompt, answer = before
            elif kinds[i] < 0.04:
                prompt, answer = before[0], before[1] + " Indeed."
            elif kinds[i] < 0.05:
                prompt = before[0]
            elif kinds[i] < 0.06:
                answer = ""
        yield prompt, answer
        before = (prompt, answer) if answer and kinds[i] >= 0.06 else ("", "")


def measure(path: Path, rows: int, cache: Path) -> Timing:
    """Check one file twice."""
    before = _children_seconds()
    seconds, peak_mb, found = _check(path, cache)
    cpu_seconds = _children_seconds() - before
    again, _, kept = _check(path, cache)
    assert kept == found, "the kept result differs"
    # Of several findings of a check the first, which is the gravest, counts.
    counts = {finding["check"]: finding["count"] for finding in reversed(found["findings"])}
    return Timing(
        rows,
        round(path.stat().st_size / 1e6, 1),
        round(seconds, 2),
        round(cpu_seconds, 2),
        round(again, 2),
        round(peak_mb, 1),
        counts.get("exact-duplicates", 0),
        counts.get("near-duplicates", 0),
        counts.get("conflicting-answers", 0),
        counts.get("empty-answers", 0),
        counts.get("contamination", 0),
    )


def _check(path: Path, cache: Path) -> tuple[float, float, dict]:
    environment = {
        **os.environ,
        "TUNEAHEAD_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "tuneahead", "check", str(path), "--base", "lab", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    watch = _Memory(process.pid)
    text, _ = process.communicate()
    seconds = time.perf_counter() - began
    watch.stop()
    if process.returncode:
        raise SystemExit(f"the check of {path} ended with {process.returncode}")
    return seconds, watch.peak_mb, json.loads(text)["checkup"]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Memory(threading.Thread):
    """Looks at the resident memory of a process and of all that it started."""

    def __init__(self, process_id: int) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._root = process_id
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, _tree(self._root))))

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree(process_id: int) -> Iterator[int]:
    yield process_id
    for task in Path(f"/proc/{process_id}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _resident_mb(process_id: int) -> float:
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def plot(timings: list[Timing]) -> str:
    """Seconds over rows, both axes logarithmic, with a line of cost in proportion to the rows."""
    left, top, width, height = 64, 20, 460, 260
    low_x, high_x, low_y, high_y = 3.7, 6.3, 0.0, 3.0

    def place(rows: float, seconds: float) -> tuple[float, float]:
        x = left + width * (np.log10(rows) - low_x) / (high_x - low_x)
        y = top + height * (1 - (np.log10(seconds) - low_y) / (high_y - low_y))
        return round(float(x), 1), round(float(y), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 110} {top + height + 52}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" '
        'aria-label="Seconds of a check over rows">',
        f"<style>{STYLE}</style>",
    ]
    for seconds in (1, 10, 100, 1000):
        _, y = place(1e4, seconds)
        parts.append(f'<line class="g" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{seconds:,} s</text>')
    for rows in SIZES:
        x, _ = place(rows, 1)
        parts.append(f'<text x="{x}" y="{top + height + 20}" text-anchor="middle">{rows:,}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 42}" text-anchor="middle">rows</text>')
    last = timings[-1]
    ends = [place(rows, last.seconds * rows / last.rows) for rows in (last.rows, last.rows / 50)]
    parts.append(f'<line class="d" x1="{ends[0][0]}" y1="{ends[0][1]}" x2="{ends[1][0]}" y2="{ends[1][1]}"/>')
    parts.append(f'<text x="{ends[1][0] + 12}" y="{ends[1][1] + 4}">in proportion</text>')
    for name, css, label in (("seconds", "p", "first check"), ("seconds_again", "s", "second check")):
        points = [place(t.rows, getattr(t, name)) for t in timings]
        line = " ".join(f"{x},{y}" for x, y in points)
        if css == "p":
            parts.append(f'<polyline class="l" points="{line}"/>')
        parts += [f'<circle class="{css}" cx="{x}" cy="{y}" r="4.5"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text x="{x + 12}" y="{y + 4}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Make the files, check them, write results and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    timings = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = {rows: folder / f"rows-{rows}.jsonl" for rows in options.rows}
        for rows, path in files.items():
            if not path.exists():
                write_rows(path, rows)
        for rows, path in files.items():
            timing = measure(path, rows, Path(temporary) / "cache")
            timings.append(timing)
            print(
                f"{rows:>9,} rows: {timing.seconds:6.1f} s ({timing.cpu_seconds:.1f} s of processors), "
                f"again {timing.seconds_again:.1f} s, "
                f"{timing.peak_mb:,.0f} MB",
                flush=True,
            )
    if tuple(options.rows) != SIZES:
        print("not all sizes were measured: nothing is written")
        return
    result = {"cores": os.cpu_count(), "timings": [asdict(timing) for timing in timings]}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    PLOT.write_text(plot(timings), encoding="utf-8")


if __name__ == "__main__":
    main()
