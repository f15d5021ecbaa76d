"""The runs that come with the package, as a start for runs of one's own."""

from __future__ import annotations

import numpy as np

from tuneahead.predictor.table import FeatureTable, join_tables


def beside_packaged(own: FeatureTable, packaged: FeatureTable) -> tuple[FeatureTable, FeatureTable | None]:
    """What to fit to, and the runs that help there: ``Predictor.fit(table, helpers=helpers)``.

    ``packaged`` runs on the base and benchmark of ``own`` are as good as own ones and join them, unless
    ``own`` is of several: its intervals would then come from one of them. All others help. A task that both
    hold counts once, as ``own`` has it. Raises :class:`PredictorError` as :func:`join_tables` does.
    """
    own = own.scored()
    known = set(zip(own.bases, own.benchmarks, own.task_ids, strict=True))
    tasks = zip(packaged.bases, packaged.benchmarks, packaged.task_ids, strict=True)
    rest = packaged.select(np.array([task not in known for task in tasks], bool))
    places = set(zip(own.bases, own.benchmarks, strict=True))
    same = np.array([place in places for place in zip(rest.bases, rest.benchmarks, strict=True)], bool)
    if len(places) == 1 and same.any():
        own, rest = join_tables([own, rest.select(same)]), rest.select(~same)
    return own, rest if len(rest) else None
