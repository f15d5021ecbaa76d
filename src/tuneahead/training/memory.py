"""How much memory a base and its runs need, found out before it runs out."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D

from tuneahead.errors import ModelError
from tuneahead.training.hardware import DTYPES, QUANTIZED, native_bf16

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BYTES = {"8bit": 1.0, "4bit": 0.56}
"""Bytes of a quantized weight; in 4 bits a block of 64 has its own scale."""


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a number format: fp32, bf16 or fp16."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype))


def quantization_config(precision: str, device: str) -> object | None:
    """What transformers needs to load 8-bit or 4-bit weights; None for other precisions.

    Raises :class:`ModelError` on other devices than CUDA and processors, and without bitsandbytes.
    """
    if precision not in QUANTIZED:
        return None
    if not device.startswith(("cuda", "cpu")):
        raise ModelError(
            f"precision {precision} needs a CUDA device or a processor, the base would run on {device}",
            remedy="use precision auto, bf16 or fp32 here",
        )
    absent = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if absent:
        raise ModelError(
            f"precision {precision} needs {' and '.join(absent)}, which is not installed",
            remedy="pip install 'tuneahead[quantized]'",
        )
    from transformers import BitsAndBytesConfig

    # Else it says of every layer's every input that it is rounded, which is what 8 bits mean.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if precision == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    computes = torch.bfloat16 if native_bf16(device) else torch.float32
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computes
    )


def weight_bytes(model: PreTrainedModel, precision: str, dtype: torch.dtype) -> float:
    """Bytes of a model's weights once loaded; quantization leaves embeddings, norms and head as they are."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    quantized = 0
    if precision in QUANTIZED:
        linear = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]
        quantized = sum(module.weight.numel() for module in linear)
    rest = model.num_parameters() - quantized
    return quantized * _BYTES.get(precision, 0.0) + rest * float(dtype.itemsize)
