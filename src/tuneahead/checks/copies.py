"""Checks across rows: copies, contradictions, and benchmark questions among the rows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import numpy as np

from tuneahead.checks.check import Context, found, share
from tuneahead.counts import counted
from tuneahead.duplicates import NearDuplicates
from tuneahead.survey import conflict_groups, pair_keys, repeated_rows
from tuneahead.verdict import Finding

_DUPLICATE_FRACTION = 0.01
_NEAR_FRACTION = 0.05
_CONFLICT_FRACTION = 0.01
_CONTAMINATED_FRACTION = 0.01
_SHOWN_CLUSTERS = 3
_SHOWN_IN_CLUSTER = 4


def _clusters(near: NearDuplicates) -> list[list[int]]:
    """Rows that are near-duplicates of one another, answers included, the largest clusters first."""
    first: dict[int, int] = {}
    clusters: dict[int, list[int]] = {}
    for later, earlier in zip(
        near.later[near.alike].tolist(), near.earlier[near.alike].tolist(), strict=True
    ):
        # Later rows come in order, so what an earlier one belongs to is known.
        root = first[later] = first.get(earlier, earlier)
        clusters.setdefault(root, [root]).append(later)
    return sorted(clusters.values(), key=lambda rows: (-len(rows), rows[0]))


def _row_list(rows: Sequence[int]) -> str:
    more = ", ..." if len(rows) > _SHOWN_IN_CLUSTER else ""
    return ", ".join(map(str, rows[:_SHOWN_IN_CLUSTER])) + more


def exact_duplicates(context: Context) -> Iterator[Finding]:
    """Rows that an earlier row holds already; those without an answer are another check's."""
    survey = context.survey
    repeated = repeated_rows(survey)
    mask = repeated & ~survey.empty_answer
    if mask.any():
        # The measure of that name counts them too, and stands on the same page.
        aside = ", empty answers aside" if repeated[survey.empty_answer].any() else ""
        count = int(mask.sum())
        keys = pair_keys(survey.prompt, survey.answer)[~survey.empty_answer]
        _, place, times = np.unique(keys, return_index=True, return_counts=True)
        top = int(times.argmax())
        most = int(survey.row[~survey.empty_answer][place[top]])
        yield found(
            "exact-duplicates",
            "warn" if count >= _DUPLICATE_FRACTION * len(survey) else "note",
            f"{share(count, len(survey))} are exact copies of an earlier row{aside} ({len(times):,} "
            f"different ones; row {most} stands {int(times[top]):,} times)",
            "remove the copies, unless the repetition is meant as a weight" + _unread(context),
            rows=survey.row[mask],
        )


def _unread(context: Context) -> str:
    """How to read what may tell rows of one prompt apart; empty where no column holds a passage."""
    passages = context.columns.passages
    if not passages:
        return ""
    return (
        f"; if column {passages[0]!r}, which is not read, holds what they ask about, not how it is "
        f"answered: -m input={shlex.quote(passages[0])}"
    )


def near_duplicates(context: Context) -> Iterator[Finding]:
    """Rows that share most of their wording with an earlier, different row."""
    near = context.survey.near
    alike, other = near.later[near.alike], near.later[~near.alike]
    left = (
        ""
        if near.examined == near.total
        else f" (the first {near.examined:,} of {near.total:,} were compared)"
    )
    if len(alike):
        clusters = _clusters(near)
        shown = "; ".join(_row_list(rows) for rows in clusters[:_SHOWN_CLUSTERS])
        yield found(
            "near-duplicates",
            "warn" if len(alike) >= _NEAR_FRACTION * near.examined else "note",
            f"{_of_distinct(len(alike), near)} are near-duplicates of an earlier row, in "
            f"{counted(len(clusters), 'cluster')}, for example rows {shown}{left}",
            "keep one of each, or check that the differences are what the model shall learn; tuneahead clean "
            f"--also near-duplicates would leave out {len(near.spare()):,}",
            rows=alike,
        )
    if len(other):
        yield found(
            "near-duplicates",
            "note",
            f"{_of_distinct(len(other), near)} share most of their wording with an earlier row, but not "
            f"question and answer{left}",
            "nothing, if many rows ask about one text; else check which of the answers is right",
            rows=other,
        )


def _of_distinct(count: int, near: NearDuplicates) -> str:
    return f"{count:,} of {near.examined:,} distinct rows ({100 * count / near.examined:.1f} %)"


def conflicting_answers(context: Context) -> Iterator[Finding]:
    """The same prompt with different answers."""
    survey = context.survey
    groups = conflict_groups(survey)
    mask = groups >= 0
    if not mask.any():
        return
    clusters = []
    for group in range(min(_SHOWN_CLUSTERS, int(groups.max()) + 1)):
        clusters.append(_row_list(survey.row[groups == group].tolist()))
    order = np.argsort(groups[mask], kind="stable")
    prompts = int(groups.max()) + 1
    yield found(
        "conflicting-answers",
        "warn" if mask.mean() >= _CONFLICT_FRACTION else "note",
        f"{share(int(mask.sum()), len(survey))} contradict another row: {counted(prompts, 'prompt')} "
        f"{'has' if prompts == 1 else 'have'} different answers, for example rows {'; rows '.join(clusters)}",
        "settle on one answer per prompt; for open questions with many good answers, leave them"
        + _unread(context),
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
            f"stand in {counted(len(result.rows), 'training row')}, for example {result.first_items[0]} in "
            f"row {result.rows[0]}: the score would not measure what was learned",
            "remove these rows, or judge by another benchmark",
            rows=result.rows,
        )
