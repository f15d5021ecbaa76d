"""From examples, trace and recipe to a feature vector: the one place where groups are put together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneahead.features.catalogue import CATALOGUE_VERSION, names_of
from tuneahead.features.cues import measure_cues
from tuneahead.features.dynamics import measure_dynamics
from tuneahead.features.featurespec import Group, Value
from tuneahead.features.recipes import measure_recipe, unknown_settings
from tuneahead.features.sampling import StaticFeatures
from tuneahead.features.vector import FeatureVector
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.examples import Example
    from tuneahead.features.rows import Drawn
    from tuneahead.features.semantic import PairVectors
    from tuneahead.survey import Survey
    from tuneahead.training.encode import Encoded
    from tuneahead.training.models import Base

__all__ = [
    "CATALOGUE_VERSION",
    "cue_features",
    "derived_features",
    "dynamic_features",
    "StaticFeatures",
    "extract_features",
    "measure_static",
    "measure_examples",
    "recipe_features",
    "static_features",
]


def static_features(
    examples: Sequence[Example], *, base: Base | None = None, benchmarks: Sequence[Benchmark] = ()
) -> FeatureVector:
    """Features of the data alone. Without ``base`` or ``benchmarks`` what needs them is absent.

    Seconds for thousands of rows; the base reads a sample of rows, everything else is text.
    """
    return measure_examples(examples, base=base, benchmarks=benchmarks).features


def measure_examples(
    examples: Sequence[Example],
    *,
    base: Base | None = None,
    benchmarks: Sequence[Benchmark] = (),
    total: int | None = None,
    encoded: Mapping[int, Encoded] | None = None,
) -> StaticFeatures:
    """As :func:`static_features`, with the samples that some of the features come from.

    ``total`` is how many rows the data set has, where the examples are only some of them. ``encoded`` are the
    rows as a Trainer reads them, by their number: else the base reads them under the template ``auto``.
    """
    from tuneahead.features.rows import draw
    from tuneahead.survey import take_survey

    drawn = draw(examples, len(examples))
    drawn = replace(drawn, total=max(drawn.total, total or 0))
    return measure_static(drawn, take_survey(examples), base, benchmarks, encoded=encoded)


def measure_static(
    drawn: Drawn,
    survey: Survey,
    base: Base | None = None,
    benchmarks: Sequence[Benchmark] = (),
    pairs: PairVectors | None = None,
    encoded: Mapping[int, Encoded] | None = None,
) -> StaticFeatures:
    """Static features of the rows that were drawn from a data set, and of the survey of all of them.

    ``pairs`` are the vectors of ``drawn.vectors`` where they are known already, ``encoded`` as in
    :func:`measure_examples`.
    """
    from tuneahead.features.perplexity import measure_perplexity
    from tuneahead.features.semantic import measure_semantics
    from tuneahead.features.text import measure_text

    parts = (
        measure_text(drawn, survey),
        measure_semantics(drawn, benchmarks, pairs),
        measure_perplexity(drawn, base, encoded),
    )
    vector = _vector("static", {name: value for part in parts for name, value in part.values.items()})
    return StaticFeatures(vector, {name: one for part in parts for name, one in part.samples.items()})


def dynamic_features(trace: ProbeTrace) -> FeatureVector:
    """Features of the probe's training signals; works on a trace truncated anywhere."""
    return _vector("dynamic", measure_dynamics(trace))


def cue_features(trace: ProbeTrace) -> FeatureVector:
    """Features of the benchmark cues taken up to the probe's end."""
    return _vector("cue", measure_cues(trace))


def recipe_features(
    recipe: Recipe, total_steps: int, train_rows: int, *, parameters: int | None = None
) -> FeatureVector:
    """Features of the recipe for a full run of ``total_steps`` on ``train_rows`` rows.

    ``parameters`` is the number of trained weights, known once the base is loaded.
    """
    return _vector("recipe", measure_recipe(recipe, total_steps, train_rows, parameters))


def derived_features(trace: ProbeTrace) -> FeatureVector:
    """Dynamic, recipe and cue features: everything that a stored trace gives without its data."""
    info = trace.info
    recipe = recipe_features(info.recipe, info.total_steps, info.train_rows, parameters=info.parameters)
    derived = dynamic_features(trace).merged(recipe).merged(cue_features(trace))
    return derived.without(unknown_settings(trace))


def extract_features(
    examples: Sequence[Example],
    trace: ProbeTrace,
    *,
    base: Base | None = None,
    benchmarks: Sequence[Benchmark] = (),
) -> FeatureVector:
    """The whole vector of one task, in the catalogue's order."""
    return static_features(examples, base=base, benchmarks=benchmarks).merged(derived_features(trace))


def _vector(group: Group, measured: Mapping[str, Value]) -> FeatureVector:
    """Order by the catalogue; a reason, or a value that is not finite, becomes NaN with a reason."""
    names = names_of(group)
    assert set(names) == set(measured), set(names) ^ set(measured)
    values: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in names:
        value = measured[name]
        if isinstance(value, str):
            absent[name] = value
        elif not math.isfinite(value):
            absent[name] = f"its formula gave {value}"
        values[name] = math.nan if name in absent else float(value)
    return FeatureVector(values, absent)
