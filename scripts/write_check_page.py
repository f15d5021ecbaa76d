"""Fill in docs/check.md: the cards of the four example files, and the times from the stored results.

The page itself is written by hand; what stands between the marks <!-- cards --> and <!-- speed --> and
their ends is made here.

python scripts/write_check_page.py
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from rich.console import Console

from tuneahead.assessment import Checkup
from tuneahead.checkup import check
from tuneahead.healthcard import print_checkup
from tuneahead.workbench import Setup, open_workbench

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "check.md"
RESULTS = ROOT / "benchmarks" / "results"
WIDTH = 112
EXAMPLES = {
    "healthy": "A healthy file",
    "duplicated": "A file with copies",
    "contaminated": "A file that holds questions of the examination",
    "contradictory": "A file that contradicts itself",
}


def speed_table(results: Path = RESULTS) -> str:
    """The measured times as Markdown."""
    found = json.loads((results / "check_speed.json").read_text(encoding="utf-8"))
    lines = [
        "| rows | file | first check | processor time | again | peak memory | copies | near-copies "
        "| contradictions |",
        "|---:" * 9 + "|",
    ]
    for row in found["timings"]:
        counts = " | ".join(f"{row[name]:,}" for name in ("exact_copies", "near_copies", "contradictions"))
        lines.append(
            f"| {row['rows']:,} | {row['file_mb']:,.0f} MB | {row['seconds']:,.0f} s "
            f"| {row['cpu_seconds']:,.0f} s | {row['seconds_again']:.1f} s | {row['peak_mb']:,.0f} MB "
            f"| {counts} |"
        )
    return "\n".join(lines)


def comparison_table(results: Path = RESULTS) -> str:
    """The times beside Data-Juicer's as Markdown."""
    found = json.loads((results / "check_against_data_juicer.json").read_text(encoding="utf-8"))
    own = found["timings"]["tuneahead check"]
    does = {
        "tuneahead check": "its checks, copies and near-copies, contamination, tokens, 67 features",
        "dj-analyze": "eight statistics of each text",
        "dj-process": "exact and MinHash deduplication",
    }
    lines = [
        "| command | what it does | on the clock | to ours | processor time | to ours |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, what in does.items():
        if name not in found["timings"]:
            continue
        one = found["timings"][name]
        lines.append(
            f"| `{name}` | {what} | {one['seconds']:,.0f} s | {one['seconds'] / own['seconds']:.2f} "
            f"| {one['cpu_seconds']:,.0f} s | {one['cpu_seconds'] / own['cpu_seconds']:.2f} |"
        )
    return "\n".join(lines)


def speed_section() -> str:
    """Speed and memory, and the comparison, from the stored results."""
    found = json.loads((RESULTS / "check_speed.json").read_text(encoding="utf-8"))
    juicer = json.loads((RESULTS / "check_against_data_juicer.json").read_text(encoding="utf-8"))
    small, middle, large = found["timings"]
    first, last = (
        1e6 * (b["cpu_seconds"] - a["cpu_seconds"]) / (b["rows"] - a["rows"])
        for a, b in ((small, middle), (middle, large))
    )
    parts = [
        f"Rows of 47 words (about 60 tokens of a large vocabulary), {found['cores']} cores, by "
        "`benchmarks/check_speed.py`. The machine also had other work to do, which shows on the clock and "
        "hardly in the processor time:",
        speed_table(),
        "![Seconds over rows](images/check_speed.svg)",
        "Start-up, the base's losses and the samples, which are full at 50,000 rows, make up most of the "
        f"cost of small files. A further row costs {first:.0f} microseconds of a processor between the first "
        f"two sizes and {last:.0f} between the last two: cost grows no faster than the rows.",
        f"The same {juicer['rows']:,} rows beside Data-Juicer {juicer['data_juicer']}, one after the other "
        "in one run with two workers each, by `benchmarks/check_against_data_juicer.py`; its statistics that "
        "need a downloaded model or word list are left out:",
        comparison_table(),
    ]
    return "\n\n".join(parts)


def card(found: Checkup, name: str) -> str:
    """The card as text, without how long it took."""
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding="utf-8", write_through=True) as file:
        print_checkup(Console(file=file, width=WIDTH), found)
        lines = [line.rstrip() for line in buffer.getvalue().decode().splitlines()]
    kept = [line for line in lines if not line.startswith("Checked in")]
    if name != "healthy":
        kept = kept[: kept.index("Measured")]
    return "\n".join(kept).rstrip()


def cards() -> str:
    """The cards of the example files."""
    bench = open_workbench(Setup(), forecasts=False)
    parts = []
    for name, title in EXAMPLES.items():
        path = Path("examples") / "checks" / f"{name}.jsonl"
        found = check(path, bench=bench)
        parts.append(
            f"### {title}\n\n```\n$ tuneahead check {path.as_posix()} --base lab\n{card(found, name)}\n```"
        )
    return "\n\n".join(parts)


def filled(text: str, mark: str, content: str) -> str:
    """The page with ``content`` between the marks."""
    head, _, rest = text.partition(f"<!-- {mark} -->")
    _, _, tail = rest.partition(f"<!-- end of {mark} -->")
    return f"{head}<!-- {mark} -->\n{content}\n<!-- end of {mark} -->{tail}"


if __name__ == "__main__":
    os.chdir(ROOT)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(filled(text, "cards", cards()), "speed", speed_section()), encoding="utf-8")
