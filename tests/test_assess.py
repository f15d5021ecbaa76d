"""Assessments: saved and read back whole, and made by the real pipeline on the lab's base."""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_assessment import made_assessment, made_table

from tuneahead import conclusion
from tuneahead.assessment import Assessment, FeatureRange, Outcome, assessment_from_json
from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.checkup import check
from tuneahead.dataset import Dataset, read_examples
from tuneahead.errors import ModelError, PredictorError, RecipeError, StoreError, TuneAheadError
from tuneahead.features import extract
from tuneahead.features.catalogue import names_of
from tuneahead.features.extract import measure_static
from tuneahead.features.rows import Drawn
from tuneahead.features.sampling import StaticFeatures
from tuneahead.features.vector import FeatureVector
from tuneahead.history.store import RunStore
from tuneahead.history.tables import table_from_store
from tuneahead.judge import assess, rank, verify
from tuneahead.lab.bases import lab_base_path
from tuneahead.lab.datasets import generate, healthy_example, write_jsonl
from tuneahead.lab.exam import lab_exam
from tuneahead.predictor.predictor import Predictor
from tuneahead.recipe import Recipe
from tuneahead.record import record_run
from tuneahead.report import render_html
from tuneahead.report.words import asked_note, lead
from tuneahead.training.loop import RunResult
from tuneahead.training.models import load_base
from tuneahead.training.scoring import score_benchmark
from tuneahead.verdict import Attribution, Fix, Forecast, Goal
from tuneahead.workbench import Setup, Workbench, cue_items, open_workbench


def same_but_trace(a: Assessment, b: Assessment) -> bool:
    # As text: NaN is not equal to itself
    return replace(a, trace=None).to_json() == replace(b, trace=None).to_json()


def test_an_assessment_survives_json() -> None:
    found = made_assessment()
    back = assessment_from_json(found.to_json())
    assert same_but_trace(back, found)
    assert back.trace is not None and found.trace is not None
    assert back.trace.info == found.trace.info
    np.testing.assert_array_equal(back.trace.steps.loss_nats, found.trace.steps.loss_nats)


def test_an_assessment_without_forecast_and_probe_survives_json() -> None:
    found = replace(
        made_assessment(), forecast=None, trace=None, base_pp=math.nan, outcome=Outcome(50.0, 840, 3.0)
    )
    assert same_but_trace(assessment_from_json(found.to_json()), found)


def test_absent_figures_are_null_and_infinite_ones_text() -> None:
    found = replace(
        made_assessment(),
        attributions=(Attribution("x", math.nan, 1.0), Attribution("y", math.inf, 1.0)),
        fixes=(Fix("t", "r"),),
    )
    document = json.loads(found.to_json())["assessment"]
    assert document["features"]["values"]["margin_mean_nats"] is None
    assert [a["value"] for a in document["attributions"]] == [None, "inf"]
    assert document["fixes"][0]["contribution_pp"] is None
    back = assessment_from_json(found.to_json())
    assert math.isnan(back.attributions[0].value)
    assert back.attributions[1].value == math.inf


@pytest.mark.parametrize("score_pp", [0.0, 100.0])
def test_a_score_of_nothing_or_all_on_some_of_the_items_is_not_known_exactly(score_pp: float) -> None:
    found = made_assessment()
    assert found.items_asked == 100 and 1.0 < found.error_pp(score_pp) < 2.0
    assert found.error_pp(score_pp) < found.error_pp(10.0) == pytest.approx(found.error_pp(90.0))
    assert replace(found, task=replace(found.task, benchmark_items=100)).error_pp(score_pp) == 0.0


