"""A trace taken inside a user's Trainer against the trace of our own loop on the same run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integrations.trainer_fixtures import (
    RECIPE,
    SETTINGS,
    assert_same_trace,
    make_data,
    make_exam,
    make_predictor,
    make_trainer,
    make_trl_trainer,
    own_trace,
)
from training.training_fixtures import make_examples
from transformers import Trainer, TrainerCallback

from tuneahead.errors import ModelError
from tuneahead.integrations.live import undisturbed
from tuneahead.integrations.transformers import RunNotes, TraceRecorder
from tuneahead.trace import trace_from_bytes
from tuneahead.training.loop import Job, train_stack
from tuneahead.training.measure import CueMeter, ProbeSettings
from tuneahead.training.memory import quantization_config
from tuneahead.training.models import Base, load_base


@pytest.fixture
def base(path: Path) -> Base:
    return load_base(str(path), device="cpu")


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation_steps": 2}, {"max_grad_norm": None, "warmup_ratio": 0.0}],
    ids=["clipped", "accumulated", "unclipped"],
)
def test_the_trace_equals_that_of_our_own_loop(
    path: Path, base: Base, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = RECIPE.replace(**changes)
    ours = own_trace(base, recipe)
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder]).train()
    assert_same_trace(recorder.trace, ours)


def test_the_trace_describes_the_run_as_our_own_loop_does(path: Path, base: Base, tmp_path: Path) -> None:
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trainer(path, tmp_path, base, make_data(base), callbacks=[recorder]).train()
    ours, theirs = own_trace(base, RECIPE), recorder.trace
    assert theirs is not None
    # The names of the packages differ, and text decoded from tokens is not the text of the file.
    same = {f.name for f in fields(theirs.info)} - {"versions", "data_fingerprint", "recipe"}
    assert {n: getattr(theirs.info, n) for n in same} == {n: getattr(ours.info, n) for n in same}
    assert theirs.info.recipe == RECIPE
    assert theirs.absent == ours.absent == ()
    again = trace_from_bytes(theirs.to_bytes())
    np.testing.assert_array_equal(again.steps.loss_sum_nats, theirs.steps.loss_sum_nats)


@pytest.mark.slow
def test_two_processes_record_one_run_and_stop_together(path: Path, base: Base, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    make_predictor(10).save(tmp_path / "predictor")
    make_predictor(12).save(tmp_path / "late")
    folders = [str(folder) for folder in (path, tmp_path, tmp_path / "predictor", tmp_path / "late")]
    done = subprocess.run(
        [*command, str(script), *folders],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "rank1.trace").exists()
    theirs = trace_from_bytes((tmp_path / "rank0.trace").read_bytes())
    ours = own_trace(base, RECIPE).truncate(6)
    np.testing.assert_allclose(theirs.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)
    np.testing.assert_array_equal(theirs.steps.answer_tokens, ours.steps.answer_tokens)
    np.testing.assert_allclose(theirs.steps.grad_norm, ours.steps.grad_norm, rtol=1e-3)
    np.testing.assert_allclose(theirs.steps.distance, ours.steps.distance, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(theirs.visits.row, ours.visits.row)
    assert theirs.info.recipe.batch_size == 4
    assert [cue.step for cue in theirs.cues] == [0, 6] and theirs.flatness is not None
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [f["decision"] for f in found] == ["NO_GO", "NO_GO"]
    assert found[0]["steps"] == found[1]["steps"] < 6
    assert [f["judged"] for f in found] == [True, False]
    assert found[0]["batch_size"] == 4
    for rank, judged in enumerate((True, False)):
        assert found[rank]["early"] == {"0.05": ["NO_GO", 10, judged], "0.001": ["GO", 14, judged]}


def test_recording_leaves_the_run_bit_for_bit_as_it_was(path: Path, base: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(max_steps=8)
    settings = replace(SETTINGS, record_steps=6, cue_steps=(0, 3, 6), flatness_at=4)
    weights = []
    for callbacks in ([], [TraceRecorder(settings)]):
        trainer = make_trainer(
            path, tmp_path, base, make_data(base, recipe), recipe, dropout=0.2, callbacks=callbacks
        )
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters() if p.requires_grad])
        assert not {"compute_loss"} & trainer.__dict__.keys()
        assert "clip_grad_norm_" not in trainer.accelerator.__dict__
    assert callbacks[0].trace is not None
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_what_measuring_draws_is_not_taken_from_the_run(
    path: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Draws(TrainerCallback):
        def on_step_begin(self, *event: object, **rest: object) -> None:
            drawn[-1].append((random.random(), np.random.rand(), float(torch.rand(()))))

    take = CueMeter.take

    def drawing(self: CueMeter, *what: Any) -> Any:
        # As libraries do that are first loaded for a measurement.
        random.random(), np.random.rand(), torch.rand(())
        return take(self, *what)

    monkeypatch.setattr(CueMeter, "take", drawing)
    recipe = RECIPE.replace(max_steps=4)
    settings = replace(SETTINGS, record_steps=3, cue_steps=(0, 2, 3), flatness_at=None)
    drawn: list[list[tuple[float, ...]]] = []
    for callbacks in ([], [TraceRecorder(settings)]):
        drawn.append([])
        trainer = make_trainer(
            path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[*callbacks, Draws()]
        )
        trainer.train()
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4


def test_losses_are_right_where_the_model_hides_its_logits(path: Path, base: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(gradient_accumulation_steps=2, max_steps=4)
    ours = own_trace(base, recipe)
    recorder = TraceRecorder(ProbeSettings(record_steps=4, cue_steps=(), flatness_at=None))
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder])
    plain = trainer.model.forward
    trainer.model.forward = lambda **inputs: {"loss": plain(**inputs).loss}
    trainer.train()
    assert recorder.trace is not None
    np.testing.assert_allclose(recorder.trace.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)
    assert len(recorder.trace.visits.row) == 0
    assert "neither logits nor token log-probabilities" in dict(recorder.trace.absent)["row visits"]
    assert dict(recorder.trace.absent)["flatness"] == "it was not asked for"


def test_a_loss_that_asks_a_reference_first_is_recorded_by_the_pass_that_trains(
    path: Path, base: Base, tmp_path: Path
) -> None:
    recipe = RECIPE.replace(max_steps=4)
    recorder = TraceRecorder(ProbeSettings(record_steps=4, cue_steps=(), flatness_at=None))
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder])
    plain = trainer.compute_loss

    def with_reference(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        with torch.no_grad(), model.disable_adapter():
            model(**inputs)
        return plain(model, inputs, *args, **options)

    trainer.compute_loss = with_reference
    trainer.train()
    assert recorder.trace is not None
    ours = own_trace(base, recipe)
    np.testing.assert_allclose(recorder.trace.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=1e-4)


def test_bf16_autocast_is_recorded_too(path: Path, base: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(max_steps=4)
    settings = replace(SETTINGS, record_steps=4, cue_steps=(0, 4), flatness_at=4)
    recorder = TraceRecorder(settings)
    data = make_data(base, recipe)
    make_trainer(path, tmp_path, base, data, recipe, bf16=True, callbacks=[recorder]).train()
    found = recorder.trace
    ours = next(iter(train_stack(base, [Job("a", data, recipe)], settings, width=1))).trace
    assert found is not None and found.info.recipe.precision == "bf16"
    np.testing.assert_allclose(found.steps.loss_sum_nats, ours.steps.loss_sum_nats[:4], rtol=0.03)
    np.testing.assert_allclose(found.steps.grad_norm, ours.steps.grad_norm[:4], rtol=0.1)
    assert np.isfinite(found.cues[1].margin_nats).all()
    # Autocast keeps 16-bit copies of the matrices: those of the perturbed ones have to be made anew.
    assert found.flatness is not None and ours.flatness is not None
    own, theirs = (flat.perturbed_nats - flat.centre_nats for flat in (ours.flatness, found.flatness))
    assert np.corrcoef(own.ravel(), theirs.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(("precision", "share"), [("8bit", 0.02), ("4bit", 1e-4)])
def test_a_base_in_fewer_bits_is_recorded_too(
    path: Path, base: Base, tmp_path: Path, precision: str, share: float
) -> None:
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    trainer = make_trainer(
        path,
        tmp_path,
        base,
        make_data(base),
        callbacks=[recorder],
        quantization=quantization_config(precision, "cpu"),
    )
    trainer.train()
    found = recorder.trace
    assert found is not None and found.info.recipe.precision == precision
    ours = own_trace(load_base(str(path), device="cpu", precision=precision), RECIPE)
    # In 8 bits a token is rounded by the largest numbers of its pass, and the two fill passes differently.
    np.testing.assert_allclose(found.steps.loss_sum_nats, ours.steps.loss_sum_nats, rtol=share)
    np.testing.assert_allclose(found.steps.distance, ours.steps.distance, rtol=10 * share)
    if precision == "4bit":
        assert_same_trace(found, ours)


def test_a_trainer_that_takes_no_norm_where_it_does_not_clip_is_recorded_too(
    path: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in transformers 5.0; later versions ask for the norm all the same.
    def given(trainer: Trainer, model: object, grad_norm: object = None) -> object:
        return grad_norm

    monkeypatch.setattr(Trainer, "_get_grad_norm", given, raising=False)
    recipe = RECIPE.replace(max_grad_norm=None)
    recorder = TraceRecorder(SETTINGS)
    make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder]).train()
    assert_same_trace(recorder.trace, own_trace(base, recipe))


def test_a_run_that_blows_up_says_when(path: Path, base: Base, tmp_path: Path) -> None:
    wild = RECIPE.replace(learning_rate=1e30, max_grad_norm=None, warmup_ratio=0.0, max_steps=6)
    recorder = TraceRecorder(ProbeSettings(record_steps=6, cue_steps=(), flatness_at=None))
    make_trainer(path, tmp_path, base, make_data(base, wild), wild, callbacks=[recorder]).train()
    assert recorder.trace is not None
    assert "not finite at step 1" in recorder.trace.info.failure
    assert len(recorder.trace.steps) == 2


def test_a_probe_too_short_for_flatness_does_not_say_that_the_run_ended(
    path: Path, base: Base, tmp_path: Path
) -> None:
    recorder = TraceRecorder(ProbeSettings(record_steps=2, cue_steps=()))
    make_trainer(path, tmp_path, base, make_data(base), callbacks=[recorder]).train()
    assert recorder.trace is not None and recorder.trace.info.total_steps > 2
    assert dict(recorder.trace.absent)["flatness"] == "the probe ended before step 100"


def test_settings_that_a_recipe_has_no_room_for_are_noted(path: Path, base: Base, tmp_path: Path) -> None:
    recorder = TraceRecorder(ProbeSettings(record_steps=2, cue_steps=(), flatness_at=None))
    recipe = RECIPE.replace(max_steps=2)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder])
    trainer.args.max_grad_norm, trainer.args.weight_decay = float("inf"), -0.1
    trainer.train()
    assert recorder.trace is not None and recorder.trace.info.recipe.max_grad_norm is None
    assert dict(recorder.trace.absent)["setting weight_decay"] == "a recipe can't hold -0.1"


def test_the_recipe_is_that_of_the_adapter_and_the_batches_that_are_trained(
    path: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recorder = TraceRecorder(ProbeSettings(record_steps=2, cue_steps=(), flatness_at=None))
    recipe = RECIPE.replace(max_steps=2)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[recorder])
    own = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", rank_pattern={"q_proj": 2})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path), LoraConfig(r=8, lora_alpha=64))
    model.add_adapter("own", own)
    model.set_adapter("own")
    trainer.model = trainer.model_wrapped = model
    trainer.args.auto_find_batch_size = True
    plain = trainer.training_step

    def step(*arguments: Any, **options: Any) -> Any:
        if trainer._train_batch_size == recipe.batch_size:
            raise RuntimeError("CUDA out of memory.")
        return plain(*arguments, **options)

    monkeypatch.setattr(trainer, "training_step", step)
    trainer.train()
    assert recorder.trace is not None
    found = recorder.trace.info.recipe
    assert (found.lora_rank, found.lora_alpha, found.batch_size) == (4, 12, trainer._train_batch_size)
    assert found.batch_size < recipe.batch_size


def test_adalora_is_refused_by_name(path: Path, base: Base, tmp_path: Path) -> None:
    from peft import AdaLoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recorder = TraceRecorder()
    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[recorder])
    plain = AutoModelForCausalLM.from_pretrained(path)
    trainer.model = get_peft_model(plain, AdaLoraConfig(total_step=10, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="no trainable LoRA matrices(.|\n)*AdaLoRA"):
        trainer.train()


def test_a_model_without_adapters_is_refused(path: Path, base: Base, tmp_path: Path) -> None:
    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[TraceRecorder()])
    trainer.model = trainer.model.get_base_model()
    with pytest.raises(ModelError, match="not a PEFT model"):
        trainer.train()


def test_a_classifier_is_refused(path: Path, base: Base, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[TraceRecorder()])
    plain = AutoModelForSequenceClassification.from_pretrained(path)
    trainer.model = trainer.model_wrapped = get_peft_model(plain, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="not a causal language model"):
        trainer.train()


def test_a_masked_language_model_is_refused(path: Path, base: Base, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertForMaskedLM

    trainer = make_trainer(path, tmp_path, base, make_data(base), callbacks=[TraceRecorder()])
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    plain = BertForMaskedLM(BertConfig(vocab_size=2000, **sizes))
    trainer.model = trainer.model_wrapped = get_peft_model(plain, LoraConfig(target_modules=["query"]))
    with pytest.raises(ModelError, match="BertForMaskedLM, not a causal language model"):
        trainer.train()


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trl_run_has_the_trace_of_our_own_loop(
    path: Path, base: Base, tmp_path: Path, accumulation: int
) -> None:
    recipe = RECIPE.replace(gradient_accumulation_steps=accumulation)
    recorder = TraceRecorder(SETTINGS, notes=RunNotes(base=base.name))
    make_trl_trainer(path, tmp_path, base, recipe, callbacks=[recorder]).train()
    assert_same_trace(recorder.trace, own_trace(base, recipe))


@pytest.mark.slow
def test_trl_gives_the_losses_that_it_logs(path: Path, base: Base, tmp_path: Path) -> None:
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    rows = Dataset.from_list([{"prompt": e.prompt, "completion": f" {e.answer}"} for e in make_examples(24)])
    settings = ProbeSettings(record_steps=4, cue_steps=(0, 4), cue_benchmark=make_exam(), flatness_at=4)
    recorder = TraceRecorder(settings)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path),
        max_steps=5,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        learning_rate=5e-3,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model=base.model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows.select(range(6)),
        processing_class=base.tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
        callbacks=[recorder],
    )
    trainer.train()
    assert recorder.trace is not None and recorder.trace.absent == (
        ("reference loss", "no reference texts were given"),
    )
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry][:4]
    np.testing.assert_allclose(recorder.trace.steps.loss_nats, [log["loss"] for log in logs], rtol=1e-4)
    np.testing.assert_allclose(recorder.trace.steps.grad_norm, [log["grad_norm"] for log in logs], rtol=1e-3)
    assert len(recorder.trace.visits.row) == 16


@pytest.mark.parametrize("has_sdpa", [True, False])
def test_attention_that_takes_no_masks_is_changed_while_questions_are_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch, has_sdpa: bool
) -> None:
    model = load_base(str(path), device="cpu").model
    model.config._attn_implementation = "flash_attention_2"

    def change(to: str) -> None:
        if to == "sdpa" and not has_sdpa:
            raise ValueError("Some Architecture does not support it through sdpa")
        model.config._attn_implementation = to

    monkeypatch.setattr(model, "set_attn_implementation", change)
    with undisturbed(model):
        assert model.config._attn_implementation == ("sdpa" if has_sdpa else "eager")
    assert model.config._attn_implementation == "flash_attention_2"
