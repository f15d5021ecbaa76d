"""The recipe read from a Trainer: what it can't express is named, and is no feature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.trainer_fixtures import RECIPE, make_data, make_exam, make_predictor, make_trainer
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from tuneahead.features.extract import derived_features
from tuneahead.features.recipes import DEPENDS_ON, UNKNOWN_SETTING
from tuneahead.integrations.transformers import Gate, RunNotes, TraceRecorder
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base

SHORT = RECIPE.replace(max_steps=2)


@pytest.fixture
def recorded(path: Path, base: Base, tmp_path: Path) -> Callable[..., ProbeTrace]:
    """Record two steps of a Trainer whose arguments and optimiser are changed before it trains."""

    def record(
        change: Callable[[Any], object] = lambda trainer: None, *, recipe: Recipe | None = None
    ) -> ProbeTrace:
        settings = ProbeSettings(record_steps=2, cue_steps=(), flatness_at=None)
        recorder = TraceRecorder(settings, notes=RunNotes(recipe=recipe))
        trainer = make_trainer(path, tmp_path, base, make_data(base, SHORT), SHORT, callbacks=[recorder])
        change(trainer)
        trainer.train()
        assert recorder.trace is not None
        return recorder.trace

    return record


def unknown(trace: ProbeTrace) -> dict[str, str]:
    """Reasons by setting."""
    return {
        name.removeprefix(UNKNOWN_SETTING): why
        for name, why in trace.absent
        if name.startswith(UNKNOWN_SETTING)
    }


def settle(**values: object) -> Callable[[Any], None]:
    """A change of the Trainer's arguments."""

    def change(trainer: Any) -> None:
        for name, value in values.items():
            setattr(trainer.args, name, value)

    return change


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"lr_scheduler_type": "inverse_sqrt"}, "schedule"),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-3}}, "schedule"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "schedule"),
        ({"warmup_steps": 30}, "warmup_ratio"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"optim": "adafactor"}, "optimiser"),
        ({"optim": "sgd"}, "optimiser"),
        ({"optim": "adamw_torch_fused"}, ""),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"loss_type": "dft"}, "loss"),
        ({"truncation_mode": "keep_end"}, "truncation_mode"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
        ({"data_seed": 77}, "data_seed"),
    ],
)
def test_what_a_recipe_can_not_express_is_no_feature(
    recorded: Callable[..., ProbeTrace], values: dict[str, object], setting: str
) -> None:
    trace = recorded(settle(**values))
    found = unknown(trace)
    assert list(found) == ([setting] if setting else [])
    features = derived_features(trace)
    for feature in DEPENDS_ON.get(setting, ()):
        assert features.absent[feature] == f"{setting} is not known: {found[setting]}"


def test_a_schedule_of_the_trainer_that_never_warms_up_has_no_warm_up(
    recorded: Callable[..., ProbeTrace],
) -> None:
    trace = recorded(settle(lr_scheduler_type="reduce_lr_on_plateau", warmup_steps=0.5))
    assert trace.steps.learning_rate[0] == pytest.approx(SHORT.learning_rate)
    assert trace.info.recipe.warmup_ratio == 0
    assert list(unknown(trace)) == ["schedule"]


def groups(trainer: Any, rate_of_b: float) -> list[dict[str, object]]:
    """The LoRA matrices as parameters of an optimiser, those of B with a rate of their own."""
    named = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
    first = [p for name, p in named if "lora_A" in name]
    second = [p for name, p in named if "lora_B" in name]
    # As create_loraplus_optimizer makes them: a group for embeddings without any.
    return [{"params": first}, {"params": [], "lr": 1e-6}, {"params": second, "lr": rate_of_b}]


def test_the_rates_of_an_optimiser_that_is_given_are_the_recipes(
    recorded: Callable[..., ProbeTrace],
) -> None:
    def give(trainer: Any) -> None:
        options: dict[str, Any] = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}
        trainer.optimizer = torch.optim.AdamW(groups(trainer, 3e-3), **options)

    trace = recorded(give)
    found = trace.info.recipe
    assert unknown(trace) == {}
    assert (found.learning_rate, found.weight_decay) == (3e-3, 0.2)
    assert (found.adam_beta1, found.adam_beta2, found.adam_epsilon) == (0.8, 0.95, 1e-6)


