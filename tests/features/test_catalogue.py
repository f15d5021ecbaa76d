"""The catalogue is complete, consistent and documented."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest
from feature_fixtures import tiny_trace

from tuneahead.examples import Example
from tuneahead.features.catalogue import CATALOGUE, FeatureSpec, names_of, spec
from tuneahead.features.extract import (
    cue_features,
    derived_features,
    dynamic_features,
    extract_features,
    recipe_features,
    static_features,
)

ROOT = Path(__file__).resolve().parents[2]
ROWS = (Example("What is red?", "a colour", 1), Example("What is blue?", "a colour", 2))


def test_each_feature_comes_from_the_extractor_of_its_group_and_no_other() -> None:
    trace = tiny_trace()
    info = trace.info
    made = {
        "static": tuple(static_features(ROWS).values),
        "dynamic": tuple(dynamic_features(trace).values),
        "recipe": tuple(recipe_features(info.recipe, info.total_steps, info.train_rows).values),
        "cue": tuple(cue_features(trace).values),
    }
    for group, names in made.items():
        assert names == tuple(row.name for row in CATALOGUE if row.group == group)


def test_the_whole_vector_is_in_the_catalogues_order() -> None:
    whole = extract_features(ROWS, tiny_trace())
    assert tuple(whole.values) == names_of() == tuple(row.name for row in CATALOGUE)
    assert tuple(derived_features(tiny_trace()).values) == names_of("dynamic", "recipe", "cue")


def test_an_absent_value_is_nan_with_a_reason_and_no_other_is() -> None:
    whole = extract_features(ROWS, tiny_trace())
    assert {name for name, value in whole.values.items() if math.isnan(value)} == set(whole.absent)
    assert whole.absent["reference_loss_nats"] == "no base model was given"
    assert whole.absent["benchmark_similarity"] == "no benchmark was given"
    assert whole.absent["score_at_25_pp"] == "no benchmark cue was taken at step 25"


def test_the_set_of_the_paper_is_fourteen_and_ten_and_the_pool_is_wide() -> None:
    assert len(names_of("static", paper=True)) == 14
    assert len(names_of("dynamic", paper=True)) == 10
    assert len(names_of(paper=True)) == 24
    assert len(CATALOGUE) >= 60
    assert len({row.name for row in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_a_row_says_all_that_a_diagnosis_needs(row: FeatureSpec) -> None:
    assert row.low < row.high
    assert row.sentence.count("{value}") == 1
    assert row.formula and row.source
    # A direction without a remedy would tell a user what is wrong and leave it at that.
    assert row.remedy or row.direction == 0
    # Of a setting that is neither good nor bad both sides may be tried; what is measured has a wrong one.
    assert not row.remedy or row.direction or row.remedy_side or row.group == "recipe"
    assert spec(row.name) is row
    if row.unit == "fraction":
        assert row.low == 0 and row.high <= 1
    # A name carries its unit, so that nobody takes a fraction for points or bits for nats.
    for unit, suffix in (("pp", "_pp"), ("log10", "_log10"), ("log2", "_log2"), ("words", "_words")):
        assert (row.unit == unit) == row.name.endswith(suffix)
    if row.unit.startswith("nats") and "slope" not in row.name:
        assert "_nats" in row.name


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("learning_rate_log10", -3.0, "the learning rate is 0.001"),
        ("total_steps_log10", math.log10(1500), "the full run has 1,500 steps"),
        ("schedule_constant", 1.0, "the schedule is constant: yes"),
        ("clipping", 0.0, "gradients are clipped: no"),
        ("near_duplicate_fraction", 0.5, "50 % of the rows share most of their wording with an earlier row"),
        ("answer_opening_fraction", 1.0, "of the answers of two words or more 100 % begin with the same two"),
        (
            "rate_growth_ln",
            1.61,
            "the logarithm of the whole run's summed rate over the probe's is 1.61",
        ),
        ("probe_score_pp", 41.25, "the benchmark's cue items score 41.2 points at the probe's end"),
        ("examples", 2000.0, "the data set holds 2,000 rows"),
    ],
)
def test_a_sentence_states_the_value_as_a_reader_wants_it(name: str, value: float, text: str) -> None:
    assert spec(name).describe(value) == text


def test_the_page_of_features_is_that_of_the_catalogue() -> None:
    path = ROOT / "scripts" / "write_feature_page.py"
    loaded = importlib.util.spec_from_file_location("write_feature_page", path)
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    written = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    assert written == module.page(), "run scripts/write_feature_page.py"
    assert all(f"`{row.name}`" in written for row in CATALOGUE)


def test_extraction_from_a_trace_loads_no_heavy_library() -> None:
    heavy = "('torch', 'transformers', 'spacy', 'sklearn', 'wordllama', 'wordfreq')"
    code = f"import sys, tuneahead.features.extract; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    assert done.stdout.strip() == "[]"
