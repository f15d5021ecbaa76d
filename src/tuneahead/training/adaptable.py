"""What a base must be before adapters are trained on it, and the refusals of what is not."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D

from tuneahead.errors import ModelError
from tuneahead.recipe import leaf_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_TWO_WAY = frozenset(("bert-generation", "cpmant", "xlm", "xlnet"))
"""Kinds with a class of causal models in which a place sees what comes after it."""
_EXPERTS = {
    "mixtral": frozenset(("gate", "w1", "w2", "w3")),
    "qwen2_moe": frozenset(("gate", "gate_proj", "up_proj", "down_proj")),
}
"""What a mixture's router and experts were called as layers: names that PEFT takes for their parameters."""


def refuse_adapters(name: str, location: str) -> None:
    """Raise :class:`ModelError` for a folder or repository of adapters, which is no base.

    Transformers would load it with PEFT.
    """
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


def require_causal(name: str, config: PretrainedConfig) -> None:
    """Raises :class:`ModelError` for encoders, encoder-decoders and models of other kinds.

    transformers makes causal models of some of them, though they were never trained to go on with a text.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
    )

    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", True)
    kinds = {
        "an encoder-decoder": getattr(config, "is_encoder_decoder", False),
        "a masked one": masked,
        "one that reads on both sides": config.model_type in _TWO_WAY,
    }
    found = next((kind for kind, on in kinds.items() if on), "")
    if found or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = f" but {found}" if found else ""
        raise ModelError(
            f"base {name!r} ({config.model_type}) is no causal language model{kind}",
            remedy="give a model that transformers loads with AutoModelForCausalLM and that was trained "
            "to go on with a text, such as Llama, Qwen or GPT-2",
        )


def refuse_expert_targets(
    name: str, model: PreTrainedModel, layers: Sequence[str], targets: Collection[str]
) -> None:
    """Raises :class:`ModelError` where PEFT would adapt a mixture's stacked experts under these ``targets``.

    They are parameters and none of the ``layers``: of the same recipe another adapter would be trained here.
    """
    kind = str(model.config.model_type)
    experts = _EXPERTS.get("mixtral" if kind == "mixtral" else _alike().get(kind, ""), frozenset())
    asked = {"all-linear", *experts} & leaf_names(targets)
    stacked = any(weight.ndim == 3 and ".experts." in own for own, weight in model.named_parameters())
    if experts and asked and stacked:
        others = sorted(leaf_names(layers) - experts)
        raise ModelError(
            f"target_modules {', '.join(sorted(asked))}: so PEFT adapts the experts of {name!r} too, "
            "which are parameters and no layers, and can't be adapted here",
            remedy=f"name layers other than those of the experts: {', '.join(others)}",
        )


def _alike() -> dict[str, str]:
    """Kinds of models by the kind whose layers theirs were, as PEFT looks them up."""
    try:
        from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN
    except ImportError:
        return {}
    return dict(_MODEL_TO_CONVERSION_PATTERN)


def require_all_weights(name: str, missing: Collection[str]) -> None:
    """Raises :class:`ModelError` where transformers drew weights at random that it did not find."""
    if missing:
        raise ModelError(
            f"the weights of base {name!r} lack {len(missing)} of the model's tensors, such as "
            f"{min(missing)}: transformers would fill them with random numbers",
            remedy="fetch the model anew, or save it whole from the class that it was trained as "
            "(with its lm_head, adapters merged)",
        )


def require_linear_layers(name: str, model: PreTrainedModel) -> None:
    """Raises :class:`ModelError` for a model without a head, or without layers that LoRA adapts."""
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
