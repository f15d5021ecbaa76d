"""The recipe of a fine-tuning run: everything the Trainer is told, as one checked value."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from tuneahead.errors import RecipeError
from tuneahead.recipefields import may_be_empty, next_step
from tuneahead.recipenames import known_fields, name_here, remedy_for, value_here
from tuneahead.yamltext import SurprisingYaml, read_yaml

Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "8bit", "4bit"]
Template = Literal["auto", "raw", "qa", "alpaca", "chat"]
MOST_STEPS = 10**7
"""More optimiser steps than any fine-tune makes: a larger number is a slip, such as a time."""


def _as_names(value: object) -> object:
    # TRL's files have spaces between the names.
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    stripped = (name.strip() if isinstance(name, str) else name for name in names)
    kept = tuple(name for name in stripped if name != "")
    if not kept:
        raise PydanticCustomError("no_names", "no name of a layer, so that nothing would be trained")
    return kept


class Recipe(BaseModel):
    """Hyper-parameters of one LoRA fine-tune, with the field's own names and defaults.

    Lengths are in tokens, ``warmup_ratio`` and ``lora_dropout`` are fractions. ``max_steps``
    wins over ``epochs`` when given. ``stop_after`` ends the run early without touching the
    schedule: that is what makes a probe the first steps of the very run.

    >>> Recipe(max_steps=1000).probe(100).stop_after
    100
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(default=2e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Schedule = Field(default="linear", description="shape of the learning rate after warm-up")
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the steps spent warming up")
    batch_size: int = Field(default=8, ge=1, le=65_536, description="rows per forward pass")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=65_536, description="forward passes per optimiser step"
    )
    epochs: float = Field(
        default=3.0, gt=0, le=1e6, description="passes over the data, when max_steps is not given"
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="optimiser steps of the full run"
    )
    lora_rank: int = Field(default=8, ge=1, le=4096, description="rank r of every adapter")
    lora_alpha: float = Field(default=16.0, gt=0, description="scale: the update is multiplied by alpha / r")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: Annotated[tuple[str, ...], BeforeValidator(_as_names)] = Field(
        default=("all-linear",), description="names of the layers that get an adapter"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="clipping threshold of the gradient norm"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of AdamW's mean of gradients")
    adam_beta2: float = Field(
        default=0.999, ge=0, lt=1, description="decay of AdamW's mean of squared gradients"
    )
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW's term against division by zero")
    precision: Precision = Field(
        default="auto", description="number format of the frozen base; 8bit and 4bit with bitsandbytes"
    )
    max_length: int = Field(default=512, ge=2, description="window: longer rows are cut from the right")
    template: Template = Field(default="auto", description="how prompt and answer become text")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of initialisation, data order and dropout")
    stop_after: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="end after so many steps of the schedule"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: object) -> object:
        # Python and pydantic take True for 1, and YAML makes it of a plain yes.
        if isinstance(value, bool):
            raise PydanticCustomError(
                "truth_value", "a truth value (YAML takes yes, no, on and off for one) means nothing here"
            )
        return value

    def probe(self, steps: int = 100) -> Recipe:
        """The same run, ended after ``steps`` optimiser steps; the schedule stays that of the full run.

        Raises :class:`RecipeError` for fewer than one.
        """
        if steps < 1:
            raise RecipeError(f"a probe needs at least one step, got {steps}", remedy="use 50 to 200 steps")
        return self.model_copy(update={"stop_after": steps})

    def full(self) -> Recipe:
        """The same run without an early end."""
        return self.model_copy(update={"stop_after": None})

    def replace(self, **changes: object) -> Recipe:
        """A checked copy with some fields changed; raises :class:`RecipeError` on a bad value."""
        return make_recipe({**self.model_dump(), **changes})

    @property
    def rows_per_step(self) -> int:
        """Training rows behind one optimiser step (effective batch size)."""
        return self.batch_size * self.gradient_accumulation_steps

    def steps_per_epoch(self, rows: int) -> int:
        """Optimiser steps in one pass over ``rows`` training rows, as the Hugging Face Trainer counts."""
        batches = math.ceil(rows / self.batch_size)
        return max(1, math.ceil(batches / self.gradient_accumulation_steps))

    def total_steps(self, rows: int) -> int:
        """Optimiser steps of the full run on ``rows`` training rows."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, math.ceil(self.epochs * self.steps_per_epoch(rows)))

    def rows_seen(self, rows: int, steps: int) -> int:
        """Rows that ``steps`` optimiser steps take of ``rows``, each as often as it comes.

        >>> Recipe(batch_size=8).rows_seen(60, 24)
        180
        """
        # The last batch of an epoch takes what is left of it.
        epochs, more = divmod(steps, self.steps_per_epoch(rows))
        return epochs * rows + min(more * self.rows_per_step, rows)

    def warmup_steps(self, total_steps: int) -> int:
        """Steps of linear warm-up (rounded up, as in transformers)."""
        return math.ceil(self.warmup_ratio * total_steps)

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Learning rate of optimiser step ``step`` (0-based), as in ``transformers.get_scheduler``.

        ``constant`` is ``constant_with_warmup`` there.
        """
        warmup = self.warmup_steps(total_steps)
        if step < warmup:
            return self.learning_rate * step / max(1, warmup)
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - warmup) / max(1, total_steps - warmup)
        if self.schedule == "linear":
            return self.learning_rate * max(0.0, 1.0 - progress)
        return self.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

    @property
    def fingerprint(self) -> str:
        """Hash of every field save ``stop_after``: a probe and its full run share it."""
        text = self.full().model_dump_json()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def leaf_names(layers: Iterable[str]) -> set[str]:
    """The last parts of layers' full names, which is what ``target_modules`` mostly names."""
    return {layer.rsplit(".", 1)[-1] for layer in layers}


