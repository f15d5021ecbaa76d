"""Checkup: what is wrong with a data set and what it is like, from one streamed pass and samples."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead import __version__
from tuneahead.assessment import Checkup, Costs, DataSummary
from tuneahead.errors import ModelError
from tuneahead.judge import open_bench
from tuneahead.recipe import Recipe
from tuneahead.report import words
from tuneahead.watch import SILENT, Watch
from tuneahead.workbench import Setup, Workbench, open_outline

if TYPE_CHECKING:
    from tuneahead.checks.encoding import TokenMeasures
    from tuneahead.columns import ColumnMapping
    from tuneahead.dataset import Dataset, ExampleFile
    from tuneahead.examples import Example
    from tuneahead.features.rows import Drawn
    from tuneahead.features.sampling import Sample
    from tuneahead.survey import Survey
    from tuneahead.training.models import Base

MEBIBYTE = 2**20
_BATCH_ROWS = 1_000


@dataclass(frozen=True)
class Examined:
    """A checkup with the survey of the rows that it was made from."""

    checkup: Checkup
    survey: Survey


def check(
    data: str | Path | Dataset,
    recipe: Recipe | None = None,
    *,
    mapping: ColumnMapping | None = None,
    bench: Setup | Workbench | None = None,
    workers: int = 1,
    watch: Watch = SILENT,
) -> Checkup:
    """Preflight findings and static features of a data set, without any training.

    ``data`` is a file, which is streamed, or a :class:`Dataset`. Cost is linear in the rows and
    memory bounded: counts are exact, means come from random samples whose size and error
    ``data.samples`` of the result states. More than one of ``workers`` reads large data with
    processes of their own (see :func:`~tuneahead.survey.take_survey`). Where ``bench`` names no base,
    the lab's tells its opinion of the rows, and what depends on a tokenizer or on layers is left out.
    Raises DataError, ModelError or BenchmarkError.

    >>> check("tickets.jsonl").findings  # doctest: +SKIP
    """
    return examine(data, recipe, mapping=mapping, bench=bench, workers=workers, watch=watch).checkup


def examine(
    data: str | Path | Dataset,
    recipe: Recipe | None = None,
    *,
    mapping: ColumnMapping | None = None,
    bench: Setup | Workbench | None = None,
    workers: int = 1,
    watch: Watch = SILENT,
) -> Examined:
    """As :func:`check`, with the survey that names every row."""
    from tuneahead.checks.check import Context
    from tuneahead.checks.encoding import measure_tokens
    from tuneahead.features.extract import measure_static
    from tuneahead.features.pairing import find_moved
    from tuneahead.features.perplexity import OF_THE_BASE
    from tuneahead.features.rows import draw
    from tuneahead.features.semantic import embed_pairs
    from tuneahead.preflight import run_checks, window_of
    from tuneahead.survey import take_survey

    chosen = recipe or Recipe()
    reading = _Reading(watch)
    source = _source(data, mapping, reading)
    opened, own = _open(bench, chosen, watch)
    # With PyTorch, which a file that is not there need not wait for.
    from tuneahead.training.lora import layer_names

    began = time.perf_counter()
    reading.begin("Reading rows, MB", source)
    window = None if own is None else window_of(own.tokenizer, chosen)
    survey = take_survey(source, window=window, benchmarks=(opened.benchmark,), workers=workers)
    watch.stage("Counting tokens")
    measures = None if own is None else measure_tokens(survey, own.tokenizer, chosen)
    reading.begin("Drawing samples, MB", source)
    drawn = draw(source, len(survey), (survey.prompt_characters + survey.answer_characters).tolist())
    watch.stage("Measuring features")
    asked = opened.base if opened.setup.weights else None
    pairs = embed_pairs(drawn.vectors)
    with opened.base.turn:
        static = measure_static(drawn, survey, asked, (opened.benchmark,), pairs)
        layers = () if own is None else layer_names(own)
    unasked = {} if asked else dict.fromkeys(OF_THE_BASE, words.NO_WEIGHTS)
    tokens: Mapping[str, _Tokens] = {}
    if measures is not None:
        tokens, measures = _count_tokens(drawn, measures, opened, chosen)
    features = static.features
    findings = run_checks(
        Context(
            survey,
            chosen,
            measures,
            layers=layers,
            columns=source.use,
            static=features.values,
            moved=find_moved(drawn.vectors, pairs, survey.row),
        )
    )
    counted = {name: one.sample for name, one in tokens.items() if one.sample is not None}
    summary = _summary(source, len(survey), tokens, {**counted, **static.samples})
    checkup = Checkup(
        summary,
        chosen,
        findings,
        features.without(unasked),
        Costs(check_seconds=time.perf_counter() - began),
        base=opened.base.name,
        base_named=own is not None,
        benchmark=opened.benchmark.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    return Examined(checkup, survey)


def _open(bench: Setup | Workbench | None, recipe: Recipe, watch: Watch) -> tuple[Workbench, Base | None]:
    """The loaded workbench, and its base where that is the one named: the lab's vocabulary, window and
    layers are nobody's but its own."""
    if isinstance(bench, Setup) and not bench.weights:
        opened = open_outline(bench)
    else:
        opened = open_bench(bench, [recipe], watch, forecasts=False)
    named = isinstance(bench, Workbench) or opened.setup.base is not None
    return opened, opened.base if named else None


