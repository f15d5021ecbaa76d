"""From a store of lab runs to what ships: python scripts/ship_lab.py STORE [--fit].

Writes the archive of raw traces (meta/lab-qwen2), the feature table and, with --fit, the predictor
fitted to it. ``--restore`` first fills the store from the archive, so that a build goes on elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tuneahead.history.archive import restore, write_archive
from tuneahead.history.store import RunStore
from tuneahead.history.tables import complete_statics, table_from_store
from tuneahead.lab.exam import lab_exam
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.table import write_table
from tuneahead.training.models import load_base
from tuneahead.workbench import shipped_predictor, shipped_table

ARCHIVE = Path(__file__).parents[1] / "meta" / "lab-qwen2"


def main() -> None:
    """Archive, table and predictor, each from the one before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--restore", action="store_true", help="fill the store from the archive and stop")
    parser.add_argument("--fit", action="store_true", help="fit and write the shipped predictor")
    given = parser.parse_args()
    store = RunStore(given.store)
    if given.restore:
        print(f"{restore(ARCHIVE, store)} runs restored, {len(store)} in the store")
        return
    print(f"{write_archive(store, ARCHIVE)} runs added to {ARCHIVE.name}")
    exam = lab_exam()
    print(f"{complete_statics(store, load_base('lab'), exam)} data sets measured")
    table = table_from_store(store, benchmark=exam.name)
    shipped_predictor().mkdir(parents=True, exist_ok=True)
    write_table(table, shipped_table())
    print(f"table of {len(table)} tasks on {len(set(table.data_ids))} data sets")
    if given.fit:
        predictor = Predictor.fit(table)
        predictor.save(shipped_predictor())
        print(f"predictor fitted, preset {predictor.origin.preset}")


if __name__ == "__main__":
    main()
