"""Tasks before their probe: static features, tokens and findings, measured once for recipes alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneahead.assessment import NAN, Checkup, Costs, DataSummary, TaskInfo, static_from_json, static_to_json
from tuneahead.conclusion import Task, task_info
from tuneahead.errors import ModelError, TuneAheadError
from tuneahead.recipe import Recipe
from tuneahead.verdict import Finding
from tuneahead.watch import SILENT, Watch
from tuneahead.workbench import Workbench

if TYPE_CHECKING:
    from tuneahead.checks.encoding import TokenMeasures
    from tuneahead.dataset import Dataset
    from tuneahead.examples import Example
    from tuneahead.features.sampling import StaticFeatures
    from tuneahead.survey import Survey
    from tuneahead.training.encode import Encoded, RunData

_ROWS_AT_ONCE = 1_000
"""Rows between two steps of a progress display."""


@dataclass(frozen=True)
class _Measured:
    """Static features of a data set, the same for every recipe, and what they cost."""

    static: StaticFeatures
    seconds: float


@dataclass(frozen=True)
class _Read:
    """The rows as recipes of one template and length read them. ``refused`` says why they can't."""

    survey: Survey
    measures: TokenMeasures | None
    data: RunData
    tokens: float
    answer_tokens: float
    refused: tuple[Finding, ...]
    seconds: float


def check_tasks(
    dataset: Dataset, recipes: Sequence[Recipe], bench: Workbench, watch: Watch = SILENT
) -> list[Task]:
    """A task for each recipe, checked as far as it can be without training, in the order of the recipes."""
    alike: dict[tuple[str, int], list[int]] = {}
    for place, recipe in enumerate(recipes):
        alike.setdefault((recipe.template, recipe.max_length), []).append(place)
    tasks: dict[int, Task] = {}
    measured: _Measured | None = None
    for places in alike.values():
        read = _read(dataset, recipes[places[0]], bench, watch)
        if measured is None:
            watch.stage("Static features")
            measured = _measure(dataset, bench, read.survey)
        for place in places:
            tasks[place] = _task(dataset, recipes[place].full(), bench, read, measured)
    return [tasks[place] for place in range(len(recipes))]


def _read(dataset: Dataset, recipe: Recipe, bench: Workbench, watch: Watch) -> _Read:
    from tuneahead.checks.check import found
    from tuneahead.checks.encoding import measure_tokens
    from tuneahead.preflight import window_of
    from tuneahead.survey import take_survey
    from tuneahead.training.encode import data_fingerprint, split_data

    began = time.perf_counter()
    refused: tuple[Finding, ...] = ()
    try:
        encoded = _encoded(dataset, recipe, bench, watch)
    except ModelError as error:
        encoded, refused = [], (found("chat-template", "stop", error.message, error.remedy),)
    tokenizer = None if refused else bench.base.tokenizer
    window = None if tokenizer is None else window_of(tokenizer, recipe)
    watch.stage("Preflight, rows", dataset.rows)
    rows = _counted(dataset.examples, watch)
    survey = take_survey(rows, window=window, benchmarks=(bench.benchmark,))
    return _Read(
        survey,
        None if tokenizer is None else measure_tokens(survey, tokenizer, recipe),
        split_data(encoded, data_fingerprint(dataset.examples)),
        tokens=NAN if refused else float(sum(len(row.ids) for row in encoded)),
        answer_tokens=NAN if refused else float(sum(row.answer_tokens for row in encoded)),
        refused=refused,
        seconds=time.perf_counter() - began,
    )


def _encoded(dataset: Dataset, recipe: Recipe, bench: Workbench, watch: Watch) -> list[Encoded]:
    from tuneahead.training.probe import encode_rows

    watch.stage("Rows into tokens", dataset.rows)
    encoded: list[Encoded] = []
    for at in range(0, dataset.rows, _ROWS_AT_ONCE):
        rows = dataset.examples[at : at + _ROWS_AT_ONCE]
        encoded += encode_rows(bench.base, rows, recipe)
        watch.advance(len(rows))
    return encoded


def _counted(examples: Iterable[Example], watch: Watch) -> Iterator[Example]:
    for number, example in enumerate(examples, 1):
        yield example
        if number % _ROWS_AT_ONCE == 0:
            watch.advance(_ROWS_AT_ONCE)


def _measure(dataset: Dataset, bench: Workbench, survey: Survey) -> _Measured:
    from tuneahead.dataset import fingerprint
    from tuneahead.features.extract import measure_static
    from tuneahead.features.rows import draw
    from tuneahead.kept import KeptTexts, content_key

    began = time.perf_counter()
    # The items of a harness task are not all known here.
    key = (
        content_key(fingerprint(dataset.examples), bench.base.stamp, bench.benchmark.fingerprint)
        if bench.benchmark.harness is None
        else ""
    )
    kept = KeptTexts("static")
    text = kept.load(key)
    if text is not None:
        with suppress(TuneAheadError):
            return _Measured(static_from_json(text), time.perf_counter() - began)
    drawn = draw(dataset.examples, dataset.rows)
    static = measure_static(drawn, survey, bench.base, (bench.benchmark,))
    kept.store(key, static_to_json(static))
    return _Measured(static, time.perf_counter() - began)


def _task(dataset: Dataset, recipe: Recipe, bench: Workbench, read: _Read, measured: _Measured) -> Task:
    train, heldout = len(read.data.train), len(read.data.heldout)
    total = recipe.total_steps(train) if train else 0
    info = task_info(
        bench.base,
        bench.benchmark,
        probe_steps=min(bench.setup.probe_steps, total),
        total_steps=total,
        train_rows=train,
        heldout_rows=heldout,
    )
    began = time.perf_counter()
    features = measured.static.features
    findings = _findings(dataset, recipe, bench, read, info, features.values)
    seconds = measured.seconds + read.seconds + time.perf_counter() - began
    costs = Costs(check_seconds=seconds, price_per_hour=bench.setup.price_per_hour)
    summary = _summary(dataset, read, measured.static)
    checkup = Checkup(summary, recipe, findings, features, costs)
    return Task(dataset, read.data, checkup, info)


def _findings(
    dataset: Dataset,
    recipe: Recipe,
    bench: Workbench,
    read: _Read,
    info: TaskInfo,
    static: Mapping[str, float],
) -> tuple[Finding, ...]:
    from tuneahead.checks.check import Context, RunLength
    from tuneahead.preflight import run_checks
    from tuneahead.training.lora import layer_names

    length = RunLength(info.train_rows, info.total_steps, heldout_rows=info.heldout_rows)
    layers = layer_names(bench.base)
    context = Context(read.survey, recipe, read.measures, length, layers, dataset.use, static)
    return (*read.refused, *run_checks(context))


def _summary(dataset: Dataset, read: _Read, static: StaticFeatures) -> DataSummary:
    return DataSummary(
        path=str(dataset.path),
        format=dataset.format,
        rows=dataset.rows,
        fingerprint=dataset.fingerprint,
        tokens=read.tokens,
        answer_tokens=read.answer_tokens,
        samples=static.samples,
        columns=dict(dataset.use.parts),
        unused_columns=dataset.use.unused,
    )
