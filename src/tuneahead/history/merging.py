"""Runs of another store, as another machine keeps one, joined to a store."""

from __future__ import annotations

from pathlib import Path

from tuneahead.errors import StoreError, UnreadableRunError
from tuneahead.history.importers import ImportSummary
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore


def merge_stores(source: str | Path, target: str | Path) -> ImportSummary:
    """Add every run of the store ``source`` to ``target``, with its scores and its data set's features.

    A run that is there already stays as it is, and gets the final scores that it lacks. Runs and features
    that can't be read are left out with the reason. Raises :class:`StoreError` for files that are no stores,
    and for one and the same.
    """
    other, kept = RunStore(source), RunStore(target)
    if other.path.samefile(kept.path):
        raise StoreError(f"{source} is the store itself", remedy="name another store to bring in runs from")
    kept.require_writable()
    records: list[RunRecord] = []
    left_out: list[str] = []
    weights: dict[str, str] = {}
    other_weights: dict[str, None] = {}
    added = scored = unchanged = 0
    for run_id in other.run_ids():
        try:
            record = other.get(run_id)
            if record.base not in weights:
                weights[record.base] = _weights_of(kept, record.base)
            is_new = kept.add(record)
            earlier = record if is_new else kept.get(run_id)
        except UnreadableRunError as error:
            left_out.append(error.message)
            continue
        records.append(record)
        there, made_with = weights[record.base], record.trace.info.base_fingerprint
        if there and made_with and there != made_with:
            other_weights[record.base] = None
        late = {name: pp for name, pp in record.scores.items() if name not in earlier.scores}
        for name, pp in late.items():
            kept.record_score(run_id, name, pp)
        added += is_new
        scored += bool(record.scores if is_new else late)
        unchanged += any(earlier.scores.get(name, pp) != pp for name, pp in record.scores.items())
    left_out += _add_statics(other, kept, {record.data_id for record in records})
    return ImportSummary(
        added=added,
        present=len(records) - added,
        scored=scored,
        data_sets=len({record.data_id for record in records}),
        tasks=len({(record.base, record.task_id) for record in records}),
        left_out=tuple(left_out),
        absent=(),
        unchanged=unchanged,
        other_weights=tuple(other_weights),
    )


def _weights_of(store: RunStore, base: str) -> str:
    """The fingerprint of the weights that a base's latest run in a store was made with.

    Empty without such a run, where it can't be read, and of an import, whose weights are not known.
    """
    try:
        last = store.last_of_base(base, before="")
    except UnreadableRunError:
        return ""
    return "" if last is None else last.trace.info.base_fingerprint


def _add_statics(other: RunStore, kept: RunStore, data_ids: set[str]) -> list[str]:
    """Add the features that ``kept`` lacks; returns why some can't be."""
    left_out = []
    for key in other.static_keys(data_ids):
        try:
            vector = other.static(*key)
        except StoreError as error:
            left_out.append(error.message)
            continue
        if vector is not None and kept.static(*key) is None:
            kept.add_static(*key, vector)
    return left_out
