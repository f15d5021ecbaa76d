"""From stores of lab runs to what ships: python scripts/ship_lab.py STORE [--fit] [--backtest].

Adds the store's runs to the archive of raw traces (meta/BASE). Then it writes the feature table, with the
scores of the proxy's archive on the same tasks where there are any. For the main base it makes with --fit the
predictor fitted to it, with --backtest the result of the whole backtest on it and on the tables of other
bases. Anew in the stored result are made: with --lengths what depends on other lengths of the probe, with
--systems the rows of some systems in the grouped tables. Other bases' are written beside it (``--base
NAME``), with --fit a predictor learnt from them beside all others, and with --backtest that base's tables
alone made anew in the stored result. ``--restore`` first fills the store from the archive, so that a build
goes on elsewhere.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuneahead.backtest import BacktestOptions, BacktestResult, backtest, read_result
from tuneahead.backtest.bases import base_tables
from tuneahead.backtest.curves import probe_lengths
from tuneahead.backtest.tables import FLOOR, Table
from tuneahead.counts import listed
from tuneahead.errors import StoreError
from tuneahead.history.archive import restore, write_archive
from tuneahead.history.store import RunStore
from tuneahead.history.tables import complete_statics, table_from_store
from tuneahead.lab.exam import lab_exam
from tuneahead.predictor.baselines import SYSTEMS
from tuneahead.predictor.fingerprint import table_fingerprint
from tuneahead.predictor.packaged import (
    OTHER_LENGTHS,
    shipped_backtest,
    shipped_history,
    shipped_predictor,
    shipped_table,
)
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import FeatureTable, read_table, write_table
from tuneahead.training.models import load_base

META = Path(__file__).parents[1] / "meta"
MAIN, PROXY = "lab-qwen2", "lab-proxy"
OTHERS = ("lab-llama", "lab-gemma3", "smollm2")
PROBE_STEPS = (10, 25, 50, 200)
"""Lengths of the probe that are compared with the table's own 100."""


def main() -> None:
    """Archive, table, predictor and backtest, each from the one before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument(
        "--base", default=MAIN, choices=(MAIN, PROXY, *OTHERS), help="base of the store's runs"
    )
    parser.add_argument("--restore", action="store_true", help="fill the store from the archive and stop")
    parser.add_argument("--fit", action="store_true", help="fit and write the shipped predictor")
    parser.add_argument("--backtest", action="store_true", help="run and write the whole backtest")
    parser.add_argument("--lengths", action="store_true", help="other lengths of the probe alone, once more")
    parser.add_argument("--systems", nargs="+", default=[], help="these in the grouped tables, once more")
    parser.add_argument("--workers", type=int, default=2, help="processes of the backtest")
    given = parser.parse_args()
    store = RunStore(given.store)
    if given.restore:
        print(f"{restore(META / given.base, store)} runs restored, {len(store)} in the store")
        return
    if strangers := {record.base for record in store.records()} - {given.base}:
        # What an archive once holds is never taken out.
        raise SystemExit(f"{given.store} holds runs on {', '.join(sorted(strangers))}: name their --base")
    print(f"{write_archive(store, META / given.base)} runs added to {given.base}")
    if given.base == PROXY:
        return
    with tempfile.TemporaryDirectory() as folder:
        proxies = archived(PROXY, Path(folder))
        if given.base == MAIN:
            ship(store, proxies, given)
        else:
            ship_beside(store, proxies, given)


def ship_beside(store: RunStore, proxies: RunStore | None, given: argparse.Namespace) -> None:
    """Table, predictor and backtest of another base."""
    folder = META / "bases" / given.base
    table = measured_table(store, str(folder) if folder.is_dir() else given.base, proxies)
    beside = shipped_predictor(given.base)
    beside.mkdir(parents=True, exist_ok=True)
    write_table(table, shipped_table(given.base))
    print(f"table of {len(table)} tasks on {given.base}")
    write_other_lengths(store, given.base)
    if given.fit:
        own = read_table(shipped_table(given.base))
        Predictor.fit(own, helpers=shipped_history(without=(given.base,))).save(beside)
        print("predictor fitted to them beside those of the other bases", flush=True)
    if given.backtest:
        retest(given.base, given.workers)


def ship(store: RunStore, proxies: RunStore | None, given: argparse.Namespace) -> None:
    """Table, predictor and backtest of the main base."""
    table = measured_table(store, "lab", proxies)
    shipped_predictor().mkdir(parents=True, exist_ok=True)
    write_table(table, shipped_table())
    table = read_table(shipped_table())
    print(f"table of {len(table)} tasks on {len(set(table.data_ids))} data sets", flush=True)
    write_other_lengths(store, MAIN)
    if given.fit:
        predictor = Predictor.fit(table)
        predictor.save(shipped_predictor())
        print(f"predictor fitted, preset {predictor.origin.preset}", flush=True)
    if given.backtest:
        others = {name: read_table(shipped_table(name)) for name in OTHERS if shipped_table(name).is_file()}
        options = BacktestOptions(
            workers=given.workers,
            probe_tables=by_length(store, table),
            other_bases=others,
            other_probe_tables={name: other_lengths(name) for name in others},
        )
        shipped_backtest().write_text(backtest(table, options=options).to_json() + "\n", encoding="utf-8")
        print("backtest written")
    elif given.lengths:
        stored = stored_result(table)
        options = BacktestOptions(workers=given.workers, probe_tables=by_length(store, table))
        write_anew(stored, probe_lengths(options, stored.seed))
        print("lengths of the probe written")
    elif given.systems:
        write_anew(stored := stored_result(table), systems_anew(table, stored, given.systems, given.workers))
        print(f"{listed(given.systems)} written")


def systems_anew(
    table: FeatureTable, stored: BacktestResult, names: Sequence[str], workers: int
) -> list[Table]:
    """The main and the choice table of the grouped protocol with the rows of some systems made anew."""
    options = BacktestOptions(tuple(names), learning_curve=False, further_benchmarks=False, workers=workers)
    fresh = backtest(table, protocols=("grouped",), seed=stored.seed, options=options)
    return [with_rows(stored.table(name), fresh.table(name)) for name in ("main grouped", "recipe choice")]


def with_rows(stored: Table, fresh: Table) -> Table:
    """The stored table with the rows of ``fresh``, worst first, the floor last; former systems go."""
    labels = {row[0] for row in fresh.rows}
    known = {system.label for system in SYSTEMS} - labels
    rows = [*(row for row in stored.rows if row[0] in known), *fresh.rows]
    return replace(stored, rows=tuple(sorted(rows, key=lambda row: (row[0] == FLOOR, -(row[1] or 0.0)))))


def by_length(store: RunStore, table: FeatureTable) -> dict[int, FeatureTable]:
    """The same tasks' features after every length of the probe."""
    return {**{steps: table_from_store(store, probe_steps=steps) for steps in PROBE_STEPS}, 100: table}


