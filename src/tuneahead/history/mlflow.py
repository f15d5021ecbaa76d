"""Runs of MLflow experiments, from the files of its file store or from its SQLite database.

Both are read as plain files, without the mlflow package: it is large, and opening a store with it may
upgrade the store. Deleted and unfinished runs are left out.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tuneahead.errors import DataError
from tuneahead.history.loggedrun import LoggedRun, counts_from_zero
from tuneahead.history.storefile import table_names
from tuneahead.recipe import MOST_STEPS
from tuneahead.yamltext import read_yaml

_Found = TypeVar("_Found")
_EACH_STEP = ("loss", "grad_norm", "learning_rate")
_OF_STEPS = (*_EACH_STEP, "eval_loss")
_TO_THE_END = ("loss", "grad_norm", "eval_loss", "train_runtime")
"""A Trainer logs the last of these at the last step, however seldom it logs the others."""
_MOST_NAMES = 8
"""Metrics that an error names."""
_FINISHED = ("3", "FINISHED")
_REMEDY = "give the folder 'mlruns' or the database file that MLflow wrote"
Settings = dict[str, object]
Values = dict[str, dict[int, float]]
Times = dict[str, tuple[float, float]]
"""When each metric was logged first and last."""


def is_file_store(path: Path) -> bool:
    """Whether ``path`` is a folder of MLflow experiments, one experiment, or one run."""
    return path.is_dir() and any(_run_folders(path))


def is_database(path: Path) -> bool:
    """Whether ``path`` is an SQLite file that holds MLflow's tables."""
    if not path.is_file():
        return False
    try:
        with _connected(path) as connection:
            names = table_names(connection)
    except sqlite3.Error:
        return False
    return {"experiments", "runs", "metrics", "params"} <= names


def read_file_store(path: Path) -> Iterator[LoggedRun | DataError]:
    """Every finished run of a file store; a run that can't be read as the error that says why."""
    for folder in _run_folders(path):
        try:
            run = _file_run(folder)
        except DataError as error:
            yield error
            continue
        if run is not None:
            yield run


def _run_folders(path: Path) -> Iterator[Path]:
    for depth in ("", "*/", "*/*/"):
        for meta in sorted(path.glob(f"{depth}meta.yaml")):
            trashed = ".trash" in meta.relative_to(path).parts
            if not trashed and (meta.parent / "metrics").is_dir():
                yield meta.parent


def _file_run(folder: Path) -> LoggedRun | None:
    meta = _meta(folder / "meta.yaml")
    if str(meta.get("status")) not in _FINISHED or meta.get("lifecycle_stage") == "deleted":
        return None
    settings: Settings = {}
    for kind in ("tags", "params"):
        for file in sorted((folder / kind).rglob("*")):
            if file.is_file():
                settings[file.relative_to(folder / kind).as_posix()] = _text(file).strip()
    values: Values = {}
    times: Times = {}
    for file in sorted((folder / "metrics").rglob("*")):
        if file.is_file():
            name = file.relative_to(folder / "metrics").as_posix()
            values[name], times[name] = _series(file)
    run = str(meta.get("run_id") or folder.name)
    return _logged(run, str(folder), settings, _named(values), _named(times), meta.get("start_time"))


