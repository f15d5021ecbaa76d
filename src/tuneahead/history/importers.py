"""Bringing in runs that were made before TuneAhead, from the logs that they left."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tuneahead.errors import DataError, StoreError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.history import mlflow, trainerstate
from tuneahead.history.loggedrun import BEGINNINGS, LoggedRun, LogReading, id_of, record_of
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.settings import LOGGED_FIELDS
from tuneahead.history.store import RunStore

__all__ = ["ImportSummary", "LogReading", "import_runs"]

_FALLING = re.compile(r"(loss|perplexity|ppl)$", re.IGNORECASE)
"""How the names of measurements end that are the lower the better."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import did, in numbers of runs; ``left_out`` says what could not be read and why."""

    added: int
    present: int
    scored: int
    """Runs, new or known, that got a final score."""
    data_sets: int
    tasks: int
    """Tasks that they are runs of; only runs that differ by their seed alone are of one."""
    left_out: tuple[str, ...]
    absent: tuple[tuple[str, str, int], ...]
    """(measurement, reason, runs that lack it), most frequent first."""
    unit: str = ""
    unscored: tuple[tuple[str, int], ...] = ()
    """(Why runs have no final score though one was asked for, how many), most frequent first."""
    unchanged: int = 0
    """Known runs that keep an earlier base, data set, recipe or score, which this reading would change."""
    other_weights: tuple[str, ...] = ()
    """Bases whose runs were made with other weights (or in another number format) than those there before."""


@dataclass(frozen=True)
class _Read:
    """A run as it would be stored, and the identifiers it had while it had logged less."""

    record: RunRecord
    earlier: tuple[str, ...]


def import_runs(
    path: str | Path, store: RunStore | str | Path, reading: LogReading, *, unit: str = "auto"
) -> ImportSummary:
    """Put every run logged under ``path`` into ``store``; a run that is there already is known again.

    ``path`` is a ``trainer_state.json``, a folder with any number of them, MLflow's folder ``mlruns`` or
    its SQLite file. ``unit`` says how the score is logged: ``fraction``, ``points``, or ``auto`` (a fraction
    if no run logged more than 1). Runs that can't be read are left out with the reason. A known run that
    has a final score by now, and had none, gets it. A store named by its file is made only when there are
    runs to keep. Raises :class:`StoreError` when ``path`` holds no run, the score is a loss, of no benchmark
    or, for all that ``auto`` can tell, in both units, or that of guessing is impossible, and the
    :class:`DataError` of the first run when none could be read.
    """
    _check(reading)
    found, errors, chosen = _read_all(Path(path), reading, unit)
    kept = store if isinstance(store, RunStore) else RunStore(store)
    records = _as_known(found, kept)
    added = [kept.add(record) for record in records]
    # What is there is never edited, so a known run is told of as it is stored.
    stored = [r if new else kept.get(r.run_id) for r, new in zip(records, added, strict=True)]
    known = [pair for pair, new in zip(zip(records, stored, strict=True), added, strict=True) if not new]
    late = sum(_score_known(kept, record, earlier) for record, earlier in known)
    lacking = Counter(pair for record in stored for pair in record.trace.absent)
    return ImportSummary(
        added=sum(added),
        present=len(known),
        scored=late + sum(bool(r.scores) for r, new in zip(records, added, strict=True) if new),
        data_sets=len({record.data_id for record in stored}),
        tasks=len({(record.base, record.task_id) for record in stored}),
        left_out=tuple(error.message for error in errors),
        absent=tuple((what, why, count) for (what, why), count in lacking.most_common()),
        unit=chosen,
        unscored=_unscored(records, stored, reading),
        unchanged=sum(_differ(record, earlier) for record, earlier in known),
    )


def _unscored(
    records: list[RunRecord], stored: list[RunRecord], reading: LogReading
) -> tuple[tuple[str, int], ...]:
    if not reading.score:
        return ()
    why = Counter(
        _no_score(record, reading)
        for record, own in zip(records, stored, strict=True)
        if reading.benchmark not in {*record.scores, *own.scores}
    )
    return tuple(why.most_common())


