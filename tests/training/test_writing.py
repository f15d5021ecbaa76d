"""Greedy answers against transformers' own generation, one prompt and one adapter at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from training_fixtures import WORDS, randomised_stack, write_tiny_model

from tuneahead.benchmark.items import Asking, Benchmark, GenerationItem
from tuneahead.errors import BenchmarkError
from tuneahead.training import writing
from tuneahead.training.lora import AdapterStack
from tuneahead.training.models import Base, load_base
from tuneahead.training.scoring import encode_benchmark, score_benchmark
from tuneahead.training.wholescore import whole_score_pp
from tuneahead.training.writing import write_answers

PROMPTS = [" ".join(WORDS[i : i + 1 + (5 * i) % 4]) for i in range(9)]


def ids_of(base: Base, prompt: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(prompt, add_special_tokens=False)["input_ids"])


def generated(base: Base, prompt: str, new_tokens: int) -> str:
    ids = torch.tensor([ids_of(base, prompt)])
    out = base.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=base.tokenizer.eos_token_id,
    )
    return str(base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gemma3"])
def test_answers_of_different_lengths_are_those_of_generate(tmp_path: Path, architecture: str) -> None:
    base = load_base(str(write_tiny_model(tmp_path, architecture=architecture)), device="cpu")
    asking = Asking(max_new_tokens=7, stop=())
    prompts = [ids_of(base, prompt) for prompt in PROMPTS]
    (found,) = write_answers(base, prompts, asking, None, [0])
    assert found == [generated(base, prompt, 7) for prompt in PROMPTS]


def test_a_base_that_ignores_masks_writes_the_same(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [ids_of(tiny, prompt) for prompt in PROMPTS]
    together = write_answers(tiny, prompts, Asking(max_new_tokens=5), None, [0])
    monkeypatch.setattr(writing, "obeys_masks", lambda base: False)
    assert write_answers(tiny, prompts, Asking(max_new_tokens=5), None, [0]) == together


def test_each_adapter_writes_its_own_answers(tiny: Base) -> None:
    asking = Asking(max_new_tokens=4, stop=())
    prompts = [ids_of(tiny, prompt) for prompt in PROMPTS]
    stack: AdapterStack = randomised_stack(tiny, 3)
    try:
        both = write_answers(tiny, prompts, asking, stack, [2, 0])
        for slot, own in zip((2, 0), both, strict=True):
            with stack.using([slot]):
                assert own == [generated(tiny, prompt, 4) for prompt in PROMPTS]
    finally:
        stack.detach()
    assert both[0] != both[1]


def test_an_answer_ends_before_the_first_stop_text(tiny: Base) -> None:
    prompts = [ids_of(tiny, prompt) for prompt in PROMPTS]
    (whole,) = write_answers(tiny, prompts, Asking(max_new_tokens=12, stop=()), None, [0])
    stop = whole[0].split()[2]
    (cut,) = write_answers(tiny, prompts, Asking(max_new_tokens=12, stop=(stop, "nowhere")), None, [0])
    assert cut == [text.split(stop)[0].strip() for text in whole]


def written(base: Base, prompt: str) -> list[str]:
    """The words that a base writes after a prompt."""
    ((text,),) = write_answers(base, [ids_of(base, prompt)], Asking(max_new_tokens=6, stop=()), None, [0])
    return text.split()


def test_an_answer_that_ends_as_the_chat_template_ends_a_turn_has_stopped(tmp_path: Path) -> None:
    base = load_base(str(write_tiny_model(tmp_path)), device="cpu")
    said = written(base, PROMPTS[1])
    # The token that the base writes second ends an assistant's turn; tokenizers set such a token apart.
    base.tokenizer.add_tokens(said[1], special_tokens=True)
    turn = "{% if m.role == 'assistant' %}" + said[1] + "{% endif %}"
    base.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}" + turn + "{% endfor %}"
    items = [GenerationItem("1", PROMPTS[1], (said[0],))]
    for metric in ("exact_match", "f1"):
        benchmark = Benchmark("free", metric, items, Asking(template="chat", stop=()))  # type: ignore[arg-type]
        assert score_benchmark(base, benchmark).score_pp == 100.0, metric


def test_a_stop_text_that_is_a_special_token_ends_an_answer(tmp_path: Path) -> None:
    base = load_base(str(write_tiny_model(tmp_path)), device="cpu")
    said = written(base, PROMPTS[1])
    base.tokenizer.add_tokens(said[1], special_tokens=True)
    asking = Asking(max_new_tokens=6, stop=(said[1],))
    assert write_answers(base, [ids_of(base, PROMPTS[1])], asking, None, [0]) == [[said[0]]]


def test_the_end_tokens_of_the_models_generation_end_an_answer(tiny: Base) -> None:
    said = written(tiny, PROMPTS[1])
    (token,) = ids_of(tiny, said[1])
    tiny.model.generation_config.eos_token_id = [1, token]
    assert written(tiny, PROMPTS[1]) == said[:1]


def test_a_kept_score_is_not_that_of_other_end_tokens(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path))
    said = written(tiny, PROMPTS[1])
    item = GenerationItem("1", PROMPTS[1], (" ".join(said),))
    benchmark = Benchmark("free", "f1", [item], Asking(max_new_tokens=len(said), stop=()))
    assert whole_score_pp(tiny, benchmark) == whole_score_pp(tiny, benchmark) == 100
    changed = dataclasses.replace(tiny)
    changed.model.generation_config.eos_token_id = [1, *ids_of(tiny, said[1])]
    assert whole_score_pp(changed, benchmark) == score_benchmark(changed, benchmark).score_pp < 100


def test_a_benchmark_of_written_answers_is_scored_by_its_metric(tiny: Base) -> None:
    said = generated(tiny, PROMPTS[0], 3)
    items = [GenerationItem("1", PROMPTS[0], (said, "x y")), GenerationItem("2", PROMPTS[1], ("q r s",))]
    benchmark = Benchmark("free", "f1", items, Asking(max_new_tokens=3, stop=()))
    assert score_benchmark(tiny, benchmark).item_pp.tolist() == [100, 0]
    long = dataclasses.replace(benchmark, asking=Asking(max_new_tokens=128))
    with pytest.raises(BenchmarkError, match="item '1' of free needs 129 tokens, the base takes 128"):
        encode_benchmark(tiny, long)
