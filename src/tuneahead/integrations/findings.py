"""What only a Trainer's run shows: of its rows, their labels and its settings, and of layers left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneahead.checks.probe import NO_GRADIENT
from tuneahead.checks.trained import trained_findings
from tuneahead.counts import counted, listed
from tuneahead.features.recipes import OTHER_OPTIMISER
from tuneahead.integrations.arguments import long_warmup
from tuneahead.preflight import gravest_first, preflight
from tuneahead.verdict import Finding, first_stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuneahead.benchmark.items import Benchmark
    from tuneahead.examples import Example
    from tuneahead.integrations.liveprobe import LiveProbe


_NAMED_LAYERS = 3


def trainer_findings(probe: LiveProbe, benchmark: Benchmark) -> tuple[Finding, ...]:
    """The findings of preflight on the rows' texts, and those on their labels, gravest first."""
    of_labels = trained_findings(probe.rows.rows, probe.base.tokenizer, packed=probe.packed)
    if first_stop(of_labels):
        # Texts that are not trained have no answers to look at.
        return of_labels
    # Without tokenizer: the Trainer's own rows say which tokens are trained.
    of_texts = preflight(_trained(probe), probe.recipe, benchmarks=(benchmark,), length=probe.length)
    # Of a stream no row was read, which is no sign that it has none.
    idle = {"few-rows"} if not probe.examples else set()
    if not probe.given:
        # Rows are read as the run's own template made them, with its markers.
        idle.add("chat-template")
    if any(name == OTHER_OPTIMISER for name, _ in probe.absent):
        # What a rate does is known of AdamW alone: SGD and Prodigy have others.
        idle.add("learning-rate")
    kept = (finding for finding in of_texts if finding.check not in idle)
    return gravest_first([*of_labels, *kept, *_of_warm_up(probe)])


def _of_warm_up(probe: LiveProbe) -> Iterator[Finding]:
    if long := long_warmup(probe.trainer):
        message = f"{long}: the learning rate never gets to its peak"
        yield Finding("learning-rate", "warn", message, "lower warmup_steps, or train for longer")


def idle_layers(probe: LiveProbe) -> Iterator[Finding]:
    """Some adapted layers have had no gradient in all steps so far; that all have none shows in the trace."""
    adapted = probe.adapted
    idle = [name for name in adapted if name in probe.idle]
    steps = len(probe.steps.scalars)
    if not steps or not 0 < len(idle) < len(adapted):
        return
    rest = len(idle) - _NAMED_LAYERS
    named = listed([*idle[:_NAMED_LAYERS], *([f"{rest} more"] if rest > 0 else [])])
    yield Finding(
        "no-effect",
        # Experts that no row was sent to are idle in a sound run too.
        "warn" if 2 * len(idle) >= len(adapted) else "note",
        f"{len(idle)} of {counted(len(adapted), 'adapted layer')} had no gradient in "
        f"{counted(steps, 'step')} and {'are' if len(idle) > 1 else 'is'} not trained: {named}",
        f"{NO_GRADIENT}; or leave out layers that the rows never use",
    )


def _trained(probe: LiveProbe) -> tuple[Example, ...]:
    """The rows as text, without those whose labels are masked: their answers only look empty."""
    if probe.given:
        return probe.examples
    return tuple(
        example for example, row in zip(probe.examples, probe.rows.rows, strict=True) if row.answer_tokens
    )
