"""Tiny base models of real architectures, pre-trained in minutes on the lab's world."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tuneahead.errors import ModelError
from tuneahead.lab.corpus import CorpusMix, documents

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EOS = "<|endoftext|>"
PAD = "<|pad|>"

Architecture = Literal["qwen2", "llama", "gemma3"]
_MODEL_TYPES: dict[Architecture, str] = {"qwen2": "qwen2", "llama": "llama", "gemma3": "gemma3_text"}


@dataclass(frozen=True)
class BaseSpec:
    """What a base is made of and how it is pre-trained; equal specs give equal weights on one machine.

    The few steps and questions are on purpose: after 3,400 steps with 3 % of questions a base answers all
    it has read (82 % of the exam), and no fine-tune is left anything to gain.
    """

    name: str
    architecture: Architecture = "qwen2"
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 352
    vocabulary: int = 2048
    max_positions: int = 256
    sequence_tokens: int = 128
    rows: int = 16
    steps: int = 1100
    warmup_steps: int = 100
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 11
    mix: CorpusMix = field(default_factory=CorpusMix)


BASE_SPECS: dict[str, BaseSpec] = {
    spec.name: spec
    for spec in (
        BaseSpec("lab-qwen2"),
        BaseSpec(
            "lab-llama",
            architecture="llama",
            hidden_size=96,
            layers=3,
            kv_heads=4,
            intermediate_size=256,
            steps=1800,
            seed=12,
        ),
        BaseSpec(
            "lab-gemma3",
            architecture="gemma3",
            hidden_size=144,
            layers=3,
            kv_heads=1,
            intermediate_size=384,
            steps=900,
            seed=13,
        ),
        BaseSpec(
            "lab-proxy",
            hidden_size=64,
            layers=2,
            heads=2,
            kv_heads=1,
            intermediate_size=176,
            steps=3500,
            seed=14,
        ),
    )
}
"""The named bases. Only ``lab-qwen2`` ships with the package."""


def base_spec(name: str) -> BaseSpec:
    """The spec of a named base; raises ModelError for an unknown name."""
    if name not in BASE_SPECS:
        raise ModelError(f"unknown lab base {name!r}", remedy=f"use one of {', '.join(BASE_SPECS)}")
    return BASE_SPECS[name]


def lab_base_path() -> Path:
    """Folder of the shipped base ``lab-qwen2``: config.json, model.safetensors and the tokenizer.

    Raises :class:`ModelError` when it is not there.
    """
    path = Path(str(resources.files("tuneahead.lab").joinpath("base")))
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            f"the lab's base is missing from {path}", remedy="run scripts/pretrain_base.py lab-qwen2"
        )
    return path


def stored_name(folder: Path) -> str:
    """Name of the lab base in a folder that :func:`save_base` wrote; empty when it holds none."""
    try:
        return str(json.loads((folder / "base_spec.json").read_text("utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def train_tokenizer(spec: BaseSpec, documents_read: int = 40_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt on the base's own text; digits stand alone, so that sums can be learnt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocabulary,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Questions are frequent here, so that their words become tokens whatever their share in the text.
    text = documents(CorpusMix(question_fraction=0.3, chatter_fraction=0.1), random.Random(spec.seed))
    tokenizer.train_from_iterator(islice(text, documents_read), trainer)
    wrapped: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=spec.max_positions,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def new_model(spec: BaseSpec, eos_id: int, pad_id: int) -> PreTrainedModel:
    """A model with random weights; the caller seeds torch."""
    from transformers import AutoConfig, AutoModelForCausalLM

    own: dict[str, int] = {}
    if spec.architecture != "qwen2":
        own["head_dim"] = spec.hidden_size // spec.heads
    if spec.architecture == "gemma3":
        own |= {"sliding_window": spec.sequence_tokens // 2, "query_pre_attn_scalar": own["head_dim"]}
    config = AutoConfig.for_model(
        _MODEL_TYPES[spec.architecture],
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        **own,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, dtype="float32"
    )
    return model


def packed_batches(spec: BaseSpec, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Batches of token ids, ``rows x sequence_tokens``, without end.

    Documents follow each other, each ended by the end-of-text token. Every row begins with the
    beginning of a document, as prompts do; what hangs over at a row's end is dropped.
    """
    import torch

    text = documents(spec.mix, random.Random(spec.seed + 1))
    encode = lru_cache(maxsize=100_000)(lambda line: tokenizer.encode(line, add_special_tokens=False))
    while True:
        batch = []
        for _ in range(spec.rows):
            row: list[int] = []
            while len(row) < spec.sequence_tokens:
                row += [*encode(next(text)), tokenizer.eos_token_id]
            batch.append(row[: spec.sequence_tokens])
        yield torch.tensor(batch)


def pretrain(spec: BaseSpec, folder: Path, log: Callable[[str], None] = print) -> None:
    """Pre-train a base from nothing and save model, tokenizer and spec (``base_spec.json``).

    Where the processor has bf16, products are made in it with eager attention, which at these lengths
    takes 60 % of the time of fp32 with the fused kernel; weights and optimizer stay in fp32.
    """
    import torch

    from tuneahead.training.hardware import native_bf16

    tokenizer = train_tokenizer(spec)
    torch.manual_seed(spec.seed)
    model = new_model(spec, tokenizer.eos_token_id, tokenizer.pad_token_id)
    model.set_attn_implementation("eager")
    log(f"{spec.name}: {model.num_parameters():,} parameters")
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=spec.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=spec.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_share(step, spec))
    began = time.monotonic()
    for step, ids in enumerate(islice(packed_batches(spec, tokenizer), spec.steps), start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16("cpu")):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == spec.steps:
            log(f"step {step} loss {loss.item():.4f} after {time.monotonic() - began:.0f} s")
    save_base(spec, model, tokenizer, folder)


def save_base(
    spec: BaseSpec, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write config, weights (safetensors, fp32), tokenizer and spec into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "base_spec.json").write_text(json.dumps(asdict(spec), indent=2) + "\n", "utf-8")


def _rate_share(step: int, spec: BaseSpec) -> float:
    """Linear warm-up, then half a cosine down to a twentieth."""
    if step < spec.warmup_steps:
        return (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
