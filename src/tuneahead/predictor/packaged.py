"""The runs and predictors that come with the package, as a start for runs of one's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.counts import listed
from tuneahead.errors import PredictorError

if TYPE_CHECKING:
    from tuneahead.predictor.table import FeatureTable

PROBE_STEPS = 100
"""Length of the probes that shipped predictors learned from, in optimiser steps, and where none is said."""
SHIPPED_BASE = "lab-qwen2"
"""The base whose runs the first shipped predictor learned from; those of other bases start from it."""
OTHER_LENGTHS = (50, 200)
"""Further lengths of the probe that the package has runs for: an early look's and a longer probe's."""


def shipped_predictor(base: str = SHIPPED_BASE) -> Path:
    """Folder of the predictor that comes with the package for a base (not there for most)."""
    from importlib.resources import files

    return Path(str(files("tuneahead").joinpath("predictor", "shipped"))) / base


def shipped_table(base: str = SHIPPED_BASE, probe_steps: int = PROBE_STEPS) -> Path:
    """Feature table of the runs on a base, after so many steps of each.

    The shipped predictors were fitted to those after ``PROBE_STEPS``.
    """
    return shipped_predictor(base) / _table_name(probe_steps)


def shipped_backtest() -> Path:
    """Result of the backtest on the shipped table."""
    return shipped_predictor() / "backtest.json"


def shipped_bases() -> set[str]:
    """Names of the bases for which a predictor comes with the package."""
    # A base may be a path: it is looked up among the folders' names, never joined to one.
    return {found.parent.name for found in shipped_predictor().parent.glob("*/predictor.json")}


def shipped_history(*, without: Collection[str] = (), probe_steps: int = PROBE_STEPS) -> FeatureTable:
    """The runs that come with the package, of all bases but those of these names.

    Raises :class:`PredictorError` where none has features after ``probe_steps`` steps.
    """
    from tuneahead.predictor.table import join_tables, read_table

    bases = sorted(_bases_with(probe_steps) - set(without))
    if not bases:
        raise PredictorError(
            f"the package has no runs after {probe_steps} steps to start from",
            remedy=f"it has them after {listed(_lengths())} steps: probe for as many, or leave --start out",
        )
    return join_tables([read_table(shipped_table(base, probe_steps)) for base in bases])


def packaged_runs(base: str, probe_steps: int = PROBE_STEPS) -> tuple[FeatureTable, FeatureTable | None]:
    """The packaged runs on ``base`` and those that help there, as its shipped predictor was fitted to them.

    ``lab`` stands for the lab's main base, as it does elsewhere.

    Raises :class:`PredictorError` for a base that the package has no runs on, or none of that length.
    """
    from tuneahead.predictor.table import read_table

    base = SHIPPED_BASE if base == "lab" else base
    if base not in _bases_with(probe_steps):
        if lengths := _lengths(base):
            raise PredictorError(
                f"the package has no runs on {base} after {probe_steps} steps",
                remedy=f"it has them after {listed(lengths)} steps",
            )
        raise PredictorError(
            f"the package has no runs on base {base!r}",
            remedy=f"name one of {listed(sorted(_bases_with(PROBE_STEPS)))}, or give your own with --store",
        )
    own = read_table(shipped_table(base, probe_steps))
    # The lab's main base has several times the runs of all others.
    return own, None if base == SHIPPED_BASE else shipped_history(without=(base,), probe_steps=probe_steps)


def beside_packaged(own: FeatureTable, packaged: FeatureTable) -> tuple[FeatureTable, FeatureTable | None]:
    """What to fit to, and the runs that help there: ``Predictor.fit(table, helpers=helpers)``.

    ``packaged`` runs on the base and benchmark of ``own`` are as good as own ones and join them, unless
    ``own`` is of several: its intervals would then come from one of them. All others help. A task that both
    hold counts once, as ``own`` has it. Raises :class:`PredictorError` as :func:`join_tables` does.
    """
    import numpy as np

    from tuneahead.predictor.table import join_tables

    own = own.scored()
    known = set(zip(own.bases, own.benchmarks, own.task_ids, strict=True))
    tasks = zip(packaged.bases, packaged.benchmarks, packaged.task_ids, strict=True)
    rest = packaged.select(np.array([task not in known for task in tasks], bool))
    places = set(zip(own.bases, own.benchmarks, strict=True))
    same = np.array([place in places for place in zip(rest.bases, rest.benchmarks, strict=True)], bool)
    if len(places) == 1 and same.any():
        own, rest = join_tables([own, rest.select(same)]), rest.select(~same)
    return own, rest if len(rest) else None


def _table_name(probe_steps: int) -> str:
    return "table.parquet" if probe_steps == PROBE_STEPS else f"table-{probe_steps}.parquet"


def _bases_with(probe_steps: int) -> set[str]:
    return {found.parent.name for found in shipped_predictor().parent.glob(f"*/{_table_name(probe_steps)}")}


def _lengths(base: str = "") -> list[str]:
    """After how many steps there are runs, on ``base`` where it is named."""
    found = {steps: _bases_with(steps) for steps in sorted((PROBE_STEPS, *OTHER_LENGTHS))}
    return [str(steps) for steps, bases in found.items() if (base in bases if base else bases)]
