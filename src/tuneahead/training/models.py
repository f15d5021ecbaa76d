"""Loading a frozen base model and its tokenizer."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from tuneahead.environment import environment
from tuneahead.errors import ModelError
from tuneahead.kept import digest
from tuneahead.training.adaptable import (
    end_token,
    refuse_adapters,
    require_all_weights,
    require_causal,
    require_linear_layers,
)
from tuneahead.training.fetching import fetch_weights
from tuneahead.training.hardware import SMALL_PARAMETERS, choose_device, choose_dtype, require_room
from tuneahead.training.memory import dtype_name, quantization_config, weight_bytes
from tuneahead.training.sources import PACKAGED, SIGN_IN, resolve_base
from tuneahead.watch import SILENT, Watch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Base", "load_base", "resolve_base", "weights_fingerprint"]


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen base: model in evaluation mode, tokenizer, and a fingerprint of its weights."""

    name: str
    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    fingerprint: str
    device: str
    in_training: bool = False
    """Whether others train the model: then the plain base can't be had, nor its passes run side by side."""
    turn: RLock = field(default_factory=RLock, repr=False)
    """Held by the thread that uses the model: adapters stand in its layers while they are trained."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model takes."""
        # Models of text and images keep the text's settings apart; MPT has a name of its own.
        config = self.model.config.get_text_config()
        named = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
        return int(next((tokens for tokens in named if tokens), 1 << 30))

    @property
    def dtype(self) -> torch.dtype:
        """Number format that the base computes in (that of its weights, where they are not quantized)."""
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @cached_property
    def is_large(self) -> bool:
        """Whether products of its matrices are most of its work (from 50 M parameters on)."""
        return self.model.num_parameters() >= SMALL_PARAMETERS

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text by the model's own settings for writing, beside the tokenizer's."""
        own = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        tokens = own if isinstance(own, list | tuple) else [own]
        return tuple(int(token) for token in tokens if token is not None)

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
        parts = (words, template, repr(self.tokenizer), self.model.config.to_json_string(), self.ends, sums)
        return f"{self.name}\n{self.fingerprint} {self.dtype} {self.device} {digest(repr(parts))}"

    @property
    def pad_id(self) -> int:
        """Token used to fill rows; any that the model embeds serves: filled positions are never read."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and token < self.vocabulary:
                return int(token)
        return 0

    @property
    def vocabulary(self) -> int:
        """How many tokens the model embeds; the tokenizer may know more, or fewer."""
        # A model that is spread over several devices may hold another kind of layer there.
        embedding = self.model.get_input_embeddings()
        return int(getattr(embedding, "num_embeddings", 1 << 30))

    def require_known(self, ids: Iterable[Sequence[int]]) -> None:
        """Raises :class:`ModelError` for a token of the tokenizer that the model does not embed."""
        greatest = max((max(row, default=0) for row in ids), default=0)
        if greatest >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(greatest)
            raise ModelError(
                f"the tokenizer of base {self.name!r} gives token {greatest} ({token!r}), "
                f"the model knows {self.vocabulary} tokens, from 0 on",
                remedy="give the base the tokenizer that it was trained with; a token that was added later "
                "needs resize_token_embeddings and training",
            )


def load_base(
    name: str | Path = "lab", *, precision: str = "auto", device: str = "auto", watch: Watch = SILENT
) -> Base:
    """Load a causal language model, frozen and in evaluation mode.

    ``name`` is a name (``lab``, ``smollm2``), a folder, a GGUF file or a hub id. ``precision`` is that
    of the frozen weights: ``auto`` takes fp32 below 50 M parameters and where bf16 is not native, else
    bf16; ``8bit`` and ``4bit`` need bitsandbytes. ``watch`` is told while weights come from the hub.
    Remote code is never run and only safetensors are read. Raises :class:`ModelError` when the base can't be
    found, read whole, held in memory or adapted.
    """
    name, where = str(name), choose_device(device)
    quantization = quantization_config(precision, where)
    shown, location = resolve_base(name, watch)
    config, tokenizer, empty = _read_outline(name, location)
    dtype = choose_dtype(precision, empty.num_parameters(), where)
    require_room(
        weight_bytes(empty, precision, dtype),
        where,
        f"base {name!r} in {precision if quantization else dtype_name(dtype)}",
        "use a smaller base, --set precision=bf16 or precision=4bit",
    )
    _require_adaptable(name, config, tokenizer, empty)
    with _load_errors(name):
        if not Path(location).exists():
            # Not before it is known that there is room for them.
            fetch_weights(location, watch)
        model, missing = _load_weights(location, config, dtype, where, quantization)
    require_all_weights(name, missing)
    torch.nn.Module.eval(model)
    model.requires_grad_(False)
    return Base(shown, model, tokenizer, weights_fingerprint(model), where)


