"""What tells one feature table from another: a hash of its contents."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from tuneahead.predictor.table import FeatureTable


def table_fingerprint(table: FeatureTable) -> str:
    """Hash of everything a fit or a backtest reads of a table; 16 hex digits.

    By it a stored result is known to belong to a table.
    """
    tasks, table = len(table), table.with_repeats()
    digest = hashlib.sha256()
    texts = (table.task_ids, table.data_ids, table.families, table.sources, table.bases, table.benchmarks)
    extras = sorted(table.extras)
    digest.update(json.dumps((tasks, table.names, table.groups, texts, extras)).encode())
    outcomes = (table.score_pp, table.base_pp, table.probe_pp, table.chance_pp, table.seeds, table.seed_sd_pp)
    for column in (table.values, *outcomes, *(table.extras[name] for name in extras)):
        # As 32-bit floats, as features are stored: a table in memory and one read back are the same.
        digest.update(np.nan_to_num(column.astype(np.float32), nan=-1e9).tobytes())
    return digest.hexdigest()[:16]
