"""How often the check ``loss-spike`` warns of archived runs, and what became of these.

Once as it is, once without the standard errors of the loss that a rise must exceed.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from tuneahead.checks import probe
from tuneahead.history.archive import read_archive

META = Path(__file__).parents[1] / "meta"
LEAST_PP = 3.0


def main() -> None:
    """Print for two bases how many of the warned runs gained or lost more than ``LEAST_PP`` points."""
    for base in ("smollm2", "lab-llama"):
        runs = list(read_archive(META / base))
        for rule, errors in (("as it is", probe._SPIKE_ERRORS), ("without standard errors", 0.0)):
            with patch.object(probe, "_SPIKE_ERRORS", errors):
                warned = [run for run in runs if any(probe.loss_spike(run.trace.truncate(100)))]
            gains = [run.scores["lab-exam"] - run.base_scores["lab-exam"] for run in warned]
            good, bad = sum(gain > LEAST_PP for gain in gains), sum(gain < -LEAST_PP for gain in gains)
            print(
                f"{base}, {rule}: {len(warned)} of {len(runs)} runs, "
                f"{good} gained and {bad} lost more than {LEAST_PP:g}"
            )


if __name__ == "__main__":
    main()
