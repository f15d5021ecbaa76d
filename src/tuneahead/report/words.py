"""The sentences, figures and names that reports share, on the page and in the terminal."""

from __future__ import annotations

import math

from tuneahead.assessment import Assessment, Checkup, DataSummary, FeatureRange, Outcome
from tuneahead.counts import listed
from tuneahead.features.sampling import Sample
from tuneahead.predictor.explain import (
    ABSENT_TERM,
    BASE_TERM,
    GAIN_TERM,
    HEADROOM_TERM,
    LIMIT_TERM,
    known_spec,
    told_once,
)
from tuneahead.printable import printable
from tuneahead.report.plots import number, number_pp
from tuneahead.verdict import Attribution, Decision, Finding, apart, first_stop, reaches

VERDICTS: dict[Decision, str] = {"GO": "Go", "NO_GO": "No go", "UNSURE": "Unsure"}
TERMS = {
    BASE_TERM: "Base model's score",
    GAIN_TERM: "Gain so far",
    HEADROOM_TERM: "Head-room of the benchmark",
    LIMIT_TERM: "Limit of the scale",
    ABSENT_TERM: "Not measured",
    "probe_fraction": "Probe's share of the run",
}
UNIT_SUFFIXES = (
    "_pp",
    "_nats",
    "_tokens",
    "_words",
    "_seconds",
    "_fraction",
    "_log10",
    "_log2",
    "_words2",
    "_nats2",
)
SPELLED = {
    "grad": "gradient",
    "lora": "LoRA",
    "kl": "divergence",
    "sd": "spread",
    "cv": "relative spread",
    "ascii": "ASCII",
    "heldout": "held-out",
    "ngram": "n-gram",
}
SMALLEST_PP = 0.05
"""Contributions that would be printed as 0.0 are summed up with the rest."""
SAID_BESIDE = frozenset({"examples", "examples_log10"})
"""Features that say what stands above them already: the number of rows."""
MOST_COLUMNS = 8
"""Unused columns that are named."""
MEASURES_NOTE = "What each measure is: docs/features.md."
NO_WEIGHTS = "the base's weights were not read"
"""Why a check knows nothing of what the base says of the rows."""
SEVERITIES = {"stop": "Stop", "warn": "Warning", "note": "Note"}


def signed_pp(value: float) -> str:
    """Points with an explicit sign, as in ``+1.2`` and ``−0.4``."""
    if not math.isfinite(value):
        return "n/a"
    text = number_pp(value)
    if text in ("0.0", "−0.0"):
        return "±0.0"
    return text if text.startswith("−") else f"+{text}"


def duration(seconds: float) -> str:
    """Wall-clock time as people say it: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return "n/a"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def price(seconds: float, per_hour: float) -> str:
    """What ``seconds`` cost at a price an hour, as in ``8.30``; empty where either is unknown."""
    cost = seconds / 3600 * per_hour
    if not math.isfinite(cost):
        return ""
    return f"{cost:,.2f}" if cost >= 0.005 else "less than 0.01"


def lead(assessment: Assessment) -> str:
    """The one sentence below the verdict."""
    forecast, base = assessment.forecast, assessment.counts_from_pp
    if forecast is not None:
        gain = forecast.score_pp - base
        way = "above" if gain >= 0 else "below"
        tail = f", {number_pp(abs(gain))} points {way} the base" if math.isfinite(gain) else ""
        return f"Expected to score {number_pp(forecast.score_pp)} % at the end of the full run{tail}."
    if first_stop(assessment.findings):
        if assessment.trace is None:
            begun = assessment.data.format == "trainer"
            what = "ends with its first pass" if begun else "was not started"
            return f"Training {what}: preflight found a sure reason to stop."
        if assessment.trace.info.failure:
            return "The probe broke down: the full run would too."
        return "The probe showed a sure reason to stop."
    if assessment.complete and math.isfinite(assessment.probe_pp):
        final_pp = assessment.final_pp
        score = number_pp(final_pp if math.isfinite(final_pp) else assessment.probe_pp)
        return f"The run is complete and scores {score} %."
    if math.isfinite(assessment.probe_pp):
        score = number_pp(assessment.probe_pp)
        return f"No forecast. If nothing changed after the probe, it would score {score} %."
    return "No forecast."


def reason(assessment: Assessment) -> str:
    """The verdict's own reason, as a sentence; and why there is no forecast when there is none."""
    text = sentence(assessment.verdict.reason.strip())
    if text and text[-1] not in ".!?":
        text += "."
    return text


