"""Runs made before TuneAhead: logs of a real Trainer and of MLflow, with what they lack marked absent.

``logs/`` holds what MLflow 3.17 itself wrote for two data sets with two runs each, one of them failed.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integrations.trainer_fixtures import RECIPE, make_data, make_trainer
from training.training_fixtures import write_tiny_model

from tuneahead.errors import DataError, StoreError
from tuneahead.features.catalogue import names_of
from tuneahead.features.extract import derived_features
from tuneahead.features.recipes import DEPENDS_ON, measure_recipe
from tuneahead.history.importers import LogReading, import_runs
from tuneahead.history.loggedrun import content_key, id_of
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.predictor.predictor import Predictor, load_predictor
from tuneahead.recipe import Recipe
from tuneahead.training.models import load_base

LOGS = Path(__file__).parent / "logs"
EXAM = LogReading(benchmark="exam", score="eval_exam", chance_pp=25.0)


@pytest.fixture(scope="module")
def trainer_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run of 20 steps, logged at every step, with a score at steps 0, 10 and 20."""
    from transformers.trainer_utils import IntervalStrategy

    folder = tmp_path_factory.mktemp("runs")
    model = write_tiny_model(folder / "model")
    base = load_base(str(model), device="cpu")
    exam = iter([0.30, 0.40, 0.55])
    trainer = make_trainer(
        model, folder / "faq" / "a", base, make_data(base), compute_metrics=lambda _: {"exam": next(exam)}
    )
    args = trainer.args
    args.logging_strategy = args.eval_strategy = args.save_strategy = IntervalStrategy.STEPS
    args.logging_steps, args.eval_steps, args.save_steps, args.eval_on_start = 1, 10, 10, True
    trainer.train()
    return folder


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    for name, text in json.loads((LOGS / "mlflow_files.json").read_text()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "mlruns"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript((LOGS / "mlflow_database.sql").read_text())
    connection.close()
    return path


def states(trainer_runs: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trainer_runs / "faq", folder / "faq"))


def change(path: Path, edit: Any) -> None:
    state = json.loads(path.read_text())
    edit(state)
    path.write_text(json.dumps(state))


def logged_of(trainer_runs: Path) -> list[dict[str, float]]:
    state = json.loads((trainer_runs / "faq/a/checkpoint-20/trainer_state.json").read_text())
    return list(state["log_history"])


def only(store: RunStore) -> RunRecord:
    (record,) = store.records()
    return record


