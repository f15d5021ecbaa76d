"""Checks of the recipe: values outside what is known to train."""

from __future__ import annotations

from collections.abc import Iterator

from tuneahead.checks.check import Context, found, share
from tuneahead.counts import counted
from tuneahead.recipe import leaf_names, unknown_targets
from tuneahead.verdict import Finding

HOPELESS_LEARNING_RATE = 0.1
HIGH_LEARNING_RATE = 1e-2
LOW_LEARNING_RATE = 1e-6
HIGH_RANK = 256
HIGH_SCALE = 16.0
LOW_SCALE = 1 / 16
MANY_EPOCHS = 16.0


def learning_rate(context: Context) -> Iterator[Finding]:
    """A learning rate that blows up, or that changes nothing."""
    rate = context.recipe.learning_rate
    remedy = "set learning_rate between 5e-5 and 5e-4, usual for LoRA with AdamW (tiny bases: up to 1e-2)"
    if rate > HOPELESS_LEARNING_RATE:
        message = (
            f"learning rate {rate:g} is above {HOPELESS_LEARNING_RATE:g}: AdamW moves every weight by about "
        )
        yield found(
            "learning-rate", "stop", message + "that much each step, which destroys the adapter", remedy
        )
    elif rate > HIGH_LEARNING_RATE:
        message = f"learning rate {rate:g} is above {HIGH_LEARNING_RATE:g}: it will probably ruin the base"
        yield found("learning-rate", "warn", message, remedy)
    elif rate < LOW_LEARNING_RATE:
        message = f"learning rate {rate:g} is below {LOW_LEARNING_RATE:g}: the adapter will hardly move"
        yield found("learning-rate", "warn", message, remedy)


def lora_rank(context: Context) -> Iterator[Finding]:
    """A rank or a scale (alpha / rank) out of proportion."""
    recipe = context.recipe
    scale = recipe.lora_alpha / recipe.lora_rank
    if recipe.lora_rank > HIGH_RANK:
        yield found(
            "lora-rank",
            "warn",
            f"lora_rank {recipe.lora_rank} is above {HIGH_RANK}: it costs memory and over-fits small data",
            "try 8 to 64 first",
        )
    if not LOW_SCALE <= scale <= HIGH_SCALE:
        way = (
            "small: updates hardly count" if scale < LOW_SCALE else "large: it acts as a higher learning rate"
        )
        yield found(
            "lora-rank",
            "warn",
            f"lora_alpha / lora_rank is {scale:.3g}, which is {way}",
            "set lora_alpha to one or two times lora_rank",
        )


def target_modules(context: Context) -> Iterator[Finding]:
    """Names of layers that the base does not have."""
    unknown = unknown_targets(context.recipe.target_modules, context.layers) if context.layers else []
    if unknown:
        names = sorted(leaf_names(context.layers))
        yield found(
            "target-modules",
            "stop",
            f"no layer of the base is named {', '.join(unknown)}: the run can't begin",
            f"choose target_modules among {', '.join(names[:20])}, or all-linear",
        )


def many_epochs(context: Context) -> Iterator[Finding]:
    """Rows repeated so often that more repetition teaches nothing new."""
    rows = context.run.rows
    if not rows:
        return
    epochs = context.run.steps / context.recipe.steps_per_epoch(rows)
    if epochs > MANY_EPOCHS:
        yield found(
            "many-epochs",
            "warn",
            f"the run goes {epochs:.0f} times over the {counted(rows, 'row')}: expect over-fitting",
            "use fewer epochs (or max_steps), or more rows",
        )


def window_length(context: Context) -> Iterator[Finding]:
    """Rows that fit the window but are longer than the base can read."""
    tokens = context.tokens
    if tokens is not None and len(tokens.too_long):
        yield found(
            "window-length",
            "warn",
            f"{share(len(tokens.too_long), len(context.survey))} are longer than the {tokens.context_tokens} "
            f"tokens that this base reads, and max_length {context.recipe.max_length} lets them through",
            f"set max_length to {tokens.context_tokens} or less",
            rows=tokens.too_long,
        )
