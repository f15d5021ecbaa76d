"""The history as Parquet files that are only ever added to, small enough to be shipped.

A store becomes numbered parts of up to 100 runs; a part once written is never touched again, so
that a growing archive adds files and changes none. Reading the parts gives the runs back with the
scores that they had when they were added: one recorded later stays in the store alone. The static
features of data sets that can't be made again from their spec (real questions) lie beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneahead.errors import RecipeError, StoreError, TraceError, TuneAheadError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.history.tables import can_be_made
from tuneahead.recipe import make_recipe
from tuneahead.trace import trace_from_bytes
from tuneahead.wholefile import whole_file

RUNS_PER_PART = 100
_TEXTS = ("run_id", "task_id", "data_id", "family", "base", "data_spec", "failure", "origin", "created")
_NUMBERS = ("seed", "seconds", "steps")
_JSON = ("scores", "base_scores", "subject_scores")
_FEATURES = "features.parquet"
_FEATURE_KEY = ("data_id", "base", "version")


def write_archive(store: RunStore, folder: Path) -> int:
    """Add the runs that the archive lacks, in full parts and one last smaller part; returns how many.

    A last part that is not full is replaced by a fuller one of the same number. Raises
    :class:`StoreError` when a part can't be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(folder)
    present = {run_id for part in parts for run_id in _ids(part)}
    number: int = _number(parts[-1]) + 1 if parts else 0
    rest: list[RunRecord] = []
    if parts and len(_ids(parts[-1])) < RUNS_PER_PART:
        # The store may be another one than the part was written from: only the file has its runs.
        number, rest = number - 1, list(_read_part(parts[-1]))
    added = 0
    for record in store.records():
        if record.run_id in present:
            continue
        rest.append(record)
        added += 1
        if len(rest) == RUNS_PER_PART:
            _write_part(folder, number, rest)
            rest, number = [], number + 1
    if rest and added:
        _write_part(folder, number, rest)
    _write_features(store, folder)
    return added


def read_archive(folder: Path) -> Iterator[RunRecord]:
    """Every run of an archive, part by part; raises :class:`StoreError` when there is none."""
    parts = _parts(folder)
    if not parts:
        raise StoreError(f"no archive of runs in {folder}", remedy="name a folder with part-*.parquet files")
    for part in parts:
        yield from _read_part(part)


def restore(folder: Path, store: RunStore) -> int:
    """Put every run of an archive into a store, and the features beside them; returns how many were new."""
    added = sum(store.add(record) for record in read_archive(folder))
    for data_id, base, version, vector in _read_features(folder):
        if store.static(data_id, base, version) is None:
            store.add_static(data_id, base, version, vector)
    return added


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"), key=_number)


def _number(part: Path) -> int:
    digits = part.stem.removeprefix("part-")
    if not digits.isdecimal():
        raise StoreError(f"{part} is no part of an archive", remedy="name parts part-000.parquet and so on")
    return int(digits)


def _ids(part: Path) -> list[str]:
    return [str(row["run_id"]) for row in _rows(part, ["run_id"])]


def _rows(part: Path, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(part, columns=columns).select(columns).to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{part} can't be read: {error}", remedy="fetch the file again") from None
    return rows


def _write_part(folder: Path, number: int, records: Sequence[RunRecord]) -> None:
    columns: dict[str, list[object]] = {
        name: [getattr(record, name) for record in records] for name in (*_TEXTS, *_NUMBERS)
    }
    for name in _JSON:
        columns[name] = [json.dumps(_plain(getattr(record, name)), sort_keys=True) for record in records]
    columns["recipe"] = [record.recipe.model_dump_json() for record in records]
    columns["trace"] = [record.trace.to_bytes() for record in records]
    _write(folder / f"part-{number:03d}.parquet", columns)


def _write(path: Path, columns: dict[str, list[object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(path) as part:
        pq.write_table(pa.table(columns), part, compression="zstd", compression_level=12)


def _write_features(store: RunStore, folder: Path) -> None:
    """The last measured features of data sets that nobody can measure again without their rows."""
    specs = {record.data_id: record.data_spec for record in store.records()}
    lasting = {data_id for data_id, spec in specs.items() if spec and not can_be_made(spec)}
    kept = {(data_id, base, version): vector for data_id, base, version, vector in _read_features(folder)}
    new = {(data_id, base, version): vector for data_id, base, version, vector in store.statics(lasting)}
    # As text, for an absent value is unequal to itself.
    if all(key in kept and _text(kept[key]) == _text(vector) for key, vector in new.items()):
        return
    rows = sorted((kept | new).items())
    columns: dict[str, list[object]] = {
        name: [key[place] for key, _ in rows] for place, name in enumerate(_FEATURE_KEY)
    }
    texts = [_text(vector) for _, vector in rows]
    columns["values"] = [values for values, _ in texts]
    columns["absent"] = [absent for _, absent in texts]
    _write(folder / _FEATURES, columns)


def _text(vector: FeatureVector) -> tuple[str, str]:
    return json.dumps(dict(vector.values)), json.dumps(dict(vector.absent))


def _read_features(folder: Path) -> Iterator[tuple[str, str, str, FeatureVector]]:
    path = folder / _FEATURES
    if not path.exists():
        return
    for row in _rows(path, [*_FEATURE_KEY, "values", "absent"]):
        data_id, base, version = (str(row[name]) for name in _FEATURE_KEY)
        yield data_id, base, version, FeatureVector(json.loads(row["values"]), json.loads(row["absent"]))


def _plain(scores: object) -> object:
    return {k: _plain(v) for k, v in scores.items()} if hasattr(scores, "items") else scores


def _read_part(part: Path) -> Iterator[RunRecord]:
    for row in _rows(part, [*_TEXTS, *_NUMBERS, *_JSON, "recipe", "trace"]):
        try:
            record = _record(row)
        except (RecipeError, TraceError, ValueError, TypeError, AttributeError) as error:
            why = error.message if isinstance(error, TuneAheadError) else str(error)
            raise StoreError(
                f"run {row['run_id']!r} in {part} can't be read: {why}", remedy="fetch the file again"
            ) from None
        yield record


def _record(row: dict[str, Any]) -> RunRecord:
    fields: dict[str, Any] = {name: str(row[name]) for name in _TEXTS}
    fields |= {"seed": int(row["seed"]), "seconds": float(row["seconds"]), "steps": int(row["steps"])}
    for name in _JSON:
        fields[name] = {key: _scores(found) for key, found in json.loads(row[name]).items()}
    recipe, trace = make_recipe(json.loads(row["recipe"])), trace_from_bytes(row["trace"])
    return RunRecord(recipe=recipe, trace=trace, **fields)


def _scores(found: object) -> object:
    return {key: _scores(one) for key, one in found.items()} if isinstance(found, dict) else float(str(found))