def test_a_trainer_s_checkpoints_are_one_run_with_its_losses_and_scores(
    trainer_runs: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(trainer_runs / "faq", store, EXAM)
    assert (found.added, found.present, found.scored, found.unit) == (1, 0, 1, "fraction")
    record = only(store)
    logged = logged_of(trainer_runs)
    losses = [entry["loss"] for entry in logged if "loss" in entry]
    norms = [entry["grad_norm"] for entry in logged if "grad_norm" in entry]
    np.testing.assert_allclose(record.trace.steps.loss_nats, losses, rtol=1e-6)
    np.testing.assert_allclose(record.trace.steps.grad_norm, norms, rtol=1e-6)
    assert record.scores == {"exam": pytest.approx(55)} and record.base_scores == {"exam": pytest.approx(30)}
    assert [(cue.step, round(cue.score_pp("harness"))) for cue in record.trace.cues] == [
        (0, 30),
        (10, 40),
        (20, 55),
    ]
    assert all(math.isfinite(cue.heldout_loss_nats) for cue in record.trace.cues)
    assert record.base == str(trainer_runs / "model")  # from adapter_config.json
    assert (record.recipe.lora_rank, record.recipe.lora_alpha) == (RECIPE.lora_rank, RECIPE.lora_alpha)
    assert record.origin == "import"
    # Without accumulation steps, steps and epochs do not give the number of rows.
    assert record.trace.info.train_rows == 0


def test_what_a_log_lacks_is_absent_with_a_reason_and_never_zero(trainer_runs: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(trainer_runs / "faq", store, EXAM)
    vector = derived_features(only(store).trace)
    # trainer_state.json holds no schedule, warm-up or clipping; the learning rate of each step it does.
    rates = [entry["learning_rate"] for entry in logged_of(trainer_runs) if "learning_rate" in entry]
    assert vector["learning_rate_log10"] == pytest.approx(math.log10(max(rates)))
    for name in ("schedule_linear", "warmup_fraction", "clip_norm", "clipped_fraction"):
        assert math.isnan(vector[name]) and "the log does not say" in vector.absent[name]
    for name in ("grad_sparsity_fraction", "forgetting_nats", "flatness_rise", "margin_mean_nats"):
        if name in vector.values:
            assert math.isnan(vector[name]) and vector.absent[name]
    assert "not its items" in vector.absent["margin_mean_nats"]
    assert vector["initial_loss_nats"] > 0 and vector["probe_score_pp"] == pytest.approx(55)
    assert vector["score_gain_pp"] == pytest.approx(25)
    assert vector["heldout_end_nats"] > 0 and vector["lora_rank_log2"] == 2
    assert set(vector.absent) == {name for name, value in vector.values.items() if math.isnan(value)}


def test_means_over_several_steps_are_no_losses_of_steps(trainer_runs: Path, tmp_path: Path) -> None:
    folder = states(trainer_runs, tmp_path)
    state = folder / "a" / "checkpoint-20" / "trainer_state.json"
    change(state, lambda s: s.update(log_history=[e for e in s["log_history"] if e["step"] % 5 == 0]))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(folder, store, EXAM)
    trace = only(store).trace
    assert np.isnan(trace.steps.loss_sum_nats).all() and np.isnan(trace.steps.grad_norm).all()
    assert dict(trace.absent)["loss"] == "logged about every 5 steps, as a mean over them"
    absent = derived_features(trace).absent
    assert "initial_loss_nats" in absent
    assert absent["non_finite_fraction"] == "logged about every 5 steps, as a mean over them"


def test_what_was_not_logged_did_not_fail_and_what_failed_was_logged(
    trainer_runs: Path, tmp_path: Path
) -> None:
    folder = states(trainer_runs, tmp_path)
    state = folder / "a" / "checkpoint-20" / "trainer_state.json"
    change(state, lambda s: [entry.pop("grad_norm", None) for entry in s["log_history"]])
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(folder, store, EXAM)
    assert derived_features(only(store).trace)["non_finite_fraction"] == 0.0

    def diverge(found: Any) -> None:
        last = [entry for entry in found["log_history"] if "loss" in entry][-2:]
        for entry in last:
            entry["loss"] = math.nan

    change(state, diverge)
    store = RunStore(tmp_path / "t.sqlite")
    import_runs(folder, store, EXAM)
    assert derived_features(only(store).trace)["non_finite_fraction"] == pytest.approx(2 / 20)


def test_settings_beside_the_log_and_shared_ones_fill_the_recipe(trainer_runs: Path, tmp_path: Path) -> None:
    folder = states(trainer_runs, tmp_path)
    args = {
        "learning_rate": 5e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "gradient_accumulation_steps": 1,
        "world_size": 1,
    }
    (folder / "a" / "training_args.json").write_text(json.dumps(args))
    store = RunStore(tmp_path / "s.sqlite")
    shared = {"max_grad_norm": None, "weight_decay": 0.01, "max_length": 128}
    import_runs(folder, store, LogReading(benchmark="exam", score="eval_exam", recipe=shared))
    recipe = only(store).recipe
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup_steps(20)) == (5e-3, "cosine", 2)
    assert (recipe.weight_decay, recipe.max_length) == (0.01, 128)
    vector = derived_features(only(store).trace)
    assert vector["learning_rate_log10"] == pytest.approx(math.log10(5e-3))
    assert only(store).trace.info.train_rows == 80
    # A clipping of None is not told from a setting that is not given.
    assert math.isnan(vector["clipping"])


def test_a_second_import_knows_the_runs_again_and_adds_late_scores(
    trainer_runs: Path, tmp_path: Path
) -> None:
    folder = states(trainer_runs, tmp_path)
    store = RunStore(tmp_path / "s.sqlite")
    last = folder / "a" / "checkpoint-20"
    moved = Path(shutil.move(last, tmp_path / "checkpoint-20"))
    assert import_runs(folder, store, EXAM).scored == 0  # scored at step 10 of 20 only
    assert only(store).scores == {}
    shutil.move(moved, last)
    again = import_runs(folder, store, EXAM)
    assert (again.added, again.present, again.scored) == (0, 1, 1)
    assert only(store).scores == {"exam": pytest.approx(55)}
    assert import_runs(folder, store, EXAM).scored == 0


def test_an_import_says_why_runs_have_no_final_score(tmp_path: Path) -> None:
    for number, scores in enumerate(({}, {10: 0.5}, {20: 0.5})):
        run = write_state(tmp_path / "runs", number)
        more = [{"step": step, "eval_exam": score} for step, score in scores.items()]
        change(run / "trainer_state.json", lambda s, more=more: s["log_history"].extend(more))
    for _ in range(2):
        found = import_runs(tmp_path / "runs", RunStore(tmp_path / "s.sqlite"), EXAM)
        told = dict(found.unscored)
        assert list(told.values()) == [1, 1]
        assert any("no eval_exam" in why for why in told)
        assert any("before the planned end" in why for why in told)


@pytest.mark.parametrize("kind", ["mlruns", "database"])
def test_mlflow_runs_come_from_its_files_and_from_its_database(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(kind)
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(path, store, EXAM)
    # The fourth run failed.
    assert (found.added, found.scored, found.data_sets, found.left_out) == (3, 3, 2, ())
    records = sorted(store.records(), key=lambda r: r.recipe.learning_rate)
    assert [r.scores["exam"] for r in records] == pytest.approx([43, 48, 53])
    assert [dict(r.base_scores) for r in records] == [{}, {}, {"exam": pytest.approx(31)}]
    assert [r.data_id == records[0].data_id for r in records] == [True, True, False]
    first = records[0]
    assert (first.base, first.steps, first.seconds) == ("org/base", 40, 12.5)
    recipe = first.recipe
    assert (recipe.lora_rank, recipe.target_modules, recipe.schedule) == (16, ("q_proj", "v_proj"), "cosine")
    assert recipe.warmup_steps(40) == 4
    assert first.trace.steps.loss_nats[:2] == pytest.approx([2.98, 2.96])
    assert np.isnan(first.trace.steps.grad_norm[2]) and first.trace.steps.grad_norm[3] == 1.5
    assert derived_features(first.trace)["non_finite_fraction"] == pytest.approx(1 / 40)
    assert [cue.step for cue in first.trace.cues] == [20, 40]
    assert first.created.startswith("20") and first.created.endswith("+00:00")
    again = import_runs(path, store, EXAM)
    assert (again.added, again.present, len(store)) == (0, 3, 3)


@pytest.mark.parametrize("kind", ["mlruns", "database"])
@pytest.mark.parametrize(("time", "final", "base"), [(1001, {}, 61), (1005, {}, {}), (1040, 61, {})])
def test_a_score_that_mlflow_got_without_a_step_is_placed_by_its_time_or_left_out(
    kind: str, time: int, final: object, base: object, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(kind)
    if kind == "mlruns":
        meta = next(file for file in sorted(path.glob("*/*/meta.yaml")) if "status: 3" in file.read_text())
        name, losses = meta.parent.name, meta.parent / "metrics" / "loss"
        values = [line.split()[1] for line in losses.read_text().splitlines()]
        losses.write_text("".join(f"{1000 + i} {value} {i}\n" for i, value in enumerate(values, start=1)))
        (losses.parent / "eval" / "exam").write_text(f"{time} 0.61 0\n")
    else:
        connection = sqlite3.connect(path)
        with connection:
            (name,) = connection.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchone()
            connection.execute("DELETE FROM metrics WHERE run_uuid = ? AND key = 'eval/exam'", (name,))
            connection.execute("UPDATE metrics SET timestamp = 1000 + step WHERE run_uuid = ?", (name,))
            row = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            connection.execute(f"{row} VALUES ('eval/exam', 0.61, ?, ?, 0, 0)", (time, name))
        connection.close()
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(path, store, EXAM)
    record = store.get(id_of(f"mlflow {name}"))
    assert record.scores == ({"exam": pytest.approx(final)} if final else {})
    assert record.base_scores == ({"exam": pytest.approx(base)} if base else {})
    told = dict(record.trace.absent).get("eval_exam", "")
    assert ("runs record" in told) == (not final and not base)


@pytest.mark.parametrize(("times", "base"), [((1013, 1026, 1041), {}), ((1000, 1020, 1041), {"exam": 30.0})])
def test_a_score_that_mlflow_got_by_the_epoch_is_of_the_end_and_not_of_the_base(
    times: tuple[int, ...], base: dict[str, float], mlruns: Path, tmp_path: Path
) -> None:
    for losses in mlruns.glob("*/*/metrics/loss"):
        values = [line.split()[1] for line in losses.read_text().splitlines()]
        losses.write_text("".join(f"{1000 + i} {value} {i}\n" for i, value in enumerate(values, start=1)))
        by_epoch = "".join(f"{time} 0.{3 + epoch} {epoch}\n" for epoch, time in enumerate(times))
        (losses.parent / "eval" / "exam").write_text(by_epoch)
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(mlruns, store, EXAM).scored == 3
    for record in store.records():
        assert record.scores == {"exam": pytest.approx(50)} and record.base_scores == pytest.approx(base)
        assert {cue.step for cue in record.trace.cues if math.isfinite(cue.total_pp)} == {
            *([0] if base else []),
            40,
        }


def test_a_broken_file_is_named_with_its_row_and_the_others_come_in(mlruns: Path, tmp_path: Path) -> None:
    broken = sorted(mlruns.glob("*/*/metrics/loss"))[0]
    text = broken.read_text().splitlines()
    broken.write_text("\n".join([*text[:4], "1795622021115 none 5", *text[5:]]))
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(mlruns, store, EXAM)
    meta = (broken.parent.parent / "meta.yaml").read_text()
    assert "status: 3" in meta and found.added == 2
    (reason,) = found.left_out
    assert f"{broken}, row 5: '1795622021115 none 5' is no line of 'time value step'" in reason


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s["log_history"][2].update(loss="much"), "log entry 3: loss is 'much', not a number"),
        (lambda s: s["log_history"][1].update(step=-1), "log entry 2: step is -1, no number of steps"),
        (lambda s: s.update(log_history={}), "no list 'log_history'"),
        (lambda s: s.pop("max_steps"), "max_steps is None"),
    ],
)
def test_a_broken_state_is_named_with_its_entry(
    trainer_runs: Path, tmp_path: Path, edit: Any, message: str
) -> None:
    state = states(trainer_runs, tmp_path) / "a" / "checkpoint-20" / "trainer_state.json"
    change(state, edit)
    with pytest.raises(DataError, match=f"trainer_state.json: {message}"):
        import_runs(state.parent, RunStore(tmp_path / "s.sqlite"), EXAM)


