"""Scoring benchmarks and texts with one or several adapters in a single pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from os.path import commonprefix

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tuneahead.benchmark.choice import (
    BenchmarkScore,
    summarise_choices,
    summarise_grades,
)
from tuneahead.benchmark.generation import summarise_answers
from tuneahead.benchmark.items import WRITTEN, Benchmark, ChoiceItem, GenerationItem
from tuneahead.errors import BenchmarkError
from tuneahead.training.allowed import obeys_gaps, pack_for, window
from tuneahead.training.batches import Packed
from tuneahead.training.encode import (
    Encoded,
    after_prompt,
    answered_prompt,
    assistant_turn,
    render_prompt,
    resolve_template,
    start_ids,
    tokenise,
)
from tuneahead.training.endings import Endings
from tuneahead.training.heads import AnswerHead, answer_head
from tuneahead.training.lines import ATTENTION_TOKENS, LARGE_BASE_ATTENTION_TOKENS
from tuneahead.training.lora import AdapterStack, adapters_act
from tuneahead.training.losses import answer_logits, rows_nll
from tuneahead.training.models import Base
from tuneahead.training.threads import LARGE_BASE_TOKENS_PER_PASS, side_by_side
from tuneahead.training.trees import Row, Tree, TreeBatch, by_width, grow_rows, passes
from tuneahead.training.writing import end_tokens, write_answers

TOKENS_PER_PASS = 12_288
LOGITS = 2**28
"""Entries of a pass's logits where every token of long rows counts: 1 GiB in fp32, and as much for copies."""


@dataclass(frozen=True)
class EncodedBenchmark:
    """A benchmark in tokens of one base, ready to be scored many times."""

    benchmark: Benchmark
    trees: tuple[Tree, ...]
    endings: Endings | None = None
    """What must follow a free answer that is matched exactly."""
    shared: bool = True
    """Whether the base lets options share their prompt's work."""
    ends: frozenset[int] = frozenset()
    """Tokens that end a written answer."""


def encode_benchmark(base: Base, benchmark: Benchmark, template: str = "") -> EncodedBenchmark:
    """Tokenise every item; ``template`` takes the place of the benchmark's own.

    Raises :class:`BenchmarkError` when an item does not fit the window, :class:`ModelError` for tokens that
    the model does not embed.
    """
    tokenizer = base.tokenizer
    if benchmark.harness is not None:
        # The harness tokenises for itself, when it scores.
        return EncodedBenchmark(benchmark, (), shared=False)
    template = resolve_template(template or benchmark.asking.template, tokenizer)
    generates = benchmark.metric == "exact_match"
    written = benchmark.metric in WRITTEN
    ends = end_tokens(base, template)
    endings = Endings(tokenizer, ends) if generates else None
    trees = []
    for item, (head, tails) in zip([*benchmark.items], _tokens(base, benchmark, template), strict=True):
        texts = _continuations(item)
        empty = not head or not all(text.strip() for text in texts)
        if empty or not all(tails):
            what = "an empty prompt or option" if empty else "an option within its prompt's last token"
            raise BenchmarkError(
                f"item {item.item_id!r} of {benchmark.name} has {what}",
                remedy="give every item a prompt and non-empty options"
                if empty
                else "begin options where a token of the base begins, for example with a space",
            )
        tree = Tree(tuple(head), () if written else tuple(tuple(tail) for tail in tails), generates)
        if endings is not None:
            tree = replace(tree, read_past=endings.read_past)
        # What is read past an answer takes places too.
        answer = (
            benchmark.asking.max_new_tokens
            if written
            else max(len(tail) for tail in tails) + len(tree.read_past)
        )
        if len(head) + answer > base.context_tokens:
            raise BenchmarkError(
                f"item {item.item_id!r} of {benchmark.name} needs {len(head) + answer} tokens, "
                f"the base takes {base.context_tokens}",
                remedy="use a base with a longer window or shorten the item"
                + (", or lower max_new_tokens" if written else ""),
            )
        trees.append(tree)
    base.require_known(ids for tree in trees for ids in (tree.prompt, *tree.inputs, *tree.branches))
    shared = max(tree.length for tree in trees) <= window(base) and obeys_gaps(base)
    return EncodedBenchmark(benchmark, tuple(trees), endings, shared, ends)


def _continuations(item: ChoiceItem | GenerationItem) -> tuple[str, ...]:
    return item.options if isinstance(item, ChoiceItem) else item.answers


