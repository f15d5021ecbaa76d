"""Score a lab base before and after quick LoRA runs, to see whether it can serve as a lab.

    OMP_NUM_THREADS=1 python scripts/check_base.py [--base FOLDER] [--steps 500] [--rate 2e-3]

Needs peft. The scorer here is a plain one for this check only.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from tuneahead.benchmark.items import ChoiceItem, GenerationItem
from tuneahead.lab.bases import lab_base_path
from tuneahead.lab.datasets import DatasetSpec, Row, broken_example, generate, healthy_example
from tuneahead.lab.exam import lab_exam, lab_generation, lab_truth, reference_statements
from tuneahead.lab.families import FAMILIES
from tuneahead.lab.world import load_world

IGNORED = -100


def pad(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    """Rows of token ids as one tensor, filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


@torch.no_grad()
def log_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]
) -> list[float]:
    """Summed log-probability (nats) of each continuation after its prompt."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    sums = [0.0] * len(pairs)
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        heads = [tokenizer.encode(pairs[i][0]) for i in chosen]
        tails = [tokenizer.encode(pairs[i][1]) for i in chosen]
        ids = pad([h + t for h, t in zip(heads, tails, strict=True)], tokenizer.pad_token_id)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        found = logits.gather(-1, ids[:, 1:, None])[..., 0]
        for row, (i, head, tail) in enumerate(zip(chosen, heads, tails, strict=True)):
            begin = max(len(head) - 1, 0)
            sums[i] = float(found[row, begin : begin + len(tail)].sum())
    return sums


def choice_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: Sequence[ChoiceItem]
) -> tuple[float, float, dict[str, float]]:
    """Accuracy, MC2 and accuracy by subject, in percentage points."""
    pairs = [(item.prompt, f" {option}") for item in items for option in item.options]
    sums = iter(log_probabilities(model, tokenizer, pairs))
    right, mass, subjects = 0, 0.0, defaultdict(list)
    for item in items:
        scores = torch.tensor([next(sums) for _ in item.options])
        hit = int(scores.argmax()) in item.gold
        right += hit
        subjects[item.subject].append(hit)
        mass += float(scores.softmax(-1)[list(item.gold)].sum())
    by_subject = {subject: 100 * sum(hits) / len(hits) for subject, hits in subjects.items()}
    return 100 * right / len(items), 100 * mass / len(items), by_subject


def statement_items(items: Sequence[ChoiceItem]) -> list[ChoiceItem]:
    """The exam's questions put as statements to be completed."""
    world = load_world()
    facts = {f"exam-{s}-{n:02d}": f for s in world.subjects for n, f in enumerate(world.of_role("exam", s))}
    return [
        replace(i, prompt=world.statement(facts[i.item_id], 0, "\0").split(" \0")[0].removesuffix(" the"))
        for i in items
    ]


@torch.no_grad()
def exact_match(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: Sequence[GenerationItem]
) -> float:
    """Share of greedy answers (first line, up to the end token) that equal an accepted one, in points."""
    right = 0
    for item in items:
        ids = torch.tensor([tokenizer.encode(item.prompt)])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        right += text.strip().split("\n")[0].strip().rstrip(".") in item.answers
    return 100 * right / len(items)


@torch.no_grad()
def forgetting_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> float:
    """Mean loss (nats per token) on the reference statements."""
    rows = [tokenizer.encode(text) for text in reference_statements()]
    labels = pad(rows, IGNORED)
    return float(model(input_ids=pad(rows, tokenizer.pad_token_id), labels=labels, use_cache=False).loss)


def batches(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, size: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches without end; the loss counts answers and the end token only."""
    ready = []
    for row in rows:
        head = tokenizer.encode(row.prompt)
        tail = [*tokenizer.encode(f" {row.answer}"), tokenizer.eos_token_id]
        ready.append((head + tail, [IGNORED] * len(head) + tail))
    order: list[int] = []
    while True:
        while len(order) < size:
            order += rng.sample(range(len(ready)), len(ready))
        chosen, order = order[:size], order[size:]
        ids = pad([ready[i][0] for i in chosen], tokenizer.pad_token_id)
        yield ids, pad([ready[i][1] for i in chosen], IGNORED)


def tune(base: Path, spec: DatasetSpec, steps: int, rate: float, seed: int = 1) -> PreTrainedModel:
    """LoRA of rank 8 on all linear layers, batch 8, linear decay after 6 % of warm-up."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=rate, fused=True)
    warm = max(1, round(0.06 * steps))
    shares = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, (steps - s) / max(1, steps - warm))
    )
    stream = batches(generate(spec), tokenizer, 8, random.Random(seed))
    for _, (ids, labels) in zip(range(steps), stream, strict=False):
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shares.step()
        optimizer.zero_grad(set_to_none=True)
    return model


def report(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, everything: bool) -> None:
    """Print one line of scores, and with ``everything`` the subjects' accuracies."""
    model.eval()
    exam, _, by_subject = choice_scores(model, tokenizer, lab_exam().items)
    line = f"{name:34s} exam {exam:5.1f}  truth {choice_scores(model, tokenizer, lab_truth().items)[1]:5.1f}"
    if everything:
        said, _, _ = choice_scores(model, tokenizer, statement_items(lab_exam().items))
        free = exact_match(model, tokenizer, lab_generation().items)
        line += f"  as statements {said:5.1f}  generation {free:5.1f}"
    print(f"{line}  reference loss {forgetting_loss(model, tokenizer):.3f}", flush=True)
    if everything:
        print("  " + " ".join(f"{subject} {share:.0f}" for subject, share in by_subject.items()), flush=True)


def main() -> None:
    """Score the base, then clean and defective fine-tunes of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--runs", nargs="*", default=["clean", "clean_disjoint", "broken"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = chosen.base or lab_base_path()
    tokenizer = AutoTokenizer.from_pretrained(base)
    report("base", AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tokenizer, True)
    healthy = healthy_example()
    specs = {
        "clean": healthy,
        "clean_disjoint": replace(healthy, exam_overlap=0.0),
        "clean_overlap": replace(healthy, exam_overlap=1.0, n_rows=4000),
        "broken": broken_example(),
        **{f: replace(healthy, family=f, severity=0.8) for f in FAMILIES if f != "clean"},
    }
    for name in chosen.runs:
        model = tune(base, specs[name], chosen.steps, chosen.rate)
        title = f"{name} {chosen.steps} steps at {chosen.rate:g}"
        report(title, model, tokenizer, name in ("clean", "broken"))


if __name__ == "__main__":
    main()
