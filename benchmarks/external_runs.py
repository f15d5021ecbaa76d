"""How well does the predictor family do on fine-tuning outcomes that nobody in this project produced?

    python benchmarks/external_runs.py FOLDER [--sets slot,peft250] [--systems paper,ours] [--repeats 3]

FOLDER holds ``davidanugraha+proxylm`` (ProxyLM's experiments, Apache-2.0) and ``huggingface+peft``
(the PEFT method comparison's history, Apache-2.0) as CSV files. Neither is part of this repository.
Every row is predicted by grouped cross-validation over PEFT types, over test languages (``slot``,
``intent``), over training languages (``slot_by_training``, ``intent_by_training``) or over source languages
(``mt560``). No PEFT type is on both sides, and no such language in that role; in the other role it is. A
fine-tune of ``slot`` or ``intent`` is its training language: by test language all fine-tunes are on both
sides, by training language none. With ``--repeats`` rows are predicted again under other foldings, which move
the figures by more than systems differ.
CatBoost takes part where it is installed.
The results go to ``benchmarks/results/external_runs.json``.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import TuneAheadError
from tuneahead.predictor.baselines import BASELINES, OURS, System
from tuneahead.predictor.bootstrap import NO_SPAN
from tuneahead.predictor.metrics import Metrics, measure
from tuneahead.predictor.splits import Fold, grouped_folds
from tuneahead.predictor.table import FeatureTable

RESULTS = Path(__file__).parent / "results" / "external_runs.json"
REFERENCE: dict[str, dict[str, float]] = {
    "intent": {"mean": 11.1, "ridge": 10.3, "LightGBM, paper": 10.0, "CatBoost": 9.5, "ExtraTrees": 8.9},
    "slot": {"mean": 20.4, "ridge": 13.3, "LightGBM, paper": 10.1, "CatBoost": 8.8, "ExtraTrees": 9.4},
    "mt560": {"mean": 13.0, "ridge": 6.7, "LightGBM, paper": 5.3, "CatBoost": 4.6, "ExtraTrees": 4.4},
    "peft250": {"mean": 15.4, "ridge": 42.0, "LightGBM, paper": 8.2, "CatBoost": 7.4, "ExtraTrees": 8.7},
    "peft1000": {"mean": 15.4, "ridge": 19.0, "LightGBM, paper": 4.3, "CatBoost": 4.3, "ExtraTrees": 4.1},
}
"""RMSE in points of default regressors, measured beforehand on the same files."""
PROXYLM, PEFT = "davidanugraha+proxylm", "huggingface+peft"


@dataclass(frozen=True)
class Sheet:
    """A CSV file: column names, and the cells as text."""

    names: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as floats, ``(n,)``; empty cells are NaN."""
        return np.array([float(row[name]) if row[name] else np.nan for row in self.rows])

    def texts(self, name: str) -> tuple[str, ...]:
        """A column as text."""
        return tuple(row[name] for row in self.rows)


def read_sheet(path: Path) -> Sheet:
    """Read a CSV file; raises :class:`TuneAheadError` when it is absent."""
    if not path.exists():
        raise TuneAheadError(
            f"{path.name} is not in {path.parent.name}", remedy="see the docstring for its source"
        )
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = tuple(reader)
    return Sheet(tuple(reader.fieldnames or ()), rows)


@dataclass(frozen=True)
class Outcomes:
    """Scores of a set of runs in points, ``(n,)``, and what they are grouped by."""

    score_pp: NDArray[np.float64]
    base_pp: NDArray[np.float64]
    probe_pp: NDArray[np.float64]
    groups: tuple[str, ...]


def make_table(
    names: Sequence[str], columns: Sequence[NDArray[np.float64]], outcomes: Outcomes
) -> FeatureTable:
    """A feature table of foreign runs: one seed each, chance taken as 0."""
    rows = len(outcomes.score_pp)
    return FeatureTable(
        names=tuple(names),
        values=np.column_stack(columns),
        score_pp=outcomes.score_pp,
        base_pp=outcomes.base_pp,
        probe_pp=outcomes.probe_pp,
        chance_pp=np.zeros(rows),
        task_ids=tuple(f"row {i}" for i in range(rows)),
        data_ids=outcomes.groups,
        families=outcomes.groups,
        seeds=np.ones(rows),
        seed_sd_pp=np.full(rows, np.nan),
        bases=("",) * rows,
        benchmarks=("",) * rows,
    )