def test_a_field_of_a_later_version_is_passed_over() -> None:
    document = json.loads(made_assessment().to_json())
    document["assessment"]["invented_later"] = 1
    assert assessment_from_json(json.dumps(document)).base_pp == 31.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(kind="checkup"), "kind"),
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d["assessment"].pop("task"), "task"),
        (lambda d: d["assessment"].update(findings={}), "expected a list"),
        (lambda d: d["assessment"].update(base_pp="many"), "many"),
        (lambda d: d["assessment"].update(trace="!!"), "base64"),
        (lambda d: d["assessment"]["verdict"].update(decision="MAYBE"), "'MAYBE' is none of GO, NO_GO"),
        (lambda d: d["assessment"]["findings"][0].update(severity="bad"), "'bad' is none of stop, warn"),
        (lambda d: d["assessment"]["findings"][0].update(severity=["stop"]), "is none of stop, warn"),
    ],
)
def test_damaged_json_is_a_user_error_that_says_what_is_wrong(change: object, message: str) -> None:
    document = json.loads(made_assessment().to_json())
    change(document)  # type: ignore[operator]
    with pytest.raises(TuneAheadError, match=message):
        assessment_from_json(json.dumps(document))


def test_a_recipe_out_of_bounds_in_json_is_named() -> None:
    document = json.loads(made_assessment().to_json())
    document["assessment"]["recipe"]["learning_rate"] = -1
    with pytest.raises(RecipeError, match="learning_rate"):
        assessment_from_json(json.dumps(document))


def test_the_recipe_is_the_one_given() -> None:
    found = replace(made_assessment(), recipe=Recipe(target_modules=("q_proj", "v_proj"), max_grad_norm=None))
    assert assessment_from_json(found.to_json()).recipe == found.recipe


# ------ the real pipeline: the lab's base, forty of its questions, short runs


RECIPE = Recipe(learning_rate=3e-3, batch_size=4, max_steps=120, lora_rank=4, max_length=64, template="raw")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "clean.jsonl"
    write_jsonl(generate(healthy_example())[:120], path)
    return read_examples(path)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    exam = lab_exam()
    short = replace(exam, items=exam.items[::20])
    return Workbench(Setup(), load_base("lab"), short, None, "no predictor was fitted")


@pytest.fixture(scope="module")
def found(dataset: Dataset, bench: Workbench) -> Assessment:
    """An assessment with a probe of 100 steps and a predictor that knows the base."""
    return assess(dataset, RECIPE, goal=Goal(gain_pp=1.0), bench=replace(bench, predictor=fitted()))


def fitted() -> Predictor:
    return Predictor.fit(made_table(), preset="quick")


def test_flatness_of_a_longer_probe_is_taken_where_the_usual_one_ends(bench: Workbench) -> None:
    assert [bench.settings([steps]).flatness_at for steps in (30, 100, 200)] == [30, 100, 100]
    several = bench.settings([30, 200])
    assert [several.flatness_of(stop) for stop in (30, 200)] == [30, 100]


def test_the_reasons_of_a_real_task_add_up_to_its_forecast(found: Assessment) -> None:
    assert found.forecast is not None
    total = found.baseline_pp + sum(a.contribution_pp for a in found.attributions)
    assert total == pytest.approx(found.forecast.score_pp, abs=1e-6)
    assert found.forecast.base_pp == found.base_pp
    assert found.verdict.threshold_pp == pytest.approx(found.base_pp + 1.0)


def test_a_goal_counts_from_the_base_s_score_on_every_item_where_a_probe_asks_some(
    dataset: Dataset, bench: Workbench
) -> None:
    base, exam = replace(bench.base), replace(lab_exam(), items=lab_exam().items[::2])
    base.__dict__["is_large"] = True
    large = replace(bench, base=base, benchmark=exam, predictor=fitted())
    task = assess(dataset, RECIPE, goal=Goal(gain_pp=1.0), bench=large)
    whole_pp = score_benchmark(base, exam).score_pp
    assert task.base_of_all_pp == whole_pp and task.items_asked < len(exam.items)
    assert task.trace is not None and task.forecast is not None
    assert task.base_pp == task.trace.cues[0].accuracy_pp != whole_pp
    assert task.verdict.threshold_pp == pytest.approx(whole_pp + 1.0)
    assert f"{abs(task.forecast.score_pp - whole_pp):.1f} points" in lead(task)
    assert f"On all of them the base scores {whole_pp:.1f} %." in asked_note(task)
    # A Gate has no plain base to ask: the goal is known to the error of the items asked.
    near = replace(task, base_of_all_pp=math.nan)
    low_pp = near.base_pp + 1.0 + near.error_pp(near.base_pp) / 2
    forecast = replace(task.forecast, low_pp=low_pp, high_pp=100.0, in_distribution=True)
    assert conclusion._decide(near, forecast).decision == "UNSURE"
    assert conclusion._decide(replace(near, base_of_all_pp=near.base_pp), forecast).decision == "GO"


