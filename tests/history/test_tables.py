"""Tables are derived from the history: seeds averaged, probes cut, static features measured once."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_assessment import made_assessment, made_table
from test_store import make_record

from tuneahead.cli.app import main
from tuneahead.errors import PredictorError, StoreError
from tuneahead.history.store import RunStore
from tuneahead.history.tables import complete_statics, table_from_store, unmeasured
from tuneahead.lab.datasets import DatasetSpec
from tuneahead.lab.exam import lab_exam
from tuneahead.lab.world import load_world
from tuneahead.predictor.predictor import Predictor, load_predictor
from tuneahead.predictor.table import read_table, write_table
from tuneahead.record import record_run
from tuneahead.trace import Cue
from tuneahead.training.models import load_base


def test_seeds_of_a_task_become_one_row_with_the_first_seeds_probe(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for seed, score in ((1, 60.0), (0, 54.0), (2, 57.0)):
        store.add(replace(make_record(f"r{seed}"), seed=seed, scores={"exam": score}))
    store.add(replace(make_record("other"), task_id="t2", scores={}))
    store.add(replace(make_record("broken"), task_id="t3", failure="the loss was not finite"))
    table = table_from_store(store, benchmark="exam")
    assert table.task_ids == ("t1",) and table.data_ids == ("d1",)
    assert table.score_pp[0] == 57.0 and table.seeds[0] == 3
    assert table.seed_sd_pp[0] == pytest.approx(np.std([60, 54, 57], ddof=1))
    # The only cue, at step 0, has margins -1 and 0.5: one of two items is right.
    assert table.base_pp[0] == 50.0, "gains are taken on the items that the probe was asked"
    assert table.extra("cue_pp@0")[0] == 50.0 and np.isnan(table.probe_pp[0])
    mute = RunStore(tmp_path / "mute.sqlite")
    mute.add(replace(make_record(), trace=replace(make_record().trace, cues=()), scores={"exam": 54.0}))
    assert table_from_store(mute, benchmark="exam").base_pp[0] == 40.0
    assert np.isnan(table.values[0, table.names.index("parse_depth_mean")]), "nothing static was measured"


def test_of_one_seed_under_changed_weights_the_latest_run_counts(tmp_path: Path) -> None:
    """The name is that of another model by now, and it is this one that forecasts are asked of."""
    store = RunStore(tmp_path / "runs.sqlite")
    for name, score in (("old", 54.0), ("new", 41.0)):
        record = make_record(name)
        info = replace(record.trace.info, base_fingerprint=name)
        trace = replace(record.trace, info=info)
        store.add(replace(record, origin="assess", trace=trace, scores={"exam": score}))
    table = table_from_store(store, benchmark="exam", probe_steps=3)
    assert table.score_pp.tolist() == [41.0] and table.seeds.tolist() == [1]


def test_further_seeds_become_further_rows_with_their_own_probes(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for seed, score in ((1, 60.0), (0, 54.0), (2, 57.0)):
        record = make_record(f"r{seed}")
        steps = replace(record.trace.steps, grad_norm=record.trace.steps.grad_norm + seed)
        trace = replace(record.trace, steps=steps)
        store.add(replace(record, seed=seed, trace=trace, scores={"exam": score}))
    table = table_from_store(store, benchmark="exam")
    assert table.repeats is not None and table.repeats.task_ids == ("t1", "t1")
    norm = table.with_repeats().values[:, table.names.index("grad_norm_mean")]
    np.testing.assert_allclose(norm, norm[0] + np.array([0.0, 1.0, 2.0]), rtol=1e-6)
    assert table.repeats.score_pp.tolist() == [57.0, 57.0], "the outcome is the task's"
    one = RunStore(tmp_path / "one.sqlite")
    one.add(replace(make_record("r0"), scores={"exam": 60.0}))
    assert table_from_store(one, benchmark="exam").repeats is None


def test_further_benchmarks_and_the_proxys_scores_stand_beside_the_first(tmp_path: Path) -> None:
    store, proxies = RunStore(tmp_path / "runs.sqlite"), RunStore(tmp_path / "proxies.sqlite")
    both = {"exam": 60.0, "truth": 30.0}
    store.add(replace(make_record("r0"), scores=both, base_scores={"exam": 40.0, "truth": 25.0}))
    store.add(replace(make_record("r1"), seed=1, scores={"exam": 62.0, "truth": 34.0}))
    store.add(replace(make_record("r2"), task_id="t2", scores={"exam": 50.0}))
    proxies.add(replace(make_record("p"), base="small", scores={"exam": 33.0, "truth": 21.0}))
    table = table_from_store(store, benchmark="exam", proxies=proxies)
    assert table.further_benchmarks == ("truth",)
    assert table.extra("proxy_pp")[0] == 33.0 and np.isnan(table.extra("proxy_pp")[1])
    truth = table.of_benchmark("truth")
    assert truth.score_pp[0] == 32.0 and truth.seeds.tolist() == [2, 0] and truth.base_pp[0] == 25.0
    assert np.isnan(truth.score_pp[1]) and len(truth.scored()) == 1
    assert truth.extra("proxy_pp")[0] == 21.0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_benchmark_scored_under_one_seed_only_is_a_further_one(seed: int, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for own in (0, 1):
        scores = {"exam": 60.0, "truth": 30.0} if own == seed else {"exam": 62.0}
        store.add(replace(make_record(f"r{own}"), seed=own, scores=scores))
    table = table_from_store(store, benchmark="exam")
    assert table.repeats is not None and table.further_benchmarks == ("truth",)
    truth = table.of_benchmark("truth").with_repeats()
    assert truth.score_pp.tolist() == [30.0, 30.0] and truth.seeds.tolist() == [1, 1]


def test_runs_of_one_benchmark_share_its_score_of_guessing(tmp_path: Path) -> None:
    """Or gains of logs that did not say it would be shares of another head-room than those of probes."""
    store, ours = RunStore(tmp_path / "runs.sqlite"), make_record("ours", steps=100)
    silent = replace(ours.trace, info=replace(ours.trace.info, chance_pp=math.nan))
    for seed in (0, 1):
        logged = replace(ours, run_id=f"log{seed}", task_id="t2", seed=seed, trace=silent, origin="import")
        store.add(logged)
    assert np.isnan(table_from_store(store, benchmark="exam").with_repeats().chance_pp).all()
    store.add(ours)
    assert table_from_store(store, benchmark="exam").with_repeats().chance_pp.tolist() == [25.0] * 3


def test_a_benchmark_without_scores_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(make_record())
    with pytest.raises(StoreError, match="no run .* has a score on 'mmlu'") as caught:
        table_from_store(store, benchmark="mmlu")
    assert caught.value.remedy.startswith("name a benchmark that runs have a score on (exam), or record one")
    # In another file the command would find no run, or another's.
    assert f"--benchmark mmlu --store {store.path}" in caught.value.remedy


def test_a_probe_that_was_cut_short_is_left_out_and_an_imported_log_is_not(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(replace(make_record("short", steps=50), origin="assess"))
    with pytest.raises(StoreError, match="probed for fewer than 100 steps"):
        table_from_store(store, benchmark="exam")
    assert table_from_store(store, benchmark="exam", probe_steps=50).task_ids == ("t1",)
    store.add(replace(make_record("long", steps=100), task_id="t2", origin="trainer"))
    store.add(replace(make_record("log", steps=0), task_id="t3", origin="import"))
    assert table_from_store(store, benchmark="exam").task_ids == ("t2", "t3")


def test_a_log_of_every_step_that_stopped_before_the_probe_s_end_is_left_out(tmp_path: Path) -> None:
    """It was imported while it trained: its features are those of another stage of the run."""
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(replace(make_record("begun", steps=50), origin="import"))
    gapped = make_record("gapped", steps=50)
    nothing = np.full(50, np.nan, np.float32)
    steps = replace(gapped.trace.steps, loss_sum_nats=nothing, grad_norm=nothing)
    gapped = replace(gapped, trace=replace(gapped.trace, steps=steps))
    store.add(replace(gapped, task_id="t2", origin="import"))
    store.add(replace(make_record("whole", steps=120), task_id="t3", origin="import"))
    assert table_from_store(store, benchmark="exam").task_ids == ("t2", "t3")
    assert table_from_store(store, benchmark="exam", probe_steps=50).task_ids == ("t1", "t2", "t3")


def test_a_log_s_held_out_loss_of_another_step_is_not_that_of_the_probe_s_end(tmp_path: Path) -> None:
    store, record = RunStore(tmp_path / "runs.sqlite"), make_record("log", steps=120)
    nothing = np.zeros(0, np.float32)
    cues = tuple(Cue(step, 4.0 - step / 100, math.nan, nothing, nothing) for step in (0, 50, 110))
    store.add(replace(record, origin="import", trace=replace(record.trace, cues=cues)))
    late, exact = (table_from_store(store, benchmark="exam", probe_steps=steps) for steps in (100, 50))
    names = ("heldout_start_nats", "heldout_end_nats", "heldout_gap_nats", "heldout_rebound_ratio")
    places = [late.names.index(name) for name in names]
    assert np.isfinite(late.values[0, places]).tolist() == [True, False, False, False]
    assert np.isfinite(exact.values[0, places]).all()


def test_a_probe_that_was_not_asked_at_the_length_learned_from_is_left_out(tmp_path: Path) -> None:
    """Its last score before that is of an earlier stage than the one that an assessment would measure."""
    store, record = RunStore(tmp_path / "runs.sqlite"), make_record("usual", steps=100)
    (base,) = record.trace.cues
    at = {step: replace(base, step=step) for step in (0, 10, 25, 50, 75, 100)}
    usual = tuple(at[step] for step in (0, 10, 25, 50, 100))
    store.add(replace(record, trace=replace(record.trace, cues=usual)))
    with pytest.raises(StoreError, match="not asked the benchmark at step 75") as caught:
        table_from_store(store, benchmark="exam", probe_steps=75)
    assert "all were asked at 10, 25, 50, 100" in caught.value.remedy
    right = replace(at[75], margin_nats=np.ones(2, np.float32))
    store.add(replace(record, run_id="own", task_id="t2", trace=replace(record.trace, cues=(base, right))))
    assert table_from_store(store, benchmark="exam", probe_steps=75).probe_pp.tolist() == [100.0]
    assert table_from_store(store, benchmark="exam", probe_steps=50).probe_pp.tolist() == [50.0]


def test_a_run_that_was_over_with_its_probe_is_left_out(tmp_path: Path) -> None:
    """Its forecast is its own score at the probe's end: it would only make intervals narrower."""
    store = RunStore(tmp_path / "runs.sqlite")
    whole = make_record("whole", steps=60)
    trace = replace(whole.trace, info=replace(whole.trace.info, total_steps=60))
    store.add(replace(whole, origin="trainer", trace=trace))
    with pytest.raises(StoreError, match="or over by then"):
        table_from_store(store, benchmark="exam")
    assert table_from_store(store, benchmark="exam", probe_steps=50).task_ids == ("t1",)
    imported = RunStore(tmp_path / "imported.sqlite")
    imported.add(replace(whole, origin="import", trace=trace))
    with pytest.raises(StoreError, match="or over by then"):
        table_from_store(imported, benchmark="exam")