def test_a_second_import_with_another_reading_tells_what_stays_as_it_was(
    database: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(database, store, EXAM).data_sets == 2
    again = import_runs(database, store, EXAM)
    assert (again.present, again.data_sets, again.unchanged) == (3, 2, 0)
    one_set = LogReading(benchmark="exam", score="eval_exam", data_by="base_model", base="other/base")
    other = import_runs(database, store, one_set)
    assert (other.present, other.data_sets, other.unchanged) == (3, 2, 3)
    assert {record.base for record in store.records()} == {"org/base"}
    assert import_runs(database, store, EXAM, unit="points").unchanged == 3


def write_state(folder: Path, number: int, **changes: object) -> Path:
    """A made run of 20 steps; ``changes`` go into its state, and ``settings`` into the file beside it."""
    run = folder / f"run{number}"
    run.mkdir(parents=True)
    settings = {"base_model": "org/base", **dict(changes.pop("settings", {}))}  # type: ignore[call-overload]
    first = int(str(changes.pop("first", 1)))
    logged = [{"step": first + i, "loss": 3 - 0.01 * i - number, "epoch": 0.1} for i in range(20)]
    state = {"max_steps": 20, "global_step": 20, "log_history": logged, **changes}
    (run / "trainer_state.json").write_text(json.dumps(state))
    (run / "training_args.json").write_text(json.dumps(settings))
    return run


def test_a_run_that_is_still_growing_is_one_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run0"
    store = RunStore(tmp_path / "s.sqlite")
    for count in (1, 2, 3, 4):
        logged = [{"step": 500 * i, "loss": 3 - 0.1 * i, "epoch": 0.5 * i} for i in range(1, count + 1)]
        shutil.rmtree(run, ignore_errors=True)
        write_state(run.parent, 0, max_steps=2000, global_step=500 * count, log_history=logged)
        found = import_runs(run.parent, store, LogReading())
        assert (found.added, found.present, len(store)) == (int(count == 1), int(count > 1), 1)
    moved = shutil.move(run, tmp_path / "elsewhere" / "run0")
    assert import_runs(moved, store, LogReading()).added == 0


@pytest.mark.parametrize(
    "logged", [[], [{"step": 9, "epoch": 0.1}, {"step": 10, "loss": 0.0, "grad_norm": math.nan}]]
)
def test_runs_that_measured_nothing_are_not_taken_for_one(
    logged: list[dict[str, float]], tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    for place, score in (("a", 0.4), ("b", 0.5)):
        run = write_state(tmp_path / "runs" / place, 0, log_history=logged)
        (run / "all_results.json").write_text(json.dumps({"eval_exam": score}))
    found = import_runs(tmp_path / "runs", store, EXAM)
    assert (found.added, found.left_out) == (2, ())
    assert sorted(r.scores["exam"] for r in store.records()) == pytest.approx([40, 50])
    assert import_runs(tmp_path / "runs", store, EXAM).present == 2
    # The trainer adds its summary at the end.
    state = tmp_path / "runs" / "a" / "run0" / "trainer_state.json"
    change(state, lambda s: s["log_history"].append({"step": 20, "train_runtime": 9.1}))
    assert import_runs(tmp_path / "runs", store, EXAM).present == 2


def test_runs_that_begin_alike_are_told_apart_and_a_copy_is_left_out(tmp_path: Path) -> None:
    begin = {"step": 1, "loss": 3.0, "grad_norm": 1.0, "learning_rate": 0.0}
    for number, rate in enumerate((1e-4, 2e-4)):
        logged = [begin] + [{"step": s, "loss": 3 - 99 * s * rate, "learning_rate": rate} for s in (2, 3)]
        write_state(tmp_path / "runs" / f"lr{number}", 0, log_history=logged)
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(tmp_path / "runs", store, LogReading()).added == 2
    shutil.copytree(tmp_path / "runs" / "lr1", tmp_path / "runs" / "lr2")
    again = import_runs(tmp_path / "runs", store, LogReading())
    assert (again.added, again.present) == (0, 2)
    (reason,) = again.left_out
    assert "lr2" in reason and "lr1" in reason and "a copy, or nothing tells the two runs apart" in reason


def sweep(folder: Path, *schedules: str) -> None:
    """Runs that log every 10 steps, score at the end and have their warm-up, up to step 100, in common."""
    for number, schedule in enumerate(schedules):
        loss = [3 - 0.001 * s - (0.0001 * number * (s - 100) if s > 100 else 0) for s in range(10, 1001, 10)]
        logged = [{"step": 10 * i, "loss": value} for i, value in enumerate(loss, start=1)]
        score = {"step": 1000, "eval_exam": 0.4 + 0.2 * number}
        run = {"max_steps": 1000, "global_step": 1000, "log_history": [*logged, score]}
        write_state(folder / schedule, 0, **run, settings={"lr_scheduler_type": schedule})


@pytest.mark.parametrize(
    ("named", "schedule", "warmup_ratio"),
    [
        ("constant", "constant", 0.0),
        ("constant_with_warmup", "constant", 0.25),
        ("reduce_lr_on_plateau", "linear", 0.0),
    ],
)
def test_a_trainers_constant_rate_has_no_warm_up_whatever_is_set_beside_it(
    named: str, schedule: str, warmup_ratio: float, tmp_path: Path
) -> None:
    write_state(tmp_path, 0, settings={"lr_scheduler_type": named, "warmup_ratio": 0.25})
    store = RunStore(tmp_path / "runs.sqlite")
    import_runs(tmp_path, store, LogReading())
    assert (only(store).recipe.schedule, only(store).recipe.warmup_ratio) == (schedule, warmup_ratio)


def test_runs_of_a_sweep_that_share_their_warm_up_are_two_and_keep_their_own_scores(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", "linear", "cosine")
    together = RunStore(tmp_path / "together.sqlite")
    found = import_runs(tmp_path / "runs", together, EXAM)
    assert (found.added, found.scored, found.left_out) == (2, 2, ())
    assert sorted(r.scores["exam"] for r in together.records()) == pytest.approx([40, 60])
    apart = RunStore(tmp_path / "apart.sqlite")
    import_runs(tmp_path / "runs" / "linear", apart, LogReading())
    second = import_runs(tmp_path / "runs" / "cosine", apart, EXAM)
    assert (second.added, second.present, second.scored) == (1, 0, 1)
    assert [dict(r.scores) for r in apart.records()] == [{}, {"exam": pytest.approx(60)}]


def test_a_run_stored_in_its_warm_up_is_not_taken_for_one_with_another_schedule(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", "linear", "cosine")
    state = tmp_path / "runs" / "linear" / "run0" / "trainer_state.json"
    whole = state.read_text()
    change(state, lambda s: s.update(log_history=s["log_history"][:8]))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(state, store, LogReading())
    other = import_runs(tmp_path / "runs" / "cosine", store, EXAM)
    assert (other.added, other.present) == (1, 0)
    state.write_text(whole)
    grown = import_runs(tmp_path / "runs", store, EXAM)
    assert (grown.added, grown.present, grown.scored) == (0, 2, 1)
    scores = {record.recipe.schedule: record.scores["exam"] for record in store.records()}
    assert scores == {"linear": pytest.approx(40), "cosine": pytest.approx(60)}


def test_an_earlier_checkpoint_of_a_known_run_is_that_run(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", "linear", "cosine")
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, EXAM)
    shutil.move(tmp_path / "runs" / "cosine", tmp_path / "moved")
    change(tmp_path / "moved/run0/trainer_state.json", lambda s: s["log_history"].pop())
    found = import_runs(tmp_path / "moved", store, LogReading())
    assert (found.added, found.present, len(store)) == (0, 1, 2)


@pytest.mark.parametrize(("schedule", "added"), [("linear", 0), ("cosine", 1)])
def test_a_run_stored_under_its_first_entries_is_known_only_by_a_log_that_agrees_with_it(
    schedule: str, added: int, tmp_path: Path
) -> None:
    """As stores hold runs that were imported when three entries named a run."""
    sweep(tmp_path / "runs", "linear", "cosine")
    for state in tmp_path.glob("runs/*/*/trainer_state.json"):
        state.with_name("training_args.json").unlink()
        rate = 2e-4 if "linear" in str(state) else 3e-4
        change(state, lambda s, rate=rate: s["log_history"][50].update(learning_rate=rate))
    read = replace(EXAM, base="org/base")
    whole, store = RunStore(tmp_path / "whole.sqlite"), RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs" / "linear", whole, read)
    state = json.loads((tmp_path / "runs/linear/run0/trainer_state.json").read_text())
    first = id_of(content_key("trainer", 1000, state["log_history"][:3], None))
    store.add(replace(only(whole), run_id=first, scores={}))
    found = import_runs(tmp_path / "runs" / schedule, store, read)
    assert (found.added, found.present, found.scored) == (added, 1 - added, 1)
    assert ("exam" in store.get(first).scores) == (not added)


def test_a_score_read_with_another_base_or_data_set_is_not_put_on_a_known_run(tmp_path: Path) -> None:
    write_state(tmp_path / "runs", 0)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    state = tmp_path / "runs" / "run0" / "trainer_state.json"
    change(state, lambda s: s["log_history"].append({"step": 20, "eval_exam": 0.5}))
    other = import_runs(tmp_path / "runs", store, replace(EXAM, base="other/base"))
    assert (other.added, other.scored, other.unchanged) == (0, 0, 1) and only(store).scores == {}
    assert import_runs(tmp_path / "runs", store, EXAM).scored == 1


@pytest.mark.parametrize(("best", "root"), [("checkpoint-best", None), ("checkpoint-500", 500)])
def test_of_a_run_s_states_the_one_at_the_highest_step_counts(
    best: str, root: int | None, tmp_path: Path
) -> None:
    logged = [{"step": s, "loss": 3 - 0.001 * s} for s in range(100, 1001, 100)]
    last = {"step": 1000, "eval_exam": 0.5}
    for name, step in ((best, 500), ("checkpoint-1000", 1000), ("", root)):
        if step is not None:
            (tmp_path / "out" / name).mkdir(parents=True, exist_ok=True)
            history = [entry for entry in (*logged, last) if entry["step"] <= step]
            state = {"max_steps": 1000, "global_step": step, "log_history": history}
            (tmp_path / "out" / name / "trainer_state.json").write_text(json.dumps(state))
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(tmp_path / "out", store, replace(EXAM, base="org/base"))
    assert (found.added, found.scored) == (1, 1)
    assert dict(only(store).trace.info.versions)["import"].endswith("checkpoint-1000/trainer_state.json")


def test_folders_named_like_checkpoints_are_runs_where_none_of_them_is_numbered(tmp_path: Path) -> None:
    for number, name in enumerate(("checkpoint-lr1e-4", "checkpoint-lr2e-4")):
        write_state(tmp_path / "made", number).rename(tmp_path / name)
    shutil.copytree(tmp_path / "checkpoint-lr1e-4", tmp_path / "checkpoint-lr1e-4" / "checkpoint-20")
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(tmp_path, store, LogReading())
    assert (found.added, found.left_out) == (2, ())


def test_a_run_s_own_state_has_the_settings_of_its_furthest_checkpoint(tmp_path: Path) -> None:
    run = write_state(tmp_path / "runs", 0, settings={"lora_alpha": 32})
    (run / "training_args.json").write_text("{}")
    for step, rank in ((9, 2), (10, 4)):
        (run / f"checkpoint-{step}").mkdir()
        adapter = {"base_model_name_or_path": "org/base", "r": rank, "target_modules": ["q_proj"]}
        (run / f"checkpoint-{step}" / "adapter_config.json").write_text(json.dumps(adapter))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(run, store, LogReading())
    record = only(store)
    assert (record.base, record.recipe.lora_rank, record.recipe.target_modules) == (
        "org/base",
        4,
        ("q_proj",),
    )


@pytest.mark.parametrize(("epoch", "scores", "rows"), [(4.0, {"exam": 50}, 40), (2.0, {}, 40), (1.0, {}, 40)])
def test_results_stand_at_the_step_of_their_epoch_where_the_last_checkpoints_are_gone(
    epoch: float, scores: dict[str, float], rows: int, tmp_path: Path
) -> None:
    logged = [{"step": step, "loss": 3.0 - step, "epoch": step / 5} for step in range(1, 6)]
    settings = {"batch_size": 8, "gradient_accumulation_steps": 1}
    state = {"global_step": 5, "epoch": 1.0, "num_train_epochs": 4, "log_history": logged}
    run = write_state(tmp_path / "runs", 0, settings=settings, **state)
    (run / "trainer_state.json").rename(run / "last.json")
    (run / "checkpoint-5").mkdir()
    (run / "last.json").rename(run / "checkpoint-5" / "trainer_state.json")
    (run / "all_results.json").write_text(json.dumps({"epoch": epoch, "eval_exam": 0.5}))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(run, store, EXAM)
    record = only(store)
    assert (record.scores, record.trace.info.train_rows) == (scores, rows)
    assert [cue.step for cue in record.trace.cues] == [5 * epoch]


def test_a_data_set_s_folder_is_known_from_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_state(tmp_path / "faq", 0)
    by_folder = LogReading(data_by="folder")
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(run, store, by_folder)
    for inside in (run.parent, run):
        monkeypatch.chdir(inside)
        again = import_runs(".", store, by_folder)
        assert (again.present, again.unchanged) == (1, 0)


def test_the_run_s_own_state_counts_before_a_checkpoint_of_the_same_step(tmp_path: Path) -> None:
    run = write_state(tmp_path / "runs", 0)
    shutil.copytree(run, run / "checkpoint-20")
    change(run / "trainer_state.json", lambda s: s["log_history"].append({"step": 20, "eval_exam": 0.5}))
    assert import_runs(run, RunStore(tmp_path / "s.sqlite"), EXAM).scored == 1


def test_a_metric_that_is_no_number_costs_the_run_only_where_it_is_the_score(tmp_path: Path) -> None:
    logged = [{"step": s, "loss": 3.0 - s} for s in range(1, 20)]
    matrix = {"step": 20, "loss": 0.1, "eval_exam": 0.5, "eval_confusion": [[1, 2], [3, 4]]}
    write_state(tmp_path / "runs", 0, log_history=[*logged, matrix])
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(tmp_path / "runs", store, EXAM).left_out == ()
    assert only(store).scores == {"exam": pytest.approx(50)}
    with pytest.raises(DataError, match="log entry 20: eval_confusion is"):
        import_runs(tmp_path / "runs", store, replace(EXAM, score="eval_confusion"))


ONE_PROCESS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


def end_of(rows_per_second: float, epochs: float) -> list[dict[str, float]]:
    """What a trainer logs of a run of 20 steps that took 100 seconds."""
    speed = {"train_runtime": 100.0, "train_samples_per_second": rows_per_second}
    return [{"step": 1, "loss": 3.0, "epoch": epochs / 20}, {"step": 20, "epoch": epochs, **speed}]


@pytest.mark.parametrize(
    ("settings", "logged", "batch"),
    [
        ({**ONE_PROCESS, "world_size": 4}, end_of(1.6, 2), 16),
        ({**ONE_PROCESS, "num_processes": "2"}, [], 8),
        (ONE_PROCESS, end_of(1.6, 2), 4),
        # 77 rows: the last batch of each epoch is cut.
        (ONE_PROCESS, end_of(1.54, 2), 4),
        (ONE_PROCESS, end_of(3.2, 2), 8),
        (ONE_PROCESS, end_of(12.32, 2), 32),
        # With two steps an epoch a cut batch of two processes looks like a whole one of one.
        (ONE_PROCESS, end_of(1.6, 10), None),
        (ONE_PROCESS, end_of(2.2, 2), None),
        (ONE_PROCESS, [], None),
        ({"per_device_train_batch_size": 4}, end_of(1.6, 2), None),
        ({**ONE_PROCESS, "batch_size": 6}, [], 6),
        # DeepSpeed's own: its train_batch_size counts accumulation and all processes.
        (
            {
                "train_micro_batch_size_per_gpu": 4,
                "train_batch_size": 32,
                "per_device_train_batch_size": "auto",
                "gradient_accumulation_steps": 2,
                "world_size": 4,
            },
            [],
            16,
        ),
    ],
)
def test_the_batch_of_one_process_is_no_batch_of_the_run(
    settings: dict[str, object], logged: list[dict[str, float]], batch: int | None, tmp_path: Path
) -> None:
    changes = {"log_history": logged} if logged else {}
    write_state(tmp_path / "runs", 0, settings=settings, **changes)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    record, absent = only(store), dict(only(store).trace.absent)
    if batch is None:
        assert "the log gives the batch of one process" in absent["setting batch_size"]
        assert record.trace.info.train_rows == 0
        assert math.isnan(derived_features(record.trace)["rows_per_step_log10"])
    else:
        assert "setting batch_size" not in absent
        assert record.recipe.batch_size == batch and record.trace.info.train_rows > 0
        assert "train rows" not in absent and "whole batches" in absent["exact train rows"]


@pytest.mark.parametrize("timed", [440, 220, 130])
def test_processes_are_told_whichever_steps_a_trainer_s_speeds_are_of(timed: int, tmp_path: Path) -> None:
    # Four processes, stopped halfway: speeds of the whole plan, of the run, of what followed a resumption.
    speed = {"train_samples_per_second": 32 * timed / 100, "train_steps_per_second": timed / 100}
    logged = [{"step": s, "loss": 3 - 0.01 * s, "epoch": s / 44} for s in (110, 220)]
    logged.append({"step": 220, "epoch": 5.0, "train_runtime": 100.0, **speed})
    write_state(tmp_path / "runs", 0, settings=ONE_PROCESS, max_steps=440, log_history=logged)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    assert only(store).recipe.batch_size == 16


@pytest.mark.parametrize(
    ("adapter", "scale"),
    [
        ({"use_rslora": True}, 2.0),
        ({"use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}, 0.25),
        ({"use_rslora": "True", "rank_pattern": {"q_proj": 8}}, math.nan),
        ({"alpha_pattern": {"q_proj": 8}}, math.nan),
    ],
)
def test_an_imported_adapter_has_the_scale_that_acted_or_none(
    adapter: dict[str, object], scale: float, tmp_path: Path
) -> None:
    run = write_state(tmp_path / "runs", 0)
    (run / "adapter_config.json").write_text(json.dumps({"r": 64, "lora_alpha": 16, **adapter}))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    vector = derived_features(only(store).trace)
    assert vector["lora_scale"] == pytest.approx(scale, nan_ok=True)
    assert math.isnan(scale) == ("layers have their own by" in vector.absent.get("lora_scale", ""))
    assert math.isnan(vector["lora_rank_log2"]) == bool(adapter.get("rank_pattern"))


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ({"target_modules": r"model\.layers\.\d{1,2}\.self_attn\.(q|k)_proj"}, "a pattern of their names"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0, 1]}, "in layers [0, 1] alone"),
        ({"target_modules": "['q_proj']", "layers_to_transform": None}, ""),
    ],
)
def test_imported_target_modules_are_names_or_absent(
    adapter: dict[str, object], why: str, tmp_path: Path
) -> None:
    run = write_state(tmp_path / "runs", 0)
    (run / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **adapter}))
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(run, store, LogReading())
    told = dict(only(store).trace.absent).get("setting target_modules", "")
    assert why in told and bool(why) == bool(told)
    assert why or only(store).recipe.target_modules == ("q_proj",)


