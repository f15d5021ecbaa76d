"""How often 90 % intervals of short histories hold: python benchmarks/short_histories.py [--histories 40].

Made-up histories of one run a data set whose features say little: normal columns that have nothing to do
with the score, and either a probe score that says nothing either (``noise``) or one that follows the final
score with a standard deviation of 2 points (``probe``). Each is judged on 60 new data sets of the same
making. Compared are residuals from the cross-validation that models were chosen on (``chosen on``) and from
a nested one (``nested``, which ``Predictor.fit`` uses below ``FEW_DATA_SETS`` data sets). Lines of
benchmarks/results/short_histories.json that are made again are replaced, others stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

from tuneahead.predictor import fitting
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable

RESULT = Path(__file__).parent / "results" / "short_histories.json"
KEYS = ("features", "data_sets", "residuals")
NEW = 60
COLUMNS = {"noise": 20, "probe": 46}


def history(kind: str, rows: int, seed: int) -> FeatureTable:
    """``rows`` tasks, each on a data set of its own."""
    rng = np.random.default_rng(seed)
    columns = COLUMNS[kind]
    score = 50.0 + 5.0 * rng.normal(size=rows)
    probe = 45.0 + rng.normal(size=rows) if kind == "noise" else score - 3.0 + 2.0 * rng.normal(size=rows)
    ids = tuple(f"d{i}" for i in range(rows))
    return FeatureTable(
        names=tuple(f"x{i}" for i in range(columns)),
        values=rng.normal(size=(rows, columns)),
        score_pp=score,
        base_pp=np.full(rows, 40.0),
        probe_pp=probe,
        chance_pp=np.full(rows, 25.0),
        task_ids=ids,
        data_ids=ids,
        families=("",) * rows,
        seeds=np.ones(rows),
        seed_sd_pp=np.full(rows, np.nan),
        bases=("base",) * rows,
        benchmarks=("exam",) * rows,
        groups=("static",) * columns,
    )


def judge(kind: str, sets: int, seed: int) -> tuple[float, float, float]:
    """Share of new scores inside 90 % intervals, their mean width in points, and the seconds to fit."""
    whole = history(kind, sets + NEW, seed)
    start = time.perf_counter()
    predictor = Predictor.fit(whole.select(np.arange(sets)))
    seconds = time.perf_counter() - start
    test = whole.select(np.arange(sets, sets + NEW))
    found = predictor.predict_table(test)
    held = (found.low_pp <= test.score_pp) & (test.score_pp <= found.high_pp)
    return float(held.mean()), float((found.high_pp - found.low_pp).mean()), seconds


def main() -> None:
    """One line for each kind of history, length and way to get residuals, kept as they are made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=40, help="made-up histories a line, 2 or more")
    parser.add_argument("--sets", type=int, nargs="+", default=[9, 15, 20, 30, 40, 60])
    parser.add_argument("--kind", choices=tuple(COLUMNS), nargs="+", default=list(COLUMNS))
    given = parser.parse_args()
    lines = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else []
    for kind, sets in itertools.product(given.kind, given.sets):
        for name, below in (("chosen on", 0), ("nested", 10**9)):
            fitting.FEW_DATA_SETS = below
            made = np.array([judge(kind, sets, 1000 * sets + i) for i in range(given.histories)])
            held, width, seconds = made.mean(0).tolist()
            error = float(made[:, 0].std(ddof=1) / np.sqrt(len(made)))
            print(
                f"{kind:6} {sets:3} data sets, {name:9}: {100 * held:5.1f} % (+- {100 * error:.1f}) held, "
                f"{width:5.1f} pp wide, {seconds:5.1f} s to fit",
                flush=True,
            )
            line = {"features": kind, "data_sets": sets, "residuals": name, "histories": given.histories}
            figures = {"held": held, "standard_error": error, "width_pp": width, "seconds_to_fit": seconds}
            lines = [one for one in lines if any(one[key] != line[key] for key in KEYS)]
            lines.append({**line, **{key: round(figure, 3) for key, figure in figures.items()}})
            lines.sort(key=lambda one: tuple(one[key] for key in KEYS))
            RESULT.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