def test_a_table_knows_how_long_its_probes_and_runs_were(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    record = make_record("timed", steps=100)
    info = replace(record.trace.info, total_steps=300, train_rows=0, heldout_rows=0)
    store.add(replace(record, trace=replace(record.trace, info=info)))
    table = table_from_store(store, benchmark="exam", probe_steps=50)
    assert table.probe_steps == 50 and table.extra("final_steps")[0] == 300
    assert np.isnan(table.extra("data_rows")[0]), "a log that does not say how many rows there were"


def test_a_store_of_short_probes_makes_a_predictor_for_short_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    for number in range(12):
        record = make_record(f"r{number}", steps=50)
        names = {"task_id": f"t{number}", "data_id": f"d{number}", "origin": "assess"}
        store.add(replace(record, **names, scores={"exam": 40.0 + number}))
    asked = ["fit", "--store", str(store.path), "--benchmark", "exam", "--preset", "quick"]
    monkeypatch.setattr(sys, "argv", ["tuneahead", *asked, "--probe-steps", "50", "-o", str(tmp_path / "p")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    short = load_predictor(tmp_path / "p")
    assert short.origin.probe_steps == 50
    write_table(store.table(benchmark="exam", probe_steps=50), tmp_path / "table.parquet")
    assert read_table(tmp_path / "table.parquet").probe_steps == 50
    with pytest.raises(PredictorError, match="runs probed for 50 and for 100 steps can't be joined"):
        Predictor.fit(store.table(benchmark="exam", probe_steps=50), helpers=made_table(30))


def test_data_assessed_on_two_benchmarks_keep_their_likeness_to_each(tmp_path: Path) -> None:
    store, made = RunStore(tmp_path / "runs.sqlite"), made_assessment()
    for benchmark, likeness in (("exam", 0.75), ("truth", 0.25)):
        assert made.trace is not None
        trace = replace(made.trace, info=replace(made.trace.info, benchmark=benchmark))
        values = {**made.features.values, "benchmark_similarity": likeness}
        judged = replace(made, task=replace(made.task, benchmark=benchmark), trace=trace)
        name = record_run(replace(judged, features=replace(made.features, values=values)), store)
        store.record_score(name, benchmark, 60.0)
    for benchmark, likeness in (("exam", 0.75), ("truth", 0.25)):
        table = table_from_store(store, benchmark=benchmark)
        assert table.values[:, table.names.index("benchmark_similarity")].tolist() == [likeness]


def test_two_benchmarks_of_one_name_have_runs_of_their_own_and_are_not_learned_from_together(
    tmp_path: Path,
) -> None:
    store, made = RunStore(tmp_path / "runs.sqlite"), made_assessment()
    names = {}
    for fingerprint, likeness in (("", 0.5), ("sums", 0.75), ("products", 0.25)):
        task = replace(made.task, benchmark_fingerprint=fingerprint)
        features = replace(made.features, values={**made.features.values, "benchmark_similarity": likeness})
        names[fingerprint] = record_run(replace(made, task=task, features=features), store)
    assert len(store) == 3
    for fingerprint in ("sums", "products"):
        store.record_score(names[fingerprint], "lab-exam", 60.0)
        if fingerprint == "sums":
            write_table(table_from_store(store), tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet")
    assert table.benchmark_fingerprints == ("sums",)
    assert table.values[:, table.names.index("benchmark_similarity")].tolist() == [0.75]
    with pytest.raises(StoreError, match="were asked 2 benchmarks of that name"):
        table_from_store(store)
    # A run that does not say which it was asked is taken for any.
    store.forget(names["products"], "lab-exam")
    store.record_score(names[""], "lab-exam", 60.0)
    assert table_from_store(store).seeds.tolist() == [1]


def test_features_of_another_benchmark_s_items_are_absent_and_the_others_stay(tmp_path: Path) -> None:
    """Or a predictor would learn from one benchmark's cues and be given another's."""
    store, made = RunStore(tmp_path / "runs.sqlite"), made_assessment()
    static = {"examples_log10": 2.5, "benchmark_similarity": 0.75, "option_coverage_fraction": 0.5}
    values = {**made.features.values, **static}
    name = record_run(replace(made, features=replace(made.features, values=values)), store)
    for benchmark in ("lab-exam", "truth"):
        store.record_score(name, benchmark, 60.0)
    own, other = (table_from_store(store, benchmark=benchmark) for benchmark in ("lab-exam", "truth"))
    of_items = [*own.of_group("cue"), "benchmark_similarity", "option_coverage_fraction"]
    assert np.isfinite(own.with_features(["probe_score_pp", "margin_mean_nats", *static]).values).all()
    assert np.isnan(other.with_features(of_items).values).all()
    rest = [name for name in own.names if name not in of_items]
    np.testing.assert_array_equal(other.with_features(rest).values, own.with_features(rest).values)
    further = own.of_benchmark("truth")
    np.testing.assert_array_equal(further.values, own.values)


def test_static_features_of_generated_data_are_measured_once(tmp_path: Path) -> None:
    base, exam = load_base("lab", device="cpu"), lab_exam()
    spec = DatasetSpec(3, "clean", 0.0, 60, load_world().subjects[:4])
    store = RunStore(tmp_path / "runs.sqlite")
    store.add(replace(make_record(), base=base.name, data_id=spec.dataset_id, data_spec=spec.to_json()))
    store.add(replace(make_record("r2"), base="other", data_id=spec.dataset_id, data_spec=spec.to_json()))
    store.add(
        replace(make_record("r3"), base=base.name, data_id="questions", data_spec='{"source": "BoolQ"}')
    )
    waiting = {spec.dataset_id: spec.to_json()}
    assert unmeasured(store) == {base.name: waiting, "other": waiting}
    assert complete_statics(store, base, exam) == 1
    assert complete_statics(store, base, exam) == 0
    assert unmeasured(store) == {"other": waiting}
    store.forget("r2")
    store.forget("r3")
    table = table_from_store(store, benchmark="exam")
    measured = dict(zip(table.names, table.values[0], strict=True))
    assert measured["examples"] == 60
    assert 0 < measured["benchmark_similarity"] <= 1 and measured["reference_loss_nats"] > 0
    likeness = [name for name in table.extras if name.startswith("similarity@")]
    assert len(likeness) == len({item.subject for item in exam.items})
    assert all(-1 <= table.extra(name)[0] <= 1 for name in likeness)