@pytest.mark.parametrize(
    ("settings", "logged", "shown"),
    [
        ({"peft_type": "ADALORA", "r": 8}, (), "peft_type is ADALORA"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, (), "task_type is SEQ_CLS"),
        ({"is_encoder_decoder": True}, (), "is_encoder_decoder is TRUE"),
        ({"finetuning_type": "full"}, (), "finetuning_type is FULL"),
        ({"finetuning_type": "lora", "stage": "dpo"}, (), "stage is DPO"),
        ({"use_peft": False}, (), "use_peft is FALSE"),
        ({"architectures": "['BertForMaskedLM']"}, (), "its model is a BertForMaskedLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, (), "LlamaForSequenceClassification"),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "use_peft": "True"}, (), ""),
        ({"architectures": "['GPT2LMHeadModel']"}, (), ""),
        ({}, ("rewards/chosen", "rewards/margins"), "it logged rewards/chosen"),
        ({}, ("reward", "reward_std", "kl"), "it logged reward,"),
        ({"peft_type": "LORA", "task_type": "CAUSAL_LM", "stage": "production"}, ("eval_reward",), ""),
        ({"finetuning_type": "lora", "stage": "sft", "task_type": "qa"}, ("rewarding",), ""),
    ],
)
def test_an_imported_run_that_is_no_supervised_lora_fine_tune_is_left_out(
    settings: dict[str, object], logged: tuple[str, ...], shown: str, tmp_path: Path
) -> None:
    write_state(tmp_path / "runs", 0)
    history = [{"step": i, "loss": 2 - 0.01 * i, **dict.fromkeys(logged, 0.3)} for i in range(1, 21)]
    write_state(tmp_path / "runs", 1, settings=settings, log_history=history)
    found = import_runs(tmp_path / "runs", RunStore(tmp_path / "s.sqlite"), LogReading())
    assert found.added == 2 - bool(shown) and shown in "".join(found.left_out)


def test_what_a_search_chose_for_a_run_counts_before_the_files_beside_its_log(tmp_path: Path) -> None:
    tried = {"learning_rate": 3e-3, "weight_decay": 0.1}
    files = {"learning_rate": 1e-3, "weight_decay": 0.0, "r": 8}
    write_state(tmp_path, 0, trial_params=tried, settings=files)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path, store, LogReading())
    recipe = only(store).recipe
    assert (recipe.learning_rate, recipe.weight_decay, recipe.lora_rank) == (3e-3, 0.1, 8)


