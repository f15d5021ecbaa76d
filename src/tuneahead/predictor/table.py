"""The table of tasks that a predictor learns from: one row a task, one column a feature."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import PredictorError
from tuneahead.features.catalogue import CATALOGUE_VERSION
from tuneahead.predictor import fields
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.wholefile import whole_file

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

SCHEMA = 1
CUE_PREFIX = "cue_pp@"
"""Extra columns ``cue_pp@<step>``: benchmark score of the cue items at that step, in points."""
SIMILARITY_PREFIX = "similarity@"
"""Extra columns ``similarity@<domain>``: similarity of the data to the benchmark or to one of its domains."""
EMBEDDING_PREFIX = "embedding@"
"""Extra columns ``embedding@<i>``: coordinates of the data set's mean sentence vector."""
PROXY = "proxy_pp"
"""Score of the same task really fine-tuned on a smaller model, in points; NaN where it was not run."""
OUTCOME_PREFIX = "outcome@"
"""Extra columns ``outcome@<benchmark>|<column>``: the outcome columns on a second benchmark."""
_OUTCOME_COLUMNS = ("score_pp", "base_pp", "seeds", "seed_sd_pp")
DATA_ROWS = "data_rows"
FINAL_STEPS = "final_steps"

_COLUMNS = ("score_pp", "base_pp", "probe_pp", "chance_pp", "seeds", "seed_sd_pp")
_FINGERPRINTS = "benchmark_fingerprints"
_TEXTS = ("task_ids", "data_ids", "families", "sources", "bases", "benchmarks", _FINGERPRINTS)


