"""The recipe of a logged run, from settings as other trainers name them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tuneahead.errors import DataError, RecipeError
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.recipe import Recipe, make_recipe
from tuneahead.recipenames import LOGGED_NAMES, WITHOUT_WARM_UP, is_adamw

_NONE = ("", "None", "none", "null")
_READ = (
    "learning_rate",
    "gradient_accumulation_steps",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "weight_decay",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "seed",
)
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    **{name: (name, *LOGGED_NAMES.get(name, ())) for name in _READ},
    # The other names of a batch count one process only, those of a length nothing but rows.
    "batch_size": ("batch_size",),
    "max_length": (*LOGGED_NAMES["max_length"], "max_length"),
}
"""Where trainers put the settings of a recipe."""
_OF_ONE_PROCESS = LOGGED_NAMES["batch_size"]
_PROCESSES = ("world_size", "num_processes")
_SILENT = "the log does not say"
_GENERATED_LENGTH = 20
"""The default of a model's setting for generation that is called ``max_length`` as well."""
ROUNDED = 0.005
"""Trainers round rows a second to three decimals; a run so slow that this is a larger share is not told."""
_WHOLE = ("batch_size", "gradient_accumulation_steps", "lora_rank", "max_length", "seed")
LOGGED_FIELDS = (*_SETTINGS, "schedule", "warmup_ratio", "target_modules")
"""Fields of a recipe that a log may give; those of a stored run that it did not give are listed as absent."""
_RANK_STABLE = ("use_rslora", "peft_use_rslora")
_PATTERNS = {"rank_pattern": ("lora_rank", "lora_alpha"), "alpha_pattern": ("lora_alpha",)}
"""Settings that give some layers a rank or alpha of their own, and the fields that they leave untold."""
_LORA_ALONE = ("peft_type", "finetuning_type")
_OTHER_TRAINING: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_LORA_ALONE, ()),
    # People have settings of their own by these names.
    "task_type": ("seq_cls", "token_cls", "seq_2_seq_lm", "question_ans", "feature_extraction"),
    "stage": ("rm", "ppo", "dpo", "kto"),
    "is_encoder_decoder": ("true",),
    "use_peft": ("false",),
}
"""Settings of PEFT, LLaMA-Factory, transformers and TRL, and what they are in runs of another kind."""
_OTHER_MODEL = re.compile(
    r"\w+For(MaskedLM|PreTraining|CTC|QuestionAnswering|MultipleChoice|\w*Classification)\b"
)
ONLY_LORA = "forecasts are for supervised LoRA fine-tunes of causal language models"
_BESIDES = (
    *("use_dora", "init_lora_weights", "pissa_init", "loraplus_lr_ratio", "adapter_name_or_path"),
    *("modules_to_save", "additional_target", "trainable_token_indices"),
    *("neftune_noise_alpha", "label_smoothing_factor", "group_by_length"),
    *("packing", "sample_packing", "neat_packing"),
    *("load_in_8bit", "load_in_4bit", "quantization_bit", "quantization_config"),
    *("train_on_inputs", "train_on_prompt", "mask_history", "assistant_only_loss", "completion_only_loss"),
)
"""Settings of PEFT, TRL, Axolotl and LLaMA-Factory that change what is trained, and that no recipe holds."""
_OFF = (*_NONE, "false", "0", "0.0", "[]", "{}")
_MOST_SHOWN = 60
"""Characters of a setting that are shown."""
_OF_REWARDS = re.compile(r"(rewards|objective)/|(mean_)?reward$")
_OF_PATTERNS = re.compile(r"[\\()|*?^$+]")
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


@dataclass(frozen=True)
class LogSource:
    """Where a log was read, and what it says of its run beside the settings.

    ``steps_per_epoch``, ``rows_per_step`` (rows of all processes, a mean over the steps) and
    ``highest_rate`` (the largest learning rate that was logged) are NaN where that can't be told.
    ``logged`` are the names of what it logged.
    """

    source: str
    total_steps: int
    steps_per_epoch: float = math.nan
    rows_per_step: float = math.nan
    highest_rate: float = math.nan
    logged: Collection[str] = ()


