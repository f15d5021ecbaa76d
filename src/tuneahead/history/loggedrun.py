"""A run that somebody else's logger wrote down, and what of it a history can hold.

A log knows less than a probe. What it lacks is absent in the trace with the reason, and settings that it
does not name are listed there too, so that no default passes for a fact.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneahead.errors import DataError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.settings import ROUNDED, LogSource, first_text, recipe_of
from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Floats, ProbeTrace, RowVisits, StepColumns, TraceInfo

NAN = math.nan
DONE_SHARE = 0.98
"""A score counts as final when it was taken after this share of all steps."""
GAPPED_STEPS = 1000
"""Steps kept of a log that has gaps: more than any probe, and no entry at a late step makes a huge trace."""
BEGINNINGS = "log"
"""Under this name a trace holds the identifiers that its run had while it had logged less."""
_NO_STEP = "logged without a step while the run trained; log it with its step, or give it with 'runs record'"
_MOST_ROWS = 10**12
_SPEED_ROUNDED = 0.0005
"""Trainers log what they do a second with three decimals."""
_BASES = (
    "base",
    "base_model",
    "base_model_name_or_path",
    "model_name_or_path",
    "model_name",
    "_name_or_path",
)
_DATA = ("dataset", "dataset_name", "data_path", "train_file", "dataset_path")
READ_VALUES = (
    *("loss", "grad_norm", "learning_rate", "epoch", "eval_loss"),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
)
"""Logged names that a record is made of, besides the score."""
_TELLING = {UNKNOWN_SETTING + name for name in ("learning_rate", "batch_size", "lora_rank")}
"""Runs that differ in one of these are no seeds of one task, so runs are only where all are known."""


@dataclass(frozen=True)
class LoggedRun:
    """One run as its log tells it: settings, and values by step.

    ``key`` names the run for good, so that it is known again, ``earlier`` are the names it had while it
    had logged less; ``source`` says where it was read.
    ``values`` maps each logged name to its values by optimiser step (0 is before training). Of the names in
    ``unplaced`` nobody can tell at which step they were taken.
    """

    key: str
    source: str
    settings: Mapping[str, object]
    values: Mapping[str, Mapping[int, float]]
    total_steps: int
    folder: str = ""
    created: str = ""
    earlier: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogReading:
    """How logs are to be read, for all runs of one import.

    ``score`` is the logged name of the benchmark's score, ``scale`` what turns it into points (1 or 100).
    ``data_by`` is the setting that tells data sets apart, or ``folder``; without it a known name is
    looked for, and runs without one count as one data set, which is the careful guess. ``chance_pp`` is the
    score of guessing, NaN where it is not known.
    """

    benchmark: str = ""
    score: str = ""
    scale: float = 1.0
    chance_pp: float = NAN
    base: str = ""
    data_by: str = ""
    recipe: Mapping[str, object] = field(default_factory=dict)


def record_of(run: LoggedRun, reading: LogReading) -> RunRecord:
    """The run as a history holds it.

    Raises :class:`DataError` when its base is not known or a setting or score is impossible, and
    UnicodeEncodeError when base or data set are named by half a surrogate pair.
    """
    settings = {**run.settings, **reading.recipe}
    base = reading.base or first_text(settings, _BASES)
    if not base:
        raise DataError(
            "the log does not name the base model",
            path=run.source,
            remedy="name it: --base Qwen/Qwen2.5-0.5B",
        )
    recipe, absent = recipe_of(run.settings, reading.recipe, _log_source(run))
    data_name = _data_name(run, reading)
    data_id = hashlib.sha256(f"imported {data_name}".encode()).hexdigest()[:16]
    base.encode()
    trace = _trace(run, reading, recipe, base, data_id, absent)
    scores = _scores(run, reading)
    last = max(scores, default=-1)
    # A logger that counts from 0 calls the last step total - 1.
    done = last > 0 and last >= min(DONE_SHARE * run.total_steps, run.total_steps - 1)
    final = {reading.benchmark: scores[last]} if done else {}
    # A seed changes no feature, known or not.
    other = tuple(pair for pair in absent if pair[0] != UNKNOWN_SETTING + "seed")
    # What is not known may differ: such a run is a task of its own, and its score no further seed's.
    alone = not data_name or any(name in _TELLING for name, _ in absent)
    one_seed = f"{data_id} {recipe.replace(seed=0).fingerprint} {other} {run.key if alone else ''}"
    seconds = run.values.get("train_runtime", {})
    return RunRecord(
        run_id=id_of(run.key),
        task_id=hashlib.sha256(one_seed.encode()).hexdigest()[:12],
        data_id=data_id,
        family="imported",
        base=base,
        seed=recipe.seed,
        recipe=recipe,
        trace=trace,
        scores=final,
        base_scores={reading.benchmark: scores[0]} if 0 in scores else {},
        seconds=seconds[max(seconds)] if seconds else NAN,
        steps=run.total_steps,
        failure=trace.info.failure,
        origin="import",
        created=run.created,
    )


def _log_source(run: LoggedRun) -> LogSource:
    """What the log says of steps, rows and rates; rows from the trainer's own a second over the whole run."""
    epochs = run.values.get("epoch", {})
    last = max(epochs, default=0)
    per_epoch = last / epochs[last] if last and epochs[last] > 0 else NAN
    speed, seconds = (_latest(run, name) for name in ("train_samples_per_second", "train_runtime"))
    rates = [rate for rate in run.values.get("learning_rate", {}).values() if math.isfinite(rate)]
    rows = speed * seconds / max(1.0, _timed_steps(run))
    highest = max(rates, default=NAN)
    return LogSource(run.source, run.total_steps, per_epoch, rows, highest, tuple(run.values))


