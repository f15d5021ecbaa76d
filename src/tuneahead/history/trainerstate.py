"""Runs of the Hugging Face Trainer (TRL, Axolotl, LLaMA-Factory) from their ``trainer_state.json``."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneahead.errors import DataError
from tuneahead.history.loggedrun import READ_VALUES, LoggedRun, content_key
from tuneahead.history.settings import ONLY_LORA
from tuneahead.recipe import MOST_STEPS
from tuneahead.yamltext import read_yaml

STATE = "trainer_state.json"
_SETTINGS_FILES = ("training_args.json", "training_args.yaml", "recipe.yaml", "adapter_config.json")
"""Read beside a state where they are. ``training_args.bin`` is a pickle and never opened."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_WHOLE_MODEL = re.compile(r"(model\.safetensors|pytorch_model\.bin)(\.index\.json)?")
_ROUNDED_EPOCHS = 0.005
"""Older trainers round the epoch of their results to two decimals."""
_FIRST_ENTRIES = 3
_SHARED = ("step", "epoch", "learning_rate")
"""What entries of different runs have in common."""


def run_folders(path: Path) -> list[Path]:
    """The state of every run under ``path`` that got furthest: its own, or that of a checkpoint."""
    states = [path] if path.is_file() else sorted(path.rglob(STATE))
    runs: dict[Path, list[Path]] = {}
    for state in states:
        runs.setdefault(_run_of(state), []).append(state)
    return [own[0] if len(own) == 1 else max(own, key=_reached) for _, own in sorted(runs.items())]


def _run_of(state: Path) -> Path:
    """The folder of the run that a state is of, absolute: that of a checkpoint lies in it.

    A checkpoint under another name (``checkpoint-best``) lies beside what the Trainer wrote; where nothing
    does, folders of such names are runs.
    """
    folder = Path(os.path.abspath(state)).parent
    run = folder.parent
    if _CHECKPOINT.fullmatch(folder.name):
        return run
    named = folder.name.startswith("checkpoint-") and ((run / STATE).is_file() or bool(_checkpoints(run)))
    return run if named else folder


def _checkpoints(run: Path) -> list[Path]:
    """The folders of a run's checkpoints, the furthest first."""
    found = [folder for folder in run.glob("checkpoint-*") if _CHECKPOINT.fullmatch(folder.name)]
    return sorted(found, key=lambda folder: float(folder.name.removeprefix("checkpoint-")), reverse=True)


def _reached(state: Path) -> tuple[float, bool]:
    """Step of a state, and whether it is the run's own: of two at one step that one was written last.

    A state that can't be read counts by its folder's name, so that a damaged newest one is reported.
    """
    folder = Path(os.path.abspath(state)).parent
    own = _run_of(state) == folder
    try:
        return _whole(_json(state).get("global_step"), state, "global_step"), own
    except DataError:
        number = folder.name.removeprefix("checkpoint-")
        return (math.inf if own else float(number) if number.isdecimal() else -1), own