def proxylm_understanding(folder: Path, task: str, metric: str, group: str) -> FeatureTable:
    """Intent or slot: Llama-3's score from smaller models' scores, language distances and data descriptors.

    Grouped by the language of the test set (as the reference figures are), or by that of the
    training set, which is what a fine-tune is.
    """
    sheet = read_sheet(folder / PROXYLM / f"{task}_experiments.csv")
    target = f"llama3_{metric}"
    names = [
        name for name in sheet.names if name not in ("source_lang", "target_lang", target, f"aya_{metric}")
    ]
    blank = np.full(len(sheet.rows), np.nan)
    outcomes = Outcomes(sheet.numbers(target), blank, blank, sheet.texts(group))
    return make_table(names, [sheet.numbers(name) for name in names], outcomes)


def proxylm_translation(folder: Path) -> FeatureTable:
    """MT560: M2M100's spBLEU after tuning, from its score before, smaller models and data descriptors."""
    sheet = read_sheet(folder / PROXYLM / "mt560_experiments.csv")
    systems = ("m2m100", "small100", "nllb", "trfm")
    proxies = (
        "small100_ft_spBLEU_mean",
        "small100_noft_spBLEU_mean",
        "trfm_spBLEU_mean",
        "m2m100_noft_spBLEU_mean",
    )
    texts = ("source_lang", "target_lang", "train_dataset", "test_dataset")
    own = [name for name in sheet.names if not name.startswith(systems) and name not in texts]
    names = [*own, *proxies]
    base = sheet.numbers("m2m100_noft_spBLEU_mean")
    score = sheet.numbers("m2m100_ft_spBLEU_mean")
    outcomes = Outcomes(score, base, np.full(len(score), np.nan), sheet.texts("source_lang"))
    return make_table(names, [sheet.numbers(name) for name in names], outcomes)


def peft_history(folder: Path, steps: int) -> FeatureTable:
    """GSM8K accuracy after 5,000 steps, from the recipe and what was logged in the first ``steps``."""
    sheet = read_sheet(folder / PEFT / "metamathqa_runs_all_history.csv")
    recipe = ("lr", "wd", "r", "lora_alpha", "trainable", "total", "file_size")
    names, columns = list(recipe), [sheet.numbers(name) for name in recipe]
    marks = range(250, steps + 1, 250)
    for mark in marks:
        names += [f"loss_{mark}", f"valacc_{mark}"]
        columns += [sheet.numbers(f"loss_{mark}"), 100.0 * sheet.numbers(f"valacc_{mark}")]
    score = 100.0 * sheet.numbers("test_accuracy")
    probe = 100.0 * sheet.numbers(f"valacc_{steps}")
    outcomes = Outcomes(score, np.full(len(score), np.nan), probe, sheet.texts("peft_type"))
    return make_table(names, columns, outcomes)


SETS: dict[str, Callable[[Path], FeatureTable]] = {
    "intent": lambda folder: proxylm_understanding(folder, "intent", "accuracy", "target_lang"),
    "slot": lambda folder: proxylm_understanding(folder, "slot", "f1", "target_lang"),
    "intent_by_training": lambda folder: proxylm_understanding(folder, "intent", "accuracy", "source_lang"),
    "slot_by_training": lambda folder: proxylm_understanding(folder, "slot", "f1", "source_lang"),
    "mt560": proxylm_translation,
    "peft250": lambda folder: peft_history(folder, 250),
    "peft1000": lambda folder: peft_history(folder, 1000),
}


def extra_trees(train: FeatureTable, test: FeatureTable, seed: int) -> NDArray[np.float64]:
    """scikit-learn's ExtraTrees on the raw score: a comparison only, it is not among the saved models."""
    from sklearn.ensemble import ExtraTreesRegressor

    middle = np.nan_to_num(np.nanmedian(train.values, 0))
    model = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=seed, n_jobs=1)
    model.fit(np.where(np.isfinite(train.values), train.values, middle), train.score_pp)
    return np.asarray(model.predict(np.where(np.isfinite(test.values), test.values, middle)), float)


