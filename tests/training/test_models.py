"""Bases are loaded frozen, or refused with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_fixtures import make_examples, place_bound_model
from transformers import AutoConfig

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.dataset import Example
from tuneahead.errors import DataError, ModelError
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace
from tuneahead.training.hardware import choose_dtype
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import (
    Base,
    _load_weights,
    load_base,
    load_tokenizer,
    weights_fingerprint,
)
from tuneahead.training.probe import encode_rows, run_probe
from tuneahead.training.scoring import encode_benchmark


def test_a_base_is_frozen_and_knows_itself(tiny: Base, tiny_path: Path) -> None:
    assert not any(p.requires_grad for p in tiny.model.parameters())
    assert not tiny.model.training
    assert tiny.context_tokens == 128 and tiny.pad_id == 0 and tiny.dtype == torch.float32
    assert load_base(str(tiny_path), device="cpu").fingerprint == tiny.fingerprint
    with torch.no_grad():
        next(tiny.model.parameters()).add_(0.1)
    assert weights_fingerprint(tiny.model) != tiny.fingerprint


def test_a_missing_base_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder .*nowhere") as caught:
        load_base(str(tmp_path / "nowhere"), device="cpu")
    assert "config.json" in caught.value.remedy
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        load_base(str(tmp_path), device="cpu")


def test_pickled_weights_are_never_read(tiny_path: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_path / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't load base model"):
        load_base(str(tmp_path), device="cpu")


def test_precision_is_chosen_by_size_and_device(tiny_path: Path) -> None:
    assert choose_dtype("auto", 1_000_000, "cpu") == torch.float32
    assert choose_dtype("bf16", 1_000_000, "cpu") == torch.bfloat16
    assert load_base(str(tiny_path), precision="bf16", device="cpu").dtype == torch.bfloat16


def test_torn_weights_are_refused(tiny_path: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_path / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes((tiny_path / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="can't load base model") as caught:
        load_base(str(tmp_path), device="cpu")
    assert "git lfs pull" in caught.value.remedy


def copied(tiny_path: Path, folder: Path, **changes: object) -> Path:
    """The tiny model in another folder, with fields of its config.json changed (None removes one)."""
    shutil.copytree(tiny_path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out"))
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def rewrite(path: Path, **changes: object) -> None:
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def test_adapters_are_no_base(tiny_path: Path, tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    fields = {"peft_type": "LORA", "base_model_name_or_path": "org/plain-base"}
    (adapters / "adapter_config.json").write_text(json.dumps(fields))
    beside = copied(tiny_path, tmp_path / "beside")
    (beside / "adapter_config.json").write_text("{}")
    for folder, remedy in ((adapters, "org/plain-base"), (beside, "merge")):
        with pytest.raises(ModelError, match="carries adapters already") as caught:
            load_base(str(folder), device="cpu")
        assert remedy in caught.value.remedy


def test_a_model_without_linear_layers_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    bare = copied(tiny_path, tmp_path / "bare", num_hidden_layers=0, layer_types=[])
    with pytest.raises(ModelError, match="no linear layers that LoRA could adapt"):
        load_base(str(bare), device="cpu")


def test_weights_that_lack_tensors_are_refused_with_their_number(tiny_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_path, tmp_path / "gaps")
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 3 of the model's tensors, such as model\.layers\.1\.mlp"):
        load_base(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("bert", "a masked one"),
        ("bart", "an encoder-decoder"),
        ("bert-generation", "one that reads on both sides"),
        ("xlnet", "one that reads on both sides"),
    ],
)
def test_models_that_do_not_go_on_with_a_text_are_refused(
    tiny_path: Path, tmp_path: Path, kind: str, what: str
) -> None:
    folder = copied(tiny_path, tmp_path / kind)
    AutoConfig.for_model(kind, vocab_size=43).save_pretrained(folder)
    with pytest.raises(ModelError, match=f"\\({kind}\\) is no causal language model but {what}"):
        load_base(str(folder), device="cpu")


def test_tokens_beyond_the_vocabulary_neither_fill_rows_nor_are_read(tiny_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_path, tmp_path / "added")
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    base = load_base(str(folder), device="cpu")
    assert base.tokenizer.pad_token_id == base.vocabulary and base.pad_id == 1
    assert train_a_little(base).steps.loss_nats[-1] > 0
    item = ChoiceItem("1", "red [PAD]", ("one", "two"), (0,))
    with pytest.raises(ModelError, match=rf"gives token {base.vocabulary} \('\[PAD\]'\), the model knows"):
        encode_benchmark(base, Benchmark("b", "accuracy", [item]))
    with pytest.raises(ModelError, match="gives token"):
        encode_rows(base, [Example("red [PAD]", "one", 1)], Recipe(template="raw"))


@pytest.mark.parametrize(("kind", "kernel"), [("qwen2", "sdpa"), ("mpt", "eager")])
def test_off_the_processor_attention_is_fused_where_the_architecture_allows(
    tiny_path: Path, tmp_path: Path, kind: str, kernel: str
) -> None:
    folder = tiny_path
    if kind == "mpt":
        folder = tmp_path
        place_bound_model("mpt").model.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    model, missing = _load_weights(str(folder), config, torch.float32, "meta", None)
    assert model.config._attn_implementation == kernel and not missing


def test_a_window_by_another_name_is_known() -> None:
    assert place_bound_model("mpt").context_tokens == 1024


def test_the_end_token_comes_from_the_configuration_or_is_asked_for(tiny_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_path, tmp_path / "silent")
    rewrite(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    base = load_base(str(folder), device="cpu")
    assert base.tokenizer.eos_token == "<eos>" and base.pad_id == 1, "config.json names token 1"
    assert train_a_little(base).steps.loss_nats[-1] > 0, "a tokenizer without pad token trains"
    rewrite(folder / "config.json", eos_token_id=None)
    with pytest.raises(ModelError, match="no end-of-sequence token") as caught:
        load_base(str(folder), device="cpu")
    assert "eos_token" in caught.value.remedy


def train_a_little(base: Base) -> ProbeTrace:
    recipe = Recipe(max_steps=2, batch_size=4)
    settings = ProbeSettings(record_steps=2, cue_steps=(), flatness_at=None)
    return run_probe(base, make_examples(20), recipe, settings).trace


def test_a_window_that_prompts_fill_is_refused_with_its_size(tiny: Base) -> None:
    examples = [Example(" ".join(["red"] * 200), "one", i + 1) for i in range(3)]
    settings = ProbeSettings(record_steps=2, cue_steps=(), flatness_at=None)
    with pytest.raises(DataError, match="no row of 3 leaves room for its answer in 128 tokens") as caught:
        run_probe(tiny, examples, Recipe(max_steps=2), settings)
    assert "longer window" in caught.value.remedy


def test_code_of_a_repository_is_never_run(tiny_path: Path, tmp_path: Path) -> None:
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    folder = copied(tiny_path, tmp_path / "own", model_type="own", auto_map=code)
    (folder / "own.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(ModelError, match="can't load base model") as caught:
        load_base(str(folder), device="cpu")
    assert "never run" in caught.value.remedy


def test_a_base_too_large_for_the_machine_is_refused_before_it_is_read(
    tiny_path: Path, tmp_path: Path
) -> None:
    huge = copied(tiny_path, tmp_path / "huge", vocab_size=2**25, hidden_size=2**15)
    (huge / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"in fp32 needs 4\d\d\d\.\d GiB, cpu has \d+\.\d GiB free"):
        load_base(str(huge), precision="fp32", device="cpu")


def test_lab_bases_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_path: Path) -> None:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="'lab-llama' is not in") as caught:
        load_base("lab-llama", device="cpu")
    assert "pretrain_base.py lab-llama" in caught.value.remedy
    copied(tiny_path, tmp_path / "lab-llama")
    assert load_base("lab-llama", device="cpu").name == "lab-llama"


def test_a_hub_that_cannot_be_reached_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "red", "completion": "one"}\n' * 20)
    command = [sys.executable, "-m", "tuneahead", "assess", str(tmp_path / "rows.jsonl")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, "--base", "org/never-seen"], env=offline, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "can't load base model 'org/never-seen'" in done.stderr and "smollm2" in done.stderr