def _tokens(base: Base, benchmark: Benchmark, template: str) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Tokens of every item's prompt and of what may continue it.

    Prompt and option are each tokenised for itself, as training tokenises prompt and answer. Under
    ``joined`` their tokens are those of the whole text, less as many as the prompt has, spaces at the
    prompt's end belong to the option, and a beginning token that stands in the text is not doubled:
    that is lm-evaluation-harness's way. What a chat template itself says before an answer ends the prompt.
    """
    tokenizer, asking = base.tokenizer, benchmark.asking
    items: list[ChoiceItem | GenerationItem] = [*benchmark.items]
    # A chat template brings its own beginning.
    start = [] if template == "chat" else start_ids(tokenizer)
    turn = assistant_turn(tokenizer) if template == "chat" and not asking.joined else None
    prompts = [
        render_prompt(tokenizer, item.prompt, template)
        if turn is None or turn.nested
        else answered_prompt(tokenizer, item.prompt)
        for item in items
    ]
    opening = tokenise(tokenizer, [turn.opening])[0] if turn is not None else []
    texts: list[str] = []
    for item, prompt in zip(items, prompts, strict=True):
        if asking.joined:
            texts.append(prompt.rstrip())
            texts += [f"{prompt}{asking.delimiter}{text}" for text in _continuations(item)]
        else:
            own = _continuations(item)
            texts.append(prompt)
            texts += [after_prompt(prompt, text) if turn is None else turn.render(text) for text in own]
    # All at once: one call for each text takes longer than scoring does on a small base.
    ids = iter(tokenise(tokenizer, texts))
    begin = str(tokenizer.bos_token or "")
    for item, prompt in zip(items, prompts, strict=True):
        head, *tails = (next(ids) for _ in range(1 + len(_continuations(item))))
        if asking.joined:
            tails = [tail[len(head) :] for tail in tails]
            yield (head if begin and prompt.startswith(begin) else [*start, *head]), tails
        else:
            # A token may reach over the opening's end; where nothing follows, none does.
            within = len(commonprefix([opening, *tails]))
            ends_head = opening if benchmark.metric in WRITTEN else opening[:within]
            yield [*start, *head, *ends_head], [tail[within:] for tail in tails]


@torch.no_grad()
def score_stack(
    base: Base, encoded: EncodedBenchmark, stack: AdapterStack | None, slots: Sequence[int]
) -> list[BenchmarkScore]:
    """Score the benchmark with each of ``slots`` (the plain base when ``stack`` is None)."""
    benchmark = encoded.benchmark
    if benchmark.harness is not None:
        from tuneahead.training.harness import harness_grades

        return [summarise_grades(benchmark, own) for own in harness_grades(base, benchmark, stack, slots)]
    if benchmark.metric in WRITTEN:
        prompts = [tree.prompt for tree in encoded.trees]
        written = write_answers(base, prompts, benchmark.asking, stack, slots, ends=encoded.ends)
        return [summarise_answers(benchmark, own) for own in written]
    if not encoded.shared:
        return _score_apart(base, encoded, stack, slots)
    logprob, matched = _score_trees(base, encoded, encoded.trees, stack, slots)
    return _summarise(encoded.benchmark, logprob, matched)


def _summarise(
    benchmark: Benchmark, logprob: NDArray[np.float64], matched: NDArray[np.bool_]
) -> list[BenchmarkScore]:
    if benchmark.metric == "exact_match":
        # Every item has a first answer. Logits that are no numbers match nothing, which is no wrong answer.
        grades = np.where(np.isfinite(logprob[:, :, 0]), matched, np.nan)
        return [summarise_grades(benchmark, own) for own in grades]
    return [summarise_choices(benchmark, own) for own in logprob]


def _score_apart(
    base: Base, encoded: EncodedBenchmark, stack: AdapterStack | None, slots: Sequence[int]
) -> list[BenchmarkScore]:
    """The same scores with a row for every branch: for bases in which branches can't share a row."""
    single = [replace(tree, branches=(branch,)) for tree in encoded.trees for branch in tree.branches]
    flat_logprob, flat_matched = _score_trees(base, encoded, single, stack, slots)
    width = len(flat_logprob)
    branches = max(len(tree.branches) for tree in encoded.trees)
    logprob = np.full((width, len(encoded.trees), branches), np.nan)
    matched = np.zeros((width, len(encoded.trees)), bool)
    at = 0
    for index, tree in enumerate(encoded.trees):
        stop = at + len(tree.branches)
        logprob[:, index, : len(tree.branches)] = flat_logprob[:, at:stop, 0]
        matched[:, index] = flat_matched[:, at:stop].any(1)
        at = stop
    return _summarise(encoded.benchmark, logprob, matched)


