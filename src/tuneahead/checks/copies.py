"""Checks across rows: copies, contradictions, and benchmark questions among the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuneahead.checks.check import Context, found, share
from tuneahead.survey import Survey, pair_keys
from tuneahead.verdict import Finding

_DUPLICATE_FRACTION = 0.01
_NEAR_FRACTION = 0.05
_CONFLICT_FRACTION = 0.01
_CONTAMINATED_FRACTION = 0.01
_SHOWN_CLUSTERS = 3
_SHOWN_IN_CLUSTER = 4


def repeated_rows(survey: Survey) -> NDArray[np.bool_]:
    """Rows whose prompt and answer (spaces collapsed) an earlier row holds: ``(rows,)``."""
    _, first = np.unique(pair_keys(survey.prompt, survey.answer), return_index=True)
    mask = np.ones(len(survey), bool)
    mask[first] = False
    return mask


def conflict_groups(survey: Survey) -> NDArray[np.int64]:
    """For each row the number of its group of contradicting rows, or -1: ``(rows,)``.

    A group is all rows of one prompt that has two or more different answers, case and closing
    punctuation aside. Rows without prompt or answer are in none. Groups count from 0 in order
    of their first row.
    """
    usable = np.flatnonzero(~survey.empty_prompt & ~survey.empty_answer)
    groups = np.full(len(survey), -1, np.int64)
    prompts, first, inverse = np.unique(survey.prompt[usable], return_index=True, return_inverse=True)
    pairs = np.unique(np.stack([inverse.astype(np.uint64), survey.loose_answer[usable]]), axis=1)
    answers = np.bincount(pairs[0].astype(np.int64), minlength=len(prompts))
    clashing = np.flatnonzero(answers > 1)
    number = np.full(len(prompts), -1, np.int64)
    number[clashing[np.argsort(first[clashing])]] = np.arange(len(clashing))
    groups[usable] = number[inverse]
    return groups


def exact_duplicates(context: Context) -> Iterator[Finding]:
    """Rows that an earlier row holds already."""
    survey = context.survey
    mask = repeated_rows(survey) & ~survey.empty_answer
    if mask.any():
        count = int(mask.sum())
        yield found(
            "exact-duplicates",
            "warn" if count >= _DUPLICATE_FRACTION * len(survey) else "note",
            f"{share(count, len(survey))} are exact copies of an earlier row",
            "remove the copies, unless the repetition is meant as a weight",
            rows=survey.row[mask],
        )


def near_duplicates(context: Context) -> Iterator[Finding]:
    """Rows that share most of their wording with an earlier, different row."""
    near = context.survey.near
    if not len(near.later):
        return
    partners = zip(near.later[:_SHOWN_CLUSTERS].tolist(), near.earlier.tolist(), strict=False)
    shown = ", ".join(f"{later} (like {earlier})" for later, earlier in partners)
    left = (
        ""
        if near.examined == near.total
        else f" (the first {near.examined:,} of {near.total:,} were compared)"
    )
    yield found(
        "near-duplicates",
        "warn" if near.fraction >= _NEAR_FRACTION else "note",
        f"{len(near.later):,} of {near.examined:,} distinct rows ({100 * near.fraction:.1f} %) are "
        f"near-duplicates of an earlier row, for example {shown}{left}",
        "keep one of each, or check that the differences are what the model shall learn",
        rows=near.later,
    )


def conflicting_answers(context: Context) -> Iterator[Finding]:
    """The same prompt with different answers."""
    survey = context.survey
    groups = conflict_groups(survey)
    mask = groups >= 0
    if not mask.any():
        return
    clusters = []
    for group in range(min(_SHOWN_CLUSTERS, int(groups.max()) + 1)):
        rows = survey.row[groups == group]
        more = ", ..." if len(rows) > _SHOWN_IN_CLUSTER else ""
        clusters.append(", ".join(map(str, rows[:_SHOWN_IN_CLUSTER].tolist())) + more)
    order = np.argsort(groups[mask], kind="stable")
    yield found(
        "conflicting-answers",
        "warn" if mask.mean() >= _CONFLICT_FRACTION else "note",
        f"{share(int(mask.sum()), len(survey))} contradict another row: {int(groups.max()) + 1:,} prompts "
        f"have different answers, for example rows {'; rows '.join(clusters)}",
        "settle on one answer per prompt; for open questions with many good answers, leave them",
        rows=survey.row[mask][order],
    )


def contamination(context: Context) -> Iterator[Finding]:
    """Benchmark questions that stand in the training rows."""
    for result in context.survey.contamination:
        count = len(result.item_ids)
        if not count:
            continue
        stop = result.fraction >= _CONTAMINATED_FRACTION
        yield found(
            "contamination",
            "stop" if stop else "warn",
            f"{count:,} of {result.items:,} questions of {result.benchmark} ({100 * result.fraction:.1f} %) "
            f"stand in {len(result.rows):,} training rows, for example {result.first_items[0]} in row "
            f"{result.rows[0]}: the score would not measure what was learned",
            "remove these rows, or judge by another benchmark",
            rows=result.rows,
        )