def test_a_real_assessment_survives_json_and_becomes_a_page(found: Assessment) -> None:
    assert same_but_trace(assessment_from_json(found.to_json()), found)
    assert "Why this forecast" in render_html(found)


def test_the_token_budget_is_that_of_the_rows_that_are_trained(found: Assessment) -> None:
    budget = next(finding for finding in found.findings if finding.check == "token-budget").message
    task = found.task
    assert (task.train_rows, task.heldout_rows, task.total_steps) == (108, 12, 120)
    assert "120 steps over 108 rows (4.4 epochs, 12 more held out)" in budget


def test_the_probe_is_recorded_and_its_scores_are_those_of_its_cues(found: Assessment) -> None:
    trace = found.trace
    assert trace is not None
    assert len(trace.steps) == 100
    assert [cue.step for cue in trace.cues] == [0, 10, 25, 50, 100]
    assert (found.base_pp, found.probe_pp) == (trace.cues[0].accuracy_pp, trace.cues[-1].accuracy_pp)
    assert found.costs.full_run_seconds > 0
    assert found.data.answer_tokens > 2 * found.data.rows  # every answer has a word and an end


def test_a_base_the_predictor_does_not_know_gets_the_persistence_figure_and_unsure(
    dataset: Dataset, bench: Workbench
) -> None:
    short = replace(bench, setup=Setup(probe_steps=10), predictor_absent="it has seen no run of base my-llm")
    task = assess(dataset, RECIPE, goal=Goal(minimum_pp=30.0), bench=short)
    assert task.forecast is None
    assert task.verdict.decision == "UNSURE"
    assert "no run of base my-llm" in task.verdict.reason
    assert math.isfinite(task.probe_pp)


def test_a_goal_beyond_100_is_never_reached_without_a_forecast_either() -> None:
    draft = replace(made_assessment(), forecast=None, findings=())
    verdict = conclusion._unforeseen(replace(draft, goal=Goal(gain_pp=90.0)), "no predictor").verdict
    assert verdict.decision == "NO_GO" and "121.4 is beyond 100" in verdict.reason
    for goal in (Goal(gain_pp=3.0), Goal(gain_pp=90.0)):
        unknown = replace(draft, goal=goal, base_pp=math.nan)
        assert conclusion._unforeseen(unknown, "no predictor").verdict.decision == "UNSURE"


def test_a_stopping_finding_ends_the_task_before_any_training(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "completion": ""}) + "\n" for i in range(30)))
    task = assess(path, RECIPE, bench=bench)
    assert task.verdict.decision == "NO_GO"
    assert task.trace is None
    assert math.isnan(task.base_pp)
    assert task.fixes
    assert task.task.train_rows == 0


def test_a_row_that_the_chat_template_refuses_stops_its_recipe_and_no_other(
    bench: Workbench, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(bench.base.tokenizer)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    refusing = replace(bench, base=replace(bench.base, tokenizer=tokenizer), setup=Setup(probe_steps=4))
    path = tmp_path / "rows.jsonl"
    lines = [{"system": "s", "prompt": f"{i} + 1 =", "answer": str(i + 1)} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)))
    recipe = RECIPE.replace(max_steps=4)
    refused, raw = (
        rank(path, [recipe.replace(template=name)], bench=refusing)[0] for name in ("auto", "raw")
    )
    assert refused.verdict.decision == "NO_GO" and "System role" in refused.verdict.reason
    assert refused.trace is None and math.isnan(refused.data.tokens)
    assert raw.trace is not None and raw.data.tokens > 0
    assert "System role not supported" in raw.features.absent["reference_loss_nats"]