def _score_trees(
    base: Base,
    encoded: EncodedBenchmark,
    trees: Sequence[Tree],
    stack: AdapterStack | None,
    slots: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability sums (width, trees, branches) and greedy matches (width, trees)."""
    width = max(1, len(slots)) if stack is not None else 1
    branches = max(len(tree.branches) for tree in trees)
    logprob = np.full((width, len(trees), branches), np.nan)
    matched = np.zeros((width, len(trees)), bool)

    def run(head: AnswerHead, places: slice, rows: Sequence[Row]) -> None:
        batch = TreeBatch(trees, rows, base.pad_id, base.device)
        sums, hits = batch.run(base, head, places.stop - places.start, encoded.endings)
        logprob[places, batch.trees, : sums.shape[2]] = sums
        matched[places, batch.trees] = hits

    limit = tokens_per_pass(base)
    with answer_head(base) as head:
        for at_once, rows in by_width(_rows(base, encoded, trees), width, limit).items():
            for start in range(0, width, at_once):
                places = slice(start, min(start + at_once, width))
                found = passes(rows, places.stop - start, limit)
                with stack.using(slots[places]) if stack is not None else nullcontext():
                    # The longest last were the worst order for threads that wait for each other.
                    side_by_side(base, [partial(run, head, places, part) for part in reversed([*found])])
    return logprob, matched


def _rows(base: Base, encoded: EncodedBenchmark, trees: Sequence[Tree]) -> list[Row]:
    """The rows that hold the trees; trees share one only where the base obeys the mask that parts them."""
    if not encoded.shared:
        return [Row.alone(index, tree) for index, tree in enumerate(trees)]
    attention = LARGE_BASE_ATTENTION_TOKENS if base.is_large else ATTENTION_TOKENS
    return grow_rows(trees, tokens_per_pass(base), attention)


def score_benchmark(base: Base, benchmark: Benchmark, template: str = "") -> BenchmarkScore:
    """Score the plain base; ``template`` takes the place of the benchmark's own."""
    return score_stack(base, encode_benchmark(base, benchmark, template), None, [0])[0]


def tokens_per_pass(base: Base) -> int:
    """How many tokens to give the base at once when nothing is trained."""
    return LARGE_BASE_TOKENS_PER_PASS if base.is_large and base.device == "cpu" else TOKENS_PER_PASS


@torch.no_grad()
def text_losses(
    base: Base, batches: Sequence[Sequence[Encoded]], stack: AdapterStack | None, slots: Sequence[int]
) -> NDArray[np.float64]:
    """Mean loss per answer token of each slot's own rows, in nats: (slots,); NaN without rows."""
    sums = np.zeros(len(batches))
    tokens = np.zeros(len(batches))
    longest = max((len(row.ids) for batch in batches for row in batch), default=0)
    answers = max((row.answer_tokens for batch in batches for row in batch), default=0)
    logits = answers * len(batches) * int(base.model.config.get_text_config().vocab_size)
    step = max(1, min(tokens_per_pass(base) // max(1, longest * len(batches)), LOGITS // max(1, logits)))
    most = max((len(batch) for batch in batches), default=0)
    parts = [[batch[start : start + step] for batch in batches] for start in range(0, most, step)]
    packs = [pack_for(base, part, stack) for part in parts]

    def run(head: AnswerHead, packed: Packed) -> list[float]:
        return [float(own.cpu().double().sum()) for own in packed.by_slot(rows_nll(base, head, packed))]

    with answer_head(base) as head, stack.using(slots) if stack is not None else nullcontext():
        found = side_by_side(base, [partial(run, head, packed) for packed in packs])
    for part, own in zip(parts, found, strict=True):
        sums += own
        tokens += [sum(row.answer_tokens for row in rows) for rows in part]
    with np.errstate(invalid="ignore"):
        return np.where(tokens > 0, sums / np.maximum(tokens, 1), np.nan)


@torch.no_grad()
def read_answers(
    base: Base, batches: Sequence[Sequence[Encoded]]
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """The plain base's loss on every answer token, in nats, and whether that is its first choice: (N,) both.

    A pass for each batch. Row after row; a row's first token is never predicted and left out.
    """
    assert not adapters_act(base.model), "adapters would answer for the plain base"

    def run(head: AnswerHead, packed: Packed) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        if not len(packed.positions):
            return np.zeros(0), np.zeros(0, bool)
        logits = answer_logits(base, head, packed)
        nll = functional.cross_entropy(logits, packed.labels, reduction="none")
        return nll.cpu().double().numpy(), (logits.argmax(-1) == packed.labels).cpu().numpy()

    packs = [pack_for(base, [rows]) for rows in batches]
    with answer_head(base) as head:
        return side_by_side(base, [partial(run, head, packed) for packed in packs])


def reference_rows(base: Base, texts: Sequence[str], max_length: int = 256) -> list[Encoded]:
    """Texts as rows in which every token counts (for the loss on a fixed reference)."""
    start = start_ids(base.tokenizer)
    room = min(max_length, base.context_tokens) - len(start)
    rows = []
    for index, text in enumerate(texts):
        ids = base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:room]
        if len(start) + len(ids) > 1:
            trained = (False,) * len(start) + (True,) * len(ids)
            rows.append(Encoded((*start, *ids), trained, index + 1))
    base.require_known(row.ids for row in rows)
    return rows
