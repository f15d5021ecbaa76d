"""Keeping what an assessment found in a store: nothing that was computed is lost to a store that fails."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.errors import StoreError
from tuneahead.printable import printable

if TYPE_CHECKING:
    from tuneahead.assessment import Assessment
    from tuneahead.history.store import RunStore


def open_history(path: Path) -> RunStore:
    """A store that can be written to; raises :class:`StoreError` for any other, before any training."""
    from tuneahead.history.store import RunStore

    history = RunStore(path)
    history.require_writable()
    return history


def tell_of_misnamed(base: str, history: RunStore) -> None:
    """Say, before any training, that the store knows the base under another name: it would be two bases."""
    from tuneahead.workbench import why_misnamed

    if misnamed := why_misnamed(base, history.bases()):
        print(
            f"{history.path} knows no base {printable(base)} but one {printable(misnamed)}. Under two names "
            "it is two bases to 'fit'",
            file=sys.stderr,
        )


def keep(found: Assessment, history: RunStore, *, scored_later: bool) -> StoreError | None:
    """Keep a probed run before anything is shown or trained further: what fails later can't lose it.

    Returns what came between, to be raised once the assessment is shown.
    """
    from tuneahead.record import record_run, run_id

    if found.trace is None:
        print(f"not kept in {history.path}: there was no probe", file=sys.stderr)
        return None
    try:
        known = run_id(found) in history.done_ids()
        name = record_run(found, history)
    except StoreError as error:
        return StoreError(f"the run was not kept: {error.message}", remedy=error.remedy)
    if not known:
        _tell_of_other_weights(found, history, name)
    what = f"run {name} was there already," if known else f"kept as run {name}"
    print(f"{what} in {history.path}", file=sys.stderr)
    if math.isfinite(found.final_pp):
        print(
            f"the probe was the whole run: its score of {found.final_pp:.2f} is kept with it", file=sys.stderr
        )
    elif scored_later and not found.trace.info.failure:
        command = _record_command(found, history, "POINTS")
        print(f"once the full run is scored: {command}", file=sys.stderr)
    return None


def _tell_of_other_weights(found: Assessment, history: RunStore, name: str) -> None:
    """Say where the base's name stood for another model when the run before this one was stored.

    Of an import the weights are not known, and a run that can't be read says nothing of them.
    """
    task = found.task
    try:
        last = history.last_of_base(task.base, before=name)
    except StoreError:
        return
    weights = "" if last is None else last.trace.info.base_fingerprint
    if last is not None and weights not in ("", task.base_fingerprint):
        print(
            f"the run before it on {printable(task.base)}, {last.run_id}, was made with other weights or in "
            "another number format. 'fit' takes both for runs of one base: give a changed model another name",
            file=sys.stderr,
        )


def keep_outcome(found: Assessment, history: RunStore) -> StoreError | None:
    """Add the score of the full run to its kept probe; returns what came between, as :func:`keep` does."""
    from tuneahead.record import record_run

    try:
        name = record_run(found, history)
    except StoreError as error:
        if not math.isfinite(found.final_pp):
            return error
        # A score of 1 or less would be taken for a fraction.
        points = f"{found.final_pp:.6g}" + (" --points" if found.final_pp <= 1 else "")
        return StoreError(
            f"the full run scored {found.final_pp:.2f}, which was not kept: {error.message}",
            remedy=f"{error.remedy}, then: {_record_command(found, history, points)}",
        )
    if found.outcome is not None:
        has = f"has its score now: {found.outcome.score_pp:.2f}"
        if unscored := found.outcome.unscored:
            has = f"has no score, for the full run {unscored}"
        print(f"run {name} {has}", file=sys.stderr)
    return None


def _record_command(found: Assessment, history: RunStore, points: str) -> str:
    from tuneahead.record import run_id

    place = f"--benchmark {shlex.quote(found.task.benchmark)} --store {shlex.quote(str(history.path))}"
    return f"tuneahead runs record {run_id(found)} --score {points} {place}"
