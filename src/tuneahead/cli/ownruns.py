"""Which runs a command learns from: its options, and the table that they give."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli.options import DATA
from tuneahead.cli.runs import open_store
from tuneahead.counts import counted
from tuneahead.errors import TuneAheadError
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.printable import printable

if TYPE_CHECKING:
    from tuneahead.history.store import RunStore
    from tuneahead.predictor.table import FeatureTable

LAB_BENCHMARK = "lab-exam"
MOST_SEED = 2**31 - 1
"""The largest that a saved predictor may hold."""

TableFile = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="Feature table (Parquet) instead of a store.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
MaybeStore = Annotated[
    Path | None,
    typer.Option(
        "--store", help="SQLite file that holds the runs.", rich_help_panel=DATA, show_default=False
    ),
]
BenchmarkOf = Annotated[
    str,
    typer.Option(
        help=f"Benchmark whose scores are learned, from a store (default: {LAB_BENCHMARK}).",
        rich_help_panel=DATA,
        show_default=False,
    ),
]


def refuse_idle(options: Mapping[str, object], where: str) -> None:
    """Raises :class:`TuneAheadError` for an option that was given and would be ignored."""
    for name, value in options.items():
        if value not in ("", None):
            raise TuneAheadError(f"{name} {value} has no effect {where}", remedy=f"leave {name} out")


def refuse_idle_of_store(store: Path | None, options: Mapping[str, object]) -> None:
    """Raises :class:`TuneAheadError` for an option of a store's runs where there is no store."""
    if store is None:
        refuse_idle(options, "without --store: a feature table is of one benchmark and probe length")


def read_runs(
    store: Path | None, table: Path | None, benchmark: str, probe_steps: int = PROBE_STEPS
) -> FeatureTable:
    """The table of a store's runs or the table in a file; the shipped one where neither is named.

    ``probe_steps`` counts for a store alone. Raises :class:`TuneAheadError` where both are named.
    """
    from tuneahead.predictor.table import read_table

    if (store is None) == (table is None):
        from tuneahead.predictor.packaged import shipped_table

        if store is None and shipped_table().is_file():
            return read_table(shipped_table())
        raise TuneAheadError(
            "give either --store or --table", remedy="--store runs.sqlite, as 'build' writes it"
        )
    if table is not None:
        return read_table(table)
    assert store is not None
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.history.tables import table_from_store

    history = open_store(store)
    with ProgressBar() as bar:
        bar.stage(f"Deriving features of {counted(len(history), 'run')}")
        rows = table_from_store(history, benchmark=benchmark or LAB_BENCHMARK, probe_steps=probe_steps)
    _tell_of_unmeasured(history, rows)
    return rows


def _tell_of_unmeasured(history: RunStore, rows: FeatureTable) -> None:
    """Say where a build has not come to its end, at which it measures the data sets of its runs."""
    from tuneahead.history.tables import unmeasured

    for base, missing in unmeasured(history).items():
        learnt = {data_id for data_id, at in zip(rows.data_ids, rows.bases, strict=True) if at == base}
        if count := len(missing.keys() & learnt):
            print(
                f"{printable(base)}: of {count:,} of {len(learnt):,} data sets in {history.path} the data "
                "is not measured yet, and its features are absent here. 'tuneahead build' measures it at its "
                "end: start it again on this store (or, in Python, history.tables.complete_statics)",
                file=sys.stderr,
            )