def _latest(run: LoggedRun, name: str) -> float:
    found = run.values.get(name, {})
    return found[max(found)] if found else NAN


def _timed_steps(run: LoggedRun) -> float:
    """Steps that the trainer's rows a second are of; NaN where that can't be told.

    Older trainers count the planned steps there, newer ones those of their last call alone, which are fewer
    in a run that was stopped early or resumed.
    """
    seconds = _latest(run, "train_runtime")
    counted = _latest(run, "train_steps_per_second") * seconds
    slack = 0.1 + _SPEED_ROUNDED * seconds
    known = (run.total_steps, max(run.values.get("train_runtime", {}), default=0))
    # Without steps a second the planned ones are taken.
    fitting = (float(steps) for steps in known if not abs(counted - steps) > slack)
    return next(fitting, counted if slack < ROUNDED * counted else NAN)


def _scores(run: LoggedRun, reading: LogReading) -> dict[int, float]:
    """Benchmark score by step, in points."""
    logged = {} if reading.score in run.unplaced else run.values.get(reading.score, {})
    found = {step: reading.scale * value for step, value in logged.items() if math.isfinite(value)}
    wrong = next((pp for pp in found.values() if not 0 <= pp <= 100), None)
    if wrong is not None:
        raise DataError(
            f"{reading.score} gives {wrong:g} points, outside 0 to 100",
            path=run.source,
            remedy="say how it is logged with --unit fraction or --unit points, or name another score",
        )
    return found


def _data_name(run: LoggedRun, reading: LogReading) -> str:
    """What the log calls the data set, empty where it does not say."""
    name = run.folder if reading.data_by == "folder" else first_text(run.settings, (reading.data_by,))
    if not name and reading.data_by:
        raise DataError(
            f"the log has no setting {reading.data_by!r} to tell data sets apart",
            path=run.source,
            remedy="name another one with --data-by, or 'folder'",
        )
    return name or first_text(run.settings, _DATA)


def _trace(
    run: LoggedRun,
    reading: LogReading,
    recipe: Recipe,
    base: str,
    data_id: str,
    unknown: tuple[tuple[str, str], ...],
) -> ProbeTrace:
    steps, absent = _columns(run)
    cues = _cues(run, reading)
    if not any(math.isfinite(cue.heldout_loss_nats) for cue in cues):
        absent.append(("held-out loss", "the log has no eval_loss"))
    rows, why = _rows(run, recipe, unknown)
    absent.append(("exact train rows" if rows else "train rows", why))
    absent += [
        (name, "a log holds no such measurement") for name in ("row visits", "reference loss", "flatness")
    ]
    if reading.score in run.unplaced:
        absent.append((reading.score, _NO_STEP))
    items = "the log holds scores of the benchmark, not its items"
    absent.append(("benchmark cues", items if reading.score else "no benchmark score was named"))
    info = TraceInfo(
        base=base,
        base_fingerprint="",
        data_fingerprint=data_id,
        recipe=recipe,
        total_steps=run.total_steps,
        train_rows=rows,
        heldout_rows=0,
        parameters=0,
        layers=(),
        benchmark=reading.benchmark,
        chance_pp=reading.chance_pp,
        metric="harness",
        versions=(("import", run.source), (BEGINNINGS, " ".join(map(id_of, run.earlier)))),
    )
    no_ints = np.zeros(0, np.int32)
    nothing = RowVisits(no_ints, no_ints, np.zeros(0, np.float32), no_ints)
    return ProbeTrace(info, steps, nothing, cues, None, (*unknown, *absent))


