"""The rules and regressors that the predictor has to beat, each run on the same rows.

Every system is a function of training rows, test rows and a seed. It reads the outcomes of the
training rows only; the test rows' outcomes are there for whoever measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneahead.predictor.curves import SizeLaw, extrapolate, saturating_shapes
from tuneahead.predictor.fitting import paper_features, prepare, seed_weights
from tuneahead.predictor.linear import Ridge, learn_columns
from tuneahead.predictor.predictor import Predictor
from tuneahead.predictor.selection import TrailEntry, select_features
from tuneahead.predictor.splits import grouped_folds
from tuneahead.predictor.table import (
    DATA_ROWS,
    EMBEDDING_PREFIX,
    PROXY,
    SIMILARITY_PREFIX,
    FeatureTable,
    Floats,
    proxy_column,
)
from tuneahead.predictor.tuning import (
    DEFAULT,
    MIN_SELECTION_ROWS,
    QUICK,
    Contestant,
    Preset,
    usable_anchors,
)

LOSS_CURVE = (
    "initial_loss_nats",
    "loss_decay_slope",
    "loss_variance_nats2",
    "loss_end_nats",
    "loss_fall_nats",
    "loss_end_ratio",
    "loss_max_ratio",
    "loss_cv",
    "loss_slope_early",
    "loss_slope_late",
    "loss_curvature_nats",
    "loss_power_exponent",
    "loss_noise_ratio",
    "loss_autocorrelation",
    "loss_spike_fraction",
)
"""Catalogue names that describe the training loss over the probe and nothing else."""
SIMILARITY = (
    "benchmark_similarity",
    "benchmark_nearest_similarity",
    "benchmark_coverage_fraction",
    "benchmark_relevance",
)
"""Catalogue names that compare the data with the benchmark."""
CARTOGRAPHY = (
    "confidence_mean",
    "confidence_end",
    "variability_mean",
    "easy_rows_fraction",
    "hard_rows_fraction",
    "ambiguous_rows_fraction",
)
MIN_TRAINING_ROWS = 10
SELECTED = 24
"""As many features as the paper's selection leaves."""
SVR_COSTS = (10.0, 30.0, 100.0)
SVR_WIDTHS = (1.0, 0.3, 0.1)
"""Factors of the kernel's ``gamma`` over one by the number of columns: small ones make a smooth fit."""


@dataclass(frozen=True)
class Estimate:
    """Predicted scores of the test rows ``(n,)`` in points, NaN where the system did not run, and why."""

    score_pp: Floats
    low_pp: Floats | None = None
    high_pp: Floats | None = None
    reason: str = ""
    trail: tuple[TrailEntry, ...] = ()


Run = Callable[[FeatureTable, FeatureTable, int], Estimate]


@dataclass(frozen=True)
class System:
    """A named way to predict. ``kind`` is rule, regressor, ablation or ours."""

    name: str
    label: str
    kind: str
    run: Run


def not_run(rows: FeatureTable, reason: str) -> Estimate:
    """All-NaN predictions with the reason."""
    return Estimate(np.full(len(rows), np.nan), reason=reason)