def _no_score(record: RunRecord, reading: LogReading) -> str:
    """Why a run has no final score."""
    last = max((cue.step for cue in record.trace.cues if math.isfinite(cue.total_pp)), default=0)
    if not last:
        return f"the log has no {reading.score} of a step of training"
    return f"the last {reading.score} is of a step before the planned end; if training ended there, record it"


def _check(reading: LogReading) -> None:
    if reading.score and not reading.benchmark:
        raise StoreError(
            f"{reading.score} is the score of an unnamed benchmark",
            remedy="name it with --benchmark, as it will be named to fit and assess",
        )
    if _FALLING.search(reading.score):
        raise StoreError(
            f"{reading.score} is the lower the better, and forecasts are of a score that rises",
            remedy="name a score such as eval_accuracy, or leave --score out and add it with 'runs record'",
        )
    # At 100 a guess is perfect and nothing can be gained: no predictor could be fitted to such runs.
    if not (math.isnan(reading.chance_pp) or 0 <= reading.chance_pp < 100):
        raise StoreError(
            f"the score of guessing is {reading.chance_pp:g}",
            remedy="give points from 0 to below 100, such as 25 for four options",
        )


def _read_all(path: Path, reading: LogReading, unit: str) -> tuple[list[_Read], list[DataError], str]:
    """Every run as it is stored, what could not be read, and the unit of the scores."""
    runs: list[LoggedRun] = []
    errors: list[DataError] = []
    for found in _logged_runs(path, reading.score):
        (errors if isinstance(found, DataError) else runs).append(found)  # type: ignore[arg-type]
    chosen = _unit(runs, reading, unit)
    reading = replace(reading, scale=100.0 if chosen == "fraction" else 1.0)
    records: list[_Read] = []
    for run in _once(runs, errors):
        try:
            records.append(_Read(record_of(run, reading), tuple(map(id_of, run.earlier))))
        except DataError as error:
            errors.append(error)
        except UnicodeEncodeError as error:
            what = f"names its base or data set with {error.object[error.start]!a}, which is no character"
            errors.append(DataError(what, path=run.source, remedy="correct the settings beside the log"))
    if not records:
        raise (
            errors[0]
            if errors
            else StoreError(
                f"{path} holds no finished run",
                remedy="MLflow runs that failed or still run are not imported",
            )
        )
    return records, errors, chosen


def _once(runs: list[LoggedRun], errors: list[DataError]) -> list[LoggedRun]:
    """The runs, without those whose log is the beginning of another's: they join the ``errors``."""
    furthest: dict[str, LoggedRun] = {}
    for run in sorted(runs, key=lambda run: (len(run.earlier), _last_step(run)), reverse=True):
        first = furthest.get(run.key)
        if first is None:
            furthest.update((name, run) for name in (run.key, *run.earlier) if name not in furthest)
        else:
            what = f"logged what {first.source} did: a copy, or nothing tells the two runs apart"
            errors.append(DataError(what, path=run.source, remedy="give one of them"))
    return [run for run in runs if furthest[run.key] is run]


def _last_step(run: LoggedRun) -> int:
    return max((max(found, default=0) for found in run.values.values()), default=0)


def _as_known(found: list[_Read], store: RunStore) -> list[RunRecord]:
    """The records, those that were stored with a shorter or longer log by the identifier they have there."""
    stored = store.done_ids()
    new = {read.record.run_id for read in found} - stored
    free = stored - {read.record.run_id for read in found}
    longer = _beginnings(store) if new else {}
    records = []
    for record, earlier in ((read.record, read.earlier) for read in found):
        begun = (longer.get(record.run_id, ""), *earlier) if record.run_id in new else ()
        names = [name for name in begun if name in free]
        known = next((name for name in names if _may_be_one(store.get(name), record)), None)
        free.discard(known or "")
        records.append(record if known is None else replace(record, run_id=known))
    return records


def _beginnings(store: RunStore) -> dict[str, str]:
    """Stored runs by the identifiers that they had while they had logged less."""
    found: dict[str, str] = {}
    for record in store.records():
        found |= dict.fromkeys(dict(record.trace.info.versions).get(BEGINNINGS, "").split(), record.run_id)
    return found