def read_state(path: Path, score: str = "") -> LoggedRun:
    """One run from its state and the settings files beside it; errors name file and entry.

    Only ``score`` and what a trace is made of must be numbers: other metrics that are none are passed over.
    """
    state = _json(path)
    _refuse_whole_model(path)
    history = state.get("log_history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise DataError("no list 'log_history'", path=path, remedy="give a trainer_state.json of a Trainer")
    total = _whole(state.get("max_steps"), path, "max_steps")
    values: dict[str, dict[int, float]] = {}
    for number, entry in enumerate(history, start=1):
        step = _whole(entry.get("step"), path, "step", number)
        for name, value in entry.items():
            needed = name == score or name in READ_VALUES
            if name != "step" and value is not None and (needed or _is_number(value)):
                values.setdefault(name, {})[step] = _value(value, path, name, number)
    folder = _run_of(path)
    results = _results(folder)
    done = _whole(state.get("global_step", total), path, "global_step")
    end = _end_of(_floats(state), results.get("epoch", math.nan), done, total)
    for name, value in results.items():
        # The log counts epochs more exactly.
        if name != "epoch" or end not in values.get(name, {}):
            values.setdefault(name, {})[end] = value
    settings = _settings(path.parent, folder, *_checkpoints(folder)[:1])
    if isinstance(tried := state.get("trial_params"), dict):
        settings |= tried  # what a search chose for this run, whatever the files beside it say
    if isinstance(state.get("train_batch_size"), int):
        settings.setdefault("train_batch_size", state["train_batch_size"])
    key, *earlier = _keys(total, history, settings.get("base_model_name_or_path"), folder.resolve())
    return LoggedRun(key, str(path), settings, values, total, folder.parent.name, earlier=tuple(earlier))


def _refuse_whole_model(state: Path) -> None:
    """Raises :class:`DataError` where a checkpoint holds all weights: a full fine-tune's does.

    The run's own folder may hold the model that an adapter was merged into.
    """
    folder = state.absolute().parent
    checkpoints = [folder] if _run_of(state) != folder else _checkpoints(folder)[:1]
    names = {file.name for own in (*checkpoints, _run_of(state)) for file in own.iterdir()}
    whole = [file.name for own in checkpoints for file in own.iterdir() if _WHOLE_MODEL.fullmatch(file.name)]
    if whole and not any(name.startswith("adapter_") for name in names):
        what = f"its checkpoint holds a whole model ({min(whole)}) and no adapter, and {ONLY_LORA}"
        raise DataError(what, path=state, remedy="leave this run out")


def _end_of(state: Mapping[str, float], epoch: float, done: int, total: int) -> int:
    """Step at which results of this ``epoch`` were taken: the newest checkpoint that is left may be older."""
    reached = state.get("epoch", math.nan)
    if not (reached > 0 and reached + _ROUNDED_EPOCHS < epoch):
        return done
    if epoch >= state.get("num_train_epochs", math.inf):
        return max(done, total)
    return max(done, round(min(total, done * epoch / reached)))


def _keys(total: int, history: Sequence[Mapping[str, object]], base: object, folder: Path) -> list[str]:
    """The run's name, then those it had while its log was shorter, that of the longest log first.

    A whole log names a run wherever it lies: the runs of a sweep may log the same until their warm-up ends.
    Fewer than three entries may be those of another run too (the first loss of two runs that differ in the
    learning rate), so the folder's name is added; a log that measured nothing is known by its place alone.
    """
    keys = []
    for count in range(1, min(_FIRST_ENTRIES, len(history)) + 1):
        first = history[:count]
        if any(_tells(entry) for entry in first):
            name = () if count == _FIRST_ENTRIES else (folder.name,)
            keys.append(content_key("trainer", total, first, base, *name))
    if len(keys) < _FIRST_ENTRIES:
        # Where it measured from the start, what lay in its folder without a log was another run.
        keys.insert(0, content_key("trainer", total, "no log", str(folder)))
    digest = hashlib.sha256(keys[-1].encode())
    for entry in history[_FIRST_ENTRIES:]:
        digest.update(content_key(entry).encode())
        keys.append(f"trainer {digest.hexdigest()}")
    return keys[::-1]


def _tells(entry: Mapping[str, object]) -> bool:
    """Whether an entry holds what two runs hardly share: a measured number, and none of a diverged run."""
    found = (value for name, value in entry.items() if name not in _SHARED)
    return any(isinstance(value, int | float) and 0 < abs(value) < math.inf for value in found)


def _settings(*folders: Path) -> dict[str, object]:
    """Settings files in these folders, those of the first counting most."""
    found: dict[str, object] = {}
    for folder in folders:
        for name in _SETTINGS_FILES:
            path = folder / name
            if path.is_file():
                loaded = _yaml(path) if path.suffix == ".yaml" else _json(path)
                found = {**{str(key): value for key, value in loaded.items()}, **found}
    return found


def _results(folder: Path) -> dict[str, float]:
    path = folder / "all_results.json"
    return _floats(_json(path) if path.is_file() else {})


def _floats(loaded: Mapping[str, object]) -> dict[str, float]:
    """The entries that are numbers."""
    numbers = {name: value for name, value in loaded.items() if isinstance(value, int | float)}
    # Through text: float() of an integer that is too large is an error, of its text it is infinite.
    return {name: float(str(value)) for name, value in numbers.items() if not isinstance(value, bool)}


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", path=path, remedy="check the file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", path=path, remedy="fetch the file again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"holds a {type(loaded).__name__}, not an object", path=path, remedy="check the file")
    return loaded


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        loaded = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"not valid YAML: {error}", path=path, remedy="correct the file") from None
    if not isinstance(loaded, dict):
        raise DataError("holds no 'name: value' lines", path=path, remedy="correct the file")
    return loaded


def _whole(value: object, path: Path, name: str, entry: int | None = None) -> int:
    number = _value(value, path, name, entry)
    # Compared before int(), which fails on what is not finite.
    if not 0 <= number <= MOST_STEPS or number != int(number):
        raise DataError(
            f"{_where(entry)}{name} is {value!r}, no number of steps", path=path, remedy="check the file"
        )
    return int(number)


def _value(value: object, path: Path, name: str, entry: int | None = None) -> float:
    try:
        return float(str(value))
    except ValueError:
        what = f"{_where(entry)}{name} is {value!r}, not a number"
        raise DataError(what, path=path, remedy="correct or remove this entry of the log") from None


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _where(entry: int | None) -> str:
    return "" if entry is None else f"log entry {entry}: "
