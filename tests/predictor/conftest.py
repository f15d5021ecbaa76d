"""A synthetic history whose gains depend smoothly on known features, plus seed noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tuneahead.predictor.table import FeatureTable

GROUPS = ("static", "dynamic", "recipe", "cue")
MakeTable = Callable[..., FeatureTable]


def build_table(rows: int = 240, columns: int = 24, seed: int = 0, noise_pp: float = 1.0) -> FeatureTable:
    """``rows`` tasks, three recipes a data set; eight features matter, the rest are noise or copies."""
    rng = np.random.default_rng(seed)
    data = np.arange(rows) // 3
    values = rng.normal(size=(rows, columns))
    values[:, 0::4] = rng.normal(size=(data.max() + 1, columns))[data][:, 0::4]
    values[:, columns - 1] = values[:, 0] + 0.02 * rng.normal(size=rows)
    base = np.full(rows, 30.0)
    probe = 38.0 + 4.0 * values[:, 1] + 3.0 * values[:, 3]
    gain = (
        6.0 * np.tanh(values[:, 0])
        + 4.0 * values[:, 2]
        - 2.0 * values[:, 1] ** 2
        + 3.0 * np.maximum(values[:, 5], 0.0)
        + 2.0 * values[:, 4] * (values[:, 2] > 0)
    )
    seeds = np.where(rng.random(rows) < 0.3, 3.0, 1.0)
    truth = probe + 8.0 + gain
    score = np.clip(truth + noise_pp * rng.normal(size=rows) / np.sqrt(seeds), 0.0, 100.0)
    values[rng.random(values.shape) < 0.02] = np.nan
    steps = rng.integers(300, 1500, rows).astype(float)
    extras = {"final_steps": steps, "data_rows": rng.integers(100, 3000, rows).astype(float)}
    for step in (0, 25, 50, 100):
        level = base if step == 0 else 30.0 + (probe - 30.0) * (1 - np.exp(-step / 40.0)) / (1 - np.exp(-2.5))
        extras[f"cue_pp@{step}"] = level
    return FeatureTable(
        names=tuple(f"f{i}" for i in range(columns)),
        values=values,
        score_pp=score,
        base_pp=base,
        probe_pp=probe,
        chance_pp=np.full(rows, 25.0),
        task_ids=tuple(f"t{i}" for i in range(rows)),
        data_ids=tuple(f"d{i}" for i in data),
        families=tuple(f"family{i % 4}" for i in data),
        seeds=seeds,
        seed_sd_pp=np.where(seeds > 1, noise_pp, np.nan),
        bases=("lab",) * rows,
        benchmarks=("exam",) * rows,
        groups=tuple(GROUPS[i % 4] for i in range(columns)),
        extras=extras,
    )


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    return build_table