class _Reading:
    """Turns bytes read into steps of a progress display."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._shown = 0

    def begin(self, text: str, source: Dataset | ExampleFile) -> None:
        size = getattr(source, "size_bytes", 0)
        self._shown = 0
        self._watch.stage(text, -(-size // MEBIBYTE))

    def __call__(self, read_bytes: int) -> None:
        steps = read_bytes // MEBIBYTE - self._shown
        if steps > 0:
            self._shown += steps
            self._watch.advance(steps)


def _source(
    data: str | Path | Dataset, mapping: ColumnMapping | None, reading: _Reading
) -> Dataset | ExampleFile:
    from tuneahead.dataset import Dataset, ExampleFile

    return data if isinstance(data, Dataset) else ExampleFile(data, mapping, reading)


@dataclass(frozen=True)
class _Tokens:
    """Tokens of all rows, counted or estimated from some of them."""

    total: float
    sample: Sample | None


def _count_tokens(
    drawn: Drawn, measures: TokenMeasures, bench: Workbench, recipe: Recipe
) -> tuple[Mapping[str, _Tokens], TokenMeasures]:
    """All tokens and those that are trained, of the whole data set, after cutting rows to the window.

    None under a template that can't be applied; the measures then say why, also where the rows
    counted are the first to show it.
    """
    import numpy as np

    from tuneahead.features.sampling import Sample, mean_error

    if measures.failure:
        return {}, measures
    rows, total = len(drawn.texts), drawn.total
    try:
        lengths = _lengths(drawn.texts, bench, recipe)
    except ModelError as error:
        return {}, replace(measures, failure=error.message, remedy=error.remedy)
    counted = {}
    for name, values in zip(
        ("tokens", "answer_tokens"), np.array(lengths, float).reshape(-1, 2).T, strict=True
    ):
        sample = None
        if rows < total:
            sample = Sample(rows, total, total * mean_error(float(values.std()), rows, total))
        counted[name] = _Tokens(float(values.mean()) * total if len(values) else 0.0, sample)
    return counted, measures


def _lengths(rows: Sequence[Example], bench: Workbench, recipe: Recipe) -> list[tuple[int, int]]:
    """Tokens of each row, and those of them that are trained."""
    from tuneahead.checks.encoding import trimmed
    from tuneahead.training.probe import encode_rows

    lengths: list[tuple[int, int]] = []
    for at in range(0, len(rows), _BATCH_ROWS):
        batch = [trimmed(row, recipe.max_length) for row in rows[at : at + _BATCH_ROWS]]
        encoded = encode_rows(bench.base, batch, recipe)
        lengths += [(len(row.ids), row.answer_tokens) for row in encoded]
    return lengths


def _summary(
    source: Dataset | ExampleFile, rows: int, tokens: Mapping[str, _Tokens], samples: Mapping[str, Sample]
) -> DataSummary:
    totals = {name: round(one.total) for name, one in tokens.items()}
    return DataSummary(
        path=str(source.path),
        format=source.format,
        rows=rows,
        fingerprint=source.fingerprint,
        tokens=float(totals.get("tokens", math.nan)),
        answer_tokens=float(totals.get("answer_tokens", math.nan)),
        samples=samples,
        columns=dict(source.use.parts),
        unused_columns=source.use.unused,
    )
