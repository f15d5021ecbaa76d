"""Questions that begin alike share a row; every score stays that of a pass of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import WORDS, write_tiny_model

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.training import scoring
from tuneahead.training.models import Base, load_base
from tuneahead.training.scoring import encode_benchmark, score_stack
from tuneahead.training.trees import Row, Tree, TreeBatch, by_width, grow_rows, passes

TRUNK = tuple(range(100, 140))


def tree(*rest: int, options: int = 2) -> Tree:
    return Tree((*TRUNK, *rest), tuple((7, 8 + i) for i in range(options)), False)


def few_shot(subjects: int = 2, count: int = 9) -> Benchmark:
    generator = torch.Generator().manual_seed(4)

    def words(n: int) -> str:
        return " ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (n,), generator=generator))

    examples = [words(30) for _ in range(subjects)]
    items = [
        ChoiceItem(
            str(i),
            f"{examples[i % subjects]} {words(1 + i % 4)}".strip(),
            tuple(words(1 + (i + j) % 3) for j in range(3)),
            (i % 3,),
        )
        for i in range(count)
    ]
    return Benchmark("few", "accuracy", items)


def test_prompts_that_begin_alike_share_a_trunk_and_others_do_not() -> None:
    trees = [tree(1, 2), tree(1, 3), Tree((5, 6), ((7,), (8,)), False), tree()]
    rows = grow_rows(trees, 1000, 600)
    assert sorted(index for row in rows for index in row.trees) == [0, 1, 2, 3]
    shared = next(row for row in rows if len(row.trees) > 1)
    assert set(shared.trees) == {0, 1, 3} and shared.trunk == 40
    # 40 shared, prompts of 2, 2 and 0 more, and two options of one input token each.
    assert shared.length == 40 + (2 + 2 + 0) + 3 * 2 and shared.reads == 3 * 3
    assert next(row for row in rows if len(row.trees) == 1) == Row((2,), 0, 2, 1)


def test_a_row_ends_at_the_tokens_allowed_and_where_attention_makes_it_dear() -> None:
    trees = [tree(*(i * 10 + j for j in range(10))) for i in range(60)]
    assert max(row.length for row in grow_rows(trees, 100, 10**9)) <= 100
    free, dear = grow_rows(trees, 10**6, 10**9), grow_rows(trees, 10**6, 100)
    assert len(free) == 1 and 60 > len(dear) > 4
    assert [index for row in free for index in row.trees] == list(range(60))
    longest = grow_rows([tree(*range(300))], 100, 600)
    assert longest[0].length == 342, "a single tree may be longer: it has to be read"


def test_few_tokens_in_common_are_not_worth_a_longer_row() -> None:
    trees = [Tree((1, 2, 3, i), ((7,), (8,)), False) for i in range(10)]
    assert all(len(row.trees) == 1 for row in grow_rows(trees, 1000, 600))


def test_passes_hold_every_row_once_within_their_bounds() -> None:
    trees = [tree(*range(i)) for i in range(40)]
    rows = [Row((i,), 0, one.length, one.reads) for i, one in enumerate(trees)]
    found = list(passes(rows, 2, 1000))
    assert sorted(row.trees[0] for part in found for row in part) == list(range(40))
    for part in found:
        assert 2 * max(row.length for row in part) * len(part) <= 1000
        assert 2 * sum(row.reads for row in part) <= 250


def test_slots_share_a_pass_only_as_far_as_its_bounds_allow() -> None:
    rows = [Row((0,), 0, 100, 10), Row((1,), 0, 400, 10), Row((2,), 0, 100, 120), Row((3,), 0, 5000, 2000)]
    found = by_width(rows, 8, 1000)
    assert {width: [row.trees[0] for row in own] for width, own in found.items()} == {
        8: [0],
        2: [1, 2],
        1: [3],
    }
    assert by_width(rows, 1, 1000) == {1: rows}


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_shared_trunks_give_the_scores_of_separate_rows(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(write_tiny_model(tmp_path, architecture=architecture)), device="cpu")
    encoded = encode_benchmark(base, few_shot())
    rows = grow_rows(encoded.trees, 10_000, 10_000)
    assert len(rows) == 2 and all(row.trunk >= 30 for row in rows)
    # Long rows are what is tested, whatever they cost on a base as tiny as this.
    monkeypatch.setattr(scoring, "ATTENTION_TOKENS", 10_000)
    together = score_stack(base, encoded, None, [0])[0]
    apart = score_stack(base, replace(encoded, shared=False), None, [0])[0]
    np.testing.assert_allclose(together.margin_nats, apart.margin_nats, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(together.right_probability, apart.right_probability, rtol=1e-3)


def test_a_prompt_that_is_the_trunk_itself_is_read_at_its_end(tiny: Base) -> None:
    prompts = [(*range(5, 25),), (*range(5, 25), 3, 4)]
    trees = [Tree(prompt, ((6, 7), (8,)), False) for prompt in prompts]
    rows = grow_rows(trees, 1000, 10_000)
    assert [row.trees for row in rows] == [(0, 1)]
    together = _sums(tiny, trees, rows)
    alone = np.concatenate([_sums(tiny, [one], grow_rows([one], 1000, 10_000)) for one in trees])
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def _sums(base: Base, trees: list[Tree], rows: list[Row]) -> np.ndarray:
    batch = TreeBatch(trees, rows, base.pad_id, base.device)
    with torch.no_grad(), scoring.answer_head(base) as head:
        sums, _ = batch.run(base, head, 1, None)
    return sums[0][np.argsort(batch.trees)]
