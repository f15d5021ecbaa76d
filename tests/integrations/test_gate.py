"""The gate inside a Trainer: a doomed run ends with a checkpoint, a good one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import IterableDatasetShard
from integrations.trainer_fixtures import RECIPE, columns, make_data, make_exam, make_predictor, make_trainer
from made_assessment import made_assessment
from rich.console import Console
from torch.utils.data import IterableDataset
from training.training_fixtures import WORDS, make_examples
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from tuneahead.errors import ModelError, PredictorError, TuneAheadError
from tuneahead.examples import Example
from tuneahead.features.extract import derived_features
from tuneahead.history.store import RunStore
from tuneahead.integrations import findings, losses, rows
from tuneahead.integrations.rows import read_rows
from tuneahead.integrations.transformers import Gate, RunNotes, print_verdict
from tuneahead.predictor.predictor import Predictor
from tuneahead.report import render_html
from tuneahead.training.measure import CueMeter, GradientMeter
from tuneahead.training.models import Base, load_base
from tuneahead.training.probe import prepare_data
from tuneahead.verdict import Goal


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


def test_a_good_run_passes_and_a_doomed_one_ends_with_a_checkpoint(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    found = {}
    for rate in (1e-3, 5e-2):
        recipe = RECIPE.replace(learning_rate=rate, max_steps=110)
        gate = Gate(
            predictor, Goal(minimum_pp=50), benchmark=make_exam(), store=store, notes=RunNotes(base="tiny")
        )
        folder = tmp_path / str(rate)
        trainer = make_trainer(path, folder, base, make_data(base, recipe), recipe, callbacks=[gate])
        trainer.train()
        found[rate] = (gate.decision, trainer.state.global_step, (folder / "checkpoint-100").is_dir())
    assert found == {1e-3: ("GO", 110, False), 5e-2: ("NO_GO", 100, True)}
    assert gate.assessment is not None and gate.assessment.forecast is not None
    assert gate.assessment.forecast.score_pp == pytest.approx(30, abs=5)
    out = capsys.readouterr().out
    assert "GO  Expected to score" in out and "NO GO  Expected to score" in out
    kept = store.get(gate.run_id)
    assert kept.recipe == recipe and len(kept.trace.steps) == 100
    assert store.static(kept.data_id, "tiny", _version()) is not None
    assert "NO GO" in render_html(gate.assessment).upper()
    # Against its verdict the run can go on from the checkpoint, and is not judged again.
    trainer = make_trainer(path, folder, base, make_data(base, recipe), recipe)
    gate.attach(trainer)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-100"))
    assert trainer.state.global_step == 110
    assert "resumed at step 100: this run is not judged" in capsys.readouterr().out


def test_measures_of_a_sample_of_the_rows_have_their_error_as_outside_a_trainer(
    path: Path, base: Base, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=6)
    gate = Gate(None, benchmark=make_exam(), probe_steps=5, notes=RunNotes(base="tiny"))
    data = prepare_data(base, make_examples(260), recipe)
    make_trainer(path, tmp_path, base, data, recipe, callbacks=[gate]).train()
    assert gate.assessment is not None
    found = gate.assessment.data
    assert found.samples["reference_loss_nats"].total == found.rows == len(data.train)
    assert "Figures with ± are estimates" in render_html(gate.assessment)


def test_an_early_look_stops_what_is_doomed_and_changes_nothing_else(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    make_predictor(10).save(tmp_path / "early")

    def trained(rate: float, **more: Any) -> tuple[Gate, Trainer]:
        recipe = RECIPE.replace(learning_rate=rate, max_steps=110)
        gate = Gate(
            predictor, Goal(minimum_pp=50), benchmark=make_exam(), notes=RunNotes(base="tiny"), **more
        )
        folder = tmp_path / f"{rate}-{len(more)}"
        trainer = make_trainer(path, folder, base, make_data(base, recipe), recipe, callbacks=[gate])
        trainer.train()
        return gate, trainer

    early, trainer = trained(5e-2, early=[tmp_path / "early"], store=store)
    assert early.decision == "NO_GO" and trainer.state.global_step == 10
    assert (tmp_path / "0.05-2" / "checkpoint-10").is_dir()
    assert "After 10 of 110 steps:\nNO GO  Expected to score" in capsys.readouterr().out
    assert early.assessment is not None and early.assessment.task.probe_steps == 10
    assert len(store.get(early.run_id).trace.steps) == 10

    watched, trainer = trained(5e-2, early=[tmp_path / "early"], stop=False)
    assert watched.decision == "NO_GO" and trainer.state.global_step == 110
    out = capsys.readouterr().out
    assert "After 10 of 110 steps: NO GO: " in out and out.count("Expected to score") == 1
    whole = watched.trace
    assert whole is not None and early.trace is not None and len(whole.steps) == 100
    # What the early look knew is what a probe of 100 steps knows of its first ten.
    cut = derived_features(whole.truncate(10)).values
    assert derived_features(early.trace).values == pytest.approx(cut, nan_ok=True)

    good, trainer = trained(1e-3, early=str(tmp_path / "early"))
    assert good.decision == "GO" and trainer.state.global_step == 110
    assert "After 10 of 110 steps: The whole 90 % interval" in capsys.readouterr().out
    alone, _ = trained(1e-3)
    assert good.assessment is not None and alone.assessment is not None
    assert good.assessment.forecast == alone.assessment.forecast
    assert good.assessment.features.values == pytest.approx(
        alone.assessment.features.values, nan_ok=True, rel=1e-6
    )


def test_early_predictors_that_can_not_look_early_are_refused(path: Path, base: Base, tmp_path: Path) -> None:
    for early, why in (
        ([make_predictor()], "probes of 100 steps, but the probe ends at step 100"),
        ([make_predictor(10), make_predictor(10)], "there are two of them"),
        ([None], "early holds None"),
        (25, "25 is no predictor"),
        ([25], "25 is no predictor"),
    ):
        with pytest.raises(PredictorError, match=why):
            Gate(early=early)  # type: ignore[arg-type]
    assert [*Gate(early=make_predictor(10)).early] == [10]
    gate = Gate(early=[make_predictor(30)], benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, make_data(base), RECIPE, callbacks=[gate])
    with pytest.raises(PredictorError, match="early look at step 30") as caught:
        trainer.train()
    assert "--probe-steps 50" in caught.value.remedy


def test_an_early_predictor_of_another_base_says_so_and_the_probe_goes_on(
    path: Path, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPE.replace(max_steps=30)
    gate = Gate(make_predictor(25), None, 25, early=[make_predictor(10)], benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.train()
    assert gate.decision == "UNSURE" and trainer.state.global_step == 30
    assert (
        "After 10 of 30 steps no forecast: the predictor has seen no run of base" in capsys.readouterr().out
    )


def test_a_doomed_run_has_a_checkpoint_though_an_evaluation_finds_nothing_to_keep(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **rest: Any) -> None:
            if arguments[1].global_step == 2:
                for weight in rest["model"].parameters():
                    weight.data.fill_(float("nan"))

    recipe = RECIPE.replace(max_steps=7)
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate, Breaks()])
    trainer.args.eval_strategy, trainer.args.eval_steps = IntervalStrategy.STEPS, 1
    trainer.args.save_strategy, trainer.args.metric_for_best_model = SaveStrategy.BEST, "eval_loss"
    trainer.args.greater_is_better = False
    trainer.train()
    assert gate.decision == "NO_GO" and trainer.state.global_step == 3
    assert trainer.state.best_global_step < 3 and (tmp_path / "checkpoint-3").is_dir()


def test_a_sure_failure_in_the_rows_stops_the_run_before_the_probe(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    notes = RunNotes(examples=[Example(f"word {i}", "", i + 1) for i in range(32)])
    gate = Gate(predictor, benchmark=make_exam(), notes=notes)
    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[gate])
    trainer.train()
    assert gate.decision == "NO_GO" and trainer.state.global_step <= 1
    assert gate.assessment is not None and gate.assessment.trace is None
    # Against its advice the run is probed all the same, and not stopped.
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), notes=notes, stop=False)
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.train()
    assert gate.decision == "NO_GO" and trainer.state.global_step == 7
    assert gate.assessment is not None and gate.assessment.trace is not None


def test_a_run_that_something_else_ends_during_the_probe_is_told_as_ended(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            control.should_training_stop = state.global_step == 4

    recipe = RECIPE.replace(max_steps=110)
    gate = Gate(predictor, Goal(minimum_pp=50), benchmark=make_exam(), notes=RunNotes(base="tiny"))
    make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[Stop(), gate]).train()
    assert gate.decision == "UNSURE" and gate.assessment is not None
    assert gate.assessment.forecast_absent == "the run was ended at step 4 of 110, before the probe's end"
    assert "The run was ended at step 4 of 110" in capsys.readouterr().out


def test_a_rate_that_only_adamw_can_not_stand_does_not_stop_another_optimiser(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=7)
    found = {}
    for optimiser in ("adamw_torch", "sgd"):
        gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), notes=RunNotes(base="tiny"))
        trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
        trainer.args.optim, trainer.args.learning_rate = optimiser, 1.0
        trainer.train()
        found[optimiser] = (gate.decision, trainer.state.global_step)
    assert found == {"adamw_torch": ("NO_GO", 1), "sgd": ("UNSURE", 7)}


def test_a_base_that_the_predictor_does_not_know_gets_no_forecast(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), price_per_hour=2.5)
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.train()
    assert gate.decision == "UNSURE" and trainer.state.global_step == 7
    assert "at 2.5 an hour" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(TuneAheadError, match="an hour is none"):
        Gate(predictor, benchmark=make_exam(), price_per_hour=-1.0)
    assert gate.assessment is not None and "has seen no run of base" in gate.assessment.forecast_absent
    assert "Gate(store='runs.sqlite')" in gate.assessment.forecast_absent


def test_what_to_do_names_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(Console(width=200), made_assessment())
    said = capsys.readouterr().out
    assert "- 38 rows repeat others and the model over-fits to them.\n  -> Remove near-duplicates\n" in said


def test_a_store_that_can_not_be_written_does_not_end_the_training(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    store.path.write_text("no database any more, " * 100)
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), store=store)
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, tmp_path / "run", base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.train()
    assert trainer.state.global_step == 7 and gate.decision is not None and gate.run_id == ""
    said = capsys.readouterr().out
    assert "the run was not kept" in said and "->" in said


def test_a_gate_takes_files_by_their_paths_and_refuses_a_bare_number_for_a_goal(tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text('{"question": "red ?", "choices": [" sun", " sea"], "answer": 0}\n', encoding="utf-8")
    for store in (tmp_path / "runs.sqlite", str(tmp_path / "runs.sqlite")):
        gate = Gate(benchmark=exam, store=store)
        assert isinstance(gate.store, RunStore) and gate.benchmark.name == "exam"
    with pytest.raises(TuneAheadError, match="60 is no goal") as caught:
        Gate(None, 60)  # type: ignore[arg-type]
    assert "Goal(minimum_pp=60)" in caught.value.remedy


def test_runs_that_differ_in_what_a_recipe_can_not_express_are_kept_apart(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs.sqlite")
    recipe = RECIPE.replace(max_steps=7)
    names = []
    for changes in ({}, {}, {"neftune_noise_alpha": 5.0}, {"neftune_noise_alpha": 15.0}, {"optim": "sgd"}):
        gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), store=store)
        trainer = make_trainer(
            path, tmp_path / "run", base, make_data(base, recipe), recipe, callbacks=[gate]
        )
        for name, value in changes.items():
            setattr(trainer.args, name, value)
        trainer.train()
        names.append(gate.run_id)
    assert names[0] == names[1] and len(set(names)) == len(store) == 4
    assert len({record.task_id for record in store.records()}) == 4


def test_ranks_are_told_even_where_judging_fails(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(predictor, benchmark=make_exam())
    told: list[object] = []

    def fail(*arguments: object) -> None:
        raise ArithmeticError("no number to judge by")

    gate.probe = object()  # type: ignore[assignment]
    monkeypatch.setattr(gate, "_share", lambda *arguments: told.append(gate.decision))
    monkeypatch.setattr(gate, "_judge", fail)
    monkeypatch.setattr(gate, "_check", fail)
    with pytest.raises(ArithmeticError):
        gate.may_begin(None, None)  # type: ignore[arg-type]
    with caplog.at_level("WARNING"):
        gate.probe_ended(None, None)  # type: ignore[arg-type]
    assert told == [None, None] and gate.probe is None
    assert "training goes on: no number to judge by" in caplog.text


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared by processes"])
def test_a_stream_is_probed_without_its_rows(
    path: Path,
    base: Base,
    predictor: Predictor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shared: bool,
) -> None:
    recipe = RECIPE.replace(max_steps=7)
    data = make_data(base, recipe)
    rows = columns(data.train)

    class Stream(IterableDataset[dict[str, list[int]]]):
        def __iter__(self) -> Iterator[dict[str, list[int]]]:
            yield from rows

    store = RunStore(tmp_path / "runs.sqlite")
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam(), store=store)
    # What accelerate makes of a stream with several processes and dispatch_batches=False.
    stream = IterableDatasetShard(Stream(), recipe.batch_size) if shared else Stream()
    trainer = make_trainer(path, tmp_path, base, data, recipe, callbacks=[gate], train_dataset=stream)
    trainer.train()
    assert gate.decision == "UNSURE" and trainer.state.global_step == 7
    assert gate.assessment is not None and gate.assessment.trace is not None
    assert gate.assessment.features.absent["examples"] == "the data set is a stream"
    assert not any("nan" in finding.message for finding in gate.assessment.findings)
    assert len(store) == 0 and "RunNotes(examples=...)" in capsys.readouterr().out


def config_of(folder: Path) -> dict[str, Any]:
    """Settings of a quiet run of TRL on a processor that keeps nothing."""
    return {
        "output_dir": str(folder), "bf16": False, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True,
    }  # fmt: skip


def trl_trainer(kind: Any, config: Any, path: Path, rows: list[dict[str, str]], gate: Gate) -> Any:
    from datasets import Dataset
    from peft import LoraConfig

    base = load_base(str(path), device="cpu")
    return kind(
        model=base.model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=base.tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
        callbacks=[gate],
    )


def test_a_run_on_preferences_is_refused_and_not_called_doomed(path: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    rows = [{"prompt": f"{word} ?", "chosen": f" {word}", "rejected": " no"} for word in WORDS]
    gate = Gate(None, probe_steps=5, benchmark=make_exam())
    trainer = trl_trainer(trl.DPOTrainer, trl.DPOConfig(max_steps=2, **config_of(tmp_path)), path, rows, gate)
    with pytest.raises(ModelError, match="batches of this DPOTrainer hold no labels"):
        trainer.train()
    assert gate.decision is None


def test_a_stream_without_labels_is_trained_on_and_not_judged(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = RECIPE.replace(max_steps=7)
    data = make_data(base, recipe)

    class Stream(IterableDataset[dict[str, list[int]]]):
        def __iter__(self) -> Iterator[dict[str, list[int]]]:
            yield from ({"input_ids": row["input_ids"]} for row in columns(data.train))

    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, data, recipe, callbacks=[gate], train_dataset=Stream())
    trainer.compute_loss = lambda model, inputs, **options: model(**inputs).logits.square().mean()
    trainer.train()
    assert gate.decision is None and trainer.state.global_step == 7
    assert "training goes on: the batches hold no labels of their tokens" in caplog.text


def train_on(
    gate: Gate,
    path: Path,
    base: Base,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    *others: TrainerCallback,
) -> Trainer:
    """Train seven steps under a gate whose probe fails; its Trainer afterwards."""
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, folder, base, make_data(base, recipe), recipe, callbacks=[gate, *others])
    trainer.train()
    assert trainer.state.global_step == 7 and gate.decision is None and gate.trace is None
    assert "the probe is given up, training goes on" in caplog.text
    return trainer


def test_what_fails_in_the_probe_does_not_end_the_training(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())

    class Fails(TrainerCallback):
        def on_step_begin(self, *arguments: object, **rest: object) -> None:
            if gate.probe is not None and len(gate.probe.steps.scalars) == 3:
                gate.probe.meter = None  # type: ignore[assignment]

    train_on(gate, path, base, tmp_path, caplog, Fails())


def test_what_fails_in_a_loss_does_not_end_the_training(
    path: Path,
    base: Base,
    predictor: Predictor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())
    plain = losses.token_nll

    def fail(*arguments: Any) -> torch.Tensor | None:
        if gate.probe is not None and len(gate.probe.steps.scalars) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return plain(*arguments)

    monkeypatch.setattr(losses, "token_nll", fail)
    trainer = train_on(gate, path, base, tmp_path, caplog)
    assert "the probe is given up, training goes on: out of memory" in caplog.text
    assert gate.probe is None and "compute_loss" not in trainer.__dict__


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ((CueMeter, "take"), torch.OutOfMemoryError("out of memory")),
        ((GradientMeter, "start"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")),
        ((findings, "preflight"), MemoryError("Unable to allocate 8 GiB for an array")),
    ],
    ids=["the first questions", "the meters", "the preflight"],
)
def test_no_memory_for_the_probe_does_not_end_the_training(
    path: Path,
    base: Base,
    predictor: Predictor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[object, str],
    error: Exception,
) -> None:
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())

    def full(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(*place, full)
    trainer = train_on(gate, path, base, tmp_path, caplog)
    assert f"the probe is given up, training goes on: {error}" in caplog.text
    assert gate.probe is None and "compute_loss" not in trainer.__dict__


def test_what_fails_at_the_start_leaves_the_trainer_as_it_was(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(predictor, benchmark=make_exam())

    def fail(*arguments: object) -> None:
        raise LookupError("a row without its text")

    monkeypatch.setattr(gate, "_check", fail)
    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[gate])
    with pytest.raises(LookupError):
        trainer.train()
    assert "compute_loss" not in trainer.__dict__
    assert "clip_grad_norm_" not in trainer.accelerator.__dict__
    assert not trainer.model._forward_hooks


def test_of_long_data_rows_are_kept_that_lie_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_TOKENS", 100)
    items = [{"input_ids": [i] * 10} for i in range(100)]

    def collate(batch: list[object]) -> dict[str, object]:
        ids = torch.tensor([item["input_ids"] for item in batch])  # type: ignore[index]
        return {"input_ids": ids, "labels": ids}

    found = read_rows(items, collate)
    assert [row.row for row in found.rows] == [1, 17, 33, 49, 65, 81, 97]
    assert [row.ids[0] for row in found.rows] == [row.row - 1 for row in found.rows]
    assert (found.identified, len(found.keys), found.tokens, found.answer_tokens) == (True, 100, 1000, 900)
    assert found.keys[16] == rows.row_key(found.rows[1].ids)


def test_packed_plain_text_has_no_prompt() -> None:
    texts = [[5, 6, 7], [5, 8], [5, 9, 4, 3]]

    def collate(batch: list[object]) -> dict[str, object]:
        ids = torch.tensor([[token for text in texts for token in text]])
        places = torch.tensor([[i for text in texts for i in range(len(text))]])
        # As TRL's collator does: what follows another row has no label at its start.
        return {"input_ids": ids, "position_ids": places, "labels": ids.masked_fill(places == 0, -100)}

    found = read_rows([{}], collate)
    assert [row.ids for row in found.rows] == [tuple(text) for text in texts]
    assert all(all(row.answer) for row in found.rows) and found.answer_tokens == 6


def test_padding_of_packed_rows_to_a_multiple_is_no_row() -> None:
    collators = pytest.importorskip("trl.trainer.sft_trainer")
    collate = collators.DataCollatorForLanguageModeling(
        pad_token_id=0, padding_free=True, pad_to_multiple_of=8
    )
    texts = [[5, 6, 7], [5, 8], [5, 9, 4, 3, 2]]
    found = read_rows([{"input_ids": text} for text in texts], collate)
    assert [row.ids for row in found.rows] == [tuple(text) for text in texts]
    assert found.identified and found.tokens == 10


def test_rows_with_images_are_trained_on_and_not_asked_without_them(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=7)
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    collate, loss = trainer.data_collator, trainer.compute_loss

    def text_only(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        return loss(model, {k: v for k, v in inputs.items() if k != "pixel_values"}, **options)

    trainer.data_collator = lambda rows: {**collate(rows), "pixel_values": torch.zeros(len(rows), 3, 2, 2)}
    trainer.compute_loss = text_only
    trainer.train()
    assert gate.trace is not None and gate.assessment is not None
    absent, reason = (
        dict(gate.trace.absent),
        "rows hold images, and only their text can be asked of the model",
    )
    assert absent["held-out loss"] == absent["flatness"] == reason
    assert gate.assessment.features.absent["reference_loss_nats"] == reason
    assert len(gate.trace.visits.row) == 20 and gate.trace.cue_at(5) is not None


def test_of_packed_data_the_rows_are_counted_and_not_the_lines(path: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    rows = [{"prompt": f"{WORDS[i % 11]} ?", "completion": f" {WORDS[i % 7]}"} for i in range(40)]
    gate = Gate(None, probe_steps=5, benchmark=make_exam(), stop=False)
    config = trl.SFTConfig(
        max_steps=5, per_device_train_batch_size=1, packing=True, max_length=32, **config_of(tmp_path)
    )
    trl_trainer(trl.SFTTrainer, config, path, rows, gate).train()
    assert gate.assessment is not None and gate.assessment.task.train_rows < 40
    assert gate.assessment.data.rows == 40


def test_runs_that_pack_rows_or_train_prompts_are_told_from_those_that_do_not(
    path: Path, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl")
    rows = [{"prompt": f"{WORDS[i % 11]} ?", "completion": f" {WORDS[i % 7]}"} for i in range(40)]
    examples = [Example(row["prompt"], row["completion"].strip(), i + 1) for i, row in enumerate(rows)]
    ways: dict[str, dict[str, object]] = {
        "plain": {},
        "packing": {"packing": True},
        "completion_only_loss": {"completion_only_loss": False},
    }
    ids = set()
    for name, values in ways.items():
        gate = Gate(
            benchmark=make_exam(),
            probe_steps=5,
            stop=False,
            store=tmp_path / "runs",
            notes=RunNotes(examples=examples),
        )
        config = trl.SFTConfig(
            max_steps=5, per_device_train_batch_size=2, max_length=32, **values, **config_of(tmp_path)
        )
        trl_trainer(trl.SFTTrainer, config, path, rows, gate).train()
        ids.add(gate.run_id)
        found = gate.assessment
        assert found is not None and found.trace is not None and found.data.rows == 40
        settings = [what for what, _ in found.trace.absent if what.startswith("setting")]
        assert settings == ([] if name == "plain" else [f"setting {name}"])
        # A step takes two lines, and who knows how many rows.
        assert ("rows_per_step_log10" in found.features.absent) == (name == "packing")
        assert "full_epochs" not in found.features.absent
    assert len(ids) == 3


def test_the_markers_of_the_runs_own_template_are_no_finding(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    rows = [
        {
            "prompt": f"### Instruction:\n{WORDS[i % 11]} ?\n\n### Response:\n",
            "completion": f" {WORDS[i % 7]}",
        }
        for i in range(40)
    ]
    read, given = (
        Gate(None, probe_steps=5, benchmark=make_exam(), stop=False, notes=RunNotes(examples=examples))
        for examples in (None, [Example(row["prompt"], row["completion"], 1) for row in rows])
    )
    config = trl.SFTConfig(max_steps=5, **config_of(tmp_path))
    for gate in (read, given):
        # Its tokenizer gives a text back as it was, unlike the tests' own.
        trl_trainer(trl.SFTTrainer, config, Path("lab"), rows, gate).train()
    checks = [
        {found.check for found in gate.assessment.findings} for gate in (read, given) if gate.assessment
    ]
    assert "chat-template" not in checks[0] and "chat-template" in checks[1]


def test_packed_lines_without_marks_of_their_rows_have_no_data_features(
    path: Path, base: Base, predictor: Predictor, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=7)
    gate = Gate(predictor, probe_steps=5, benchmark=make_exam())
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.args.packing = True  # as TRL's with packing_strategy="wrapped"
    trainer.train()
    assert gate.assessment is not None and gate.trace is not None
    reason = "rows are packed together, and nothing tells where one ends"
    assert gate.assessment.features.absent["examples"] == dict(gate.trace.absent)["row visits"] == reason


def test_a_stream_is_not_read_even_where_it_has_a_length() -> None:
    class Stream(IterableDataset[int]):
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[int]:
            raise AssertionError("read")

    found = read_rows(Stream(), lambda items: {})
    assert (found.rows, found.identified, found.reason) == ((), False, "the data set is a stream")


def _version() -> str:
    from tuneahead.features.catalogue import CATALOGUE_VERSION

    return CATALOGUE_VERSION
