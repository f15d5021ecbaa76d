"""A base without its weights: tokenizer and layers, for checks that need no more."""

from __future__ import annotations

from tuneahead.training.models import (
    Base,
    _empty_model,
    _load_errors,
    _read_config,
    _require_linear_layers,
    end_token,
    load_tokenizer,
)
from tuneahead.training.sources import resolve_base


def outline_base(name: str) -> Base:
    """A base whose weights take no memory and hold nothing: it can be asked for its layers, not for answers.

    ``name`` is that of :func:`~tuneahead.training.models.load_base`. A GGUF file is converted first, which
    reads it whole. Raises :class:`~tuneahead.errors.ModelError`.
    """
    shown, location = resolve_base(name)
    with _load_errors(name):
        config = _read_config(name, location)
        tokenizer, empty = load_tokenizer(location), _empty_model(config)
    _require_linear_layers(name, empty)
    end_token(name, tokenizer, config)
    return Base(shown, empty, tokenizer, fingerprint="", device="meta")
