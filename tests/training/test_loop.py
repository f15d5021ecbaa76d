"""The training loop against PEFT and the Hugging Face Trainer, and against itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_fixtures import WORDS, load_adapter_row, make_examples, write_tiny_model

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.errors import BenchmarkError, DataError, ModelError, TraceError
from tuneahead.recipe import Recipe
from tuneahead.training import allowed, measure, passes
from tuneahead.training.batches import Packed, step_rows
from tuneahead.training.encode import RunData
from tuneahead.training.loop import train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job, RunResult, Slot
from tuneahead.training.scoring import score_stack
from tuneahead.training.updates import SlotDropout

RECIPE = Recipe(
    learning_rate=5e-3,
    max_steps=30,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    weight_decay=0.01,
    warmup_ratio=0.1,
    max_grad_norm=0.5,
    schedule="cosine",
    seed=3,
)
PLAIN = ProbeSettings(record_steps=30, cue_steps=(), flatness_at=None)


def run_one(
    base: Base, data: RunData, recipe: Recipe, settings: ProbeSettings = PLAIN, **job: object
) -> RunResult:
    return next(iter(train_stack(base, [Job("a", data, recipe, **job)], settings, width=1)))  # type: ignore[arg-type]


def trainer_losses(
    path: Path, recipe: Recipe, data: RunData, start: torch.Tensor, stack_base: Base
) -> list[float]:
    """Losses of the same run in PEFT and transformers' Trainer, starting from the same adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    peft_model = get_peft_model(model, config)
    stack = AdapterStack(stack_base, 1, recipe.lora_rank)
    stack.load(0, start, recipe)
    own = dict(peft_model.named_parameters())
    for name, a, b in stack.matrices(0, recipe):
        own[f"base_model.model.{name}.lora_A.default.weight"].data.copy_(a)
        own[f"base_model.model.{name}.lora_B.default.weight"].data.copy_(b)
    stack.detach()
    order = [
        int(i)
        for step in range(recipe.total_steps(len(data.train)))
        for part in step_rows(recipe, len(data.train), step)
        for i in part
    ]
    losses: list[float] = []

    class Keep(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **rest):  # type: ignore[no-untyped-def]
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        picked = [data.train[i] for i in rows]
        longest = max(len(row.ids) for row in picked)
        ids = torch.zeros(len(picked), longest, dtype=torch.long)
        labels = torch.full((len(picked), longest), -100)
        mask = torch.zeros(len(picked), longest, dtype=torch.long)
        for i, row in enumerate(picked):
            n = len(row.ids)
            ids[i, :n] = torch.tensor(row.ids)
            mask[i, :n] = 1
            labels[i, :n] = torch.tensor(
                [t if on else -100 for t, on in zip(row.ids, row.answer, strict=True)]
            )
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    class Ordered(Trainer):
        def get_train_dataloader(self):  # type: ignore[no-untyped-def]
            return torch.utils.data.DataLoader(
                order, batch_size=recipe.batch_size, shuffle=False, collate_fn=collate
            )

    arguments = TrainingArguments(
        output_dir=str(path / "out"),
        max_steps=recipe.total_steps(len(data.train)),
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        logging_nan_inf_filter=False,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps(recipe.total_steps(len(data.train))),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    Ordered(model=peft_model, args=arguments, train_dataset=order, callbacks=[Keep()]).train()
    return losses


OPENING = " ".join(WORDS[i % len(WORDS)] for i in range(25))
"""What rows of a chat all begin with: longer than the shortest beginning that is shared."""


@pytest.mark.parametrize(("accumulation", "opening"), [(1, ""), (2, ""), (2, OPENING)])
def test_losses_equal_peft_with_the_hugging_face_trainer(
    tiny_path: Path, accumulation: int, opening: str
) -> None:
    base = load_base(str(tiny_path), device="cpu")
    # 40 rows of batches of 4 leave no ragged batch, so both sides chunk the same order.
    recipe = RECIPE.replace(gradient_accumulation_steps=accumulation, max_steps=30 // accumulation)
    examples = make_examples(40, opening=opening)
    data = RunData(prepare_data(base, examples, recipe).train[:32], [], "0" * 16)
    stack = AdapterStack(base, 1, recipe.lora_rank)
    stack.initialise(0, recipe)
    start = stack.values[0].clone()
    stack.detach()
    theirs = trainer_losses(tiny_path, recipe, data, start, base)
    ours = run_one(base, data, recipe).trace.steps.loss_nats
    assert len(theirs) == len(ours) == recipe.total_steps(32)
    assert theirs[0] != pytest.approx(theirs[-1], rel=0.05), (
        "the run must move for the comparison to mean anything"
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_four_stacked_runs_equal_four_single_runs(tiny: Base) -> None:
    recipes = [
        RECIPE,
        RECIPE.replace(lora_rank=2, batch_size=3, learning_rate=1e-3, schedule="linear", seed=5),
        RECIPE.replace(
            target_modules=("q_proj", "v_proj"), weight_decay=0.1, max_grad_norm=None, max_steps=17
        ),
        RECIPE.replace(lora_dropout=0.2, gradient_accumulation_steps=2, seed=9, lora_alpha=4),
    ]
    sets = [prepare_data(tiny, make_examples(30 + 5 * i, seed=i), r) for i, r in enumerate(recipes)]
    jobs = [Job(str(i), d, r) for i, (d, r) in enumerate(zip(sets, recipes, strict=True))]
    stacked = {r.job_id: r for r in train_stack(tiny, jobs, PLAIN, width=4)}
    for job in jobs:
        alone = run_one(tiny, job.data, job.recipe).trace
        together = stacked[job.job_id].trace
        np.testing.assert_allclose(together.steps.loss_sum_nats, alone.steps.loss_sum_nats, rtol=1e-4)
        np.testing.assert_allclose(together.steps.grad_norm, alone.steps.grad_norm, rtol=2e-3)
        np.testing.assert_array_equal(together.visits.row, alone.visits.row)
        assert len(together.steps) == job.recipe.max_steps


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_rows_that_begin_alike_train_as_if_each_held_its_beginning(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(write_tiny_model(tmp_path, architecture=architecture)), device="cpu")
    recipes = [RECIPE, RECIPE.replace(lora_dropout=0.2, seed=5), RECIPE.replace(lora_rank=2, batch_size=7)]
    data = prepare_data(base, make_examples(40, opening=OPENING), RECIPE)
    settings = ProbeSettings(record_steps=30, cue_steps=(0, 30), flatness_at=30)
    jobs = [Job(str(i), data, recipe) for i, recipe in enumerate(recipes)]
    sizes: list[int] = []

    def noted(*args: object, **rest: object) -> Packed:
        packed = allowed.pack_for(*args, **rest)  # type: ignore[arg-type]
        sizes.append(packed.ids.numel())
        return packed

    monkeypatch.setattr(passes, "pack_for", noted)
    shared = {r.job_id: r.trace for r in train_stack(base, jobs, settings, width=3)}
    few = sum(sizes)
    sizes.clear()
    monkeypatch.setattr(allowed, "shared_prefix", lambda rows: 0)
    for result in train_stack(base, jobs, settings, width=3):
        one, plain = shared[result.job_id], result.trace
        np.testing.assert_allclose(one.steps.loss_sum_nats, plain.steps.loss_sum_nats, rtol=1e-4)
        np.testing.assert_allclose(one.steps.grad_norm, plain.steps.grad_norm, rtol=2e-3)
        heldout = [[cue.heldout_loss_nats for cue in trace.cues] for trace in (one, plain)]
        np.testing.assert_allclose(*heldout, rtol=1e-4)
        assert one.flatness is not None and plain.flatness is not None
        np.testing.assert_allclose(one.flatness.perturbed_nats, plain.flatness.perturbed_nats, rtol=1e-4)
    assert few < 0.75 * sum(sizes), "two of three runs need the beginning once a line only"


def test_a_slot_takes_the_next_run_when_its_own_has_ended(tiny: Base) -> None:
    recipes = [RECIPE.replace(max_steps=n, seed=n) for n in (3, 9, 5, 4, 6)]
    data = prepare_data(tiny, make_examples(30), RECIPE)
    results = list(train_stack(tiny, [Job(str(i), data, r) for i, r in enumerate(recipes)], PLAIN, width=2))
    assert sorted(r.job_id for r in results) == list("01234")
    # The last to end had the base to itself for a while.
    assert [r.width for r in results[:-1]] == [2.0] * 4 and 1.0 < results[-1].width < 2.0
    for result in results:
        recipe = recipes[int(result.job_id)]
        alone = run_one(tiny, data, recipe)
        np.testing.assert_allclose(result.trace.steps.loss_nats, alone.trace.steps.loss_nats, rtol=1e-4)
        # What is remembered of the gradients moves with a run.
        for name in ("dot_previous", "mean_norm"):
            own, single = (getattr(one.trace.steps, name) for one in (result, alone))
            np.testing.assert_allclose(own, single, rtol=2e-2, atol=1e-3 * np.nanmax(np.abs(single)))


def test_the_same_seed_gives_the_same_trace(tiny: Base) -> None:
    recipe = RECIPE.replace(lora_dropout=0.1)
    data = prepare_data(tiny, make_examples(30), recipe)
    first, second = (run_one(tiny, data, recipe).trace for _ in range(2))
    np.testing.assert_array_equal(first.steps.loss_sum_nats, second.steps.loss_sum_nats)
    np.testing.assert_array_equal(first.steps.grad_norm, second.steps.grad_norm)
    other = run_one(tiny, data, recipe.replace(seed=4)).trace
    assert not np.array_equal(first.steps.loss_sum_nats, other.steps.loss_sum_nats)


def test_a_probe_goes_on_to_the_full_run_bit_for_bit(tiny: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(lora_dropout=0.1)
    data = prepare_data(tiny, make_examples(30), recipe)
    whole = run_one(tiny, data, recipe, save_dir=tmp_path / "whole")
    probe = run_one(tiny, data, recipe.probe(11), checkpoint_dir=tmp_path / "probe")
    assert len(probe.trace.steps) == 11
    rest = run_one(tiny, data, recipe, resume_from=tmp_path / "probe", save_dir=tmp_path / "rest")
    for name in ("loss_sum_nats", "grad_norm", "dot_previous", "dot_mean", "update_norm", "distance"):
        np.testing.assert_array_equal(
            getattr(rest.trace.steps, name), getattr(whole.trace.steps, name), err_msg=name
        )
    np.testing.assert_array_equal(rest.trace.visits.nll_nats, whole.trace.visits.nll_nats)
    saved = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "rest")]
    assert saved[0] == saved[1]


def test_a_checkpoint_of_another_recipe_is_refused(tiny: Base, tmp_path: Path) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    run_one(tiny, data, RECIPE.probe(3), checkpoint_dir=tmp_path)
    with pytest.raises(TraceError, match="another recipe"):
        run_one(tiny, data, RECIPE.replace(learning_rate=1e-4), resume_from=tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(TraceError, match="no usable checkpoint"):
        run_one(tiny, data, RECIPE, resume_from=tmp_path)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_a_saved_adapter_gives_the_same_logits_in_peft(tmp_path: Path, architecture: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    path = write_tiny_model(tmp_path / "model", architecture=architecture)
    base = load_base(str(path), device="cpu")
    data = prepare_data(base, make_examples(30), RECIPE)
    before = base.model(torch.tensor([[3, 22, 25, 30]])).logits
    run_one(base, data, RECIPE, save_dir=tmp_path / "adapter")
    stack = AdapterStack(base, 1, RECIPE.lora_rank)
    stack.load(0, load_adapter_row(tmp_path / "adapter", stack, RECIPE), RECIPE)
    with stack.using([0]), torch.no_grad():
        ours = base.model(torch.tensor([[3, 22, 25, 30]])).logits
    stack.detach()
    plain = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter")(torch.tensor([[3, 22, 25, 30]])).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, before, atol=1e-2), "the adapter must have changed something"


def test_peft_adapts_the_very_layers_that_a_saved_adapter_has(tiny: Base, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    whole = "model.layers.0.self_attn.q_proj"
    recipe = RECIPE.replace(target_modules=(whole, "down_proj"), max_steps=1)
    run_one(tiny, prepare_data(tiny, make_examples(30), recipe), recipe, save_dir=tmp_path)
    config = LoraConfig.from_pretrained(str(tmp_path))
    assert config.target_modules == {whole, "down_proj"}
    model = get_peft_model(tiny.model, config)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as stored:
        expected = {name.replace(".weight", ".default.weight") for name in stored.keys()}  # noqa: SIM118
    assert {name for name, _ in model.named_parameters() if ".lora_" in name} == expected


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_a_run_is_not_lost_where_its_adapter_and_state_can_not_be_written(tiny: Base, tmp_path: Path) -> None:
    import resource

    data = prepare_data(tiny, make_examples(12), RECIPE)
    recipe = RECIPE.replace(max_steps=2, lora_rank=32)
    places = {"save_dir": tmp_path / "adapter", "checkpoint_dir": tmp_path / "state"}
    jobs = [Job("a", data, recipe, **places), Job("b", data, recipe)]
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        full, other = train_stack(tiny, jobs, PLAIN, width=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    np.testing.assert_array_equal(full.trace.steps.loss_sum_nats, other.trace.steps.loss_sum_nats)
    absent = dict(full.trace.absent)
    for what, folder in (("adapter", places["save_dir"]), ("checkpoint", places["checkpoint_dir"])):
        assert str(folder) in absent[what] and absent[what].endswith("can't be written: File too large")
        assert list(folder.iterdir()) == []
    assert not {"adapter", "checkpoint"} & set(dict(other.trace.absent))


def test_weights_are_not_set_beside_the_configuration_of_an_earlier_adapter(
    tiny: Base, tmp_path: Path
) -> None:
    weights, configuration = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    weights.write_bytes(b"those of an earlier adapter")
    # Nothing can be written there, as on a disk with room for the weights alone.
    configuration.mkdir()
    data = prepare_data(tiny, make_examples(12), RECIPE)
    (done,) = train_stack(
        tiny, [Job("a", data, RECIPE.replace(max_steps=2), save_dir=tmp_path)], PLAIN, width=1
    )
    assert "adapter_config.json can't be written" in dict(done.trace.absent)["adapter"]
    assert weights.read_bytes() == b"those of an earlier adapter"


def test_gradient_norm_is_measured_before_clipping(tiny: Base) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    tight = run_one(tiny, data, RECIPE.replace(max_grad_norm=1e-3)).trace.steps.grad_norm
    loose = run_one(tiny, data, RECIPE.replace(max_grad_norm=None)).trace.steps.grad_norm
    assert tight[0] == loose[0] > 1e-2
    assert np.std(tight) > 1e-3


def _step_gradient(path: Path, precision: str, recipe: Recipe, tokens: int) -> torch.Tensor:
    """The gradient of a run's first step, were its rows among as many answer ``tokens``."""
    base = load_base(str(path), precision=precision, device="cpu")
    job = Job("a", prepare_data(base, make_examples(30), recipe), recipe)
    stack = AdapterStack(base, 1, recipe.lora_rank)
    stack.initialise(0, recipe)
    optimizer = torch.optim.AdamW([stack.values[0]])
    slot = Slot(job, 1, 1, optimizer, torch.Generator())
    plan = replace(passes.StepPlan.of(slot), answer_tokens=tokens)
    passes.TrainingPasses(base, stack).gradients([slot], [plan])
    return stack.grads[0] * tokens


@pytest.mark.parametrize(
    ("architecture", "alpha", "tokens"),
    [("qwen2", 8, 10_000_000), ("gpt2", 30_000, 100)],
    ids=["shares too small for it", "sums beyond it"],
)
def test_half_precision_gives_the_gradient_of_single(
    tmp_path: Path, architecture: str, alpha: float, tokens: int
) -> None:
    path = write_tiny_model(tmp_path, architecture=architecture)
    recipe = RECIPE.replace(lora_alpha=alpha, batch_size=27)
    single, half = (_step_gradient(path, precision, recipe, tokens) for precision in ("fp32", "fp16"))
    torch.testing.assert_close(half, single, rtol=0, atol=5e-3 * float(single.abs().max()))


def test_step_statistics_equal_those_of_a_plain_autograd_run(tiny: Base, tiny_path: Path) -> None:
    """Three steps with plain autograd on the base's own modules, beside a neighbour of higher rank."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recipe = RECIPE.replace(max_grad_norm=None, warmup_ratio=0.0, lora_rank=2, schedule="constant")
    data = prepare_data(tiny, make_examples(30), recipe)
    jobs = [
        Job("neighbour", data, RECIPE.replace(max_steps=3)),
        Job("own", data, recipe.replace(max_steps=3)),
    ]
    steps = next(r for r in train_stack(tiny, jobs, PLAIN, width=2) if r.job_id == "own").trace.steps

    plain = AutoModelForCausalLM.from_pretrained(tiny_path, attn_implementation="eager")
    config = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(plain, config)
    stack = AdapterStack(tiny, 1, 2)
    stack.initialise(0, recipe)
    own = dict(model.named_parameters())
    for name, a, b in stack.matrices(0, recipe):
        own[f"base_model.model.{name}.lora_A.default.weight"].data.copy_(a)
        own[f"base_model.model.{name}.lora_B.default.weight"].data.copy_(b)
    stack.detach()
    trained = [p for p in model.parameters() if p.requires_grad]
    start = torch.cat([p.detach().flatten() for p in trained])
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    previous, mean = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(3):
        rows = [data.train[int(i)] for i in step_rows(recipe, len(data.train), step)[0]]
        total, tokens = torch.zeros(()), 0
        for row in rows:
            logits = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            total = total - sum(logits[i - 1, row.ids[i]] for i in range(1, len(row.ids)) if row.answer[i])
            tokens += row.answer_tokens
        optimizer.zero_grad()
        (total / tokens).backward()
        grad = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        before = torch.cat([p.detach().flatten() for p in trained])
        optimizer.step()
        after = torch.cat([p.detach().flatten() for p in trained])
        expected = {
            "loss_sum_nats": total.item(),
            "answer_tokens": tokens,
            "grad_norm": grad.norm().item(),
            "update_norm": (after - before).norm().item(),
            "distance": (after - start).norm().item(),
        }
        if step:
            expected |= {
                "dot_previous": (grad @ previous).item(),
                "dot_mean": (grad @ mean).item(),
                "mean_norm": mean.norm().item(),
            }
        for name, value in expected.items():
            assert getattr(steps, name)[step] == pytest.approx(value, rel=2e-3), (name, step)
        small = int((grad.abs() < 0.01 * grad.square().mean().sqrt()).sum())
        assert abs(steps.small_gradients[step] - small) <= 2
        previous, mean = grad, 0.9 * mean + 0.1 * grad
    assert np.isnan(steps.dot_previous[0]) and np.isnan(steps.dot_mean[0])
    np.testing.assert_allclose(np.sqrt((steps.layer_grad_norm**2).sum(1)), steps.grad_norm, rtol=1e-4)


def test_dropout_of_a_narrow_recipe_does_not_depend_on_its_neighbour(tiny: Base) -> None:
    narrow = RECIPE.replace(target_modules=("q_proj", "v_proj"), lora_dropout=0.2, max_steps=6)
    data = prepare_data(tiny, make_examples(30), narrow)
    alone = run_one(tiny, data, narrow).trace.steps.loss_nats
    jobs = [Job("wide", data, RECIPE.replace(max_steps=9)), Job("narrow", data, narrow)]
    beside = next(r for r in train_stack(tiny, jobs, PLAIN, width=2) if r.job_id == "narrow")
    np.testing.assert_allclose(beside.trace.steps.loss_nats, alone, rtol=1e-4)


def test_what_dropout_keeps_makes_up_for_what_it_drops() -> None:
    tokens = [torch.tensor([0, 2])]
    dropout = SlotDropout([0.2], [torch.Generator().manual_seed(1)], tokens)
    found = dropout(torch.ones(1, 3, 500), [True])[0]
    assert found[tokens[0]].unique().tolist() == pytest.approx([0.0, 1.25])
    assert (found[1] == 1).all(), "no token lies there"
    assert float(found[tokens[0]].mean()) == pytest.approx(1.0, abs=0.06)


def test_dropout_draws_from_the_seed_of_its_own_recipe(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    class Watched(SlotDropout):
        def __init__(self, rates, generators, tokens) -> None:  # type: ignore[no-untyped-def]
            drawn.append([generator.initial_seed() for generator in generators])
            super().__init__(rates, generators, tokens)

    monkeypatch.setattr(passes, "SlotDropout", Watched)
    recipes = [RECIPE.replace(lora_dropout=0.1, max_steps=1, seed=seed) for seed in (3, 8)]
    data = prepare_data(tiny, make_examples(30), RECIPE)
    list(train_stack(tiny, [Job(str(r.seed), data, r) for r in recipes], PLAIN, width=2))
    # Next to the recipe's seed, which the adapter begins from.
    assert drawn == [[4, 9]]


def test_the_learning_rates_recorded_are_those_of_the_schedule(tiny: Base) -> None:
    recipe = RECIPE.replace(learning_rate=8e-3, max_steps=5, warmup_ratio=0.2, schedule="linear")
    data = prepare_data(tiny, make_examples(30), recipe)
    # One step of warm-up from 0, then down from the top in quarters.
    rates = [0.0, 8e-3, 6e-3, 4e-3, 2e-3]
    assert run_one(tiny, data, recipe).trace.steps.learning_rate == pytest.approx(rates)


def test_what_a_gpu_measures_at_once_is_what_is_measured_slot_by_slot(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [RECIPE, RECIPE.replace(lora_rank=2, target_modules=("q_proj", "v_proj"), seed=5, max_steps=9)]
    data = prepare_data(tiny, make_examples(30), RECIPE)
    jobs = [Job(str(i), data, recipe) for i, recipe in enumerate(recipes)]
    apart = {r.job_id: r.trace.steps for r in train_stack(tiny, jobs, PLAIN)}
    begin = measure.GradientMeter.__init__

    def together(meter: measure.GradientMeter, stack: AdapterStack) -> None:
        begin(meter, stack)
        meter.slot_by_slot = False

    monkeypatch.setattr(measure.GradientMeter, "__init__", together)
    for result in train_stack(tiny, jobs, PLAIN):
        for name, values in vars(result.trace.steps).items():
            if name not in ("seconds", "peak_memory_mb"):
                expected = getattr(apart[result.job_id], name)
                np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-7, err_msg=name)


def test_masks_drawn_together_keep_as_many_and_are_each_slots_own() -> None:
    tokens = [torch.tensor([0, 1, 5, 6, 7]), torch.tensor([2, 3]), torch.tensor([0, 4, 5])]

    def draw(rates: list[float], slots: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(7 + slot) for slot in slots]
        dropout = SlotDropout(rates, generators, [tokens[slot] for slot in slots])
        drawing = [i for i, rate in enumerate(rates) if rate]
        return dropout._drawn_together(drawing, torch.ones(len(slots), 8, 4000))

    masks = draw([0.2, 0.0, 0.5], [0, 1, 2])
    assert masks.shape == (2, 8, 4000)
    for mask, slot, rate in ((masks[0], 0, 0.2), (masks[1], 2, 0.5)):
        kept = mask[tokens[slot]]
        assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert float((kept > 0).float().mean()) == pytest.approx(1 - rate, abs=0.02)
        assert len(kept.unique(dim=0)) == len(kept), "every token has a mask of its own"
        torch.testing.assert_close(kept, draw([rate], [slot])[0][tokens[slot]])
    tokens[0] = torch.zeros(0, dtype=torch.long)
    assert draw([0.2, 0.0], [0, 1]).shape == (1, 8, 4000), "a slot without rows in this micro-batch"


def test_an_unknown_layer_is_refused_even_beside_known_ones(tiny: Base) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    wrong = RECIPE.replace(target_modules=("q_proj", "nonesuch"))
    with pytest.raises(ModelError, match="matches target_modules nonesuch"):
        list(train_stack(tiny, [Job("a", data, RECIPE), Job("b", data, wrong)], PLAIN))


def test_a_benchmark_that_is_refused_leaves_the_base_whole(tiny: Base) -> None:
    long = ChoiceItem("1", " ".join(["red"] * 200), ("one", "two"), (0,))
    settings = ProbeSettings(cue_benchmark=Benchmark("b", "accuracy", [long]))
    data = prepare_data(tiny, make_examples(30), RECIPE)
    with pytest.raises(BenchmarkError):
        list(train_stack(tiny, [Job("a", data, RECIPE)], settings))
    assert len(run_one(tiny, data, RECIPE.probe(2)).trace.steps) == 2


def test_a_failed_run_cannot_go_on(tiny: Base, tmp_path: Path) -> None:
    wild = RECIPE.replace(learning_rate=1e30, max_grad_norm=None, warmup_ratio=0.0)
    data = prepare_data(tiny, make_examples(30), wild)
    assert run_one(tiny, data, wild, checkpoint_dir=tmp_path).failure
    with pytest.raises(TraceError, match="can't go on: the .* was not finite"):
        run_one(tiny, data, wild, resume_from=tmp_path)


def test_a_run_that_blows_up_is_recorded_and_spares_its_neighbour(tiny: Base) -> None:
    data = prepare_data(tiny, make_examples(30), RECIPE)
    wild = RECIPE.replace(learning_rate=1e30, max_grad_norm=None, warmup_ratio=0.0)
    results = {
        r.job_id: r for r in train_stack(tiny, [Job("wild", data, wild), Job("calm", data, RECIPE)], PLAIN)
    }
    assert "not finite at step" in results["wild"].failure
    assert results["wild"].scores == {}
    alone = run_one(tiny, data, RECIPE).trace.steps.loss_nats
    np.testing.assert_allclose(results["calm"].trace.steps.loss_nats, alone, rtol=1e-4)


def test_clear_errors_for_no_rows_and_unknown_layers(tiny: Base) -> None:
    with pytest.raises(DataError, match="no row has a trainable answer"):
        run_one(tiny, RunData([], [], "0" * 16), RECIPE)
    data = prepare_data(tiny, make_examples(30), RECIPE)
    with pytest.raises(ModelError, match="choose among: .*q_proj"):
        run_one(tiny, data, RECIPE.replace(target_modules=("nonesuch",)))


def test_the_base_is_left_as_it_was(tiny: Base) -> None:
    names = [name for name, _ in tiny.model.named_modules()]
    run_one(tiny, prepare_data(tiny, make_examples(30), RECIPE), RECIPE.probe(2))
    assert [name for name, _ in tiny.model.named_modules()] == names


def test_what_a_large_base_answers_untrained_is_asked_once_for_all_its_tasks(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path))
    items = [ChoiceItem("1", "red", ("one", "two"), (0,)), ChoiceItem("2", "sea", ("cat", "dog"), (1,))]
    settings = ProbeSettings(
        record_steps=3,
        cue_steps=(0, 3),
        cue_benchmark=Benchmark("b", "accuracy", items),
        reference_texts=("red one", "sea dog"),
        flatness_at=None,
    )
    data = prepare_data(tiny, make_examples(30), RECIPE)
    recipe = RECIPE.probe(3)
    small = run_one(tiny, data, recipe, settings).trace.cues
    assert not list(tmp_path.iterdir()), "a small base is asked anew"
    tiny.__dict__["is_large"] = True
    asked: list[int] = []

    def noted(base: Base, encoded: object, stack: object, slots: list[int]) -> object:
        asked.append(0 if stack is None else 1)
        return score_stack(base, encoded, stack, slots)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "score_stack", noted)
    first = run_one(tiny, data, recipe, settings).trace.cues
    second = run_one(tiny, data, recipe, settings).trace.cues
    assert asked == [0, 1, 1], "the plain base once, each adapter once"
    for one, other in ((first, second), (first, small)):
        for cue, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(cue.margin_nats, same.margin_nats)
            np.testing.assert_array_equal(cue.right_probability, same.right_probability)
            assert cue.reference_loss_nats == pytest.approx(same.reference_loss_nats, rel=1e-6)
    more = replace(settings, reference_texts=("red one",))
    run_one(tiny, data, recipe, more)
    assert asked == [0, 1, 1, 0, 1], "other texts are read"