def is_adapted(layer: str, targets: Sequence[str]) -> bool:
    """Whether a linear layer of this full name gets an adapter under these ``target_modules``."""
    leaf = layer.rsplit(".", 1)[-1]
    return "all-linear" in targets or leaf in targets or layer in targets


def unknown_targets(targets: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Those of ``targets`` that name none of the layers."""
    return [target for target in targets if not any(is_adapted(layer, [target]) for layer in layers)]


def make_recipe(fields: Mapping[str, object], where: str = "") -> Recipe:
    """Check plain fields into a :class:`Recipe`; raises one :class:`RecipeError` with every wrong field.

    ``where`` begins the message: the file, or the option, that the fields were read from.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise _error(error.errors(), f"{where}: " if where else "") from None


def _error(wrong: Sequence[ErrorDetails], where: str) -> RecipeError:
    if len(wrong) == 1:
        message, remedy = _problem(wrong[0])
        return RecipeError(where + message, remedy=remedy or known_fields(USER_FIELDS))
    lines, unknown = [], []
    for message, remedy in map(_problem, wrong):
        if remedy:
            lines.append(f"{message}: {remedy}")
        else:
            unknown.append(message.removeprefix(_UNKNOWN))
    if unknown:
        lines.append(f"{_UNKNOWN}{', '.join(unknown)}")
    return RecipeError(
        "\n  ".join([f"{where}{len(wrong)} recipe fields can't be used", *lines]),
        remedy=known_fields(USER_FIELDS),
    )


_UNKNOWN = "unknown recipe field "


def _problem(one: ErrorDetails) -> tuple[str, str]:
    """What is wrong with a field, and what to do; empty where nothing is known of its name."""
    name = ".".join(str(part) for part in one["loc"])
    if one["type"] == "extra_forbidden":
        if here := name_here(name):
            theirs = value_here(here, one["input"]) or here
            return f"{name} is called {here} here", f"write {theirs} in its place"
        return f"{_UNKNOWN}{name!r}", remedy_for(name, one["input"], USER_FIELDS)
    field = name.split(".")[0]
    shown = f"recipe field {name!r} is {one['input']!r}: {one['msg']}"
    if theirs := value_here(field, one["input"]):
        return shown, f"write {theirs}"
    return shown, next_step(field, Recipe.model_fields[field])


USER_FIELDS = tuple(name for name in Recipe.model_fields if name != "stop_after")
"""The fields that people set; ``stop_after`` is set by whoever makes a probe."""


def plain_fields(fields: Mapping[str, object], where: str) -> dict[str, object]:
    """Fields as people write them, made plain: ``2e-4`` without a dot, and ``none`` where that is a value.

    Raises :class:`RecipeError` for ``stop_after``.
    """
    if "stop_after" in fields:
        raise RecipeError(
            f"{where}: stop_after is no field to set, it is what ends a probe",
            remedy="leave it out; --probe-steps says how long a probe is, max_steps how long the run",
        )
    return {name: _plain(name, value) for name, value in fields.items()}


def _plain(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    field = Recipe.model_fields.get(name)
    if field is not None and may_be_empty(field) and value.strip().lower() in ("none", "null"):
        return None
    # YAML 1.1 reads 2e-4 (no dot) as text; people write it all the same.
    try:
        return float(value)
    except ValueError:
        return value


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a YAML (or JSON) file; raises :class:`RecipeError` naming it."""
    try:
        loaded = read_yaml(Path(path).read_text(encoding="utf-8"), strict=True)
    except OSError as error:
        raise RecipeError(f"can't read recipe {path}: {error.strerror}", remedy="check the path") from None
    except SurprisingYaml as error:
        raise RecipeError(
            f"{path}: {error}", remedy="write each field once, and numbers such as 600 or 2e-4"
        ) from None
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} is no text in UTF-8", remedy="save it as UTF-8") from None
    except ValueError as error:
        remedy = "write spaces in place of tabs" if r"'\t'" in str(error) else "see docs/recipe.md"
        raise RecipeError(f"recipe {path} is not valid YAML: {error}", remedy=remedy) from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise RecipeError(
            f"recipe {path} holds a {type(loaded).__name__}, not a mapping",
            remedy="write 'learning_rate: 2e-4' and so on, one field a line",
        )
    return make_recipe(plain_fields({str(key): value for key, value in loaded.items()}, str(path)), str(path))
