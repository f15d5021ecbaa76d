"""Loading a frozen base model and its tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from tuneahead.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen base: model in evaluation mode, tokenizer, and a fingerprint of its weights."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    device: str

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model takes."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights."""
        return next(self.model.parameters()).dtype

    @property
    def pad_id(self) -> int:
        """Token used to fill rows; any id serves, since filled positions are never read."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def resolve_base(name: str) -> tuple[str, str]:
    """Name shown and location loaded: ``lab`` is the packaged tiny base, else a path or hub id.

    A folder that holds a lab base is shown by that base's own name, wherever it lies.
    """
    from tuneahead.lab.bases import lab_base_path, stored_name

    if name in ("lab", "lab-qwen2"):
        return "lab-qwen2", str(lab_base_path())
    return stored_name(Path(name)) or name, name


def choose_device(device: str = "auto") -> str:
    """``auto`` takes CUDA, then MPS, then the processor."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_base(name: str = "lab", *, precision: str = "auto", device: str = "auto") -> Base:
    """Load a causal language model, frozen and in evaluation mode.

    ``precision`` is that of the frozen weights: ``auto`` takes fp32 below 50 M parameters and
    on processors without native bf16, else bf16. Remote code is never run and only safetensors
    are read. Raises :class:`ModelError` when the base can't be found, read or adapted.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    shown, location = resolve_base(name)
    where = choose_device(device)
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        tokenizer = load_tokenizer(location)
        # Counted on an empty model, so that a large one is never held in a wider format than needed.
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        parameters = empty.num_parameters()
        model = AutoModelForCausalLM.from_pretrained(
            location,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=choose_dtype(precision, parameters, where),
            attn_implementation="eager" if where == "cpu" else "sdpa",
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"can't load base model {name!r}: {first}",
            remedy="give 'lab', a folder with config.json, tokenizer and model.safetensors, or a hub id "
            "that this machine can reach",
        ) from None
    torch.nn.Module.to(model, device=where)
    torch.nn.Module.eval(model)
    model.requires_grad_(False)
    if hasattr(model, "peft_config"):
        raise ModelError(f"{name!r} already carries adapters", remedy="merge them or give the plain base")
    return Base(shown, model, tokenizer, weights_fingerprint(model), where)


def load_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The tokenizer exactly as stored.

    ``AutoTokenizer`` rebuilds it as the architecture's own class, which silently drops a custom
    pre-tokenizer; a tokenizer that says it is a plain fast one is therefore read as that.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    declared = get_tokenizer_config(location, trust_remote_code=False).get("tokenizer_class")
    if declared in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        plain: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(location)
        return plain
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
    return tokenizer


def choose_dtype(precision: str, parameters: int, device: str) -> torch.dtype:
    """Number format of the frozen weights for a precision name, a model size and a device."""
    if precision in _DTYPES:
        return _DTYPES[precision]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # Below 50 M parameters elementwise work dominates and bf16 gains nothing (measured).
    if parameters < 50_000_000 or not native_bf16():
        return torch.float32
    return torch.bfloat16


def native_bf16() -> bool:
    """Whether this machine's processor multiplies in bf16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Hash of the configuration and a sample of every weight: equal for equal models."""
    config = model.config.to_dict()
    kept = {k: v for k, v in config.items() if isinstance(v, (int, float, str)) and not k.startswith("_")}
    for volatile in ("transformers_version", "dtype", "torch_dtype", "name_or_path"):
        kept.pop(volatile, None)
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu().numpy()
        digest.update(name.encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()[:16]