def mean(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The mean score of the training rows."""
    return Estimate(np.full(len(test), float(np.average(train.score_pp, weights=seed_weights(train.seeds)))))


def base(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The untuned base's score: fine-tuning changes nothing."""
    return Estimate(test.base_pp.copy())


def persistence(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The benchmark score at the probe's end: what the rest of the run adds is nothing."""
    return Estimate(test.probe_pp.copy())


def persistence_and_mean_gain(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The score at the probe's end plus the training rows' mean gain after it."""
    gain = train.score_pp - train.probe_pp
    known = np.isfinite(gain)
    if not known.any():
        return not_run(test, "no training row has a score at the probe")
    return Estimate(np.clip(test.probe_pp + float(gain[known].mean()), 0.0, 100.0))


def early_stop(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Early-Stop Extrapolation: a saturating curve through the checkpoint scores, read at the last step.

    Each row gets its own level and amplitude by least squares; the curve's shape (exponential or
    power, and its time scale) is the one with the least error on the training rows.
    """
    steps = np.array(train.cue_steps, float)
    if len(steps) < 2 or train.cue_steps != test.cue_steps:
        return not_run(test, "fewer than two checkpoint scores are stored")
    best, best_error = None, np.inf
    for shape in saturating_shapes():
        error = extrapolate(train, steps, shape) - train.score_pp
        error = error[np.isfinite(error)]
        if len(error) and float(np.mean(error**2)) < best_error:
            best, best_error = shape, float(np.mean(error**2))
    if best is None:
        return not_run(test, "no training row has two checkpoint scores and its number of steps")
    return Estimate(extrapolate(test, steps, best))


RESTRICTED = Preset("restricted", QUICK.contestants, anchors=("base", "raw"), context=False, folds=3)
"""Ridge or boosted trees without sight of any benchmark score taken during the probe."""


def regress(
    train: FeatureTable, test: FeatureTable, names: Sequence[str], preset: Preset, seed: int
) -> Estimate:
    """The predictor family on some features only; not run when there are none or too few rows."""
    if not names:
        return not_run(test, "the table holds none of the features it needs")
    if len(train) < MIN_TRAINING_ROWS:
        return not_run(test, f"{len(train)} training rows, it needs {MIN_TRAINING_ROWS}")
    predictor = Predictor.fit(train.with_features(names), preset=preset, seed=seed)
    found = predictor.predict_table(test.with_features(names))
    return Estimate(found.score_pp, found.low_pp, found.high_pp)


def with_extras(table: FeatureTable, names: Sequence[str], columns: dict[str, Floats]) -> FeatureTable:
    """The table of features ``names`` with further columns appended as features."""
    part = table.with_features(names)
    if not columns:
        return part
    return replace(
        part,
        names=(*part.names, *columns),
        values=np.column_stack([part.values, *columns.values()]),
        groups=(*part.groups, *("other" for _ in columns)),
    )


def _extra_columns(table: FeatureTable, prefix: str) -> dict[str, Floats]:
    return {name: table.extras[name] for name in sorted(table.extras) if name.startswith(prefix)}


def _present(table: FeatureTable, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in table.names)


def domain_proxy(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Domain-Proxy: a regression on the data's similarity to the benchmark and to its domains."""
    names = _present(train, SIMILARITY)
    columns = [_extra_columns(table, SIMILARITY_PREFIX) for table in (train, test)]
    if not names and not columns[0]:
        return not_run(test, "no similarity between data and benchmark is stored")
    tables = [with_extras(table, names, extra) for table, extra in zip((train, test), columns, strict=True)]
    return regress(tables[0], tables[1], tables[0].names, RESTRICTED, seed)


def early_dynamics(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Early-Dynamics: a regression on statistics of the probe's loss curve."""
    return regress(train, test, _present(train, LOSS_CURVE), RESTRICTED, seed)


def proxy_lm(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """ProxyLM: the task really fine-tuned on a smaller model; its score and data features in a regressor.

    Source: arXiv 2406.09334. Rows whose proxy was not trained are not predicted.
    """

    def model(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
        names = train.of_group("static", "recipe")
        train, test = (with_extras(table, names, {PROXY: table.extra(PROXY)}) for table in (train, test))
        return regress(train, test, train.names, RESTRICTED, seed)

    return _where_proxied(model, train, test, seed)


def ours_with_proxy(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Our predictor, told beside the probe what the proxy's full run of the task scored on each benchmark.

    Not a baseline: what a full run of a smaller model adds to the probe of the right one.
    """

    def model(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
        columns = (PROXY, *(proxy_column(name) for name in train.further_benchmarks))
        known = [name for name in columns if np.isfinite(train.extra(name)).any()]
        train, test = (
            with_extras(t, t.names, {name: t.extra(name) for name in known}) for t in (train, test)
        )
        return regress(train, test, train.names, DEFAULT, seed)

    return replace(_where_proxied(model, train, test, seed), trail=())


def _where_proxied(model: Run, train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """What ``model`` learns from, and says of, the tasks whose proxy was fine-tuned."""
    known, reachable = (np.isfinite(table.extra(PROXY)) for table in (train, test))
    if known.sum() < MIN_TRAINING_ROWS or not reachable.any():
        return not_run(test, f"the proxy model was fine-tuned on {int(known.sum())} training tasks")
    found = model(train.select(np.flatnonzero(known)), test, seed)
    # No number: the reason is told once for all folds, and this is one of them.
    left_out = "" if reachable.all() else "tasks without a proxy run are left out"
    return replace(
        found, score_pp=np.where(reachable, found.score_pp, np.nan), reason=left_out or found.reason
    )


def cosmos_like(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """COSMOS-like: a ridge regression on the data set's embedding and a light proxy, the probe's loss curve.

    Source of the idea: arXiv 2505.01449.
    """
    if not _extra_columns(train, EMBEDDING_PREFIX):
        return not_run(test, "no embedding of the data sets is stored")
    names = (*_present(train, LOSS_CURVE), *train.of_group("recipe"))
    tables = [with_extras(table, names, _extra_columns(table, EMBEDDING_PREFIX)) for table in (train, test)]
    preset = Preset("cosmos", (Contestant(Ridge()),), anchors=("base", "raw"), context=False)
    return regress(tables[0], tables[1], tables[0].names, preset, seed)


def cartography(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Data Cartography: a regression on the shares of easy, ambiguous and hard training rows.

    Source: arXiv 2009.10795, confidence and variability taken over the probe instead of epochs.
    """
    return regress(train, test, _present(train, CARTOGRAPHY), RESTRICTED, seed)


def scaling_law(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """A rectified power law in data size, fitted on other sizes of the same source.

    ``score = a - b / (d0 + rows ** beta)`` with b >= 0; d0 and beta are shared, a and b are the
    source's own when it has three sizes or more in training, else those of all rows.
    Source: arXiv 2402.02314.
    """
    sizes, wanted = train.extra(DATA_ROWS), test.extra(DATA_ROWS)
    known = np.isfinite(sizes)
    if known.sum() < 3 or not np.isfinite(wanted).any():
        return not_run(test, "no data sizes are stored")
    best, best_error = (1.0, 0.5), np.inf
    for offset in (0.0, 1.0, 10.0, 100.0):
        for power in (0.2, 0.35, 0.5, 0.75, 1.0):
            law = SizeLaw(train.select(np.flatnonzero(known)), offset, power)
            error = float(np.mean((law.predict(law.train) - law.train.score_pp) ** 2))
            if error < best_error:
                best, best_error = (offset, power), error
    law = SizeLaw(train.select(np.flatnonzero(known)), *best)
    pooled = any(source not in law.own for source in test.sources)
    return Estimate(
        law.predict(test), reason="sources of fewer than three sizes follow the law of all" if pooled else ""
    )


def ridge(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Ridge regression of the raw score on all features, the penalty chosen over training data sets."""
    preset = Preset("ridge", (Contestant(Ridge()),), anchors=("raw",), context=False)
    return regress(train, test, train.names, preset, seed)


def svr(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """Support vector regression (RBF) of the raw score on all features, cost and width by training data sets.

    The notes call it the previous best regressor.
    """
    if len(set(train.data_ids)) < 3:
        return not_run(test, "fewer than three data sets to choose cost and width on")
    grid = [(cost, width) for width in SVR_WIDTHS for cost in SVR_COSTS]
    errors = np.zeros(len(grid))
    for fold in grouped_folds(train.data_ids, k=3, seed=seed):
        held = train.select(fold.test)
        found = _support_vectors(train.select(fold.train), held, grid)
        errors += [float(np.sum((score - held.score_pp) ** 2)) for score in found]
    (score,) = _support_vectors(train, test, [grid[int(np.argmin(errors))]])
    return Estimate(np.clip(score, 0.0, 100.0))


def _support_vectors(
    train: FeatureTable, test: FeatureTable, grid: Sequence[tuple[float, float]]
) -> list[Floats]:
    """Scores of the test rows ``(n,)`` by each pair of cost and width."""
    from sklearn.svm import SVR

    columns = learn_columns(train.values, "linear")
    known, wanted = columns.apply(train.values), columns.apply(test.values)
    weights = seed_weights(train.seeds)
    found = []
    for cost, width in grid:
        model = SVR(C=cost, epsilon=0.5, gamma=width / known.shape[1], cache_size=200)
        model.fit(known, train.score_pp, sample_weight=weights)
        found.append(np.asarray(model.predict(wanted), float))
    return found


def _preset_system(preset: str | Preset) -> Run:
    def run(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
        predictor = Predictor.fit(train, preset=preset, seed=seed)
        found = predictor.predict_table(test)
        return Estimate(found.score_pp, found.low_pp, found.high_pp, trail=predictor.origin.trail)

    return run


def _ablation(*groups: str, preset: Preset = RESTRICTED) -> Run:
    def run(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
        return regress(train, test, train.of_group(*groups, "other"), preset, seed)

    return run


def _paper_features(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The two cheap models on what the paper's predictor reads."""
    return regress(train, test, paper_features(train), RESTRICTED, seed)


def _selected(train: FeatureTable, test: FeatureTable, seed: int) -> Estimate:
    """The two cheap models on the features of most effect among those that the paper's three steps keep.

    The steps see the training rows alone, and no feature is protected from them.
    """
    if len(train) < MIN_SELECTION_ROWS:
        return not_run(test, f"{len(train)} training rows, a selection needs {MIN_SELECTION_ROWS}")
    problem, rows, _ = prepare(train, QUICK)
    training = problem.training_rows(usable_anchors(problem, QUICK)[0], np.arange(len(rows)))
    trail = select_features(training, seed=seed).trail
    kept = [entry.feature for entry in trail if entry.step == "kept" and entry.feature in train.names]
    return regress(train, test, kept[:SELECTED], QUICK, seed)


BASELINES: tuple[System, ...] = (
    System("mean", "Mean of the training scores", "rule", mean),
    System("base", "Base score", "rule", base),
    System("persistence", "Persistence (score at the probe)", "rule", persistence),
    System("persistence_gain", "Persistence + mean gain", "rule", persistence_and_mean_gain),
    System("early_stop", "Early-Stop Extrapolation", "rule", early_stop),
    System("scaling_law", "Scaling law in data size", "rule", scaling_law),
    System("domain_proxy", "Domain-Proxy", "regressor", domain_proxy),
    System("early_dynamics", "Early-Dynamics", "regressor", early_dynamics),
    System("cartography", "Data Cartography", "regressor", cartography),
    System("cosmos_like", "COSMOS-like", "regressor", cosmos_like),
    System("proxy_lm", "ProxyLM", "regressor", proxy_lm),
    System("ridge", "Ridge, all features", "regressor", ridge),
    System("svr", "SVR, all features", "regressor", svr),
    System("paper", "Paper preset (24 features + recipe)", "regressor", _preset_system("paper")),
)
OURS = System("ours", "TuneAhead (default)", "ours", _preset_system("default"))
WITH_PROXY = System("ours_with_proxy", "TuneAhead with a proxy's full run", "ours", ours_with_proxy)
ABLATIONS: tuple[System, ...] = (
    System(
        "full_quick", "All groups", "ablation", _ablation("static", "dynamic", "recipe", "cue", preset=QUICK)
    ),
    System("static_only", "Static + recipe", "ablation", _ablation("static", "recipe")),
    System("dynamic_only", "Dynamic + recipe", "ablation", _ablation("dynamic", "recipe")),
    System("paper_features", "Paper's 24 features + recipe", "ablation", _paper_features),
    System("without_cues", "Without benchmark cues", "ablation", _ablation("static", "dynamic", "recipe")),
    System(
        "without_static", "Without static", "ablation", _ablation("dynamic", "recipe", "cue", preset=QUICK)
    ),
    System(
        "without_dynamic", "Without dynamic", "ablation", _ablation("static", "recipe", "cue", preset=QUICK)
    ),
    System(
        "without_recipe",
        "Without the recipe",
        "ablation",
        _ablation("static", "dynamic", "cue", preset=QUICK),
    ),
    System("selected", "The 24 best by the selection", "ablation", _selected),
)
SYSTEMS: tuple[System, ...] = (*BASELINES, OURS, WITH_PROXY, *ABLATIONS)
"""All that a backtest compares under one protocol."""