def recipe_of(
    settings: Mapping[str, object], shared: Mapping[str, object], log: LogSource
) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """The recipe, and (setting, reason) for what the log does not say; ``shared`` are fields known of it.

    Raises :class:`DataError` for a run that is no LoRA fine-tune, or of which too little is known.
    """
    settings = _without_generation(settings)
    if other := _other_training(settings, log):
        raise DataError(f"{other}, and {ONLY_LORA}", path=log.source, remedy="leave this run out")
    # A clipping of None is not told from a setting that is not given.
    known = {name: value for name, value in shared.items() if name in LOGGED_FIELDS and value is not None}
    fields, uneven = _acting_lora(settings, _logged(settings, log))
    fields |= known
    unknown = {name: uneven.get(name, _SILENT) for name in LOGGED_FIELDS if name not in fields}
    if "batch_size" in unknown:
        batch = _batch_of_all(settings, fields.get("gradient_accumulation_steps"), log)
        if isinstance(batch, int):
            fields["batch_size"] = batch
            del unknown["batch_size"]
        else:
            unknown["batch_size"] = batch
    if "learning_rate" in unknown and log.highest_rate > 0:
        # The peak, or at most one logging interval away from it.
        fields["learning_rate"] = log.highest_rate
        del unknown["learning_rate"]
    schedule = _schedule(settings)
    if "schedule" in unknown and schedule:
        unknown["schedule"] = f"a recipe has no {schedule!r}"
    elif "schedule" in fields and _is_on(settings, "lr_scheduler_kwargs"):
        unknown["schedule"] = f"a recipe has no lr_scheduler_kwargs, here {settings['lr_scheduler_kwargs']}"
    unknown |= _besides(settings)
    optimiser = _last_word(settings, ("optim", "optimizer"))
    if optimiser and not is_adamw(optimiser):
        unknown["optimiser"] = f"recipes and forecasts mean AdamW, this run has {optimiser}"
    fields["max_steps"] = log.total_steps
    absent = tuple((UNKNOWN_SETTING + name, reason) for name, reason in sorted(unknown.items()))
    try:
        return make_recipe(fields), absent
    except RecipeError as error:
        raise DataError(error.message, path=log.source, remedy=error.remedy) from None


def _other_training(settings: Mapping[str, object], log: LogSource) -> str:
    """What shows that a run trained something else than an adapter of LoRA on given answers, or empty."""
    for name, others in _OTHER_TRAINING.items():
        value = _last_word(settings, (name,))
        if value in others or (name in _LORA_ALONE and value not in ("", "lora")):
            return f"{name} is {value.upper()}"
    if found := _OTHER_MODEL.search(str(settings.get("architectures"))):
        return f"its model is a {found[0]}"
    rewarded = sorted(name for name in log.logged if _OF_REWARDS.match(name))
    return f"it logged {rewarded[0]}, as runs on preferences or rewards do" if rewarded else ""


def _besides(settings: Mapping[str, object]) -> dict[str, str]:
    """What has the run train something else than a run of its recipe: runs that differ in it are no seeds."""
    return {
        name: f"a recipe has none, here {str(settings[name])[:_MOST_SHOWN]}"
        for name in _BESIDES
        if _is_on(settings, name) and (name != "init_lora_weights" or str(settings[name]).lower() != "true")
    }


def _is_on(settings: Mapping[str, object], name: str) -> bool:
    value = str(settings.get(name, "")).strip()
    return value.lower() not in _OFF


def _logged(settings: Mapping[str, object], log: LogSource) -> dict[str, object]:
    """The fields of a recipe that the settings give as they are."""
    fields: dict[str, object] = {}
    for name, aliases in _SETTINGS.items():
        value = _number(settings, aliases, log)
        if value is not None:
            fields[name] = _whole(name, value, log) if name in _WHOLE else value
    if fields.get("max_grad_norm") == 0:
        fields["max_grad_norm"] = None
    schedule = _schedule(settings)
    if schedule in _SCHEDULES:
        fields["schedule"] = _SCHEDULES[schedule]
    # Some of the Trainer's schedules never warm up, whatever ratio is logged beside them; a recipe's may.
    never = schedule in WITHOUT_WARM_UP and "lr_scheduler_type" in settings
    warmup = 0.0 if never else _warmup(settings, log)
    if warmup is not None:
        fields["warmup_ratio"] = warmup
    modules = _modules(_targets(settings))
    if modules:
        fields["target_modules"] = modules
    return fields