def test_the_recorded_rate_is_that_of_the_adapter_and_not_of_other_weights(
    recorded: Callable[..., ProbeTrace],
) -> None:
    def give(trainer: Any) -> None:
        embeddings = trainer.model.get_input_embeddings().weight.requires_grad_()
        adapter = [p for name, p in trainer.model.named_parameters() if "lora_" in name]
        trainer.optimizer = torch.optim.AdamW(
            [{"params": [embeddings], "lr": 1e-6}, {"params": adapter, "lr": 3e-3}]
        )

    trace = recorded(give)
    rates = [trace.info.recipe.learning_rate_at(step, 2) for step in range(2)]
    assert trace.steps.learning_rate.tolist() == pytest.approx(rates)
    assert max(rates) == 3e-3


def test_matrices_with_rates_of_their_own_have_no_learning_rate(recorded: Callable[..., ProbeTrace]) -> None:
    def give(trainer: Any) -> None:
        trainer.optimizer = torch.optim.AdamW(groups(trainer, 4.8e-2), lr=3e-3)

    assert "0.003 and 0.048" in unknown(recorded(give))["learning_rate"]


def test_a_scheduler_that_is_given_leaves_schedule_and_warm_up_unknown(
    recorded: Callable[..., ProbeTrace],
) -> None:
    def give(trainer: Any) -> None:
        trainer.optimizer = torch.optim.AdamW(groups(trainer, 3e-3), lr=3e-3)
        trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 5)

    assert set(unknown(recorded(give))) == {"schedule", "warmup_ratio"}


def test_a_recipe_that_is_given_tells_nothing_of_the_optimiser(recorded: Callable[..., ProbeTrace]) -> None:
    change = settle(optim="sgd", lr_scheduler_type="inverse_sqrt")
    assert set(unknown(recorded(change, recipe=SHORT))) == {"optimiser"}


def test_a_quantized_base_is_named_with_its_bits(recorded: Callable[..., ProbeTrace]) -> None:
    def quantize(trainer: Any) -> None:
        # As transformers marks a base that bitsandbytes holds.
        trainer.model.get_base_model().is_loaded_in_8bit = True
        trainer.args.bf16 = True

    assert recorded(quantize).info.recipe.precision == "8bit"


def adapt(path: Path, **options: Any) -> Callable[[Any], None]:
    """A change of the Trainer's adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def change(trainer: Any) -> None:
        config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})
        plain = AutoModelForCausalLM.from_pretrained(path)
        trainer.model = trainer.model_wrapped = get_peft_model(plain, config)

    return change


def test_adapters_in_some_layers_only_leave_the_share_of_layers_unknown(
    recorded: Callable[..., ProbeTrace], path: Path
) -> None:
    some = adapt(path, target_modules=["q_proj", "v_proj"], layers_to_transform=[0])
    assert "q_proj, v_proj" in unknown(recorded(some))["target_modules"]


def test_layers_whose_adapter_is_frozen_are_layers_without_one(
    recorded: Callable[..., ProbeTrace], path: Path
) -> None:
    def change(trainer: Any) -> None:
        adapt(path)(trainer)
        for name, weight in trainer.model.named_parameters():
            weight.requires_grad &= "layers.0." not in name

    assert "q_proj" in unknown(recorded(change))["target_modules"]


class PackedLinear(torch.nn.Module):
    """A linear layer that is no ``nn.Linear``, as bases in GPTQ or AWQ have them."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"]])
