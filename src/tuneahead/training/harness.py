"""Benchmarks that lm-evaluation-harness scores itself, on the base with an adapter in place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from tuneahead.benchmark.items import Benchmark
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base

ROWS_PER_PASS = 16


def harness_grades(
    base: Base, benchmark: Benchmark, stack: AdapterStack | None, slots: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Grades of the benchmark's items, (items,) from 0 to 1, for each of ``slots`` (or the plain base).

    The harness drives its own Hugging Face wrapper around our model, one adapter after the other, so
    its prompts, few-shot examples, answer filters and metrics are exactly its own. Raises
    :class:`BenchmarkError` when a metric is no score of single items.
    """
    from lm_eval.models.huggingface import HFLM

    assert benchmark.harness is not None
    kind = base.device.split(":", 1)[0]
    model = HFLM(
        pretrained=base.model,
        tokenizer=base.tokenizer,
        backend="causal",
        batch_size=ROWS_PER_PASS,
        # It ends the autocast that it is called in, unless it is told to begin one.
        mixed_precision_dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
    )
    side = base.tokenizer.padding_side
    names = [item.item_id for item in benchmark.items]
    found = []
    try:
        for slot in slots if stack is not None else [0]:
            own = stack.using([slot]) if stack is not None else nullcontext()
            with own, torch.random.fork_rng(), torch.no_grad():
                grades = benchmark.harness.grade(model, names)
            found.append(np.array([grades[name] for name in names]))
    finally:
        base.tokenizer.padding_side = side
    return found