def _acting_lora(
    settings: Mapping[str, object], fields: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """The fields with the alpha that acts, and why those are left out that are not alike in all layers.

    A recipe's scale is alpha / rank, that of rslora alpha / sqrt(rank).
    """
    uneven: dict[str, str] = {}
    for pattern, names in _PATTERNS.items():
        if str(settings.get(pattern)) not in (*_NONE, "{}"):
            uneven |= dict.fromkeys(names, f"layers have their own by {pattern}")
    targets, layers = _targets(settings), settings.get("layers_to_transform")
    if isinstance(targets, str) and _OF_PATTERNS.search(targets):
        uneven["target_modules"] = f"the log gives a pattern of their names, {targets}"
    elif str(layers) not in (*_NONE, "[]"):
        uneven["target_modules"] = f"the adapter is in layers {layers} alone (layers_to_transform)"
    alpha, rank = fields.get("lora_alpha"), fields.get("lora_rank")
    acting = {name: value for name, value in fields.items() if name not in uneven}
    if "lora_alpha" in acting and first_text(settings, _RANK_STABLE).lower() == "true":
        if isinstance(alpha, float) and isinstance(rank, int) and rank > 0:
            acting["lora_alpha"] = alpha * math.sqrt(rank)
        else:
            del acting["lora_alpha"]
            uneven["lora_alpha"] = "the run has rslora, and the log gives no rank to tell its scale"
    return acting, uneven


def _targets(settings: Mapping[str, object]) -> object:
    return settings.get("target_modules", settings.get("lora_target"))


def _schedule(settings: Mapping[str, object]) -> str:
    return _last_word(settings, ("lr_scheduler_type", "schedule", "lr_scheduler"))


def _last_word(settings: Mapping[str, object], names: Sequence[str]) -> str:
    """A setting without the name of its enumeration, in lower case."""
    return first_text(settings, names).rpartition(".")[2].lower()


def _without_generation(settings: Mapping[str, object]) -> Mapping[str, object]:
    """The settings without the ``max_length`` of a model's generation, which some loggers mix in."""
    mixed = "transformers_version" in settings and str(settings.get("max_length")) == str(_GENERATED_LENGTH)
    return {name: value for name, value in settings.items() if not mixed or name != "max_length"}


def _batch_of_all(settings: Mapping[str, object], accumulated: object, log: LogSource) -> int | str:
    """Rows of a forward pass in all processes, or why they are not known."""
    one = _number(settings, _OF_ONE_PROCESS, log)
    if one is None:
        return _SILENT
    own = _whole("batch_size", one, log)
    given = _number(settings, _PROCESSES, log)
    if given is not None:
        return own * _whole("world_size", given, log)
    count = _processes(own * accumulated, log) if isinstance(accumulated, int) else 0
    return own * count or "the log gives the batch of one process, and not how many processes there were"


def _processes(rows_of_one: int, log: LogSource) -> int:
    """How many processes saw the rows of a step, 0 where that can't be told.

    The last batch of an epoch may be cut, so the mean rows of a step are up to a step of an epoch too few.
    """
    if not (rows_of_one > 0 and math.isfinite(log.rows_per_step)):
        return 0
    least = log.rows_per_step / rows_of_one
    steps = max(1.0, log.steps_per_epoch) if math.isfinite(log.steps_per_epoch) else 1.0
    most = least * steps / (steps - 1) if steps > 1 else math.inf
    count = max(1, math.ceil(least * (1 - ROUNDED)))
    return count if count + 1 > most * (1 + ROUNDED) and count <= most * (1 + ROUNDED) else 0


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
        if value is None or str(value) in (*_NONE, "auto"):
            continue  # DeepSpeed's auto says that another setting counts
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
