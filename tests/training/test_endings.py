"""What may follow a free answer that is matched exactly."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tuneahead.benchmark.items import Benchmark, GenerationItem
from tuneahead.training.endings import Endings
from tuneahead.training.models import Base
from tuneahead.training.scoring import EncodedBenchmark, score_stack
from tuneahead.training.trees import Tree

SIGNS = ("a", "3", "1", ".", "\n", "\n\n", ".\n", ".\n\n", " \n", " the", "<end>")


@pytest.mark.parametrize(
    ("following", "past", "ends"),
    [
        ("\n", "a", True),
        ("\n\n", "a", True),
        (".\n", "a", True),
        (".\n\n", "a", True),
        (" \n", "a", True),
        ("<end>", "a", True),
        (".", "1", False),
        (".", "a", False),
        (".", " the", True),
        (".", "\n", True),
        (".", "<end>", True),
        (" the", "\n", False),
    ],
)
def test_an_answer_ends_at_a_line_break_an_end_token_or_a_full_stop_that_no_word_follows(
    following: str, past: str, ends: bool
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {text: i for i, text in enumerate(SIGNS)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="a"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Punctuation(), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    endings = Endings(tokenizer, frozenset({ids["<end>"]}))
    assert endings.full_stop == ids["."]
    assert endings.ended(np.array([[ids[following]]]), np.array([[ids[past]]])).tolist() == [[ends]]


def test_a_full_stop_is_read_past_where_answers_are_scored(tiny: Base) -> None:
    from tokenizers import decoders, pre_tokenizers

    base = replace(tiny, model=copy.deepcopy(tiny.model), tokenizer=copy.deepcopy(tiny.tokenizer))
    spaces = pre_tokenizers.Metaspace(prepend_scheme="never")
    signs = pre_tokenizers.Punctuation()
    base.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, signs])
    base.tokenizer.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    endings = Endings(base.tokenizer, frozenset({base.tokenizer.eos_token_id}))
    (stop,) = endings.read_past
    # A head of its own, which expects a full stop now and then, and more than that after one.
    weight = torch.randn(base.model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    weight[stop] *= 2
    base.model.lm_head.weight = torch.nn.Parameter(weight)
    trees, hits, stopped = [], [], 0
    for index in range(60):
        prompt = np.random.default_rng(index).integers(3, stop - 3, 4).tolist()
        answer = [_greedy(base, prompt)]
        follow = _greedy(base, [*prompt, *answer])
        past = base.tokenizer.convert_ids_to_tokens(_greedy(base, [*prompt, *answer, stop]))
        goes_on = past[0].isalnum()
        trees.append(Tree(tuple(prompt), (tuple(answer),), True, endings.read_past))
        stopped += follow == stop
        hits.append(follow == base.tokenizer.eos_token_id or (follow == stop and not goes_on))
    assert sum(hits) > 0 and 0 < stopped < 60
    items = [GenerationItem(str(i), "?", ("!",)) for i in range(60)]
    encoded = EncodedBenchmark(Benchmark("free", "exact_match", items), tuple(trees), endings)
    for shared in (True, False):
        score = score_stack(base, replace(encoded, shared=shared), None, [0])[0]
        np.testing.assert_array_equal(score.item_pp > 0, hits)


@torch.no_grad()
def _greedy(base: Base, ids: list[int]) -> int:
    return int(base.model(torch.tensor([ids])).logits[0, -1].argmax())