def test_targets_are_named_on_a_base_whose_layers_have_a_class_of_their_own(
    recorded: Callable[..., ProbeTrace], path: Path, targets: list[str]
) -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import Linear
    from transformers import AutoModelForCausalLM

    def change(trainer: Any) -> None:
        plain = AutoModelForCausalLM.from_pretrained(path)
        for layer in plain.model.layers:
            for name, module in list(layer.named_modules()):
                if isinstance(module, torch.nn.Linear):
                    parent, _, leaf = name.rpartition(".")
                    setattr(layer.get_submodule(parent), leaf, PackedLinear(module))
        config = LoraConfig(r=4, target_modules=targets)
        config._register_custom_module({PackedLinear: Linear})
        trainer.model = trainer.model_wrapped = get_peft_model(plain, config)

    assert recorded(change).info.recipe.target_modules == tuple(sorted(targets))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"rank_pattern": {"q_proj": 2}}, {"lora_rank"}),
        ({"alpha_pattern": {"q_proj": 64}}, {"lora_alpha"}),
        ({"rank_pattern": {"q_proj": 2}, "use_rslora": True}, {"lora_rank", "lora_alpha"}),
        ({"init_lora_weights": "pissa"}, {"init_lora_weights"}),
        ({"alora_invocation_tokens": [1, 2]}, {"variant"}),
        ({"use_dora": True}, set()),
    ],
)
def test_an_adapter_unlike_a_recipes_is_named_and_read_where_no_pattern_holds(
    recorded: Callable[..., ProbeTrace], path: Path, options: dict[str, Any], settings: set[str]
) -> None:
    trace = recorded(adapt(path, **options))
    assert set(unknown(trace)) == settings
    alpha = 8 * 4**0.5 if "use_rslora" in options else 8
    assert (trace.info.recipe.lora_rank, trace.info.recipe.lora_alpha) == (4, alpha)


def test_an_adapter_that_was_trained_before_is_named(recorded: Callable[..., ProbeTrace]) -> None:
    def train(trainer: Any) -> None:
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.1)

    assert "trained before" in unknown(recorded(train))["adapter"]


def test_a_trainer_with_a_loss_of_its_own_is_named(recorded: Callable[..., ProbeTrace]) -> None:
    def own(trainer: Any) -> None:
        class Focal(type(trainer)):  # type: ignore[misc]
            def compute_loss(self, *arguments: Any, **options: Any) -> Any:
                return super().compute_loss(*arguments, **options) * 0.5

        trainer.__class__ = Focal

    assert unknown(recorded(own))["loss"].startswith("Focal has a compute_loss of its own")


def test_a_run_with_another_optimiser_gets_no_forecast(path: Path, base: Base, tmp_path: Path) -> None:
    recipe = RECIPE.replace(max_steps=102)
    notes = RunNotes(base="tiny")
    gate = Gate(make_predictor(), benchmark=make_exam(), notes=notes, stop=False)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.args.optim = "sgd"
    trainer.train()
    assert gate.assessment is not None and gate.decision == "UNSURE"
    assert gate.assessment.forecast_absent == "recipes and forecasts mean AdamW, this run has SGD"


def test_an_adapter_that_acts_beside_the_trained_one_is_named_and_gives_no_setting(
    recorded: Callable[..., ProbeTrace],
) -> None:
    def add(trainer: Any, *, frozen: bool) -> None:
        model = trainer.model
        model.add_adapter("first", LoraConfig(r=16, lora_alpha=64, target_modules="all-linear"))
        model.base_model.set_adapter(["first", "default"])
        for name, weight in model.named_parameters():
            if frozen and ".first." in name:
                weight.requires_grad_(False)

    beside = recorded(lambda trainer: add(trainer, frozen=True))
    assert (beside.info.recipe.lora_rank, beside.info.recipe.lora_alpha) == (4, 8)
    assert unknown(beside).keys() == {"adapter"} and "first acts beside it" in unknown(beside)["adapter"]
    together = unknown(recorded(lambda trainer: add(trainer, frozen=False)))
    assert together.keys() == {"lora_rank", "lora_alpha"} and "trained together" in together["lora_rank"]


def test_adapted_parameters_of_experts_are_no_layers_that_a_recipe_names(
    recorded: Callable[..., ProbeTrace], base: Base
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 8, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "vocab_size": base.model.config.vocab_size}
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    lora = LoraConfig(r=4, target_modules=["q_proj"], target_parameters=targets)

    def exchange(trainer: Any) -> None:
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, **experts))
        trainer.model = trainer.model_wrapped = get_peft_model(model, lora)

    trace = recorded(exchange)
    assert trace.info.recipe.target_modules == ("down_proj", "gate_up_proj", "q_proj")
    assert "no layers have an adapter" in unknown(trace)["target_modules"]
    assert "targeted_fraction" in derived_features(trace).absent
