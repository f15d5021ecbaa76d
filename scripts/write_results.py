"""Write docs/results.md from the shipped table: python scripts/write_results.py [--workers 2]."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tuneahead.backtest import BacktestOptions, backtest
from tuneahead.predictor.table import read_table
from tuneahead.workbench import shipped_table

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
HEAD = """# Results

What `tuneahead backtest --protocol grouped --protocol random --protocol family-out` prints from the shipped
table, which is derived from the archived runs (see [lab.md](lab.md)). Figures of the paper are those of its
own runs on Qwen2.5-7B-Instruct and MMLU; they stand beside ours for orientation, not as a contest on equal
rows.

"""


def main() -> None:
    """Run every protocol and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    workers = parser.parse_args().workers
    began = time.perf_counter()
    result = backtest(
        read_table(shipped_table()),
        protocols=("grouped", "random", "family-out"),
        options=BacktestOptions(workers=workers),
    )
    PAGE.write_text(HEAD + result.to_markdown() + "\n", encoding="utf-8")
    print(f"{PAGE.name} written in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