@dataclass(frozen=True)
class FeatureTable:
    """Features and outcomes of ``n`` tasks. Absent measurements are NaN.

    ``values`` is ``(n, len(names))``; every ``_pp`` column is ``(n,)`` in percentage points:
    ``score_pp`` the benchmark score of the full run (mean over ``seeds`` seeds, which differ by
    ``seed_sd_pp``), ``base_pp`` that of the untuned base, ``probe_pp`` that of the cue items at
    the probe's end. ``data_ids`` are the groups no split may cut; ``families`` name the kind of
    data, ``sources`` where it was drawn from (several sizes of one source share it).
    ``groups`` gives static, dynamic, recipe or cue for each name, and is looked up in the
    feature catalogue when left out. ``extras`` are further ``(n,)`` columns that baselines and cost
    accounting read (see the constants of this module), never the predictor.

    ``repeats`` are further rows of the same tasks, with the same outcome and the features of another
    seed's probe: systems learn from them, nothing is measured on them, and they go where their task goes.
    ``probe_steps`` is the length of the probes that the features are of, in optimiser steps.
    ``benchmark_fingerprints`` tell benchmarks of one name apart, empty where it is not known which it was.

    Raises :class:`PredictorError` when lengths disagree or a name occurs twice.
    """

    names: tuple[str, ...]
    values: Floats
    score_pp: Floats
    base_pp: Floats
    probe_pp: Floats
    chance_pp: Floats
    task_ids: tuple[str, ...]
    data_ids: tuple[str, ...]
    families: tuple[str, ...]
    seeds: Floats
    seed_sd_pp: Floats
    bases: tuple[str, ...]
    benchmarks: tuple[str, ...]
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    extras: Mapping[str, Floats] = field(default_factory=dict)
    repeats: FeatureTable | None = None
    probe_steps: int = PROBE_STEPS
    benchmark_fingerprints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.task_ids)
        if not self.sources:
            object.__setattr__(self, "sources", self.families)
        if not self.benchmark_fingerprints:
            object.__setattr__(self, _FINGERPRINTS, ("",) * rows)
        if not self.groups:
            object.__setattr__(self, "groups", tuple(_catalogue_group(name) for name in self.names))
        for name in _COLUMNS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        object.__setattr__(self, "values", np.atleast_2d(np.asarray(self.values, float)))
        if self.values.shape[1] != len(self.names) or len(self.groups) != len(self.names):
            raise PredictorError(
                f"{self.values.shape[1]} feature columns, {len(self.names)} names, {len(self.groups)} groups",
                remedy="give one name and one group for each column",
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise PredictorError(f"feature {twice[0]!r} occurs twice", remedy="keep one column of it")
        lengths = {name: len(getattr(self, name)) for name in ("values", *_COLUMNS, *_TEXTS)}
        lengths |= {name: len(column) for name, column in self.extras.items()}
        wrong = next((name for name, length in lengths.items() if length != rows), None)
        if wrong is not None:
            raise PredictorError(f"column {wrong!r} has {lengths[wrong]} entries for {rows} tasks")

    def __len__(self) -> int:
        return len(self.task_ids)

    def select(self, rows: Sequence[int] | NDArray[np.generic]) -> FeatureTable:
        """The table of some rows, by index or by mask, in the order given."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.zeros(0, np.intp)
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in ("values", *_COLUMNS)}
        texts: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in index) for name in _TEXTS}
        extras = {name: column[index] for name, column in self.extras.items()}
        repeats = self.repeats
        if repeats is not None:
            chosen = set(zip(texts["bases"], texts["task_ids"], strict=True))
            pairs = zip(repeats.bases, repeats.task_ids, strict=True)
            repeats = repeats.select(np.array([pair in chosen for pair in pairs], bool))
        return replace(self, **columns, **texts, extras=extras, repeats=repeats)

    def with_repeats(self) -> FeatureTable:
        """A table to learn from: these rows, and those of further seeds below them."""
        if self.repeats is None:
            return self
        return join_tables([replace(self, repeats=None), self.repeats])

    def with_features(self, names: Iterable[str]) -> FeatureTable:
        """The table with these feature columns only, in the order given; raises on an unknown name."""
        place = {name: i for i, name in enumerate(self.names)}
        wanted = tuple(names)
        unknown = next((name for name in wanted if name not in place), None)
        if unknown is not None:
            raise PredictorError(
                f"the table holds no feature {unknown!r}", remedy="see FeatureTable.names for what it holds"
            )
        columns = [place[name] for name in wanted]
        groups = tuple(self.groups[i] for i in columns)
        repeats = None if self.repeats is None else self.repeats.with_features(wanted)
        return replace(self, names=wanted, values=self.values[:, columns], groups=groups, repeats=repeats)

    def of_group(self, *groups: str) -> tuple[str, ...]:
        """Names of the features in these groups (static, dynamic, recipe, cue), in order."""
        return tuple(name for name, group in zip(self.names, self.groups, strict=True) if group in groups)

    def scored(self) -> FeatureTable:
        """The rows whose full run has a score."""
        return self.select(np.flatnonzero(np.isfinite(self.score_pp)))

    @property
    def further_benchmarks(self) -> tuple[str, ...]:
        """Benchmarks besides its own on which the table's full runs were scored, in order of name."""
        names = {name[len(OUTCOME_PREFIX) :].rsplit("|", 1)[0] for name in self.extras if _is_outcome(name)}
        return tuple(sorted(names))

    def of_benchmark(self, name: str) -> FeatureTable:
        """The same tasks and features with their outcomes on another benchmark.

        Only the final score and the base's were measured there, so the probe score, chance and the
        cue columns are absent. Raises :class:`PredictorError` when no task was scored on ``name``.
        """
        if name not in self.further_benchmarks:
            known = ", ".join((*sorted(set(self.benchmarks)), *self.further_benchmarks))
            raise PredictorError(f"no task was scored on {name!r}", remedy=f"the table holds {known}")
        unknown = np.full(len(self), np.nan)
        outcome: dict[str, Any] = {
            column: self.extra(outcome_column(name, column)) for column in _OUTCOME_COLUMNS
        }
        kept = {
            key: column
            for key, column in self.extras.items()
            if not _is_outcome(key) and not key.startswith((CUE_PREFIX, PROXY))
        }
        return replace(
            self,
            **outcome,
            probe_pp=unknown,
            chance_pp=unknown,
            benchmarks=(name,) * len(self),
            benchmark_fingerprints=("",) * len(self),
            extras={**kept, PROXY: self.extra(proxy_column(name))},
            repeats=None if self.repeats is None else self.repeats.of_benchmark(name),
        )

    @property
    def data_keys(self) -> tuple[str, ...]:
        """Each row's data set on its base and benchmark, ``(n,)``: only there are recipes chosen from."""
        parts = zip(self.bases, self.benchmarks, self.data_ids, strict=True)
        return tuple(" ".join(part) for part in parts)

    @property
    def places(self) -> tuple[str, ...]:
        """Each row's base and benchmark, ``(n,)``: intervals of one say nothing of another."""
        return tuple(" ".join(pair) for pair in zip(self.bases, self.benchmarks, strict=True))

    @property
    def headroom_pp(self) -> Floats:
        """Points between chance and the top of each row's benchmark, ``(n,)``."""
        return 100.0 - np.nan_to_num(self.chance_pp)

    @property
    def cue_steps(self) -> tuple[int, ...]:
        """Steps at which cue scores are stored, ascending."""
        return tuple(
            sorted(int(name[len(CUE_PREFIX) :]) for name in self.extras if name.startswith(CUE_PREFIX))
        )

    def extra(self, name: str) -> Floats:
        """An extra column, ``(n,)``; all NaN when the table has none of that name."""
        return self.extras.get(name, np.full(len(self), np.nan))


def join_tables(tables: Sequence[FeatureTable]) -> FeatureTable:
    """The rows of several tables, one below the other; extras that a table lacks are NaN in its rows.

    Raises :class:`PredictorError` when the tables hold other features or in another order, or features of
    probes of another length.
    """
    first = tables[0]
    for table in tables:
        if table.probe_steps != first.probe_steps:
            raise PredictorError(
                f"runs probed for {first.probe_steps} and for {table.probe_steps} steps can't be joined",
                remedy=f"derive all from probes of one length (the packaged runs: {PROBE_STEPS} steps)",
            )
        if table.names != first.names:
            raise PredictorError(
                "tables with other features can't be joined",
                remedy="derive them again with one version of the package",
            )
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in ("values", *_COLUMNS)
    }
    texts: dict[str, Any] = {name: sum((getattr(table, name) for table in tables), ()) for name in _TEXTS}
    names = sorted({name for table in tables for name in table.extras})
    extras = {name: np.concatenate([table.extra(name) for table in tables]) for name in names}
    repeated = [table.repeats for table in tables if table.repeats is not None]
    repeats = join_tables(repeated) if repeated else None
    return replace(first, **columns, **texts, extras=extras, repeats=repeats)


