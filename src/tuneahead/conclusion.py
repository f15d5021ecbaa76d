"""From what was measured to an assessment: forecast, reasons, fixes and verdict of one task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from tuneahead import __version__
from tuneahead.assessment import NAN, Assessment, Checkup, FeatureRange, TaskInfo
from tuneahead.counts import counted
from tuneahead.features.recipes import OTHER_OPTIMISER
from tuneahead.features.vector import FeatureVector
from tuneahead.report.datamap import data_map
from tuneahead.verdict import (
    UNKNOWN_GOAL,
    Attribution,
    Decision,
    Finding,
    Fix,
    Forecast,
    Goal,
    Verdict,
    apart,
    decide,
    first_stop,
    foregone,
    reaches,
    uncertain_goal,
)
from tuneahead.workbench import Workbench

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.dataset import Dataset
    from tuneahead.trace import Cue
    from tuneahead.training.encode import RunData
    from tuneahead.training.loop import RunResult
    from tuneahead.training.models import Base


@dataclass(frozen=True)
class Task:
    """One data set and recipe with what is known before the probe."""

    dataset: Dataset
    data: RunData
    checkup: Checkup
    info: TaskInfo
    rows: Sequence[int] | None = None
    """File row of each training row; None where ``data`` holds them all."""


def task_info(
    base: Base,
    benchmark: Benchmark,
    *,
    probe_steps: int,
    total_steps: int,
    train_rows: int,
    heldout_rows: int,
) -> TaskInfo:
    """What a data set is judged on; lengths in optimiser steps."""
    return TaskInfo(
        base=base.name,
        base_fingerprint=base.fingerprint,
        benchmark=benchmark.name,
        benchmark_items=len(benchmark.items),
        chance_pp=benchmark.chance_pp,
        probe_steps=probe_steps,
        total_steps=total_steps,
        train_rows=train_rows,
        heldout_rows=heldout_rows,
        device=base.device,
        benchmark_fingerprint=benchmark.identity,
    )


def stopped(task: Task, goal: Goal) -> Assessment:
    """The assessment of a task that preflight stops: NO_GO, with no probe made."""
    stop = first_stop(task.checkup.findings)
    assert stop is not None
    threshold = NAN if goal.minimum_pp is None else goal.minimum_pp
    return replace(
        _draft(task, goal),
        verdict=Verdict("NO_GO", stop.message, threshold),
        forecast_absent="preflight stopped the task before the probe",
        fixes=_fixes((), task.checkup.findings),
    )


def _draft(task: Task, goal: Goal) -> Assessment:
    return Assessment(
        task=task.info,
        data=task.checkup.data,
        recipe=task.checkup.recipe,
        goal=goal,
        findings=task.checkup.findings,
        features=task.checkup.features,
        verdict=Verdict("UNSURE", "not judged yet", NAN),
        costs=task.checkup.costs,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def conclude(
    task: Task,
    result: RunResult,
    bench: Workbench,
    goal: Goal,
    seconds: float,
    base_of_all_pp: float = NAN,
) -> Assessment:
    """The assessment of a probed task; ``seconds`` is the wall-clock time of its probe.

    ``base_of_all_pp`` is the base's score on every item of the benchmark, where the probe asked some only.
    """
    from tuneahead.features.extract import derived_features
    from tuneahead.preflight import gravest_first, probe_findings

    trace = result.trace
    metric = bench.benchmark.metric
    base_pp = cue_score_pp(trace.cue_at(0), metric)
    probe_pp = cue_score_pp(trace.cue_at(task.info.probe_steps), metric)
    features = task.checkup.features.merged(derived_features(trace))
    findings = gravest_first((*probe_findings(trace), *task.checkup.findings))
    draft = replace(
        _draft(task, goal),
        features=features,
        findings=findings,
        base_pp=base_pp,
        probe_pp=probe_pp,
        base_of_all_pp=base_of_all_pp,
        trace=trace,
        hard_rows=_hard_rows(task, result),
        costs=replace(
            task.checkup.costs,
            probe_seconds=seconds,
            full_run_seconds=_full_run_seconds(result, task.info.total_steps),
            full_run_is_least=result.width > 1 and _on_processor(result),
        ),
    )
    if draft.complete and not trace.info.failure and math.isfinite(probe_pp):
        return measured(draft)
    absent = _no_forecast(draft, bench)
    if bench.predictor is None or absent:
        return _unforeseen(draft, absent)
    forecast, baseline, attributions = _forecast(bench, features, draft)
    draft = replace(draft, ranges=_ranges(bench, features, forecast.outside))
    return replace(
        draft,
        forecast=forecast,
        baseline_pp=baseline,
        attributions=attributions,
        verdict=_decide(draft, forecast),
        fixes=_fixes(attributions, findings, bench.predictor.domain.typical),
    )


def _decide(draft: Assessment, forecast: Forecast) -> Verdict:
    """The verdict, with the goal counted from the base's score on every item as far as it is known.

    Features outside the predictor's runs are told with their values and with those runs' range.
    """
    from tuneahead.report.words import beside_range

    values, ranges = draft.features.values, draft.ranges
    outside = tuple(beside_range(name, values.get(name, NAN), ranges.get(name)) for name in forecast.outside)
    told = replace(forecast, base_pp=draft.counts_from_pp, outside=outside)
    return decide(told, draft.goal, draft.findings, base_error_pp=_goal_error_pp(draft))


def _goal_error_pp(draft: Assessment) -> float:
    """Standard error of what the goal counts from; 0 where that is no score of some items."""
    known = draft.goal.minimum_pp is not None or math.isfinite(draft.base_of_all_pp)
    return 0.0 if known else draft.error_pp(draft.base_pp)


def cue_score_pp(cue: Cue | None, metric: str) -> float:
    """The benchmark's own metric on a cue's items, in points; NaN without a cue."""
    return NAN if cue is None else cue.score_pp(metric)


def _no_forecast(draft: Assessment, bench: Workbench) -> str:
    if draft.trace is not None and draft.trace.info.failure:
        return draft.trace.info.failure
    if bench.predictor is None:
        return bench.predictor_absent
    cues = [] if draft.trace is None else draft.trace.cues
    for cue in cues:
        if cue.step in (0, draft.task.probe_steps) and math.isnan(cue.score_pp(bench.benchmark.metric)):
            return f"the benchmark's score at step {cue.step} is not a finite number"
    steps, total = draft.task.probe_steps, draft.task.total_steps
    if steps < min(bench.setup.probe_steps, total):
        # In a Trainer others may end a run: early stopping, a limit of time.
        return f"the run was ended at step {steps:,} of {total:,}, before the probe's end"
    known = bench.predictor.origin.probe_steps
    if steps != known:
        return f"the probe has {steps} steps, the predictor knows probes of {known}"
    absent = {} if draft.trace is None else dict(draft.trace.absent)
    return absent.get(OTHER_OPTIMISER, "")


def measured(draft: Assessment) -> Assessment:
    """The probe was the whole run: its own score is set against the goal, and nothing is foretold."""
    threshold, error_pp = draft.goal.threshold_pp(draft.counts_from_pp), _goal_error_pp(draft)
    score_pp = draft.probe_pp if math.isnan(draft.final_pp) else draft.final_pp
    absent = f"the probe was the whole run of {counted(draft.task.total_steps, 'step')}"
    wanted, reached = apart(threshold, score_pp)
    scores = f"{absent}, which scores {reached}"
    if math.isnan(draft.final_pp):
        of = f"{draft.items_asked:,} of the benchmark's {draft.task.benchmark_items:,} items"
        reason = f"{scores} on {of}: 'assess --verify' asks them all"
        return _unforeseen(draft, absent, "UNSURE", reason)
    if math.isnan(threshold):
        return _unforeseen(draft, absent, "UNSURE", UNKNOWN_GOAL)
    if abs(score_pp - threshold) < error_pp:
        return _unforeseen(draft, absent, "UNSURE", f"{scores}, close to {uncertain_goal(wanted, error_pp)}")
    if reaches(score_pp, threshold):
        return _unforeseen(draft, absent, "GO", f"{scores} and reaches the goal of {wanted}")
    return _unforeseen(draft, absent, "NO_GO", f"{scores} and stays below the goal of {wanted}")


def _unforeseen(
    draft: Assessment, absent: str, decision: Decision = "UNSURE", reason: str = ""
) -> Assessment:
    """Without a forecast: findings, persistence figure, and ``decision`` unless it is foregone."""
    verdict = foregone(draft.goal, draft.counts_from_pp, draft.findings, _goal_error_pp(draft))
    if verdict is None:
        verdict = Verdict(decision, reason or absent, draft.goal.threshold_pp(draft.counts_from_pp))
    return replace(draft, forecast_absent=absent, verdict=verdict, fixes=_fixes((), draft.findings))


def _forecast(
    bench: Workbench, features: FeatureVector, draft: Assessment
) -> tuple[Forecast, float, tuple[Attribution, ...]]:
    assert bench.predictor is not None
    chance, place = draft.task.chance_pp, (draft.task.base, draft.task.benchmark)
    forecast = bench.predictor.predict(features, draft.base_pp, draft.probe_pp, chance_pp=chance, place=place)
    baseline, attributions = bench.predictor.explain(
        features, draft.base_pp, draft.probe_pp, chance_pp=chance
    )
    learnt = bench.predictor.has_learnt(draft.task.base, draft.data.fingerprint)
    forecast = replace(forecast, data_learnt=learnt)
    return _as_wide_as_an_item(forecast, draft.task.benchmark_items), baseline, attributions


def _as_wide_as_an_item(forecast: Forecast, items: int) -> Forecast:
    """The interval, no narrower than one item's share: past runs may all have ended on the same score."""
    half = 50.0 / max(1, items)
    low, high = max(0.0, forecast.score_pp - half), min(100.0, forecast.score_pp + half)
    return replace(forecast, low_pp=min(forecast.low_pp, low), high_pp=max(forecast.high_pp, high))