def test_a_probe_that_blows_up_is_no_go_and_says_at_which_step(dataset: Dataset, bench: Workbench) -> None:
    short = replace(bench, setup=Setup(probe_steps=30))
    wild = RECIPE.replace(learning_rate=0.1, max_grad_norm=None, lora_alpha=1e30)
    task = assess(dataset, wild, bench=short)
    assert task.verdict.decision == "NO_GO"
    assert task.trace is not None
    assert "step" in task.verdict.reason
    assert "The probe broke down" in render_html(task)


def test_an_impossible_learning_rate_is_stopped_while_other_recipes_are_ranked(
    dataset: Dataset, bench: Workbench
) -> None:
    short = replace(bench, setup=Setup(probe_steps=10))
    recipes = [RECIPE.replace(learning_rate=10.0), RECIPE, RECIPE.replace(learning_rate=1e-6)]
    ranked = rank(dataset, (recipe for recipe in recipes), bench=short)
    assert {one.recipe.learning_rate for one in ranked} == {10.0, 3e-3, 1e-6}
    assert ranked[-1].recipe.learning_rate == 10.0
    assert ranked[-1].verdict.decision == "NO_GO"
    scores = [one.probe_pp for one in ranked[:2]]
    assert scores == sorted(scores, reverse=True)


def test_a_probe_records_the_same_whatever_shorter_run_it_is_ranked_beside(
    dataset: Dataset, bench: Workbench
) -> None:
    short = replace(bench, setup=Setup(probe_steps=14))
    recipes = [RECIPE.replace(max_steps=steps) for steps in (12, 60)]
    for one in rank(dataset, recipes, bench=short):
        alone = assess(dataset, one.recipe, bench=short)
        assert one.trace is not None and alone.trace is not None
        assert [cue.step for cue in one.trace.cues] == [cue.step for cue in alone.trace.cues]
        assert one.features.values.keys() == alone.features.values.keys()
        flatness = one.features["flatness_rise_nats"]
        assert flatness == pytest.approx(alone.features["flatness_rise_nats"], abs=0.01)