def outcome_column(benchmark: str, column: str) -> str:
    """Name of the extra column that holds ``column`` of a second benchmark."""
    return f"{OUTCOME_PREFIX}{benchmark}|{column}"


def proxy_column(benchmark: str) -> str:
    """Name of the extra column that holds the proxy's score on a second benchmark."""
    return f"{PROXY}@{benchmark}"


def _is_outcome(name: str) -> bool:
    return name.startswith(OUTCOME_PREFIX)


def group_index(ids: Sequence[str]) -> Rows:
    """Integers 0..k-1 for ``ids``, in order of first appearance, ``(n,)``."""
    order: dict[str, int] = {}
    return np.array([order.setdefault(name, len(order)) for name in ids], np.intp)


def _catalogue_group(name: str) -> str:
    from tuneahead.predictor.explain import known_spec

    spec = known_spec(name)
    return str(spec.group) if spec is not None else "other"


def write_table(table: FeatureTable, path: str | Path) -> None:
    """Write ``table`` as one Parquet file: features as ``f:``, extras as ``x:``, the rest by name.

    Features are kept as 32-bit floats: they are measured no finer, and the file is half as large. Rows of
    further seeds stand below those of the tasks.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tasks, table = len(table), table.with_repeats()
    columns: dict[str, object] = {name: list(getattr(table, name)) for name in _TEXTS}
    columns |= {name: getattr(table, name) for name in _COLUMNS}
    columns |= {f"f:{name}": table.values[:, i].astype(np.float32) for i, name in enumerate(table.names)}
    columns |= {f"x:{name}": column for name, column in table.extras.items()}
    header = json.dumps(
        {
            "schema": SCHEMA,
            "catalogue": CATALOGUE_VERSION,
            "names": table.names,
            "groups": table.groups,
            "tasks": tasks,
            "probe_steps": table.probe_steps,
        }
    )
    arrow = pa.table(columns).replace_schema_metadata({"tuneahead": header})
    with whole_file(Path(path)) as part:
        pq.write_table(arrow, part, compression="zstd")


def read_table(path: str | Path) -> FeatureTable:
    """Read what :func:`write_table` wrote; raises :class:`PredictorError` on anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise PredictorError(f"there is no file {path}", remedy="name the Parquet file of a feature table")
    try:
        return _table(pq.read_table(str(path)))
    except (OSError, pa.ArrowException, PredictorError, *fields.WRONG) as error:
        raise PredictorError(
            f"{path} is not a feature table of schema {SCHEMA}: {getattr(error, 'message', error)}",
            remedy="write one with 'write_table' or from the history of runs",
        ) from None