def write_other_lengths(store: RunStore, base: str) -> None:
    """Tables of the same runs after fewer or more steps, where the benchmark was asked then."""
    for steps in OTHER_LENGTHS:
        try:
            table = table_from_store(store, benchmark=lab_exam().name, probe_steps=steps)
        except StoreError as error:
            print(f"no table after {steps} steps: {error}")
            continue
        write_table(table, shipped_table(base, steps))
        print(f"table of {len(table)} tasks after {steps} steps", flush=True)


def other_lengths(base: str) -> dict[int, FeatureTable]:
    """The shipped tables of a base after other lengths of the probe, by steps."""
    paths = {steps: shipped_table(base, steps) for steps in OTHER_LENGTHS}
    return {steps: read_table(path) for steps, path in paths.items() if path.is_file()}


def stored_result(table: FeatureTable) -> BacktestResult:
    """The stored backtest, if it is of this table of the main base."""
    stored = read_result(shipped_backtest())
    if table_fingerprint(table) != stored.table_fingerprint:
        raise SystemExit(f"the stored backtest is of another table of {MAIN}: run it on {MAIN} first")
    return stored


def write_anew(stored: BacktestResult, fresh: Sequence[Table]) -> None:
    """Write the stored result with some of its tables made anew, each in its place."""
    left = {table.name: table for table in fresh}
    known = [i for i, table in enumerate(stored.tables) if table.name in left]
    tables = [left.pop(table.name, table) for table in stored.tables]
    after = known[-1] + 1 if known else len(tables)
    result = replace(stored, tables=(*tables[:after], *left.values(), *tables[after:]))
    shipped_backtest().write_text(result.to_json() + "\n", encoding="utf-8")


def retest(name: str, workers: int) -> None:
    """Make the tables of one other base anew in the stored backtest, which stays as it is otherwise."""
    whole, other = read_table(shipped_table()), read_table(shipped_table(name))
    stored = stored_result(whole)
    options = BacktestOptions(workers=workers, other_probe_tables={name: other_lengths(name)})
    fresh = base_tables(whole.scored(), other.scored(), name, options, stored.seed)
    fingerprints = {**stored.base_fingerprints, name: table_fingerprint(other)}
    write_anew(replace(stored, base_fingerprints=fingerprints), fresh)
    print(f"backtest on {name} written")


def measured_table(store: RunStore, base: str, proxies: RunStore | None = None) -> FeatureTable:
    """The feature table of a store, its generated data sets measured where they are not yet."""
    print(f"{complete_statics(store, load_base(base), lab_exam())} data sets measured", flush=True)
    return table_from_store(store, benchmark=lab_exam().name, proxies=proxies)


def archived(base: str, folder: Path) -> RunStore | None:
    """A store with a base's archived runs; None when none are archived."""
    store = RunStore(folder / f"{base}.sqlite")
    try:
        restore(META / base, store)
    except StoreError:
        return None
    return store


if __name__ == "__main__":
    main()
