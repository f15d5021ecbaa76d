"""The recipe of a logged run, from settings as other trainers name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneahead.errors import DataError, RecipeError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.recipe import Recipe, make_recipe
from tuneahead.recipenames import LOGGED_NAMES

_NONE = ("", "None", "none", "null")
_READ = (
    "learning_rate",
    "batch_size",
    "gradient_accumulation_steps",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "weight_decay",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_length",
    "seed",
)
_SETTINGS: Mapping[str, tuple[str, ...]] = {name: (name, *LOGGED_NAMES.get(name, ())) for name in _READ}
_WHOLE = ("batch_size", "gradient_accumulation_steps", "lora_rank", "max_length", "seed")
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


@dataclass(frozen=True)
class LogSource:
    """Where a log was read, and the optimiser steps of its run."""

    source: str
    total_steps: int


def recipe_of(settings: Mapping[str, object], log: LogSource) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """The recipe, and (setting, reason) for what the log does not say."""
    why = "the log does not say"
    fields: dict[str, object] = {}
    unknown: dict[str, str] = {}
    for name, aliases in _SETTINGS.items():
        value = _number(settings, aliases, log)
        if value is None:
            unknown[name] = why
        else:
            fields[name] = _whole(name, value, log) if name in _WHOLE else value
    if fields.get("max_grad_norm") == 0:
        fields["max_grad_norm"] = None
    fields["max_steps"] = log.total_steps
    schedule = (
        first_text(settings, ("lr_scheduler_type", "schedule", "lr_scheduler")).rpartition(".")[2].lower()
    )
    if schedule in _SCHEDULES:
        fields["schedule"] = _SCHEDULES[schedule]
    else:
        unknown["schedule"] = f"a recipe has no {schedule!r}" if schedule else why
    warmup = _warmup(settings, log)
    if warmup is None:
        unknown["warmup_ratio"] = why
    else:
        fields["warmup_ratio"] = warmup
    targets = settings.get("target_modules", settings.get("lora_target"))
    found = _modules(targets)
    if found:
        fields["target_modules"] = found
    else:
        unknown["target_modules"] = why
    # A seed changes no feature.
    unknown.pop("seed", None)
    absent = tuple((UNKNOWN_SETTING + name, reason) for name, reason in sorted(unknown.items()))
    try:
        return make_recipe(fields), absent
    except RecipeError as error:
        raise DataError(error.message, path=log.source, remedy=error.remedy) from None


def _modules(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.strip("[]{}").replace("'", "").replace('"', "").split(",")
    if not isinstance(value, list | tuple | set):
        return ()
    names = sorted(str(one).strip() for one in value if str(one).strip() not in _NONE)
    return ("all-linear",) if names in (["all"], ["all-linear"]) else tuple(names)


def _warmup(settings: Mapping[str, object], log: LogSource) -> float | None:
    steps = _number(settings, ("warmup_steps",), log)
    ratio = _number(settings, ("warmup_ratio",), log)
    if steps is not None and 0 < steps < 1:
        return steps  # newer trainers take a share there
    if steps:
        return min(steps, log.total_steps - 1) / max(1, log.total_steps)
    return ratio if ratio is not None else steps


def _number(settings: Mapping[str, object], aliases: Sequence[str], log: LogSource) -> float | None:
    for name in aliases:
        value = settings.get(name)
        if value is None or str(value) in _NONE:
            continue
        try:
            return float(str(value))
        except ValueError:
            raise DataError(
                f"setting {name} is {value!r}, not a number", path=log.source, remedy="correct or remove it"
            ) from None
    return None


def _whole(name: str, value: float, log: LogSource) -> int:
    if not value.is_integer():
        raise DataError(
            f"setting {name} is {value:g}, not a whole number", path=log.source, remedy="correct or remove it"
        )
    return int(value)


def first_text(settings: Mapping[str, object], names: Sequence[str]) -> str:
    found = (str(settings[name]) for name in names if name in settings)
    return next((text for text in found if text not in _NONE), "")