def _table(arrow: Any) -> FeatureTable:
    header = fields.mapping(json.loads((arrow.schema.metadata or {})[b"tuneahead"]), "the header")
    if header["schema"] != SCHEMA:
        raise ValueError(f"schema {header['schema']!r:.60}")
    # Tables of an earlier version don't say.
    if (catalogue := header.get("catalogue", CATALOGUE_VERSION)) != CATALOGUE_VERSION:
        raise ValueError(
            f"its features are of catalogue version {catalogue!r:.60}, this version of tuneahead derives "
            f"those of {CATALOGUE_VERSION!r}"
        )
    names = fields.texts(header["names"], "names")
    columns: dict[str, Any] = {name: _numbers(arrow, name) for name in _COLUMNS}
    # Tables of an earlier version have no fingerprints.
    kept = [name for name in _TEXTS if name != _FINGERPRINTS or name in arrow.column_names]
    texts: dict[str, Any] = {name: fields.texts(arrow[name].to_pylist(), name) for name in kept}
    values = [_numbers(arrow, f"f:{name}") for name in names]
    extras = {name[2:]: _numbers(arrow, name) for name in arrow.column_names if name.startswith("x:")}
    whole = FeatureTable(
        names=names,
        values=np.column_stack(values) if values else np.zeros((arrow.num_rows, 0)),
        groups=fields.texts(header["groups"], "groups"),
        extras=extras,
        probe_steps=fields.whole(header.get("probe_steps", PROBE_STEPS), "the probe's steps", least=1),
        **columns,
        **texts,
    )
    tasks = fields.whole(header.get("tasks", len(whole)), "the number of tasks", least=0)
    if tasks > len(whole):
        raise ValueError(f"{tasks} tasks in {len(whole)} rows")
    if any(not name[len(CUE_PREFIX) :].isdecimal() for name in extras if name.startswith(CUE_PREFIX)):
        raise ValueError("a column of cue scores names no step")
    if tasks == len(whole):
        return whole
    repeats = whole.select(np.arange(tasks, len(whole)))
    return replace(whole.select(np.arange(tasks)), repeats=repeats)


def _numbers(arrow: Any, name: str) -> Floats:
    import pyarrow as pa

    column = arrow[name]
    # Text that reads like numbers would be taken for them.
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise TypeError(f"column {name!r} holds {column.type}, not numbers")
    return np.asarray(column.to_numpy(), float)
