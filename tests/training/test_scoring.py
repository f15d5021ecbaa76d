"""Benchmark scores against plain, one-option-at-a-time forward passes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import (
    WORDS,
    make_examples,
    place_bound_model,
    randomised_stack,
    write_tiny_model,
)

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem
from tuneahead.errors import BenchmarkError
from tuneahead.lab.exam import lab_generation
from tuneahead.recipe import Recipe
from tuneahead.training import losses, scoring
from tuneahead.training.allowed import obeys_masks
from tuneahead.training.batches import Packed
from tuneahead.training.encode import Encoded
from tuneahead.training.heads import AnswerHead
from tuneahead.training.loop import train_stack
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base, load_base
from tuneahead.training.probe import prepare_data
from tuneahead.training.runs import Job
from tuneahead.training.scoring import (
    encode_benchmark,
    score_benchmark,
    score_stack,
    text_losses,
)


def choices(count: int = 12, metric: str = "accuracy") -> Benchmark:
    generator = torch.Generator().manual_seed(2)

    def pick(n: int) -> str:
        return " ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (n,), generator=generator))

    items = [
        ChoiceItem(
            str(i),
            pick(1 + i % 5),
            tuple(pick(1 + (i + j) % 3) for j in range(3 + i % 2)),
            (i % 3,),
            f"s{i % 2}",
        )
        for i in range(count)
    ]
    return Benchmark("choices", metric, items)  # type: ignore[arg-type]


def plain_logprob(base: Base, prompt: str, option: str) -> float:
    """The definition, with nothing shared: log-probability of the option's tokens after the prompt."""
    head = base.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = base.tokenizer(" " + option, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = base.model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return float(sum(logits[len(head) - 1 + i, token] for i, token in enumerate(tail)))


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "gpt2"])
def test_shared_prompts_give_the_scores_of_separate_passes(tmp_path: Path, architecture: str) -> None:
    base = load_base(str(write_tiny_model(tmp_path, architecture=architecture)), device="cpu")
    assert obeys_masks(base)
    benchmark = choices()
    score = score_benchmark(base, benchmark)
    right = 0
    for index, item in enumerate(benchmark.items):
        assert isinstance(item, ChoiceItem)
        own = np.array([plain_logprob(base, item.prompt, option) for option in item.options])
        share = np.exp(own[item.gold[0]]) / np.exp(own).sum()
        np.testing.assert_allclose(score.right_probability[index], share, rtol=1e-3)
        right += int(np.argmax(own) == item.gold[0])
    assert score.score_pp == pytest.approx(100 * right / len(benchmark.items))
    assert set(score.subject_pp) == {"s0", "s1"}


def test_a_base_that_ignores_masks_is_scored_one_option_a_row(tiny: Base) -> None:
    benchmark = choices()
    encoded = encode_benchmark(tiny, benchmark)
    apart = score_stack(tiny, replace(encoded, shared=False), None, [0])[0]
    together = score_stack(tiny, encoded, None, [0])[0]
    np.testing.assert_allclose(apart.margin_nats, together.margin_nats, rtol=1e-3, atol=1e-4)
    assert apart.score_pp == together.score_pp


def test_a_base_bound_to_places_is_scored_as_one_option_at_a_time(tiny: Base) -> None:
    base = replace(place_bound_model("mpt"), tokenizer=tiny.tokenizer)
    item = ChoiceItem("1", "red blue", ("one two three", "four five", "six cat"), (2,))
    score = score_benchmark(base, Benchmark("b", "accuracy", [item]))
    own = [plain_logprob(base, item.prompt, option) for option in item.options]
    assert score.margin_nats[0] == pytest.approx(own[2] - max(own[:2]), rel=1e-3)


def test_mc2_is_the_share_of_the_true_options(tiny: Base) -> None:
    item = ChoiceItem("1", "red blue", ("one", "two", "three four"), (0, 2))
    score = score_benchmark(tiny, Benchmark("truth", "mc2", [item]))
    own = np.exp([plain_logprob(tiny, item.prompt, option) for option in item.options])
    assert score.score_pp == pytest.approx(100 * (own[0] + own[2]) / own.sum(), rel=1e-3)


def test_cues_of_an_mc2_benchmark_are_scored_as_the_benchmark_is(tiny: Base) -> None:
    benchmark = choices(metric="mc2")
    recipe = Recipe(learning_rate=2e-2, max_steps=5, batch_size=4, warmup_ratio=0.0)
    settings = ProbeSettings(record_steps=5, cue_steps=(0, 5), cue_benchmark=benchmark)
    job = Job("a", prepare_data(tiny, make_examples(30), recipe), recipe, (benchmark,))
    run = next(iter(train_stack(tiny, [job], settings)))
    assert run.trace.info.metric == "mc2"
    assert run.trace.cues[-1].score_pp("mc2") == pytest.approx(run.scores["choices"], abs=0.05)


