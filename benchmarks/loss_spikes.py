"""How often the check ``loss-spike`` warns of archived runs, and what became of these."""

from __future__ import annotations

from pathlib import Path

from tuneahead.checks.probe import loss_spike
from tuneahead.history.archive import read_archive

META = Path(__file__).parents[1] / "meta"
LEAST_PP = 3.0


def main() -> None:
    """Print for two bases how many of the warned runs gained or lost more than ``LEAST_PP`` points."""
    for base in ("smollm2", "lab-llama"):
        runs = list(read_archive(META / base))
        warned = [run for run in runs if any(loss_spike(run.trace.truncate(100)))]
        gains = [run.scores["lab-exam"] - run.base_scores["lab-exam"] for run in warned]
        good, bad = sum(gain > LEAST_PP for gain in gains), sum(gain < -LEAST_PP for gain in gains)
        print(
            f"{base}: {len(warned)} of {len(runs)} runs, {good} gained and {bad} lost more than {LEAST_PP:g}"
        )


if __name__ == "__main__":
    main()