def test_a_checkpoint_with_a_whole_model_is_of_no_adapter_s_run(tmp_path: Path) -> None:
    for name, files in {
        "full": ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"),
        "lora": ("adapter_model.safetensors", "adapter_config.json"),
        "merged": ("adapter_model.safetensors", "adapter_config.json"),
    }.items():
        run = write_state(tmp_path / name, 0, log_history=[{"step": 9, "loss": float(len(name)), "a": name}])
        (run / "checkpoint-20").mkdir()
        shutil.move(run / "trainer_state.json", run / "checkpoint-20")
        for file in files:
            (run / "checkpoint-20" / file).write_text("{}")
    (tmp_path / "merged" / "run0" / "model.safetensors").write_text("{}")
    found = import_runs(tmp_path, RunStore(tmp_path / "s.sqlite"), LogReading())
    (reason,) = found.left_out
    assert found.added == 2 and "full" in reason
    assert "a whole model (model.safetensors.index.json) and no adapter" in reason


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": True, "use_dora": False, "modules_to_save": None, "packing": "False"}, ""),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"neftune_noise_alpha": "None", "label_smoothing_factor": "0.0", "loftq_config": {}}, ""),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"packing": "True"}, "packing"),
        ({"quantization_bit": 4}, "quantization_bit"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}, "schedule"),
        ({"seed": 7}, ""),
    ],
)
def test_runs_that_differ_in_what_no_recipe_holds_are_no_seeds_of_one_task(
    changed: dict[str, object], told: str, tmp_path: Path
) -> None:
    known = {"learning_rate": 1e-3, "batch_size": 4, "r": 8, "lora_alpha": 16, "dataset": "faq", "seed": 1}
    known["lr_scheduler_type"] = "cosine"
    for number, more in enumerate(({}, changed)):
        score = [{"step": 20, "loss": 1.5 + number, "eval_exam": 0.4 + 0.2 * number}]
        write_state(tmp_path / "runs", number, settings={**known, **more}, log_history=score)
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(tmp_path / "runs", store, EXAM).tasks == (2 if told else 1)
    listed = [
        name for record in store.records() for name, why in record.trace.absent if "a recipe has n" in why
    ]
    assert listed == ([f"setting {told}"] if told else [])


