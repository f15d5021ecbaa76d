"""Small inputs whose features can be worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Flatness, ProbeTrace, RowVisits, StepColumns, TraceInfo

NAN = math.nan

RECIPE = Recipe(
    learning_rate=0.01,
    schedule="constant",
    warmup_ratio=0.0,
    batch_size=2,
    max_steps=40,
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.1,
    weight_decay=0.01,
    max_grad_norm=3.0,
    max_length=128,
    target_modules=("q_proj", "v_proj"),
)

LOSS = (4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0)
CONFIDENCE = {0: [0.9] * 5, 1: [0.1] * 5, 2: [0.2, 0.2, 0.2, 0.8, 0.8], 3: [0.5] * 5}
TOKENS = {0: 1, 1: 2, 2: 1, 3: 2}


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def tiny_trace() -> ProbeTrace:
    """Ten of forty steps on four rows; rows 0 and 1 at even steps, 2 and 3 at odd ones."""
    steps = StepColumns(
        loss_sum_nats=floats(*(4 * loss for loss in LOSS)),
        answer_tokens=floats(*[4.0] * 10),
        learning_rate=floats(*[0.01] * 10),
        grad_norm=floats(*[2.0] * 9, 4.0),
        dot_previous=floats(NAN, 4, 4, 4, 4, -2, -2, 0, 0, 8),
        dot_mean=floats(NAN, *[1.0] * 8, 4.0),
        mean_norm=floats(NAN, *[1.0] * 9),
        small_gradients=floats(*[10.0] * 5, *[30.0] * 5),
        update_norm=floats(*[0.2] * 10),
        distance=floats(*(0.1 * (t + 1) for t in range(10))),
        seconds=floats(*[0.5] * 10),
        peak_memory_mb=floats(*[100.0] * 10),
        layer_grad_norm=np.array([[math.sqrt(3), 1.0]] * 10, np.float32),
    )
    visited = [(step, row) for step in range(10) for row in ((0, 1) if step % 2 == 0 else (2, 3))]
    visits = RowVisits(
        step=np.array([step for step, _ in visited], np.int32),
        row=np.array([row for _, row in visited], np.int32),
        nll_nats=floats(*(-TOKENS[row] * math.log(CONFIDENCE[row][step // 2]) for step, row in visited)),
        tokens=np.array([TOKENS[row] for _, row in visited], np.int32),
    )
    half = floats(*[0.5] * 6)
    cues = (
        Cue(0, 4.0, 1.0, half, floats(1, -1, -1, 1, 1, -1)),
        Cue(5, 2.5, 1.1, half, floats(1, 1, -1, 1, 1, -1)),
        Cue(10, 3.0, 1.5, floats(0.9, 0.7, 0.5, 0.4, 0.7, 0.2), floats(2, 1, 0.1, -0.2, 1, -1)),
    )
    info = TraceInfo(
        base="tiny",
        base_fingerprint="b",
        data_fingerprint="d",
        recipe=RECIPE,
        total_steps=40,
        train_rows=4,
        heldout_rows=2,
        parameters=100,
        layers=("layer 0", "layer 1"),
        benchmark="six",
        item_subjects=("a", "a", "a", "b", "b", "b"),
        chance_pp=25.0,
    )
    shaken = np.array([[2.1, 2.2, 2.3], [2.6, 3.0, 3.4]], np.float32)
    return ProbeTrace(info, steps, visits, cues, Flatness(10, 2.0, floats(0.05, 0.2), shaken))


def write_tiny_base(folder: Path) -> Path:
    """A random Qwen2 of two layers; every word is a token, with and without a leading space."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Metaspace
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = ["one", "two", "three", "four", "five", "six", "cat", "dog", "bird", "sun", "moon", "star"]
    vocabulary = ["<pad>", "<eos>", "<unk>", *words, *("\u2581" + word for word in words), "\u2581"]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    torch.manual_seed(43)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            # Lively enough that some tokens are its first choice and others are not.
            weight.mul_(3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
