"""Preflight: sure failures are found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tuneahead.benchmark.items import Benchmark
from tuneahead.checks import copies, pairs, probe, rows, settings, texts, tokens
from tuneahead.checks.check import Check, Context, RunLength
from tuneahead.checks.encoding import find_window, measure_tokens
from tuneahead.columnuse import ColumnUse
from tuneahead.errors import ModelError
from tuneahead.examples import Example
from tuneahead.recipe import Recipe
from tuneahead.survey import Window, take_survey
from tuneahead.trace import ProbeTrace
from tuneahead.verdict import Finding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKS: tuple[Check, ...] = (
    Check("few-rows", "Fewer rows than one step takes", rows.few_rows),
    Check("empty-answers", "Empty answers", rows.empty_answers),
    Check("masked-answers", "Prompts that fill the window", tokens.masked_answers),
    Check("cut-answers", "Answers cut by the window", tokens.cut_answers),
    Check("same-answers", "All answers the same", rows.same_answers),
    Check("contamination", "Benchmark questions in the training rows", copies.contamination),
    Check("conflicting-answers", "Same prompt, different answers", copies.conflicting_answers),
    Check("exact-duplicates", "Exact copies", copies.exact_duplicates),
    Check("near-duplicates", "Near-duplicates", copies.near_duplicates),
    Check("chat-template", "Template mismatch", tokens.chat_template),
    Check("earlier-turns", "Assistant turns that are not trained", tokens.earlier_turns),
    Check("unread-parts", "Tool calls and thoughts that are not read", rows.unread_parts),
    Check("end-token", "End of sequence not trained", tokens.end_token),
    Check("pad-token", "Pad token is the end token", tokens.pad_token),
    Check("broken-encoding", "Broken characters", rows.broken_encoding),
    Check("markup-left", "Markup left in the texts", texts.markup_left),
    Check("gibberish", "Gibberish", rows.gibberish),
    Check("echoed-prompts", "Prompt repeated in the answer", rows.echoed_prompts),
    Check("unfinished-answers", "Answers that break off", texts.unfinished_answers),
    Check("half-thoughts", "Thoughts without end or content", texts.half_thoughts),
    Check("mismatched-answers", "Answers of other prompts", pairs.mismatched_answers),
    Check("secrets", "Keys in the rows", texts.secrets),
    Check("personal-data", "What belongs to persons", texts.personal_data),
    Check("target-modules", "Layers that the base does not have", settings.target_modules),
    Check("learning-rate", "Learning rate out of bounds", settings.learning_rate),
    Check("lora-rank", "Rank or scale out of bounds", settings.lora_rank),
    Check("window-length", "Rows longer than the base reads", settings.window_length),
    Check("many-epochs", "Too many epochs", settings.many_epochs),
    Check("answer-lengths", "Very long answers", rows.answer_lengths),
    Check("empty-prompts", "Rows without a prompt", rows.empty_prompts),
    Check("language-mix", "Several languages", rows.language_mix),
    Check("column-choice", "Columns that compete", rows.column_choice),
    Check("token-budget", "Token budget", tokens.token_budget),
)
"""Every check before training, gravest first; ``name`` is the anchor in docs/checks.md."""

PROBE_CHECKS: tuple[tuple[str, Callable[[ProbeTrace], Iterator[Finding]]], ...] = (
    ("not-finite", probe.not_finite),
    ("no-effect", probe.no_effect),
    ("loss-spike", probe.loss_spike),
    ("flat-loss", probe.flat_loss),
)
"""Every check of a probe's trace, with the name of its findings."""

_ORDER = {"stop": 0, "warn": 1, "note": 2}


def preflight(
    examples: Iterable[Example],
    recipe: Recipe,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    benchmarks: Iterable[Benchmark] = (),
    length: RunLength | None = None,
    columns: ColumnUse | None = None,
) -> tuple[Finding, ...]:
    """Check rows and recipe without a model; findings come gravest first.

    ``examples`` is a :class:`~tuneahead.dataset.Dataset` or any stream of examples, read once.
    Without a ``tokenizer`` the checks that count tokens are left out; without ``benchmarks``
    the search for contamination is. ``length`` says how long the run is where it does not follow from
    rows and recipe; ``columns`` are those of :class:`Context`. Cost is linear: a million
    rows of 60 tokens take minutes.

    >>> [f.check for f in preflight([Example("Hi", "", 1)], Recipe()) if f.severity == "stop"]
    ['empty-answers']
    """
    window = None if tokenizer is None else window_of(tokenizer, recipe)
    survey = take_survey(examples, window=window, benchmarks=benchmarks)
    measures = None if tokenizer is None else measure_tokens(survey, tokenizer, recipe)
    return run_checks(Context(survey, recipe, measures, length, columns=columns or ColumnUse()))


def window_of(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Window | None:
    """What rows have to fit, or None for a template that can't be applied (a finding says so later)."""
    try:
        return find_window(tokenizer, recipe)
    except ModelError:
        return None


def run_checks(context: Context) -> tuple[Finding, ...]:
    """The findings of every check on a survey that was taken already, gravest first."""
    return gravest_first([finding for check in CHECKS for finding in check.run(context)])


def probe_findings(trace: ProbeTrace) -> tuple[Finding, ...]:
    """What went wrong in a probe: loss or gradient not finite, no effect, spike, loss not falling."""
    return gravest_first([finding for _, check in PROBE_CHECKS for finding in check(trace)])


def gravest_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by severity, those of one severity in the order that they have."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
