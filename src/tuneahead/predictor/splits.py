"""Ways to hold tasks out: at random, by data set, by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneahead.errors import PredictorError
from tuneahead.predictor.table import FeatureTable, Rows, group_index

PAPER_HELD_OUT = 370
PAPER_TASKS = 1300


@dataclass(frozen=True)
class Fold:
    """Row indices to fit on and to score on; the two never overlap."""

    name: str
    train: Rows
    test: Rows


def random_fold(table: FeatureTable, *, held_out: int | None = None, seed: int = 0) -> Fold:
    """One random split, as in the paper: ``held_out`` tasks (370 of 1,300, or that share of a smaller table).

    Tasks averaged over the most seeds are held out first, for their score is the least noisy. Raises
    :class:`PredictorError` when nothing would be left on one side.
    """
    rows = len(table)
    wanted = (
        held_out if held_out is not None else min(PAPER_HELD_OUT, round(rows * PAPER_HELD_OUT / PAPER_TASKS))
    )
    if not 0 < wanted < rows:
        raise PredictorError(f"can't hold out {wanted} of {rows} tasks", remedy="collect more runs")
    shuffled = np.random.default_rng(seed).permutation(rows)
    by_seeds = shuffled[np.argsort(-table.seeds[shuffled], kind="stable")]
    return Fold("random", np.sort(by_seeds[wanted:]), np.sort(by_seeds[:wanted]))


def grouped_folds(groups: Sequence[str], *, k: int = 5, seed: int = 0, repeats: int = 1) -> tuple[Fold, ...]:
    """``k`` folds (per repeat) that keep each group whole; every row is held out once per repeat.

    Groups are dealt largest first to the emptiest fold, ties at random, so folds are about equal.
    With fewer groups than ``k`` there is one fold a group. Raises :class:`PredictorError` on one group.
    """
    index = group_index(groups)
    count = int(index.max()) + 1 if len(index) else 0
    if count < 2:
        raise PredictorError(
            f"{count} data set(s) can't be split by data set", remedy="collect runs on at least two data sets"
        )
    sizes = np.bincount(index)
    rng = np.random.default_rng(seed)
    folds: list[Fold] = []
    for repeat in range(repeats):
        order = rng.permutation(count)
        order = order[np.argsort(-sizes[order], kind="stable")]
        load = np.zeros(min(k, count), np.int64)
        place = np.zeros(count, np.intp)
        for group in order:
            place[group] = int(np.argmin(load))
            load[place[group]] += sizes[group]
        of_row = place[index]
        for fold in range(len(load)):
            train, test = np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)
            folds.append(Fold(f"grouped {repeat + 1}.{fold + 1}", train, test))
    return tuple(folds)


def family_folds(families: Sequence[str]) -> tuple[Fold, ...]:
    """One fold per family, which is then unseen in training; :class:`PredictorError` on a single family."""
    index = group_index(families)
    names = list(dict.fromkeys(families))
    if len(names) < 2:
        raise PredictorError(
            f"{len(names)} family can't be held out", remedy="collect runs on at least two kinds of data"
        )
    return tuple(
        Fold(name, np.flatnonzero(index != i), np.flatnonzero(index == i)) for i, name in enumerate(names)
    )


def folds_for(table: FeatureTable, protocol: str, *, seed: int = 0, k: int = 5) -> tuple[Fold, ...]:
    """Folds of a named protocol: ``random``, ``grouped`` or ``family-out``.

    Raises :class:`PredictorError` for another name, and for a table too small to be split so.
    """
    if protocol == "random":
        return (random_fold(table, seed=seed),)
    if protocol == "grouped":
        return grouped_folds(table.data_ids, k=k, seed=seed)
    if protocol == "family-out":
        return family_folds(table.families)
    raise PredictorError(f"unknown protocol {protocol!r}", remedy="use random, grouped or family-out")


def draw_data_sets(table: FeatureTable, rows: Rows, size: int, seed: int) -> Rows:
    """``size`` of ``rows``, whole data sets in a random order (the last one may be cut)."""
    by_id: dict[str, list[int]] = {}
    for i in rows:
        by_id.setdefault(table.data_ids[i], []).append(int(i))
    ids = list(by_id)
    np.random.default_rng(seed).shuffle(ids)
    return np.array([i for data_id in ids for i in by_id[data_id]][:size], np.intp)