def measured_note(outcome: Outcome, assessment: Assessment) -> str:
    """How a measured score lies beside its forecast and the goal; empty where there is neither.

    As in ``1.3 points below the forecast; it reaches the goal of 47.7``.
    """
    parts = []
    if assessment.forecast is not None:
        off_pp = outcome.score_pp - assessment.forecast.score_pp
        parts.append(f"{number_pp(abs(off_pp))} points {'above' if off_pp >= 0 else 'below'} the forecast")
    goal_pp = assessment.verdict.threshold_pp
    if math.isfinite(goal_pp):
        wanted, _ = apart(goal_pp, outcome.score_pp)
        reached = "reaches" if reaches(outcome.score_pp, goal_pp) else "stays below"
        parts.append(f"it {reached} the goal of {wanted}")
    return "; ".join(parts)


def scores_note(assessment: Assessment) -> str:
    """What must be known to read the scores; empty where nothing must."""
    return " ".join(filter(None, (asked_note(assessment), learnt_note(assessment))))


def learnt_note(assessment: Assessment) -> str:
    """That the forecast is no test of the predictor, where it has learnt from runs on the same data."""
    if assessment.forecast is None or not assessment.forecast.data_learnt:
        return ""
    return (
        "The predictor has learnt from runs on this very data set: expect the forecast to be nearer than the "
        "interval says, which is for data it has not seen."
    )


def asked_note(assessment: Assessment) -> str:
    """On how many items base and probe were scored, and how sure that makes it; empty where on all."""
    asked, items = assessment.items_asked, assessment.task.benchmark_items
    if not 0 < asked < items:
        return ""
    error_pp = assessment.error_pp(assessment.probe_pp)
    sure = f" (standard error up to {number_pp(error_pp)} points)" if math.isfinite(error_pp) else ""
    whole = assessment.base_of_all_pp
    of_all = f" On all of them the base scores {number_pp(whole)} %." if math.isfinite(whole) else ""
    return f"Base and probe were scored on {asked:,} of the benchmark's {items:,} items{sure}.{of_all}"


def rows_text(finding: Finding) -> str:
    """Which rows a finding is about: ``rows 3, 8, 11 and 40 more``."""
    if not finding.rows:
        return f"{finding.count:,} rows" if finding.count > 1 else ""
    shown = finding.rows[:8]
    rest = max(finding.count, len(finding.rows)) - len(shown)
    tail = f" and {rest:,} more" if rest > 0 else ""
    word = "row" if len(shown) == 1 and not rest else "rows"
    return f"{word} {', '.join(map(str, shown))}{tail}"


def feature_label(name: str) -> str:
    """A feature's name as plain words; its unit stands with the value."""
    return sentence(feature_words(name))


def feature_words(name: str) -> str:
    """The same within a sentence, without a capital."""
    if name in TERMS:
        return TERMS[name][:1].lower() + TERMS[name][1:]
    text = name
    for unit in UNIT_SUFFIXES:
        text = text.removesuffix(unit)
    return " ".join(SPELLED.get(word, word) for word in text.split("_") if word)


def beside_range(name: str, value: float, span: FeatureRange | None) -> str:
    """A feature with its value and the range of the predictor's runs, as in ``total steps (200; known 300 to
    1,500)``."""
    spec = known_spec(name)
    shown = spec.format_value if spec is not None else "{:.4g}".format
    known = ""
    if span is not None and math.isfinite(span.low) and math.isfinite(span.high):
        low, high = shown(span.low), shown(span.high)
        known = f"; known {low}" if low == high else f"; known {low} to {high}"
    return f"{feature_words(name)} ({'absent' if math.isnan(value) else shown(value)}{known})"


def file_name(data: DataSummary) -> str:
    """The name of the data's file without its folders, on whatever system it lay."""
    return printable(data.path.replace("\\", "/").rsplit("/", 1)[-1])


def sentence(text: str) -> str:
    """The text, printable, with a capital at its start unless it starts with an identifier as max_length."""
    text = printable(text)
    first = text.split(" ", 1)[0]
    return text if "_" in first else text[:1].upper() + text[1:]


def ranked(assessment: Assessment, count: int) -> tuple[list[Attribution], list[Attribution]]:
    """The ``count`` largest reasons that show in print, each quantity once, and all others."""
    ordered = list(told_once(assessment.attributions, assessment.task.probe_steps))
    shown = [a for a in ordered[:count] if abs(a.contribution_pp) >= SMALLEST_PP]
    return shown, ordered[len(shown) :]


