"""What a backtest is asked for and what it found, as JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneahead.backtest.tables import Cell, Table
from tuneahead.errors import PredictorError
from tuneahead.predictor import fields
from tuneahead.predictor.table import FeatureTable

SCHEMA = 1
PROTOCOLS = ("grouped", "random", "family-out")


@dataclass(frozen=True)
class BacktestOptions:
    """What to run. ``systems`` are names (empty: all); ``workers`` processes share the folds.

    ``taus_pp`` are goals for the decision table (empty: 55, the quartiles of the scores and the goal
    that a third of the runs reach). ``probe_tables`` holds the same tasks' features after other probe
    lengths, by steps; ``other_bases`` tables of the same kind of tasks on other bases, by name,
    and ``other_probe_tables`` those after other probe lengths, by name and steps.
    """

    systems: tuple[str, ...] = ()
    ablations: bool = True
    learning_curve: bool = True
    further_benchmarks: bool = True
    folds: int = 5
    workers: int = 1
    taus_pp: tuple[float, ...] = ()
    probe_tables: Mapping[int, FeatureTable] = field(default_factory=dict)
    other_bases: Mapping[str, FeatureTable] = field(default_factory=dict)
    other_probe_tables: Mapping[str, Mapping[int, FeatureTable]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """One held-out task: its measured score and what was predicted, in points; bounds may be NaN."""

    task_id: str
    score_pp: float
    predicted_pp: float
    low_pp: float
    high_pp: float


@dataclass(frozen=True)
class BacktestResult:
    """Everything a backtest found. ``predictions`` are ours for held-out tasks, by protocol.

    ``table_fingerprint`` is that of the table, ``base_fingerprints`` are those of other bases' tables.
    """

    tasks: int
    data_sets: int
    seed: int
    tables: tuple[Table, ...]
    predictions: Mapping[str, tuple[Prediction, ...]]
    table_fingerprint: str = ""
    base_fingerprints: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether there is a table of that name."""
        return any(table.name == name for table in self.tables)

    def table(self, name: str) -> Table:
        """The table of that name; raises :class:`PredictorError` when there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables)
        raise PredictorError(f"the backtest has no table {name!r}", remedy=f"it has {known}")

    def of_protocols(self, protocols: Sequence[str]) -> BacktestResult:
        """The tables and predictions of some protocols."""
        tables = tuple(table for table in self.tables if table.protocol in (*protocols, ""))
        predictions = {name: found for name, found in self.predictions.items() if name in protocols}
        return replace(self, tables=tables, predictions=predictions)

    def to_markdown(self) -> str:
        """All tables, one below the other."""
        head = f"{self.tasks} tasks on {self.data_sets} data sets, seed {self.seed}. Errors in points."
        return "\n\n".join([head, *(table.to_markdown() for table in self.tables)]) + "\n"

    def to_json(self) -> str:
        """All tables, and our held-out predictions task by task."""
        record = {
            "schema": SCHEMA,
            "tasks": self.tasks,
            "data_sets": self.data_sets,
            "seed": self.seed,
            "table_fingerprint": self.table_fingerprint,
            "base_fingerprints": dict(self.base_fingerprints),
            "tables": [table.to_record() for table in self.tables],
            "predictions": {
                protocol: [
                    [p.task_id, *map(_rounded, (p.score_pp, p.predicted_pp, p.low_pp, p.high_pp))]
                    for p in found
                ]
                for protocol, found in self.predictions.items()
            },
        }
        return json.dumps(record, indent=1, allow_nan=False)


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def read_result(path: str | Path) -> BacktestResult:
    """Read what :meth:`BacktestResult.to_json` gave; raises :class:`PredictorError` on anything else."""
    try:
        return _result(fields.mapping(json.loads(Path(path).read_text(encoding="utf-8")), "the file"))
    except (OSError, *fields.WRONG) as error:
        raise PredictorError(
            f"{path} holds no backtest: {error}", remedy="make one with 'tuneahead backtest --json'"
        ) from None


def _result(record: Mapping[str, object]) -> BacktestResult:
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']!r:.60}, this version reads {SCHEMA}")
    predictions = fields.mapping(record["predictions"], "predictions")
    return BacktestResult(
        tasks=fields.whole(record["tasks"], "tasks"),
        data_sets=fields.whole(record["data_sets"], "data_sets"),
        seed=fields.whole(record["seed"], "seed"),
        tables=tuple(_table(entry) for entry in fields.listing(record["tables"], "tables")),
        predictions={
            protocol: tuple(_prediction(row) for row in fields.listing(rows, f"predictions of {protocol}"))
            for protocol, rows in predictions.items()
        },
        table_fingerprint=fields.text(record["table_fingerprint"], "table_fingerprint"),
        base_fingerprints={
            name: fields.text(found, f"fingerprint of {name}")
            for name, found in fields.mapping(
                record.get("base_fingerprints", {}), "base_fingerprints"
            ).items()
        },
    )


def _prediction(found: object) -> Prediction:
    task, score, predicted, low, high = fields.listing(found, "a prediction")
    figures = (
        math.nan if one is None else fields.number(one, "a figure") for one in (score, predicted, low, high)
    )
    return Prediction(fields.text(task, "a task"), *figures)


def _table(found: object) -> Table:
    entry = fields.mapping(found, "a table")
    name, title, note = (fields.text(entry[key], f"a table's {key}") for key in ("name", "title", "note"))
    columns = fields.texts(entry["columns"], f"columns of {name}")
    rows = tuple(
        tuple(_cell(cell) for cell in fields.listing(row, f"a row of {name}"))
        for row in fields.listing(entry["rows"], f"rows of {name}")
    )
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a row of {name} has other columns than the table")
    protocol = fields.text(entry.get("protocol", ""), f"protocol of {name}")
    return Table(name, title, columns, rows, note, protocol)


def _cell(found: object) -> Cell:
    if found is None or isinstance(found, str):
        return found
    # Whole numbers stay whole: they are counts, and are shown without decimals.
    return found if type(found) is int else fields.number(found, "a cell")