def _may_be_one(known: RunRecord, record: RunRecord) -> bool:
    """Whether nothing tells a stored run from one that begins like it: no setting, no value of a step."""
    silent = {name.removeprefix(UNKNOWN_SETTING) for run in (known, record) for name, _ in run.trace.absent}
    # The largest rate that was logged grows with the log.
    told = set(LOGGED_FIELDS) - silent - {"learning_rate"}
    if any(getattr(known.recipe, name) != getattr(record.recipe, name) for name in told):
        return False
    one, other = known.trace, record.trace
    count = min(len(one.steps), len(other.steps))
    columns = ("loss_sum_nats", "grad_norm", "learning_rate")
    pairs = [(getattr(one.steps, name)[:count], getattr(other.steps, name)[:count]) for name in columns]
    held = {cue.step: cue.heldout_loss_nats for cue in one.cues}
    both = [(held[cue.step], cue.heldout_loss_nats) for cue in other.cues if cue.step in held]
    pairs.append((np.array([a for a, _ in both]), np.array([b for _, b in both])))
    return not any((np.isfinite(a) & np.isfinite(b) & (a != b)).any() for a, b in pairs)


def _logged_runs(path: Path, score: str) -> Iterator[LoggedRun | DataError]:
    if not path.exists():
        raise StoreError(f"there is no {path}", remedy="name a folder of runs, mlruns, or an MLflow database")
    if mlflow.is_database(path):
        yield from mlflow.read_database(path)
        return
    if mlflow.is_file_store(path):
        yield from mlflow.read_file_store(path)
        return
    states = trainerstate.run_folders(path) if path.is_dir() or path.suffix == ".json" else []
    if not states:
        raise StoreError(
            f"{path} holds neither a {trainerstate.STATE} nor MLflow runs",
            remedy="name the folder that the Trainer wrote its checkpoints to, mlruns, an MLflow database "
            "or another store",
        )
    for state in states:
        try:
            yield trainerstate.read_state(state, score)
        except DataError as error:
            yield error


def _unit(runs: list[LoggedRun], reading: LogReading, unit: str) -> str:
    """``fraction`` or ``points``; empty without a score."""
    if not reading.score:
        return ""
    if unit not in ("auto", "fraction", "points"):
        raise StoreError(f"unknown unit {unit!r}", remedy="use fraction, points or auto")
    logged = [(run, run.values.get(reading.score, {}).values()) for run in runs]
    highest = [(max(found), run) for run, own in logged if (found := [v for v in own if math.isfinite(v)])]
    if runs and not highest:
        names = sorted({name for run in runs for name in run.values})
        raise StoreError(
            f"no run logged {reading.score!r}",
            remedy=f"name the score with --score; logged are {', '.join(names)}",
        )
    if unit != "auto":
        return unit
    points = [pair for pair in highest if pair[0] > 1]
    # A score of 0 is the same in both.
    fractions = [pair for pair in highest if 0 < pair[0] <= 1]
    if points and fractions:
        (low, one), (high, other) = fractions[0], points[0]
        raise StoreError(
            f"{reading.score} is {low:g} at most in {one.source}, as a fraction would be, and up to {high:g} "
            f"in {other.source}",
            remedy="say how it is logged with --unit fraction or --unit points; where both occur, import the "
            "runs of each by themselves",
        )
    return "points" if points else "fraction"


def _score_known(store: RunStore, record: RunRecord, known: RunRecord) -> bool:
    if (record.base, record.data_id) != (known.base, known.data_id):
        return False
    late = {name: pp for name, pp in record.scores.items() if name not in known.scores}
    for name, pp in late.items():
        store.record_score(record.run_id, name, pp)
    return bool(late)


def _differ(record: RunRecord, known: RunRecord) -> bool:
    named = (record.base, record.data_id, record.recipe) != (known.base, known.data_id, known.recipe)
    return named or any(known.scores.get(name, pp) != pp for name, pp in record.scores.items())
