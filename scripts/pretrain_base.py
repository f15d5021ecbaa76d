"""Pre-train a named lab base: about four minutes on one core.

OMP_NUM_THREADS=1 python scripts/pretrain_base.py lab-qwen2
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

import tuneahead.lab
from tuneahead.lab.bases import BASE_SPECS, base_spec, pretrain

SHIPPED = Path(str(tuneahead.lab.__path__[0])) / "base"


def main() -> None:
    """Train the base and save it, by default where the package looks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=sorted(BASE_SPECS))
    parser.add_argument("--out", type=Path, default=None, help="folder (default: the shipped one, or ./NAME)")
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, for a trial")
    parser.add_argument("--questions", type=float, default=None, help="share of questions, for a trial")
    chosen = parser.parse_args()
    spec = base_spec(chosen.name)
    if chosen.steps is not None:
        spec = replace(spec, steps=chosen.steps)
    if chosen.questions is not None:
        spec = replace(spec, mix=replace(spec.mix, question_fraction=chosen.questions))
    torch.set_num_threads(1)
    folder = chosen.out or (SHIPPED if chosen.name == "lab-qwen2" else Path(chosen.name))
    pretrain(spec, folder, log=lambda line: print(line, file=sys.stderr, flush=True))
    print(folder)


if __name__ == "__main__":
    main()