def test_exact_match_equals_greedy_generation(tiny: Base) -> None:
    prompts = [" ".join(WORDS[i : i + 1 + i % 4]) for i in range(12)]
    items, hits = [], []
    for index, prompt in enumerate(prompts):
        ids = tiny.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        out = tiny.model.generate(
            ids,
            max_new_tokens=2,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            attention_mask=torch.ones_like(ids),
        )[0, ids.shape[1] :].tolist()
        # Two greedy tokens as the answer: right exactly when the third greedy token stops.
        follow = tiny.model(torch.cat([ids, torch.tensor([out])], 1)).logits[0, -1].argmax().item()
        text = tiny.tokenizer.decode(out)
        encoded = tiny.tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"]
        items.append(GenerationItem(str(index), prompt, (text.strip() or "red",)))
        hits.append(encoded == out and follow == tiny.tokenizer.eos_token_id)
    score = score_benchmark(tiny, Benchmark("free", "exact_match", items))
    np.testing.assert_array_equal(score.item_pp > 0, hits)


def test_free_answers_of_the_lab_are_right_where_the_greedy_text_is() -> None:
    """On the lab's own base, whose answers are right now and then, and end as it was trained to end them."""
    base, whole = load_base("lab", device="cpu"), lab_generation()
    items = whole.items[::4]
    written = []
    for item in items:
        ids = base.tokenizer(item.prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        seen = torch.ones_like(ids)
        out = base.model.generate(
            ids, max_new_tokens=24, do_sample=False, attention_mask=seen, pad_token_id=0
        )[0]
        written.append(base.tokenizer.decode(out[ids.shape[1] :], skip_special_tokens=True).strip())
    right = [text in item.answers for text, item in zip(written, items, strict=True)]
    assert 0 < sum(right) < len(items)
    score = score_benchmark(base, replace(whole, items=items))
    np.testing.assert_array_equal(score.item_pp > 0, right)


def test_logits_that_are_no_numbers_give_no_score(tiny: Base) -> None:
    base = replace(tiny, model=copy.deepcopy(tiny.model))
    with torch.no_grad():
        base.model.get_input_embeddings().weight.fill_(float("nan"))
    free = Benchmark("free", "exact_match", [GenerationItem("1", "red", ("blue",))])
    for benchmark in (choices(), free):
        assert np.isnan(score_benchmark(base, benchmark).score_pp)


def test_each_slot_is_scored_with_its_own_adapter(tiny: Base) -> None:
    recipe = Recipe(learning_rate=2e-2, max_steps=15, batch_size=4, warmup_ratio=0.0)
    benchmark = choices()
    jobs = [
        Job(
            str(i),
            prepare_data(tiny, make_examples(30, seed=i), recipe),
            recipe.replace(seed=i),
            (benchmark,),
        )
        for i in range(3)
    ]
    settings = ProbeSettings(
        record_steps=15, cue_steps=(0, 5, 15), cue_benchmark=benchmark, reference_texts=("red blue green",)
    )
    together = {r.job_id: r for r in train_stack(tiny, jobs, settings, width=3)}
    base_score = score_benchmark(tiny, benchmark)
    for job in jobs:
        alone = next(iter(train_stack(tiny, [job], settings, width=1)))
        stacked = together[job.job_id]
        assert stacked.scores == pytest.approx(alone.scores)
        for one, other in zip(alone.trace.cues, stacked.trace.cues, strict=True):
            np.testing.assert_allclose(one.margin_nats, other.margin_nats, rtol=0.02, atol=0.01)
            assert one.heldout_loss_nats == pytest.approx(other.heldout_loss_nats, rel=1e-3, nan_ok=True)
            assert one.reference_loss_nats == pytest.approx(other.reference_loss_nats, rel=1e-3)
        start, end = stacked.trace.cues[0], stacked.trace.cues[-1]
        np.testing.assert_allclose(start.margin_nats, base_score.margin_nats, rtol=2e-3, atol=1e-3)
        assert not np.allclose(end.margin_nats, start.margin_nats, atol=0.05)
        # The last cue is taken after the last step: it is the final score.
        assert end.accuracy_pp == pytest.approx(stacked.scores["choices"])


def test_losses_of_texts_are_means_over_answer_tokens(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Encoded((3, 22, 25, 30), (False, False, True, True), 1),
        Encoded((5, 24, 26), (True, True, True), 2),
    ]
    with torch.no_grad():
        total = 0.0
        for row in rows:
            logits = tiny.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            total -= sum(float(logits[i - 1, row.ids[i]]) for i in range(1, len(row.ids)) if row.answer[i])
    assert text_losses(tiny, [rows], None, [0])[0] == pytest.approx(total / 4, rel=1e-4)
    assert np.isnan(text_losses(tiny, [[]], None, [0])[0])
    projected: list[int] = []
    plain = scoring.answer_logits

    def watched(base: Base, head: AnswerHead, packed: Packed) -> torch.Tensor:
        projected.append(len(packed.positions))
        return plain(base, head, packed)

    monkeypatch.setattr(losses, "answer_logits", watched)
    monkeypatch.setattr(scoring, "LOGITS", 3 * tiny.model.config.vocab_size)
    assert text_losses(tiny, [rows], None, [0])[0] == pytest.approx(total / 4, rel=1e-4)
    assert projected == [2, 2], "as many logits as fit at once"


def test_flatness_perturbs_in_proportion_and_leaves_the_adapter_alone(tiny: Base) -> None:
    recipe = Recipe(learning_rate=2e-2, max_steps=12, batch_size=4, warmup_ratio=0.0)
    data = prepare_data(tiny, make_examples(40), recipe)
    quiet = ProbeSettings(record_steps=12, cue_steps=(), flatness_at=None)
    asked = ProbeSettings(record_steps=12, cue_steps=(), flatness_at=6)
    plain = next(iter(train_stack(tiny, [Job("a", data, recipe)], quiet, width=1))).trace
    measured = next(iter(train_stack(tiny, [Job("a", data, recipe)], asked, width=1))).trace
    np.testing.assert_array_equal(plain.steps.loss_sum_nats, measured.steps.loss_sum_nats)
    assert measured.flatness is not None and measured.flatness.step == 6
    rise = np.abs(measured.flatness.perturbed_nats - measured.flatness.centre_nats).mean(1)
    assert rise[1] > rise[0] > 0


def test_items_that_do_not_fit_are_refused(tiny: Base) -> None:
    long = ChoiceItem("too long", " ".join(["red"] * 200), ("one", "two"), (0,))
    with pytest.raises(BenchmarkError, match="'too long' .* needs 201 tokens, the base takes 128"):
        encode_benchmark(tiny, Benchmark("b", "accuracy", [long]))
    empty = ChoiceItem("empty", "red", ("", "two"), (0,))
    with pytest.raises(BenchmarkError, match="empty prompt or option"):
        encode_benchmark(tiny, Benchmark("b", "accuracy", [empty]))
    asking = Asking("raw", joined=True, delimiter="")
    # Joined to its prompt the option makes another word of it, and that is one token as before.
    within = Benchmark("b", "accuracy", [ChoiceItem("1", "red", ("red", " one"), (0,))], asking)
    with pytest.raises(BenchmarkError, match="item '1' of b has an option within its prompt's last token"):
        encode_benchmark(tiny, within)


def test_what_is_read_past_an_answer_has_to_fit_too() -> None:
    base = load_base("lab", device="cpu")
    full = [GenerationItem("full", " ".join(["a"] * 255), ("a",))]
    with pytest.raises(BenchmarkError, match="needs 257 tokens, the base takes 256"):
        encode_benchmark(base, Benchmark("b", "exact_match", full))
    choice = ChoiceItem("full", full[0].prompt, ("a", "i"), (0,))
    encode_benchmark(base, Benchmark("b", "accuracy", [choice]))


def test_rows_too_long_for_all_slots_at_once_are_scored_by_some_at_a_time(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_benchmark(tiny, choices())
    stack = randomised_stack(tiny, 3)
    together = score_stack(tiny, encoded, stack, [2, 0, 1])
    monkeypatch.setattr(scoring, "TOKENS_PER_PASS", 2 * max(tree.length for tree in encoded.trees))
    for one, other in zip(together, score_stack(tiny, encoded, stack, [2, 0, 1]), strict=True):
        np.testing.assert_allclose(one.margin_nats, other.margin_nats, rtol=1e-4, atol=1e-5)
    stack.detach()


def test_unused_stack_is_the_base(tiny: Base) -> None:
    encoded = encode_benchmark(tiny, choices())
    plain = score_stack(tiny, encoded, None, [0])[0]
    stack = AdapterStack(tiny, 2, 4)
    stack.initialise(0, Recipe(seed=1, lora_rank=4))
    stack.initialise(1, Recipe(seed=2, lora_rank=4))
    for score in score_stack(tiny, encoded, stack, [1, 0]):
        np.testing.assert_allclose(score.margin_nats, plain.margin_nats, rtol=1e-4, atol=1e-5)
    stack.detach()
