"""A complete assessment put together by hand from the real types, for tests of what is shown and saved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tuneahead.assessment import Assessment, Checkup, Costs, DataSummary, FeatureRange, TaskInfo
from tuneahead.features.sampling import Sample
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.table import FeatureTable
from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Flatness, ProbeTrace, RowVisits, StepColumns, TraceInfo
from tuneahead.verdict import Attribution, Finding, Fix, Forecast, Goal, decide

RECIPE = Recipe(learning_rate=1e-3, max_steps=840, batch_size=8)


def made_trace(steps: int = 100, rows: int = 320, seed: int = 0) -> ProbeTrace:
    """A falling loss, a noisy gradient norm and three kinds of rows."""
    draw = np.random.default_rng(seed)
    count = np.arange(steps)
    tokens = np.full(steps, 40.0)
    loss = 1.1 + 2.2 * np.exp(-count / 25) + draw.normal(0, 0.12, steps)
    absent = np.full(steps, np.nan)
    columns = {
        "loss_sum_nats": loss * tokens,
        "answer_tokens": tokens,
        "learning_rate": 1e-3 * (1 - count / 840),
        "grad_norm": 0.6 + 1.8 * np.exp(-count / 12) + draw.gamma(2.0, 0.08, steps),
        "dot_previous": absent,
        "dot_mean": absent,
        "mean_norm": absent,
        "small_gradients": absent,
        "update_norm": absent,
        "distance": np.sqrt(count) * 0.1,
        "seconds": np.full(steps, 0.04),
        "peak_memory_mb": absent,
    }
    steps_part = StepColumns(
        **{name: np.asarray(value, np.float32) for name, value in columns.items()},
        layer_grad_norm=np.ones((steps, 4), np.float32),
    )
    info = TraceInfo(
        base="lab-qwen2",
        base_fingerprint="0f3a9b17c2de4410",
        data_fingerprint="9e107d9d372bb682",
        recipe=RECIPE,
        total_steps=840,
        train_rows=rows,
        heldout_rows=32,
        parameters=91_000,
        layers=("layer.0", "layer.1", "layer.2", "layer.3"),
        benchmark="lab-exam",
        chance_pp=25.0,
        versions=(("torch", "2.13.0"), ("tuneahead", "0.1.0")),
    )
    cues = tuple(
        Cue(
            step=step,
            heldout_loss_nats=held,
            reference_loss_nats=reference,
            right_probability=np.linspace(0, 1, 100, dtype=np.float32),
            margin_nats=np.where(np.arange(100) < right, 1.0, -1.0).astype(np.float32),
            seconds=0.5,
        )
        for step, held, reference, right in (
            (0, 3.35, 1.92, 31),
            (25, 2.10, 1.95, 36),
            (50, 1.62, 2.01, 42),
            (100, 1.31, 2.08, 47),
        )
        if step <= steps
    )
    flatness = Flatness(steps, 1.3, np.array([0.1], np.float32), np.full((1, 4), 1.5, np.float32))
    return ProbeTrace(info, steps_part, _visits(steps, rows, draw), cues, flatness)


def _visits(steps: int, rows: int, draw: np.random.Generator) -> RowVisits:
    step = np.repeat(np.arange(steps), 8)
    row = np.concatenate([draw.permutation(rows) for _ in range(4)])[: len(step)]
    kind = draw.choice(3, rows, p=[0.5, 0.35, 0.15])
    speed = np.array([0.9, 0.45, 0.02])[kind[row]]
    start = np.array([1.0, 1.6, 2.9])[kind[row]]
    nll = start * np.exp(-speed * step / 30) + draw.gamma(1.5, 0.12, len(step))
    return RowVisits(
        step.astype(np.int32),
        row.astype(np.int32),
        (5 * nll).astype(np.float32),
        np.full(len(step), 5, np.int32),
    )


FINDINGS = (
    Finding(
        "near-duplicates",
        "warn",
        "38 rows are nearly the same as an earlier row",
        "drop the copies, or keep them on purpose and train fewer epochs",
        count=38,
        rows=(12, 19, 20, 41, 77, 78, 80, 81, 99, 120),
    ),
    Finding(
        "conflicting-answers",
        "note",
        "the same prompt has different answers",
        "keep the right one",
        2,
        (5, 9),
    ),
)

FEATURES = FeatureVector(
    {
        "rows": 352.0,
        "answer_tokens_mean": 5.0,
        "special_character_ratio": 0.021,
        "near_duplicate_ratio": 0.108,
        "reference_perplexity": 31.5,
        "loss_slope": -0.021,
        "margin_mean_nats": float("nan"),
    },
    {"margin_mean_nats": "no benchmark cue was taken"},
)


def made_assessment(score_pp: float = 58.3, *, minimum_pp: float = 52.0) -> Assessment:
    """A forecast of ``score_pp`` with an interval of 3.1 points to either side."""
    goal = Goal(minimum_pp=minimum_pp)
    forecast = Forecast(score_pp, score_pp - 3.1, score_pp + 3.1, 0.9, base_pp=31.4, probe_pp=47.0)
    attributions = (
        Attribution("cue_gain_pp", 15.6, 0.0, "The benchmark score already rose during the probe."),
        Attribution("near_duplicate_ratio", 0.108, -2.4, "Many rows repeat each other."),
        Attribution("learning_rate", 1e-3, 1.9, "The learning rate suits this adapter."),
        Attribution("rows", 352.0, -1.2, "There is little data."),
        Attribution("loss_slope", -0.021, 1.1, "The loss fell quickly."),
        Attribution("gradient_consistency", 0.31, 0.6, "Successive gradients agree."),
        Attribution("reference_perplexity", 31.5, -0.5, "The answers surprise the base model."),
        Attribution("flatness", 0.2, 0.3, ""),
        Attribution("epochs", 21.0, -0.2, ""),
        Attribution("answer_tokens_mean", 5.0, 0.1, ""),
        Attribution("special_character_ratio", 0.021, -0.05, ""),
    )
    baseline = 43.7
    rest = score_pp - baseline - sum(a.contribution_pp for a in attributions)
    attributions = (replace(attributions[0], contribution_pp=rest), *attributions[1:])
    return Assessment(
        task=TaskInfo("lab-qwen2", "0f3a9b17c2de4410", "lab-exam", 816, 25.0, 100, 840, 320, 32),
        data=DataSummary("data/support <tickets>.jsonl", "JSONL", 352, "9e107d9d372bb682", 8_412.0, 1_760.0),
        recipe=RECIPE,
        goal=goal,
        findings=FINDINGS,
        features=FEATURES,
        verdict=decide(forecast, goal, FINDINGS),
        base_pp=31.4,
        probe_pp=47.0,
        forecast=forecast,
        baseline_pp=baseline,
        attributions=attributions,
        fixes=(
            Fix(
                "Remove near-duplicates",
                "38 rows repeat others and the model over-fits to them.",
                "near_duplicate_ratio",
                -2.4,
            ),
            Fix("Add data", "352 rows are few for 840 steps: every row is seen 21 times.", "rows", -1.2),
        ),
        ranges={
            "rows": FeatureRange(200.0, 4000.0),
            "answer_tokens_mean": FeatureRange(2.0, 9.0),
            "special_character_ratio": FeatureRange(0.01, 0.09),
            "near_duplicate_ratio": FeatureRange(0.0, 0.06),
            "reference_perplexity": FeatureRange(8.0, 60.0),
        },
        hard_rows=(17, 203, 88, 4),
        costs=Costs(0.8, 4.2, 35.0),
        trace=made_trace(),
        created="2026-01-01 12:00 UTC",
        version="0.1.0",
    )


def made_checkup() -> Checkup:
    """A checkup of a large file: counted, estimated with an error, and a property of the sample."""
    values = {
        "examples": 2_000_000.0,
        "length_mean_words": 47.0625,
        "answer_words_log10": 7.5,
        "compression_ratio": 0.41,
        "exact_duplicate_fraction": 0.125,
        "parse_depth_mean": math.nan,
        "reference_loss_nats": 2.5,
    }
    samples = {
        "tokens": Sample(20_000, 2_000_000, 1.2e6),
        "length_mean_words": Sample(20_000, 2_000_000, 0.18),
        "answer_words_log10": Sample(20_000, 2_000_000, 0.01),
        "compression_ratio": Sample(20_000, 2_000_000),
        "reference_loss_nats": Sample(128, 2_000_000, 0.25),
    }
    return Checkup(
        data=DataSummary("big <rows>.jsonl", "alpaca", 2_000_000, "9e107d9d372bb682", 1.2e8, 6e7, samples),
        recipe=RECIPE,
        findings=FINDINGS,
        features=FeatureVector(values, {"parse_depth_mean": "no parser is installed"}),
        costs=Costs(check_seconds=185.0),
        base="lab-qwen2",
        benchmark="lab-exam",
        created="2026-01-01 12:00 UTC",
        version="0.1.0",
    )


def made_table(rows: int = 40) -> FeatureTable:
    """Tasks whose score is that of the probe plus four points for each tenfold of examples."""
    names = ("examples_log10", "near_duplicate_fraction", "learning_rate_log10", "loss_end_nats")
    draw = np.random.default_rng(0)
    values = np.array([2.5, 0.1, -2.5, 1.5]) + draw.normal(0, 0.3, (rows, len(names)))
    probe_pp = 50 + draw.normal(0, 3, rows)
    return FeatureTable(
        names=names,
        values=values,
        score_pp=probe_pp + 4 * values[:, 0],
        base_pp=np.full(rows, 45.0),
        probe_pp=probe_pp,
        chance_pp=np.full(rows, 25.0),
        task_ids=tuple(f"t{i}" for i in range(rows)),
        data_ids=tuple(f"d{i // 2}" for i in range(rows)),
        families=("clean",) * rows,
        seeds=np.ones(rows),
        seed_sd_pp=np.full(rows, np.nan),
        bases=("lab-qwen2",) * rows,
        benchmarks=("lab-exam",) * rows,
    )