def outline_base(name: str | Path) -> Base:
    """A base without its weights, for checks that read only its tokenizer and the names of its layers.

    ``name`` is that of :func:`load_base`. A GGUF file is converted first, which reads it whole. Raises
    :class:`ModelError`.
    """
    name = str(name)
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
        require_causal(name, config)
        return config, load_tokenizer(location), _empty_model(config)


def _require_adaptable(
    name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, empty: PreTrainedModel
) -> None:
    """Raises :class:`ModelError` for a base without linear layers or without a token that ends a text."""
    require_linear_layers(name, empty)
    end_token(name, tokenizer, config)


def _read_config(name: str, location: str) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if not _unreachable(str(error)):
            # A repository of adapters has no config.json: that is the thing to say.
            refuse_adapters(name, location)
        raise
    refuse_adapters(name, location)
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
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of weights that the files lack."""
    from transformers import AutoModelForCausalLM

    options: dict[str, object] = {}
    if quantization is not None:
        # Quantized weights are made on their device and can't be moved afterwards.
        options = {"quantization_config": quantization, "device_map": {"": device}}
    model: PreTrainedModel
    info: dict[str, set[str]]
    # Of a repository without safetensors, transformers would ask a service to propose some to its owner.
    with environment({"DISABLE_SAFETENSORS_CONVERSION": "1"}):
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            location,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            # Elsewhere transformers takes the fused kernel, where the architecture has one.
            attn_implementation="eager" if device == "cpu" else None,
            output_loading_info=True,
            **options,
        )
    if quantization is None:
        torch.nn.Module.to(model, device=device)
    return model, set(info["missing_keys"])


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    """Turn what transformers and the hub raise into a :class:`ModelError` with the next thing to do."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        # Of what it did not foresee transformers says the same whatever it was: the cause tells more.
        told = (error.__cause__ or error.__context__) if str(error).startswith("Can't load the ") else None
        message = str(told or error)
        first = (message.strip() or type(told or error).__name__).splitlines()[0]
        raise ModelError(f"can't load base model {name!r}: {first}", remedy=_remedy(name, message)) from None


def _remedy(name: str, message: str) -> str:
    if "trust_remote_code" in message:
        return "code from a model's repository is never run; use an architecture that transformers knows"
    if "deserializing header" in message:
        return "the weights are no whole safetensors file: fetch them anew (in a Git clone: git lfs pull)"
    if Path(name).exists():
        return "give a folder with config.json, the tokenizer's files and model.safetensors"
    if "gated" in message:
        return SIGN_IN
    if os.strerror(errno.ENOSPC) in message:
        return "free some space, or name a folder on another disk in HF_HOME"
    if "safetensors" in message:
        return "the weights have to be there as safetensors; others hold code, which is never run"
    names = ", ".join(("lab", *PACKAGED))
    if _unreachable(message):
        return (
            "the hub can't be reached, or not for long enough: fetch the model where it can (hf download) "
            f"and give its folder, or use one of {names}"
        )
    if "private repository" in message:
        return f"check the name, and sign in for a private model (hf auth login); or use one of {names}"
    return (
        f"give one of {names}, a folder with config.json, tokenizer and model.safetensors, "
        "a .gguf file, or a hub id that this machine can reach"
    )


def _unreachable(message: str) -> bool:
    return "connect" in message or "offline" in message.lower()


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