def catboost(train: FeatureTable, test: FeatureTable, seed: int) -> NDArray[np.float64]:
    """CatBoost with its default settings on the raw score, for comparison."""
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(thread_count=1, random_seed=seed, verbose=0, allow_writing_files=False)
    return np.asarray(model.fit(train.values, train.score_pp).predict(test.values), float)


def held_out(table: FeatureTable, system: System, parts: Sequence[Fold]) -> Metrics:
    """Metrics over all rows, each predicted while its group was held out."""
    score, low, high = (np.full(len(table), np.nan) for _ in range(3))
    for fold in parts:
        found = system.run(table.select(fold.train), table.select(fold.test), 0)
        score[fold.test] = found.score_pp
        if found.low_pp is not None and found.high_pp is not None:
            low[fold.test], high[fold.test] = found.low_pp, found.high_pp
    span = (low, high) if np.isfinite(low).any() else (None, None)
    return measure(score, table.score_pp, low=span[0], high=span[1], groups=table.data_ids)


def evaluate(
    table: FeatureTable, systems: Sequence[System], folds: int, repeats: int
) -> dict[str, dict[str, float | list[float]]]:
    """Metrics by system under the first folding, and the RMSE under each of ``repeats`` foldings."""
    results: dict[str, dict[str, float | list[float]]] = {}
    for system in systems:
        started = time.perf_counter()
        runs = [
            held_out(table, system, grouped_folds(table.data_ids, k=folds, seed=seed))
            for seed in range(repeats)
        ]
        m = runs[0]
        low_pp, high_pp = m.spans.get("rmse_pp", NO_SPAN)
        figures = {"rmse_pp": m.rmse_pp, "rmse_low_pp": low_pp, "rmse_high_pp": high_pp, "r2": m.r2}
        figures |= {"coverage": m.coverage, "width_pp": m.width_pp, "rows": float(m.n)}
        results[system.name] = {
            name: round(value, 4) for name, value in figures.items() if np.isfinite(value)
        }
        if np.isfinite(m.rmse_pp):
            results[system.name]["rmse_pp_by_folding"] = [round(run.rmse_pp, 4) for run in runs]
        shown = " ".join(f"{run.rmse_pp:6.2f}" for run in runs)
        print(f"    {system.name:18} {shown}  ({time.perf_counter() - started:.0f} s)", file=sys.stderr)
    return results


def main() -> int:
    """Run the chosen sets and systems, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--systems", default="mean,persistence,ridge,paper,extra_trees,catboost,ours")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="foldings")
    given = parser.parse_args()
    if given.folder is None:
        print("nothing is measured: give the folder with the outcomes (see the docstring)")
        return 0
    if not given.folder.is_dir():
        print(
            f"{given.folder} is absent: give the folder with the outcomes (see the docstring)",
            file=sys.stderr,
        )
        return 2
    from tuneahead.predictor.baselines import Estimate

    trees = System("extra_trees", "ExtraTrees", "regressor", lambda a, b, s: Estimate(extra_trees(a, b, s)))
    others = [trees]
    if importlib.util.find_spec("catboost"):
        boosted = System("catboost", "CatBoost", "regressor", lambda a, b, s: Estimate(catboost(a, b, s)))
        others.append(boosted)
    wanted = given.systems.split(",")
    systems = [system for system in (*BASELINES, *others, OURS) if system.name in wanted]
    report: dict[str, object] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in given.sets.split(","):
        table = SETS[name](given.folder).scored()
        print(f"{name}: {len(table)} runs, {len(set(table.data_ids))} groups", file=sys.stderr)
        ours = evaluate(table, systems, given.folds, given.repeats)
        known = report.get(name)
        before = known["ours"] if isinstance(known, dict) else {}
        report[name] = {
            "rows": len(table),
            "groups": len(set(table.data_ids)),
            "folds": given.folds,
            # Systems that were not asked for keep their figures.
            "ours": {**before, **ours},
            "reference": REFERENCE.get(name, {}),
        }
        figures = "  ".join(
            f"{key} {np.mean(value['rmse_pp_by_folding']):.2f}"
            for key, value in ours.items()
            if "rmse_pp" in value
        )
        reference = "  ".join(f"{key} {value:.1f}" for key, value in REFERENCE.get(name, {}).items())
        print(f"{name:9} measured   {figures}\n{'':9} reference  {reference}")
        # After each set: an interrupted benchmark keeps what it has.
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