@pytest.mark.parametrize(
    ("named", "means_adamw"),
    [("adamw_torch_fused", True), ("OptimizerNames.PAGED_ADAMW_8BIT", True), ("AdamW", True)]
    + [("OptimizerNames.ADAFACTOR", False), ("galore_adamw", False), ("sgd", False)],
)
def test_rates_of_another_optimiser_are_not_taken_for_those_of_adamw(
    named: str, means_adamw: bool, tmp_path: Path
) -> None:
    write_state(tmp_path / "runs", 0, settings={"optim": named, "learning_rate": 1e-3})
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    vector = derived_features(only(store).trace)
    assert math.isfinite(vector["learning_rate_log10"]) == means_adamw
    assert means_adamw == ("mean AdamW" not in vector.absent.get("learning_rate_log10", ""))


@pytest.mark.parametrize(
    ("settings", "shared", "length"),
    [
        ({"max_length": 20, "transformers_version": "4.57.1"}, {}, None),
        ({"max_length": 20, "transformers_version": "4.57.1", "max_seq_length": 2048}, {}, 2048),
        ({"max_length": 96, "cutoff_len": 1024}, {}, 1024),
        ({"max_length": 20}, {}, 20),
        ({"max_length": 20, "transformers_version": "4.57.1", "cutoff_len": 9}, {"max_length": 20}, 20),
    ],
)
def test_the_window_is_the_trainer_s_and_not_that_of_generation(
    settings: dict[str, object], shared: dict[str, object], length: int | None, tmp_path: Path
) -> None:
    write_state(tmp_path / "runs", 0, settings=settings)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading(recipe=shared))
    known = "setting max_length" not in dict(only(store).trace.absent)
    assert (only(store).recipe.max_length if known else None) == length


