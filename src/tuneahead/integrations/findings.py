"""What can be said of a Trainer's run before its first step: of its rows, their labels, its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneahead.checks.trained import trained_findings
from tuneahead.features.recipes import OTHER_OPTIMISER
from tuneahead.preflight import gravest_first, preflight
from tuneahead.verdict import first_stop

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.examples import Example
    from tuneahead.integrations.liveprobe import LiveProbe
    from tuneahead.verdict import Finding


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
    return gravest_first([*of_labels, *(finding for finding in of_texts if finding.check not in idle)])


def _trained(probe: LiveProbe) -> tuple[Example, ...]:
    """The rows as text, without those whose labels are masked: their answers only look empty."""
    if probe.given:
        return probe.examples
    return tuple(
        example for example, row in zip(probe.examples, probe.rows.rows, strict=True) if row.answer_tokens
    )