def feature_value(name: str, value: float) -> str:
    """A feature's value with its unit, as the catalogue writes it."""
    spec = known_spec(name)
    if spec is None or not math.isfinite(value):
        return number(value)
    return spec.format_value(value)


def measured_value(name: str, value: float, sample: Sample | None) -> str:
    """A feature's value, with :func:`sample_error` beside it."""
    return f"{feature_value(name, value)} {sample_error(name, value, sample)}".rstrip()


def sample_error(name: str, value: float, sample: Sample | None) -> str:
    """The 95 % error of an estimate, a star for what describes the sample itself; empty for what is exact."""
    spec = known_spec(name)
    if sample is None or spec is None:
        return ""
    return spec.format_error(value, sample.error) if math.isfinite(sample.error) else "*"


def sampling_note(data: DataSummary) -> str:
    """What was counted over all rows and what was taken from samples; empty where all rows were looked at."""
    rows = sorted({sample.rows for sample in data.samples.values()}, reverse=True)
    if not rows:
        return ""
    sizes = listed([f"{size:,}" for size in rows])
    return (
        f"Figures with ± are estimates from random samples ({sizes} of the {data.rows:,} rows), with their "
        "95 % error; those with * describe such a sample itself. All others, and every count in the "
        "findings that does not say otherwise, are over all rows."
    )


def base_note(checkup: Checkup) -> str:
    """What was left out for want of a base or of its weights; empty where nothing was."""
    if checkup.base_named:
        unasked = NO_WEIGHTS in checkup.features.absent.values()
        return (
            f"Of {checkup.base} only tokenizer and layers were read: no opinion of the rows."
            if unasked
            else ""
        )
    return (
        "No base was named (--base): tokens, window, template, end of text and layers were not checked; "
        f"what a base says of the rows is the packaged {checkup.base}'s opinion."
    )


def tokens_text(data: DataSummary) -> str:
    """How many tokens the rows have and how many are trained; with the error where that is an estimate."""
    if not math.isfinite(data.tokens):
        return ""
    parts = []
    for name, value in (("tokens", data.tokens), ("answer_tokens", data.answer_tokens)):
        sample = data.samples.get(name)
        part = f"{value:,.0f}"
        if sample is not None and value > 0:
            part = f"about {rounded(value)} (± {100 * sample.error / value:.2g} %)"
        parts.append(part)
    return f"{parts[0]} tokens of which {parts[1]} are trained"


def columns_text(data: DataSummary) -> str:
    """Which column each part was read from and which were not read; empty where that is not known."""
    if not data.columns:
        return ""
    read = ", ".join(f"{part} = {_name(column)}" for part, column in data.columns.items())
    unused = [_name(column) for column in data.unused_columns[:MOST_COLUMNS]]
    if len(data.unused_columns) > MOST_COLUMNS:
        unused.append(f"{len(data.unused_columns) - MOST_COLUMNS:,} more")
    return f"{read}; unused: {', '.join(unused)}" if unused else read


def _name(column: str) -> str:
    # An index that was written with the table has no name.
    return printable(" ".join(column.split()))[:40] or "''"


def rounded(value: float) -> str:
    """A large count to three digits, as in ``104 million``."""
    known = float(f"{value:.3g}")
    for size, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if known >= size:
            return f"{known / size:g}{name}"
    return f"{value:.0f}"


def health(checkup: Checkup) -> tuple[Decision, str, str]:
    """How the data are: the decision it would look like, a word, and a sentence that counts findings."""
    counts = {name: sum(f.severity == name for f in checkup.findings) for name in SEVERITIES}
    decision: Decision = "NO_GO" if counts["stop"] else "UNSURE" if counts["warn"] else "GO"
    word = {"NO_GO": "Stop", "UNSURE": "Look first", "GO": "Sound"}[decision]
    names = {"stop": "reason{} to stop", "warn": "warning{}", "note": "note{}"}
    parts = [f"{n} {names[kind].format('s' if n > 1 else '')}" for kind, n in counts.items() if n]
    return decision, word, ", ".join(parts) if parts else "no finding"


def value_beside(attribution: Attribution) -> str:
    """The value to print beside a reason's name: none where its sentence states it."""
    if attribution.sentence or not math.isfinite(attribution.value):
        return ""
    return feature_value(attribution.feature, attribution.value)