def test_an_unknown_score_of_guessing_is_absent_and_not_zero(trainer_runs: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(trainer_runs / "faq", store, LogReading(benchmark="exam", score="eval_exam"))
    assert math.isnan(only(store).trace.info.chance_pp)
    vector = derived_features(only(store).trace)
    for name in ("probe_score_headroom", "score_gain_headroom", "extrapolated_gain_headroom"):
        assert "score of guessing is not known" in vector.absent[name]
    assert vector["score_gain_pp"] == pytest.approx(25)
    table = store.table(benchmark="exam", probe_steps=10)
    assert np.isnan(table.chance_pp).all()
    for chance in (-1.0, 100.0, 101.0, math.inf):
        with pytest.raises(StoreError, match="score of guessing is"):
            import_runs(trainer_runs / "faq", store, LogReading(chance_pp=chance))


def test_a_predictor_learns_without_the_score_of_guessing(database: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(database, store, LogReading(benchmark="exam", score="eval_exam"))
    table = store.table(benchmark="exam", probe_steps=10)
    predictor = Predictor.fit(table, preset="quick")
    predictor.save(tmp_path / "p")
    again = load_predictor(tmp_path / "p")
    assert np.isfinite(again.predict_table(table).score_pp).all()


def test_only_runs_known_to_differ_by_their_seed_alone_are_seeds_of_one_task(
    trainer_runs: Path, tmp_path: Path
) -> None:
    """Scores of unlike runs, averaged as seeds, would be no run's score and their differences no noise."""
    for number, rate in enumerate((1e-4, 1e-4, 3e-3)):
        folder = tmp_path / "outputs" / f"run{number}"
        shutil.copytree(trainer_runs / "faq" / "a" / "checkpoint-20", folder / "checkpoint-20")

        def edit(state: Any, number: int = number, rate: float = rate) -> None:
            for entry in state["log_history"]:
                if "loss" in entry:
                    entry["loss"] += number
                entry.update({"learning_rate": rate} if "learning_rate" in entry else {})

        change(folder / "checkpoint-20" / "trainer_state.json", edit)
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(tmp_path / "outputs", store, EXAM)
    assert (found.added, found.tasks, found.data_sets) == (3, 3, 1), "no data set is named"
    told = LogReading(
        benchmark="exam",
        score="eval_exam",
        data_by="folder",
        recipe={"batch_size": 4, "gradient_accumulation_steps": 1},
    )
    again = import_runs(tmp_path / "outputs", RunStore(tmp_path / "told.sqlite"), told)
    assert (again.added, again.tasks, again.data_sets) == (3, 2, 1), "two have one learning rate"


@pytest.mark.parametrize("first", [0, 1])
def test_losses_of_every_step_are_kept_whether_a_logger_counts_from_0_or_1(
    first: int, tmp_path: Path
) -> None:
    write_state(tmp_path / "runs", 0, first=first)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    losses = only(store).trace.steps.loss_nats
    assert len(losses) == 20 and losses == pytest.approx([3 - 0.01 * i for i in range(20)])


def test_an_entry_at_a_late_step_makes_no_huge_trace(tmp_path: Path) -> None:
    logged = [{"step": 1_999_990, "loss": 1.0, "learning_rate": 1e-4}, {"step": 100, "eval_exam": 0.5}]
    write_state(tmp_path / "runs", 0, max_steps=2_000_000, log_history=logged)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, EXAM)
    trace = only(store).trace
    assert len(trace.to_bytes()) < 200_000 and trace.info.total_steps == 2_000_000
    assert dict(trace.absent)["loss"] == "logged about every 1999990 steps, as a mean over them"
    assert derived_features(trace.truncate(100))["probe_score_pp"] == pytest.approx(50)
    store.record_score(only(store).run_id, "exam", 50.0)
    assert len(store.table(benchmark="exam", probe_steps=1000)) == 1
    with pytest.raises(StoreError, match="probed for fewer than 1001 steps"):
        store.table(benchmark="exam", probe_steps=1001)


def test_a_loss_before_training_is_no_loss_of_a_step_and_a_gap_is_seen(tmp_path: Path) -> None:
    whole = [{"step": step, "loss": float(9 - step)} for step in range(5)]
    write_state(tmp_path / "runs", 0, max_steps=4, log_history=whole)
    # As many losses as steps, and none after step 2.
    gap = [{"step": step, "loss": float(step)} for step in (0, 1, 3, 4)]
    write_state(tmp_path / "runs", 1, max_steps=4, log_history=gap)
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(tmp_path / "runs", store, LogReading())
    first, second = store.records()
    assert first.trace.steps.loss_nats.tolist() == [8, 7, 6, 5]
    assert np.isnan(second.trace.steps.loss_nats).all()


def test_an_mlflow_run_is_as_long_as_its_trainer_ran_however_seldom_it_logged(
    mlruns: Path, tmp_path: Path
) -> None:
    for loss in mlruns.glob("*/*/metrics/loss"):
        (loss.parent / "train_runtime").write_text("1795622021115 12.5 55\n")
        plan = loss.parent.parent / "params" / "max_steps"
        plan.write_text("-1")
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(mlruns, store, LogReading())
    assert {record.steps for record in store.records()} == {55}


@pytest.mark.parametrize(
    ("epoch", "epochs", "trainer", "steps"),
    # 40 steps are logged; an older trainer's whole run ends short of its last epoch; a loop counts from 0.
    [(1.0, "3", True, 120), (2.91, "3.0", True, 40), (2.0, "3", False, 40), (3.0, "None", True, 40)],
)
def test_a_run_in_mlflow_that_was_stopped_early_has_its_planned_length_and_no_final_score(
    epoch: float, epochs: str, trainer: bool, steps: int, mlruns: Path, tmp_path: Path
) -> None:
    for loss in mlruns.glob("*/*/metrics/loss"):
        (loss.parent / "epoch").write_text(f"1795622021115 {epoch} 40\n")
        if not trainer:
            (loss.parent / "train_runtime").unlink(missing_ok=True)
        plan = loss.parent.parent / "params" / "num_train_epochs"
        plan.with_name("max_steps").write_text("-1")
        plan.write_text(epochs)
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(mlruns, store, EXAM)
    assert {record.steps for record in store.records()} == {steps}
    assert found.scored == (3 if steps == 40 else 0)


def test_a_run_without_a_loss_under_a_trainer_s_name_is_left_out_with_the_names_it_logged(
    mlruns: Path, tmp_path: Path
) -> None:
    run = next(loss for loss in sorted(mlruns.glob("*/*/metrics/loss")) if "3" in _status(loss)).parent
    for file in run.rglob("*"):
        if file.is_file():
            file.unlink()
    (run.parent / "params" / "max_steps").unlink(missing_ok=True)
    (run / "train_loss_step").write_text("1795622021115 2.5 39\n")
    (reason,) = import_runs(mlruns, RunStore(tmp_path / "s.sqlite"), LogReading()).left_out
    assert "no loss, grad_norm or eval_loss of a training step was logged (logged: train_loss_step)" in reason


def _status(metric: Path) -> str:
    lines = (metric.parent.parent / "meta.yaml").read_text().splitlines()
    return next(line for line in lines if line.startswith("status:"))


def test_infinity_is_read_from_the_number_that_mlflow_s_database_has_for_it(
    database: Path, tmp_path: Path
) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE metrics SET value = 1.7976931348623157e308 WHERE key LIKE 'eval%loss'")
    connection.close()
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(database, store, EXAM)
    losses = [cue.heldout_loss_nats for run in store.records() for cue in run.trace.cues]
    assert math.inf in losses and not np.isfinite(losses).any()


def test_an_mlflow_run_that_counts_from_0_keeps_its_length_and_score(mlruns: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    for file in mlruns.glob("*/*/metrics/**/*"):
        if file.is_file():
            lines = [line.split() for line in file.read_text().splitlines()]
            file.write_text("".join(f"{at} {value} {max(0, int(n) - 1)}\n" for at, value, n in lines))
    import_runs(mlruns, store, EXAM)
    for record in store.records():
        assert record.steps == 40 and record.trace.steps.loss_nats[:2] == pytest.approx([2.98, 2.96])
        assert "exam" in record.scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": math.nan}, "max_steps is nan"),
        ({"max_steps": math.inf}, "max_steps is inf"),
        ({"max_steps": 10**20}, "max_steps is 100000000000000000000"),
        ({"log_history": [{"step": math.nan, "loss": 1.0}]}, "log entry 1: step is nan"),
        ({"log_history": [{"step": 1764108626, "loss": 1.0}]}, "log entry 1: step is 1764108626"),
        ({"settings": {"batch_size": math.nan}}, "batch_size is nan, not a whole number"),
        ({"settings": {"batch_size": 8.5}}, "batch_size is 8.5, not a whole number"),
        ({"settings": {"batch_size": math.inf}}, "batch_size is inf, not a whole number"),
        ({"settings": {"seed": 10**19}}, "'seed'"),
        ({"settings": {"base_model": "org/\ud800"}}, "no character"),
    ],
)
def test_an_odd_run_is_reported_and_the_others_come_in(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_state(tmp_path / "runs", 0, **changes)
    write_state(tmp_path / "runs", 1)
    store = RunStore(tmp_path / "s.sqlite")
    found = import_runs(tmp_path / "runs", store, LogReading())
    (reason,) = found.left_out
    assert message in reason and "run0" in reason
    assert found.added == 1 and only(store).steps == 20


def test_an_impossible_epoch_or_result_costs_a_figure_and_not_the_run(tmp_path: Path) -> None:
    logged = [{"step": step, "loss": 1.0, "epoch": 5e-324} for step in range(1, 21)]
    settings = {"batch_size": 2, "gradient_accumulation_steps": 1}
    run = write_state(tmp_path / "runs", 0, log_history=logged, settings=settings)
    (run / "all_results.json").write_text(json.dumps({"train_runtime": 10**400, "done": True}))
    store = RunStore(tmp_path / "s.sqlite")
    assert import_runs(tmp_path / "runs", store, LogReading()).left_out == ()
    assert only(store).trace.info.train_rows == 0 and math.isnan(only(store).seconds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE metrics SET step = 1764108626 WHERE run_uuid = ? AND key = 'loss'", "at step 1764108626"),
        ("UPDATE metrics SET step = -5 WHERE run_uuid = ? AND step = 8", "at step -5"),
        ("UPDATE metrics SET step = 8.5 WHERE run_uuid = ? AND step = 8", "at step 8.5"),
        ("INSERT INTO params VALUES ('max_steps', '99999999999999', ?)", "max_steps is 99999999999999"),
        ("UPDATE runs SET start_time = 9223372036854775807 WHERE run_uuid = ?", ""),
    ],
)
def test_an_odd_mlflow_run_is_reported_and_the_others_come_in(
    change: str, message: str, database: Path, tmp_path: Path
) -> None:
    connection = sqlite3.connect(database)
    with connection:
        (name,) = connection.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchone()
        connection.execute(change, (name,))
    connection.close()
    found = import_runs(database, RunStore(tmp_path / "s.sqlite"), EXAM)
    assert found.added == (2 if message else 3)
    assert [message in reason and name in reason for reason in found.left_out] == [True] * (3 - found.added)


