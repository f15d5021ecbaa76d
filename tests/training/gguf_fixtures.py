"""A tiny Llama written as a GGUF file, as llama.cpp's converter writes one."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

HEADS = 4


def write_tiny_gguf(path: Path, seed: int = 0, without: str = "") -> LlamaForCausalLM:
    """Write a random two-layer Llama with a byte-level tokenizer; returns the model it holds.

    The tensor ``without`` is left out.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), "th", "the"]
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, weight in model.state_dict().items():
        if name not in ("lm_head.weight", without):
            writer.add_tensor(_gguf_name(name), _rows_for_rotation(name, weight).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _gguf_name(name: str) -> str:
    plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in plain:
        return plain[name]
    _, _, layer, *rest, _ = name.split(".")
    parts = {
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    return f"blk.{layer}.{parts[rest[-1]]}.weight"


def _rows_for_rotation(name: str, weight: Tensor) -> Tensor:
    """GGUF keeps the rows of queries and keys in pairs, transformers in halves."""
    if "q_proj" not in name and "k_proj" not in name:
        return weight.contiguous()
    rows, columns = weight.shape
    return (
        weight.view(HEADS, 2, rows // HEADS // 2, columns).swapaxes(1, 2).reshape(rows, columns).contiguous()
    )
