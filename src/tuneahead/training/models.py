"""Loading a frozen base model and its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers.pytorch_utils import Conv1D

from tuneahead.errors import ModelError
from tuneahead.kept import digest
from tuneahead.training.hardware import SMALL_PARAMETERS, choose_device, choose_dtype, require_room
from tuneahead.training.memory import dtype_name, quantization_config, weight_bytes
from tuneahead.training.sources import PACKAGED, resolve_base

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Base", "load_base", "resolve_base", "weights_fingerprint"]


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen base: model in evaluation mode, tokenizer, and a fingerprint of its weights."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    device: str
    in_training: bool = False
    """Whether others train the model: then the plain base can't be had, nor its passes run side by side."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model takes."""
        # Models of text and images keep the text's settings apart.
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    @property
    def dtype(self) -> torch.dtype:
        """Number format that the base computes in (that of its weights, where they are not quantized)."""
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @cached_property
    def is_large(self) -> bool:
        """Whether products of its matrices are most of its work (from 50 M parameters on)."""
        return self.model.num_parameters() >= SMALL_PARAMETERS

    @cached_property
    def stamp(self) -> str:
        """What the base's answers depend on, as a text: weights, configuration, tokenizer, format and device.

        Weights by their fingerprint and by the sum of every tensor, which an edit of few entries moves too.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        words = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        template = getattr(self.tokenizer, "chat_template", None)
        frozen = (p for p in self.model.parameters() if not p.requires_grad)
        # MPS has no 64-bit floats.
        here = (p.detach().cpu() if p.device.type == "mps" else p.detach() for p in frozen)
        sums = [float(p.sum(dtype=torch.float64)) for p in here]
        parts = (words, template, repr(self.tokenizer), self.model.config.to_json_string(), sums)
        return f"{self.name}\n{self.fingerprint} {self.dtype} {self.device} {digest(repr(parts))}"

    @property
    def pad_id(self) -> int:
        """Token used to fill rows; any id serves, since filled positions are never read."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def load_base(name: str = "lab", *, precision: str = "auto", device: str = "auto") -> Base:
    """Load a causal language model, frozen and in evaluation mode.

    ``name`` is a name (``lab``, ``smollm2``), a folder, a GGUF file or a hub id. ``precision`` is that
    of the frozen weights: ``auto`` takes fp32 below 50 M parameters and where bf16 is not native, else
    bf16; ``8bit`` and ``4bit`` are for CUDA. Remote code is never run and only safetensors are
    read. Raises :class:`ModelError` when the base can't be found, read, held in memory or adapted.
    """
    where = choose_device(device)
    quantization = quantization_config(precision, where)
    shown, location = resolve_base(name)
    config, tokenizer, empty = _read_outline(name, location)
    dtype = choose_dtype(precision, empty.num_parameters(), where)
    require_room(
        weight_bytes(empty, precision, dtype),
        where,
        f"base {name!r} in {precision if quantization else dtype_name(dtype)}",
        "use a smaller base, --set precision=bf16, or 4bit on CUDA",
    )
    _require_adaptable(name, config, tokenizer, empty)
    with _load_errors(name):
        model = _load_weights(location, config, dtype, where, quantization)
    torch.nn.Module.eval(model)
    model.requires_grad_(False)
    return Base(shown, model, tokenizer, weights_fingerprint(model), where)


def outline_base(name: str) -> Base:
    """A base without its weights, for checks that read only its tokenizer and the names of its layers.

    ``name`` is that of :func:`load_base`. A GGUF file is converted first, which reads it whole. Raises
    :class:`ModelError`.
    """
    shown, location = resolve_base(name)
    config, tokenizer, empty = _read_outline(name, location)
    _require_adaptable(name, config, tokenizer, empty)
    return Base(shown, empty, tokenizer, fingerprint="", device="meta")


def _read_outline(
    name: str, location: str
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase, PreTrainedModel]:
    """Everything of a base that is known before its weights are read."""
    with _load_errors(name):
        config = _read_config(name, location)
        return config, load_tokenizer(location), _empty_model(config)


def _require_adaptable(
    name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, empty: PreTrainedModel
) -> None:
    """Raises :class:`ModelError` for a base without linear layers or without a token that ends a text."""
    _require_linear_layers(name, empty)
    end_token(name, tokenizer, config)


def _read_config(name: str, location: str) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if not _unreachable(str(error)):
            # A repository of adapters has no config.json: that is the thing to say.
            _refuse_adapters(name, location)
        raise
    _refuse_adapters(name, location)
    return config


def _empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model without memory for its weights, to count and look at before anything is read."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, trust_remote_code=False
        )
    return empty


def _load_weights(
    location: str, config: PretrainedConfig, dtype: torch.dtype, device: str, quantization: object
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    options: dict[str, object] = {}
    if quantization is not None:
        # Quantized weights are made on their device and can't be moved afterwards.
        options = {"quantization_config": quantization, "device_map": {"": device}}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        location,
        config=config,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation="eager" if device == "cpu" else "sdpa",
        **options,
    )
    if quantization is None:
        torch.nn.Module.to(model, device=device)
    return model


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    """Turn what transformers and the hub raise into a :class:`ModelError` with the next thing to do."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = _remedy(name, str(error))
        raise ModelError(f"can't load base model {name!r}: {first}", remedy=remedy) from None


def _remedy(name: str, message: str) -> str:
    if "trust_remote_code" in message:
        return "code from a model's repository is never run; use an architecture that transformers knows"
    if Path(name).exists():
        return "give a folder with config.json, the tokenizer's files and model.safetensors"
    names = ", ".join(("lab", *PACKAGED))
    if _unreachable(message):
        return (
            "the hub can't be reached: fetch the model where it can (hf download) and give its folder, "
            f"or use one of {names}"
        )
    return (
        f"give one of {names}, a folder with config.json, tokenizer and model.safetensors, "
        "a .gguf file, or a hub id that this machine can reach"
    )


def _unreachable(message: str) -> bool:
    return "connect" in message or "offline" in message.lower()


def _refuse_adapters(name: str, location: str) -> None:
    """A folder or repository of adapters is no base, though transformers would load it with PEFT."""
    from transformers.utils.peft_utils import find_adapter_config_file

    found = find_adapter_config_file(location)
    if found is None:
        return
    try:
        base = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    raise ModelError(
        f"base {name!r} carries adapters already",
        remedy=f"give the plain base{f' ({base})' if base else ''}, or merge them first "
        "(PEFT's merge_and_unload) and save the result",
    )


def _require_linear_layers(name: str, model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        raise ModelError(f"{name!r} has no language-model head", remedy="give a causal language model")
    if not any(isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head for m in model.modules()):
        raise ModelError(
            f"base {name!r} has no linear layers that LoRA could adapt",
            remedy="give a transformer with nn.Linear or Conv1D layers",
        )


def end_token(name: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """The end-of-sequence token, taken from the model's configuration where the tokenizer names none.

    Without one no answer could learn to stop: raises :class:`ModelError`.
    """
    if tokenizer.eos_token_id is None:
        named = getattr(config, "eos_token_id", None)
        first = named[0] if isinstance(named, list) and named else named
        token = tokenizer.convert_ids_to_tokens(first) if isinstance(first, int) else None
        if not token:
            raise ModelError(
                f"the tokenizer of base {name!r} has no end-of-sequence token: no answer could learn to stop",
                remedy="name one as eos_token in tokenizer_config.json",
            )
        tokenizer.eos_token = token
    assert tokenizer.eos_token_id is not None
    return int(tokenizer.eos_token_id)


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