def _fixes(
    attributions: tuple[Attribution, ...],
    findings: tuple[Finding, ...],
    typical: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Fix, ...]:
    from tuneahead.predictor.advice import advise

    # A note asks for nothing, so it is no advice.
    return tuple(advise(attributions, tuple(f for f in findings if f.severity != "note"), typical))


def _ranges(
    bench: Workbench, features: FeatureVector, far_outside: Sequence[str]
) -> Mapping[str, FeatureRange]:
    """Where the predictor's training tasks lie: ``far_outside`` of any kind, then static features.

    Of those, the ones outside their range come first, and then the paper's.
    """
    from tuneahead.features.catalogue import names_of

    assert bench.predictor is not None
    domain = bench.predictor.domain
    low_high = zip(domain.low.tolist(), domain.high.tolist(), strict=True)
    spans = dict(zip(domain.names, (FeatureRange(low, high) for low, high in low_high), strict=True))
    paper, static = names_of("static", paper=True), names_of("static")
    outside = [name for name in static if name in spans and not spans[name].holds(features[name])]
    shown = dict.fromkeys([*far_outside, *outside, *paper, *static])
    return {name: spans[name] for name in shown if name in spans}


def _hard_rows(task: Task, result: RunResult) -> tuple[int, ...]:
    found = data_map(result.trace)
    if found is None:
        return ()
    return tuple(task.data.train[i].row if task.rows is None else task.rows[i] for i in found.hardest())


def _full_run_seconds(result: RunResult, total_steps: int) -> float:
    """Foreseen length of the full run: the mean of the probe's steps after the first few, times all steps.

    Of a pass that several runs shared a processor needs each run's share alone, and somewhat more; any
    other device takes hardly less time for one run than for all.
    """
    steps = result.trace.steps.seconds
    shared = 1.0 if _on_processor(result) else result.width
    return float(steps[min(5, len(steps) - 1) :].mean()) * shared * total_steps if len(steps) else NAN


def _on_processor(result: RunResult) -> bool:
    return result.trace.info.device == "cpu"