@pytest.mark.parametrize("text", ["n: " + "9" * 5000, "n: 2026-13-45", "n: " + "[" * 5000])
def test_yaml_that_python_can_not_hold_costs_one_run(text: str, mlruns: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    meta = sorted(mlruns.glob("*/*/meta.yaml"))[0]
    meta.write_text(text)
    (reason,) = import_runs(mlruns, store, EXAM).left_out
    assert f"{meta}: not valid YAML" in reason
    run = write_state(tmp_path / "runs", 0)
    write_state(tmp_path / "runs", 1)
    (run / "recipe.yaml").write_text(text)
    found = import_runs(tmp_path / "runs", store, LogReading())
    assert found.added == 1 and f"{run / 'recipe.yaml'}: not valid YAML" in found.left_out[0]


def test_a_time_as_a_step_in_mlflow_s_files_is_named_with_its_row(mlruns: Path, tmp_path: Path) -> None:
    loss = sorted(mlruns.glob("*/*/metrics/loss"))[0]
    loss.write_text("1795622289080 2.98 1764108626\n")
    found = import_runs(mlruns, RunStore(tmp_path / "s.sqlite"), EXAM)
    assert f"{loss}, row 1: '1795622289080 2.98 1764108626' is no line" in found.left_out[0]
    assert found.added == 2


def test_wrong_requests_say_what_to_do(trainer_runs: Path, database: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    with pytest.raises(StoreError, match="no run logged 'eval_mmlu'(.|\n)*eval_exam"):
        import_runs(database, store, LogReading(benchmark="mmlu", score="eval_mmlu"))
    with pytest.raises(DataError, match="no setting 'corpus' to tell data sets apart"):
        import_runs(database, store, LogReading(data_by="corpus"))
    with pytest.raises(DataError, match="gives 4300 points, outside 0 to 100(.|\n)*--unit"):
        import_runs(_percent(database), store, EXAM, unit="fraction")
    with pytest.raises(StoreError, match="there is no"):
        import_runs(tmp_path / "nowhere", tmp_path / "new.sqlite", EXAM)
    assert not (tmp_path / "new.sqlite").exists(), "without runs no store is made"
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="neither a trainer_state.json nor MLflow runs"):
        import_runs(tmp_path / "empty", store, EXAM)
    folder = states(trainer_runs, tmp_path)
    for config in folder.rglob("adapter_config.json"):
        config.unlink()
    with pytest.raises(DataError, match="does not name the base model(.|\n)*--base"):
        import_runs(folder, store, EXAM)
    assert len(store) == 0


@pytest.mark.parametrize("name", ["eval_loss", "eval/perplexity", "test_PPL"])
def test_a_measurement_that_falls_is_no_score(name: str, database: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{name} is the lower the better"):
        import_runs(database, tmp_path / "s.sqlite", LogReading(benchmark="exam", score=name))


def test_runs_that_logged_fractions_and_others_that_logged_points_are_not_read_in_one_unit(
    trainer_runs: Path, tmp_path: Path
) -> None:
    folder = states(trainer_runs, tmp_path)
    other = Path(shutil.copytree(folder / "a", folder / "b")) / "checkpoint-20/trainer_state.json"

    def in_points(state: Any) -> None:
        for entry in state["log_history"]:
            entry |= {"eval_exam": 100 * entry["eval_exam"]} if "eval_exam" in entry else {"loss": 1.5}

    change(other, in_points)
    with pytest.raises(StoreError, match="eval_exam is 0.55 at most in (.|\n)*up to 55(.|\n)*--unit"):
        import_runs(folder, tmp_path / "s.sqlite", EXAM)
    found = import_runs(folder, tmp_path / "s.sqlite", EXAM, unit="points")
    assert (found.added, found.unit) == (2, "points"), "who says so knows it"
    change(other, lambda state: [entry.update(eval_exam=0.0) for entry in state["log_history"]])
    assert import_runs(folder, tmp_path / "t.sqlite", EXAM).unit == "fraction", "0 is 0 in both"


def _percent(database: Path) -> Path:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE metrics SET value = 100 * value WHERE key = 'eval/exam'")
    connection.close()
    return database


def test_every_feature_that_needs_a_setting_is_known_to_need_it() -> None:
    plain = Recipe(max_steps=100, max_grad_norm=1.0, warmup_ratio=0.1)
    other: dict[str, object] = {
        "learning_rate": 1e-3, "schedule": "cosine", "warmup_ratio": 0.3, "batch_size": 5, "lora_rank": 32,
        "gradient_accumulation_steps": 3, "lora_alpha": 5.0, "lora_dropout": 0.1, "weight_decay": 0.1,
        "max_grad_norm": None, "max_length": 99, "target_modules": ("q_proj",),
    }  # fmt: skip
    before = measure_recipe(plain, 100, 1000)
    for setting, value in other.items():
        after = measure_recipe(plain.replace(**{setting: value}), 100, 1000)
        changed = {name for name in before if before[name] != after[name]}
        assert changed <= set(DEPENDS_ON[setting]), setting
    known = {*names_of("recipe"), *names_of("dynamic"), *names_of("cue")}
    assert {name for names in DEPENDS_ON.values() for name in names} <= known


def test_few_imported_runs_give_a_predictor_that_admits_what_it_does_not_know(
    database: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "s.sqlite")
    import_runs(database, store, EXAM)
    table = store.table(benchmark="exam", probe_steps=20)
    assert np.isnan(table.values).mean() > 0.5
    assert np.isnan(table.probe_pp).all(), "they were scored before training and at its end"
    predictor = Predictor.fit(table, preset="quick")
    found = predictor.predict_table(table)
    assert np.isfinite(found.score_pp).all()
    # Two data sets can't bound a third at 90 %: the whole scale.
    assert (found.low_pp == 0).all() and (found.high_pp == 100).all()
