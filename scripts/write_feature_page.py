"""Write docs/features.md from the catalogue of features.

python scripts/write_feature_page.py
"""

from __future__ import annotations

import math
from pathlib import Path

from tuneahead.features.catalogue import CATALOGUE, FeatureSpec, names_of
from tuneahead.report.words import feature_label

PAGE = Path(__file__).resolve().parents[1] / "docs" / "features.md"
GROUPS = {
    "static": "Static: the data alone",
    "dynamic": "Dynamic: the probe's loss, gradients, weights and rows",
    "recipe": "Recipe: the hyper-parameters",
    "cue": "Cues: what a small part of the benchmark said during the probe",
}
DIRECTIONS = {1: "more is better", -1: "less is better", 0: "neither"}
SIDES = {1: " (if high)", -1: " (if low)", 0: ""}


def page() -> str:
    """The whole page as Markdown."""
    counts = {group: len(names_of(group)) for group in GROUPS}  # type: ignore[arg-type]
    lines = [
        "# Features",
        "",
        f"TuneAhead knows {len(CATALOGUE)} features of a fine-tuning task: "
        + ", ".join(f"{count} {group}" for group, count in counts.items())
        + ". Each is computed in one place, from the examples or from the stored trace of the probe, and "
        "can be computed again at any time without a GPU. What was not measured is absent, with the "
        "reason; it is never 0. The first column says what cards and pages call a feature, and below it its "
        "name in JSON, tables and Python. Reasons such as *Gain so far* that are no features are in "
        "[predictor.md](predictor.md#explanations).",
        "",
        f"The {len(names_of(paper=True))} features marked **P** are the set called `paper`: 14 static and "
        "10 dynamic ones. **S** marks features without a scale of their own: they compare between bases, "
        "benchmarks and lengths of run. Direction says what is expected to go with a better final score. "
        "Words are lower-case runs of letters, digits and underscores (single characters in scripts "
        "without spaces), counted the same way whatever the base; tokens are the base's. "
        "Of a conversation the answer is the last assistant turn and the prompt all before it, save for "
        "losses and tokens that are trained: those count every answer. A logarithm is shown to a reader as "
        "the number itself.",
        "",
        "Of more than 20,000 rows a random 20,000, drawn by a fixed seed, are looked at for static features "
        "(of rows that are long as many as hold 50 million characters, at least 128); "
        "fewer where the formula says so. The column *larger data* says what a value then is: **exact**, "
        "counted over all rows; **mean** or **share**, an estimate, whose sample size and 95 % error stand "
        "beside it in the card, the page and the JSON (`data.samples`) of `tuneahead check`; or **sample**, "
        "a property of the sample itself.",
        "",
        "This page is written by `scripts/write_feature_page.py` from the catalogue "
        "(`tuneahead.features.catalogue.CATALOGUE`).",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", ""]
        larger = " larger data |" if group == "static" else ""
        lines += [
            f"| feature | unit, range |{larger} direction | formula | in a diagnosis | what to do | source |"
        ]
        lines += ["|---" * (8 if larger else 7) + "|"]
        lines += [_line(row) for row in CATALOGUE if row.group == group]
    return "\n".join(lines) + "\n"


def _line(row: FeatureSpec) -> str:
    marks = " ".join(mark for mark, has in (("**P**", row.paper), ("**S**", row.scale_free)) if has)
    sentence = row.sentence.replace("{value}", "*x*")
    cells = (
        f"{feature_label(row.name)}<br>`{row.name}` {marks}".strip(),
        f"{row.unit or 'number'}, {_bound(row.low)} to {_bound(row.high)}",
        *([row.estimate] if row.group == "static" else []),
        DIRECTIONS[row.direction],
        row.formula,
        sentence,
        (row.remedy or "-") + _when(row),
        row.source,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _when(row: FeatureSpec) -> str:
    """For which values the remedy is, as the end of its cell."""
    if row.usual is None:
        return SIDES[row.remedy_side]
    low, high = row.usual
    if math.isinf(high):
        return f" (if below {low:g})"
    return f" (if not {low:g})" if low == high else f" (if not {low:g} to {high:g})"


def _bound(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:g}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