def _rows(run: LoggedRun, recipe: Recipe, unknown: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Training rows in whole batches from the epochs that were logged, 0 if that can't be told; and why."""
    epochs = run.values.get("epoch", {})
    last = max(epochs, default=0)
    lacking = {name.removeprefix(UNKNOWN_SETTING) for name, _ in unknown}
    if not last or not epochs[last] > 0 or lacking & {"batch_size", "gradient_accumulation_steps"}:
        return 0, "the log does not say how many rows there are"
    rows = last / epochs[last] * recipe.rows_per_step
    if not rows < _MOST_ROWS:
        return 0, f"the log counts epoch {epochs[last]:g} at step {last}"
    return round(rows), "counted in whole batches from the logged epochs"


def _columns(run: LoggedRun) -> tuple[StepColumns, list[tuple[str, str]]]:
    """Values of each step, NaN where none was logged, and why what is absent is absent."""
    loss, norm, rate = _by_step(run)
    last = max((*loss, *norm, *rate), default=0)
    # All steps lie in 1 to the last, so that their number says whether one is missing.
    count = last if last in (len(loss), len(norm)) else min(last, GAPPED_STEPS)
    nothing = np.full(count, np.nan, np.float32)
    columns: dict[str, Floats] = {}
    absent = []
    for what, found in (("loss", loss), ("gradient norm", norm)):
        every = len(found) == last > 0
        if not every:
            gap = round(last / len(found)) if found else 0
            why = f"logged about every {gap} steps, as a mean over them" if found else "the log has none"
            absent.append((what, why))
        columns[what] = _column(found, count) if every else nothing
    # At every step or none: where a logged loss is not a number, one was measured all the same.
    tokens = np.ones(count, np.float32) if len(loss) == last else nothing
    if np.isfinite(columns["loss"]).any():
        why = "the log holds the mean loss of each step: steps count alike, whatever their number of tokens"
        absent.append(("answer tokens", why))
    measured = ("gradient directions", "small gradients", "update norm", "distance", "memory")
    absent += [(what, "a log holds no such measurement") for what in measured]
    columns = {
        "loss_sum_nats": columns["loss"],
        "answer_tokens": tokens,
        "learning_rate": _column(rate, count),
        "grad_norm": columns["gradient norm"],
    }
    names = ("dot_previous", "dot_mean", "mean_norm", "small_gradients", "update_norm", "distance", "seconds")
    others = dict.fromkeys((*names, "peak_memory_mb"), nothing)
    return StepColumns(**columns, **others, layer_grad_norm=np.zeros((count, 0), np.float32)), absent


def _by_step(run: LoggedRun) -> list[dict[int, float]]:
    """Loss, gradient norm and learning rate after step 1, 2, ...; some loggers count from 0."""
    found = [run.values.get(name, {}) for name in ("loss", "grad_norm", "learning_rate")]
    first = 1 if counts_from_zero(run.values, run.total_steps) else 0
    return [{step + first: v for step, v in column.items() if step + first >= 1} for column in found]


def counts_from_zero(values: Mapping[str, Mapping[int, float]], total_steps: int) -> bool:
    """Whether the loss of the first step stands at step 0: then none stands at the last step's number."""
    loss = values.get("loss", {})
    return 0 in loss and max(loss) < total_steps


def _column(found: Mapping[int, float], count: int) -> Floats:
    """Values after step 1, 2, ... as a column of steps 0, 1, ..."""
    column = np.full(count, np.nan, np.float32)
    for step, value in found.items():
        if 1 <= step <= count:
            column[step - 1] = value
    return column


def _cues(run: LoggedRun, reading: LogReading) -> tuple[Cue, ...]:
    losses, scores = run.values.get("eval_loss", {}), _scores(run, reading)
    nothing = np.zeros(0, np.float32)
    return tuple(
        Cue(step, losses.get(step, NAN), NAN, nothing, nothing, total_pp=scores.get(step, NAN))
        for step in sorted({*losses, *scores})
    )


def id_of(key: str) -> str:
    """The identifier under which the run of this key is stored."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def content_key(*parts: object) -> str:
    """A name for a run whose log gives it none: what it logged first."""
    return json.dumps(parts, sort_keys=True, default=str)