def test_a_run_that_goes_on_from_the_probe_ends_where_an_unbroken_one_does(
    dataset: Dataset, bench: Workbench, tmp_path: Path
) -> None:
    short = replace(bench, setup=Setup(probe_steps=10))
    recipe = RECIPE.replace(max_steps=20)
    task = assess(dataset, recipe, bench=short, checkpoint_dir=tmp_path / "probe")
    gone_on = verify(
        task, dataset, bench=short, checkpoint_dir=tmp_path / "probe", save_dir=tmp_path / "adapter"
    )
    unbroken = verify(task, dataset, bench=short)
    assert gone_on.outcome is not None and unbroken.outcome is not None
    assert gone_on.outcome.score_pp == unbroken.outcome.score_pp
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_a_probe_whose_state_can_not_be_written_is_verified_from_the_start(
    dataset: Dataset, bench: Workbench, tmp_path: Path
) -> None:
    import resource

    short = replace(bench, setup=Setup(probe_steps=3))
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        task = assess(dataset, RECIPE.replace(max_steps=4), bench=short, checkpoint_dir=tmp_path / "probe")
        full = verify(
            task, dataset, bench=short, checkpoint_dir=tmp_path / "probe", save_dir=tmp_path / "adapter"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert full.outcome is not None and math.isfinite(full.outcome.score_pp)
    assert full.outcome.adapter == "" and "File too large" in full.outcome.adapter_absent


def test_what_was_not_assessed_is_not_verified(dataset: Dataset, bench: Workbench, tmp_path: Path) -> None:
    short = replace(bench, setup=Setup(probe_steps=5))
    # A folder may be given as text.
    task = assess(dataset, RECIPE.replace(max_steps=6), bench=short, checkpoint_dir=str(tmp_path / "probe"))
    assert (tmp_path / "probe").is_dir()
    other = replace(short, benchmark=replace(bench.benchmark, name="other"))
    with pytest.raises(TuneAheadError, match="benchmark to verify on is other, the assessment is of"):
        verify(task, dataset, bench=other)
    # Of two files of one name.
    file = replace(bench.benchmark, known_by_name=False)
    of_another = replace(task, task=replace(task.task, benchmark_fingerprint="x"))
    with pytest.raises(TuneAheadError, match=rf"is lab-exam \({file.fingerprint}\), .* of lab-exam \(x\)"):
        verify(of_another, dataset, bench=replace(short, benchmark=file))
    with pytest.raises(TuneAheadError, match="base to verify on is"):
        verify(task, dataset, bench=replace(short, base=replace(bench.base, fingerprint="x")))
    with pytest.raises(TuneAheadError, match="data set to verify on is x"):
        verify(task, replace(dataset, fingerprint="x"), bench=short)
    assert verify(task, dataset, bench=short, checkpoint_dir=str(tmp_path / "probe")).outcome is not None


def test_a_run_shorter_than_the_probe_is_probed_to_its_end(dataset: Dataset, bench: Workbench) -> None:
    task = assess(dataset, RECIPE.replace(max_steps=12), bench=bench)
    assert task.task.probe_steps == 12
    assert task.trace is not None
    assert task.trace.cue_at(12) is not None
    assert "12 steps" in task.forecast_absent


def test_what_is_foreseen_of_a_run_counts_the_rows_that_fit_the_base(
    dataset: Dataset, bench: Workbench, tmp_path: Path
) -> None:
    rows = [
        replace(row, prompt=" ".join([row.prompt] * 25) if row.row % 3 == 0 else row.prompt)
        for row in dataset.examples[:45]
    ]
    recipe = RECIPE.replace(max_steps=None, epochs=0.5, max_length=512)
    task = assess(replace(dataset, examples=rows), recipe, bench=bench)
    assert task.trace is not None
    made = task.trace.info
    assert made.train_rows < 40
    assert (task.task.train_rows, task.task.total_steps) == (made.train_rows, made.total_steps)
    assert task.probe_pp == task.trace.cues[-1].accuracy_pp


def test_a_run_that_the_probe_completed_is_judged_by_its_own_score(
    dataset: Dataset, bench: Workbench, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=12)
    score = assess(dataset, recipe, bench=bench).probe_pp
    for goal, decision in ((score - 0.1, "GO"), (score + 0.1, "NO_GO")):
        task = assess(dataset, recipe, bench=bench, goal=Goal(minimum_pp=goal))
        assert task.complete and task.forecast is None and task.verdict.decision == decision
        assert f"the whole run of 12 steps, which scores {score:.1f}" in task.verdict.reason
        assert f"The run is complete and scores {score:.1f} %." in lead(task)
    # Where only some items were asked, the score is not the benchmark's yet.
    few = replace(task, task=replace(task.task, benchmark_items=10_000))
    assert conclusion.measured(few).verdict.decision == "UNSURE"
    assert task.final_pp == score and math.isnan(few.final_pp)
    again = verify(replace(few, goal=Goal(minimum_pp=0.0)), dataset, bench=bench)
    assert again.outcome is not None and again.outcome.score_pp == score and again.verdict.decision == "GO"
    store = RunStore(tmp_path / "runs.sqlite")
    name = record_run(task, store)
    assert store.get(name).scores == {bench.benchmark.name: pytest.approx(score)}
    with pytest.raises(StoreError, match="over by then"):
        # Its forecast would be its own score: nothing to learn from.
        store.table(benchmark=bench.benchmark.name, probe_steps=12)


def test_a_completed_run_is_judged_by_its_score_on_every_item_once_that_is_measured() -> None:
    made = replace(made_assessment(), forecast=None, findings=())
    done = replace(made, task=replace(made.task, total_steps=100), goal=Goal(minimum_pp=46.0))
    assert done.complete and done.items_asked < done.task.benchmark_items
    assert "'assess --verify' asks them all" in conclusion.measured(done).verdict.reason
    full = conclusion.measured(replace(done, outcome=Outcome(43.4, 100, 33.0)))
    assert full.verdict.decision == "NO_GO" and "which scores 43.4 and stays below" in full.verdict.reason
    assert "scores 43.4 %" in lead(full)
    # The base was asked 100 of the 816 items.
    for off_pp, decision in ((-9.0, "NO_GO"), (2.0, "UNSURE"), (9.0, "GO")):
        outcome = Outcome(done.base_pp + 3.0 + off_pp, 100, 33.0)
        gained = conclusion.measured(replace(done, goal=Goal(gain_pp=3.0), outcome=outcome))
        assert gained.verdict.decision == decision


def test_a_completed_run_of_unknown_start_is_not_held_against_a_gain() -> None:
    made = made_assessment()
    task = replace(made.task, total_steps=100, probe_steps=100, benchmark_items=made.items_asked)
    done = replace(made, task=task, base_pp=math.nan, forecast=None, findings=())
    verdict = conclusion.measured(replace(done, goal=Goal(gain_pp=1.0))).verdict
    assert verdict.decision == "UNSURE" and "give a minimum score" in verdict.reason
    assert conclusion.measured(replace(done, goal=Goal(minimum_pp=40.0))).verdict.decision == "GO"


def test_a_run_among_others_is_foreseen_to_take_as_long_alone_as_its_device_lets_it() -> None:
    trace = made_assessment().trace
    assert trace is not None
    seconds = np.full(len(trace.steps), 0.5, np.float32)
    trace = replace(trace, steps=replace(trace.steps, seconds=seconds))
    gpu = replace(trace, info=replace(trace.info, device="cuda"))
    for made, expected in ((trace, 500.0), (gpu, 4000.0)):
        result = RunResult("a", made, {}, {}, len(seconds), 50.0, width=8.0)
        assert conclusion._full_run_seconds(result, 1000) == pytest.approx(expected)


def test_unsure_says_in_words_what_lies_outside_with_its_value_and_the_known_range(found: Assessment) -> None:
    assert found.forecast is not None
    values = {"total_steps_log10": math.log10(200), "probe_fraction": 0.5, "parse_depth_mean": math.nan}
    ranges = {
        "total_steps_log10": FeatureRange(math.log10(300), math.log10(1500)),
        "probe_fraction": FeatureRange(1 / 15, 1 / 3),
        "parse_depth_mean": FeatureRange(4.0, 4.0),
    }
    forecast = replace(found.forecast, in_distribution=False, outside=(*values, "own_feature"))
    draft = replace(found, features=FeatureVector({**values, "own_feature": 2.5}), ranges=ranges)
    verdict = conclusion._decide(draft, forecast)
    assert verdict.reason == (
        "total steps (200; known 300 to 1,500), probe's share of the run (50 %; known 6.67 % to 33.3 %), "
        "parse depth mean (absent; known 4 links) and 1 more lie outside the runs the predictor knows"
    )
    one = conclusion._decide(draft, replace(forecast, outside=("own_feature",)))
    assert one.reason == "own feature (2.5) lies outside the runs the predictor knows"
    # The JSON keeps the features' own names.
    assert forecast.outside[0] == "total_steps_log10"


def test_the_ranges_begin_with_what_lies_outside_whatever_kind_it_is(bench: Workbench) -> None:
    odd = FeatureVector({"learning_rate_log10": -1.0, "near_duplicate_fraction": 9.0, "examples_log10": 2.5})
    ranges = conclusion._ranges(replace(bench, predictor=fitted()), odd, ("learning_rate_log10",))
    assert [*ranges][:2] == ["learning_rate_log10", "near_duplicate_fraction"] and len(ranges) == 3


def test_a_benchmark_whose_score_is_no_number_gives_no_forecast(found: Assessment, bench: Workbench) -> None:
    assert found.trace is not None
    base, *others = found.trace.cues
    broken = replace(base, margin_nats=np.full_like(base.margin_nats, np.nan))
    draft = replace(found, trace=replace(found.trace, cues=(broken, *others)))
    reason = conclusion._no_forecast(draft, replace(bench, predictor=fitted()))
    assert reason == "the benchmark's score at step 0 is not a finite number"


def test_a_number_too_long_for_a_float_is_no_saved_assessment() -> None:
    text = json.loads(made_assessment().to_json())
    text["assessment"]["base_pp"] = 10**400
    with pytest.raises(TuneAheadError, match="not a saved assessment"):
        assessment_from_json(json.dumps(text))


@pytest.mark.parametrize("large", [False, True])
def test_cue_items_of_a_file_that_alternates_come_from_both_kinds(bench: Workbench, large: bool) -> None:
    items = tuple(ChoiceItem(str(i), "?", ("a", "b"), (0,), ("en", "de")[i % 2]) for i in range(2000))
    base = copy.copy(bench.base)
    base.__dict__["is_large"] = large
    asked = cue_items(Benchmark("mine", "accuracy", items), base).items
    assert len(asked) == (200 if large else 1000)
    assert 0.4 < np.mean([item.subject == "en" for item in asked]) < 0.6
    # Steps at which the built-in benchmark was asked in the runs that predictors learned from.
    built_in = cue_items(Benchmark("lab-exam", "accuracy", items), base).items
    assert {int(b.item_id) - int(a.item_id) for a, b in itertools.pairwise(built_in)} == {10 if large else 2}


def test_an_interval_is_no_narrower_than_one_item() -> None:
    """Past runs that all ended on one score leave residuals of 0; the next may differ by an item."""
    sure = Forecast(98.0, 98.0, 98.0, 0.9, 40.0, 97.0)
    found = conclusion._as_wide_as_an_item(sure, 20)
    assert (found.low_pp, found.high_pp) == (95.5, 100.0)
    wide = Forecast(50.0, 40.0, 61.0, 0.9, 40.0, 45.0)
    assert conclusion._as_wide_as_an_item(wide, 20) == wide


def test_one_run_on_a_base_bounds_nothing_there_whatever_was_made_on_others(
    found: Assessment, bench: Workbench
) -> None:
    table = made_table()
    own = (found.task.base, *(f"other{i % 2}" for i in range(1, len(table))))
    table = replace(table, bases=own, benchmarks=(found.task.benchmark,) * len(table))
    known = replace(bench, predictor=Predictor.fit(table, preset="quick"))
    forecast, _, _ = conclusion._forecast(known, found.features, found)
    assert (forecast.low_pp, forecast.high_pp) == (0.0, 100.0)
    elsewhere = replace(found, task=replace(found.task, base="other1"))
    forecast, _, _ = conclusion._forecast(known, found.features, elsewhere)
    assert forecast.high_pp - forecast.low_pp < 60.0


def test_a_kept_run_becomes_a_row_to_learn_from_once_its_score_is_known(
    found: Assessment, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    name = record_run(found, store)
    store.record_score(name, "lab-exam", 61.25)
    assert record_run(found, store) == name  # kept once
    table = table_from_store(store)
    assert table.score_pp.tolist() == [61.25]
    assert table.probe_pp.tolist() == [found.probe_pp]
    column = table.names.index("examples_log10")
    assert table.values[0, column] == pytest.approx(found.features["examples_log10"])


def test_a_run_verified_is_kept_with_its_score(found: Assessment, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    name = record_run(replace(found, outcome=Outcome(55.5, 120, 1.0)), str(store.path))
    assert store.get(name).scores == {"lab-exam": 55.5}


def test_a_task_without_probe_is_not_kept(found: Assessment, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="without a probe"):
        record_run(replace(found, trace=None), RunStore(tmp_path / "runs.sqlite"))


def test_another_recipe_on_the_same_rows_measures_them_no_second_time(
    dataset: Dataset, bench: Workbench, found: Assessment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Drawn] = []

    def noted(drawn: Drawn, *args: object) -> StaticFeatures:
        measured.append(drawn)
        return measure_static(drawn, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(extract, "measure_static", noted)
    other = Recipe(max_steps=5, batch_size=4)
    again = assess(dataset, other, bench=replace(bench, predictor=None))
    assert not measured, "kept since the assessment of the same rows"
    names = names_of("static")
    assert again.features.aligned(names) == pytest.approx(found.features.aligned(names), nan_ok=True)
    assert again.data.samples == found.data.samples
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path))
    fresh = assess(dataset, other, bench=replace(bench, predictor=None))
    assert len(measured) == 1
    assert repr(fresh.features.without({})) == repr(again.features)
    fewer = replace(dataset, examples=dataset.examples[:60])
    assess(fewer, other, bench=replace(bench, predictor=None))
    assert len(measured) == 2, "other rows are measured"
    for path in (tmp_path / "static").iterdir():
        path.write_text("damaged")
    assess(fewer, other, bench=replace(bench, predictor=None))
    assert len(measured) == 3, "a damaged file is no result"


def test_a_check_trains_nothing_and_measures_the_data(dataset: Dataset, bench: Workbench) -> None:
    checkup = check(dataset, RECIPE, bench=bench)
    assert not checkup.stopped
    assert checkup.features["examples"] == 120
    assert json.loads(checkup.to_json())["checkup"]["data"]["rows"] == 120


def test_a_recipe_that_ends_early_is_refused(dataset: Dataset, bench: Workbench) -> None:
    for judged in (assess, check):
        with pytest.raises(RecipeError, match="stop_after is 9"):
            judged(dataset, RECIPE.probe(9), bench=bench)


def test_a_recipe_of_another_precision_than_the_loaded_base_is_refused(
    dataset: Dataset, bench: Workbench
) -> None:
    with pytest.raises(RecipeError, match="precision bf16, the base is loaded as auto"):
        assess(dataset, RECIPE.replace(precision="bf16"), bench=bench)


def test_a_probe_of_two_steps_is_refused() -> None:
    with pytest.raises(PredictorError, match="2 steps"):
        assess("data.jsonl", bench=Setup(probe_steps=2))


def test_a_workbench_is_not_opened_on_a_setup_that_can_not_be_meant() -> None:
    with pytest.raises(PredictorError, match="a probe of 3 steps tells nothing"):
        open_workbench(Setup(probe_steps=3))
    with pytest.raises(TuneAheadError, match="a price of -2 an hour"):
        open_workbench(Setup(price_per_hour=-2.0))


def test_what_is_no_goal_recipe_or_workbench_is_refused_before_anything_is_loaded() -> None:
    for wrong, why in (
        ({"goal": 60}, "60 is no goal"),
        ({"recipe": "recipe.yaml"}, "'recipe.yaml' is no recipe"),
        ({"bench": "lab"}, "'lab' is no workbench"),
    ):
        with pytest.raises(TuneAheadError, match=why):
            assess("data.jsonl", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TuneAheadError, match="60 is no goal"):
        rank("data.jsonl", [RECIPE], goal=60)  # type: ignore[arg-type]


def test_a_setup_takes_paths_as_it_takes_their_names(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text('{"question": "2 + 2 =", "choices": ["4", "5"], "answer": 0}\n', encoding="utf-8")
    found = [
        open_workbench(Setup(kind(lab_base_path()), kind(exam)), forecasts=False) for kind in (Path, str)
    ]
    assert found[0].base.fingerprint == found[1].base.fingerprint
    assert found[0].benchmark == found[1].benchmark
    with pytest.raises(ModelError, match="no folder /nowhere"):
        load_base(Path("/nowhere"))


def test_threads_take_turns_at_the_base_that_they_share(dataset: Dataset, bench: Workbench) -> None:
    short = replace(bench, setup=Setup(probe_steps=10))
    recipes = [RECIPE, RECIPE.replace(learning_rate=1e-4)]
    alone = [assess(dataset, recipe, bench=short) for recipe in recipes]
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda recipe: assess(dataset, recipe, bench=short), recipes))
    for one, other in zip(alone, beside, strict=True):
        assert one.trace is not None and other.trace is not None
        assert other.trace.steps.loss_sum_nats == pytest.approx(one.trace.steps.loss_sum_nats)
        assert other.features.values == pytest.approx(one.features.values, nan_ok=True, abs=1e-3)