def _meta(path: Path) -> dict[str, object]:
    try:
        loaded = read_yaml(_text(path))
    except ValueError as error:
        raise DataError(f"not valid YAML: {error}", path=path, remedy=_REMEDY) from None
    if not isinstance(loaded, dict):
        raise DataError("holds no 'name: value' lines", path=path, remedy=_REMEDY)
    return {str(name): value for name, value in loaded.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", path=path, remedy="check the file") from None


def _series(path: Path) -> tuple[dict[int, float], tuple[float, float]]:
    """Lines of 'time value step' as values by step, the last one counting, and the first and last time."""
    found: dict[int, float] = {}
    times: list[float] = []
    for row, line in enumerate(_text(path).splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        try:
            time, value, step = float(parts[0]), float(parts[1]), _step(parts[2] if len(parts) > 2 else 0)
        except (ValueError, IndexError):
            what = f"{line[:80]!r} is no line of 'time value step'"
            raise DataError(what, path=path, row=row, remedy="correct or remove this line") from None
        found[step] = value
        times.append(time)
    return found, (min(times, default=math.nan), max(times, default=math.nan))


def read_database(path: Path) -> Iterator[LoggedRun | DataError]:
    """Every finished run of an SQLite database; a run that can't be read as the error that says why."""
    try:
        with _connected(path) as connection:
            runs = connection.execute(
                "SELECT run_uuid, start_time FROM runs WHERE status = 'FINISHED' "
                "AND lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
            ).fetchall()
            for name, began in runs:
                try:
                    yield _database_run(connection, path, str(name), began)
                except DataError as error:
                    yield error
    except sqlite3.Error as error:
        raise DataError(f"can't be read as an MLflow database: {error}", path=path, remedy=_REMEDY) from None


def _database_run(connection: sqlite3.Connection, path: Path, name: str, began: object) -> LoggedRun:
    source = f"{path}, run {name}"
    settings: Settings = {}
    for table in ("tags", "params"):
        query = f"SELECT key, value FROM {table} WHERE run_uuid = ?"
        settings |= {str(key): value for key, value in connection.execute(query, (name,))}
    values: Values = {}
    times: Times = {}
    rows = connection.execute(
        "SELECT key, step, value, is_nan, timestamp FROM metrics WHERE run_uuid = ? ORDER BY timestamp",
        (name,),
    )
    for key, step, value, is_nan, time in rows:
        try:
            number = math.nan if is_nan else _number(float(value))
            values.setdefault(str(key), {})[_step(step)] = number
            times[str(key)] = (times.get(str(key), (float(time),))[0], float(time))
        except (TypeError, ValueError):
            what = f"metric {key} is {value!r} at step {step!r}"
            raise DataError(what, path=source, remedy="correct or delete this entry") from None
    return _logged(name, source, settings, _named(values), _named(times), began)


def _number(stored: float) -> float:
    """The value that was logged: in place of infinity the database holds the largest number there is."""
    return math.copysign(math.inf, stored) if abs(stored) >= sys.float_info.max else stored


def _named(found: dict[str, _Found]) -> dict[str, _Found]:
    """What was found of each metric, under its own name and under that of a Trainer."""
    # Loggers write eval/accuracy or eval_accuracy for the same thing.
    return {key.replace("train/", "").replace("eval/", "eval_"): one for key, one in found.items()} | found


def _step(value: object) -> int:
    """A step as a number; raises ValueError for what is none, such as a time in seconds."""
    step = int(str(value))
    if not 0 <= step <= MOST_STEPS:
        raise ValueError
    return step


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    # Read-only: another program's database is never created or changed.
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def _placed(values: Values, times: Times, last: int) -> tuple[Values, tuple[str, ...]]:
    """The values, those logged without a step of training where they belong; the names where none can tell.

    MLflow puts at step 0 what has no step, and loops of people's own count epochs there. It is the base's if
    it was logged before the first loss, and the last step's if after the last.
    """
    placed, unplaced = dict(values), []
    clock = next((name for name in _OF_STEPS if name in times), "")
    began, ended = times.get(clock, (math.nan, math.nan))
    for name, found in values.items():
        if name in (clock, *_EACH_STEP) or not last:
            continue
        first, time = times[name]
        if time >= ended and (set(found) == {0} or _counts_epochs(found, last)):
            base = {0: found[0]} if len(found) > 1 and 0 in found and first <= began else {}
            placed[name] = {**base, last: found[max(found)]}
        elif set(found) == {0} and name not in _OF_STEPS and not time <= began:
            unplaced.append(name)
    return placed, tuple(unplaced)


def _counts_epochs(found: Mapping[int, float], last: int) -> bool:
    """Whether the steps of these values, each the next number, can only be those of passes over the data."""
    least, most = min(found), max(found)
    return least <= 1 and len(found) == most - least + 1 and 0 < most < last / 2


def _steps_left(values: Values, settings: Settings) -> int:
    """Planned steps after the last of a Trainer's run that was to last so many epochs: it was stopped early.

    Other loggers may count their epochs from 0, so only a Trainer's are believed.
    """
    epochs = values.get("epoch", {})
    last = max(epochs, default=0)
    try:
        planned = float(str(settings.get("num_train_epochs")))
    except ValueError:
        return 0
    if "train_runtime" not in values or not (0 < epochs.get(last, 0) < planned < MOST_STEPS):
        return 0
    left = last * (planned / epochs[last] - 1)
    # Older trainers end up to a step of each epoch early: they leave out what does not fill one.
    return round(left) if planned + 1 < left <= MOST_STEPS else 0


def _logged(
    name: str, source: str, settings: Settings, values: Values, times: Times, began: object
) -> LoggedRun:
    logged = [step for key in _TO_THE_END for step in values.get(key, {})]
    planned = str(settings.get("max_steps", ""))
    if planned.isdecimal() and len(planned) > len(str(MOST_STEPS)):
        what = f"max_steps is {planned[:40]}, more than {MOST_STEPS:,}"
        raise DataError(what, path=source, remedy="correct or remove this setting")
    last = max(logged, default=0)
    if counts_from_zero(values, last + 1):
        last = max(last, max(values["loss"]) + 1)
    given = int(planned) if planned.isdecimal() and int(planned) > 0 else 0
    total = given or last + _steps_left(values, settings)
    if total < 1:
        names = ", ".join(sorted(values)[:_MOST_NAMES]) or "nothing"
        raise DataError(
            f"no loss, grad_norm or eval_loss of a training step was logged (logged: {names})",
            path=source,
            remedy="runs without a loss by step can't be learned from",
        )
    created = ""
    if isinstance(began, int):
        # A time that no calendar has says nothing, and nothing else depends on it.
        with contextlib.suppress(OverflowError, ValueError, OSError):
            created = datetime.fromtimestamp(began / 1000, UTC).isoformat(timespec="seconds")
    placed, unplaced = _placed(values, times, last)
    return LoggedRun(f"mlflow {name}", source, settings, placed, total, created=created, unplaced=unplaced)
