"""Passes side by side give what passes one after another give."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from test_loop import RECIPE, run_one
from training_fixtures import make_examples, randomised_stack

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.training import scoring, threads
from tuneahead.training.encode import Encoded
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base
from tuneahead.training.probe import prepare_data
from tuneahead.training.scoring import (
    encode_benchmark,
    read_answers,
    score_benchmark,
    score_stack,
    text_losses,
)
from tuneahead.training.threads import passes_at_once, side_by_side


@pytest.fixture
def large(tiny: Base) -> Iterator[Base]:
    """The tiny base treated as a large one, on three threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    tiny.__dict__["is_large"] = True
    yield tiny
    torch.set_num_threads(before)


def used_threads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the threads beside the main one in which passes project their answers."""
    names: set[str] = set()
    plain = torch.Tensor.index_select

    def noted(self: torch.Tensor, *args: object) -> torch.Tensor:
        if threading.current_thread() is not threading.main_thread():
            names.add(threading.current_thread().name)
        return plain(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.Tensor, "index_select", noted)
    return names


def test_only_large_bases_on_a_processor_run_passes_at_once(large: Base) -> None:
    assert passes_at_once(large) == 3
    in_training = Base(large.name, large.model, large.tokenizer, "0", "cpu", in_training=True)
    in_training.__dict__["is_large"] = True
    on_gpu = Base(large.name, large.model, large.tokenizer, "0", "cuda")
    on_gpu.__dict__["is_large"] = True
    small = Base(large.name, large.model, large.tokenizer, "0", "cpu")
    assert [passes_at_once(base) for base in (in_training, on_gpu, small)] == [1, 1, 1]


def test_results_come_in_order_and_each_thread_has_its_part_of_the_processor(large: Base) -> None:
    def task(number: int) -> tuple[int, int, bool, str]:
        time.sleep(0.02 * (4 - number))
        return number, torch.get_num_threads(), torch.is_grad_enabled(), threading.current_thread().name

    with torch.no_grad():
        found = side_by_side(large, [lambda n=n: task(n) for n in range(4)])  # type: ignore[misc]
    assert [one[:3] for one in found] == [(n, 1, False) for n in range(4)]
    assert len({one[3] for one in found}) == 3
    assert torch.get_num_threads() == 3
    (alone,) = side_by_side(large, [lambda: task(0)])
    assert alone == (0, 3, True, threading.current_thread().name)
    # Threads that begin later get all of the processor again.
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_those_under_way_end_and_no_other_begins(
    large: Base, error: type[BaseException]
) -> None:
    ended: list[int] = []

    def slow() -> None:
        time.sleep(0.3)
        ended.append(1)

    def wrong() -> None:
        time.sleep(0.1)
        if error is KeyboardInterrupt:
            # As Ctrl-C does: in the thread that waits.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)
        else:
            raise error("no")

    # Tests that a script started in the background ignore Ctrl-C, and would wait for it in vain.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(error):
            side_by_side(large, [wrong, *[slow] * 8])
    finally:
        signal.signal(signal.SIGINT, before)
    at_once = len(ended)
    time.sleep(0.5)
    assert at_once == len(ended) < 5
    assert torch.get_num_threads() == 3


def test_what_a_failed_pass_held_is_let_go_with_the_error(large: Base) -> None:
    class Held:
        pass

    def wrong(held: Held) -> None:
        raise ValueError("no")

    held = Held()
    seen = weakref.ref(held)
    gc.disable()
    try:
        with suppress(ValueError):
            side_by_side(large, [partial(wrong, held), lambda: None])
        del held
        assert seen() is None
    finally:
        gc.enable()


def test_logits_of_all_passes_stay_within_bounds(large: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = large.model.config.vocab_size
    monkeypatch.setattr(threads, "LOGITS_AT_ONCE", 2 * 1_024 * vocabulary)
    assert passes_at_once(large) == 2
    monkeypatch.setattr(threads, "LOGITS_AT_ONCE", 1)
    assert passes_at_once(large) == 1


@pytest.fixture
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens a pass, so that there are many."""
    monkeypatch.setattr(scoring, "LARGE_BASE_TOKENS_PER_PASS", 64)
    monkeypatch.setattr(scoring, "TOKENS_PER_PASS", 64)


def choices() -> Benchmark:
    words = ("red", "blue", "green", "one two", "three")
    items = tuple(
        ChoiceItem(str(i), f"what is {words[i % 5]} {words[i % 3]}", words[: 2 + i % 3], (i % 2,))
        for i in range(24)
    )
    return Benchmark("choices", "accuracy", items)


def test_the_same_seed_gives_the_same_trace(
    large: Base, small_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare_data(large, make_examples(60), RECIPE)
    settings = ProbeSettings(10, (0, 10), choices(), ("red blue green",), flatness_at=10)
    names = used_threads(monkeypatch)
    first, second = (run_one(large, data, RECIPE.probe(10), settings).trace for _ in range(2))
    assert len(names) > 1
    np.testing.assert_array_equal(first.steps.loss_sum_nats, second.steps.loss_sum_nats)
    for one, other in zip(first.cues, second.cues, strict=True):
        np.testing.assert_array_equal(one.margin_nats, other.margin_nats)
        assert one.heldout_loss_nats == other.heldout_loss_nats
    assert first.flatness is not None and second.flatness is not None
    np.testing.assert_array_equal(first.flatness.perturbed_nats, second.flatness.perturbed_nats)


def test_adapters_are_scored_side_by_side_each_with_its_own(large: Base, small_passes: None) -> None:
    encoded = encode_benchmark(large, choices())
    stack = randomised_stack(large, 3)
    try:
        many = score_stack(large, encoded, stack, [2, 0])
        large.__dict__["is_large"] = False
        few = score_stack(large, encoded, stack, [2, 0])
    finally:
        stack.detach()
    for one, other in zip(many, few, strict=True):
        np.testing.assert_allclose(one.margin_nats, other.margin_nats, rtol=1e-4, atol=1e-5)
    assert not np.allclose(many[0].margin_nats, many[1].margin_nats, atol=0.01)


def test_scores_and_losses_are_those_of_one_thread(
    large: Base, small_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = choices()
    rows = [Encoded((3, *range(20, 24 + i % 7)), (False, *([True] * (4 + i % 7))), 1) for i in range(30)]
    names = used_threads(monkeypatch)
    many = score_benchmark(large, benchmark), text_losses(large, [rows], None, [0])
    read = read_answers(large, [rows[:9], rows[9:20], [], rows[20:]])
    assert len(names) > 1, names
    large.__dict__["is_large"] = False
    few = score_benchmark(large, benchmark), text_losses(large, [rows], None, [0])
    np.testing.assert_allclose(many[0].margin_nats, few[0].margin_nats, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(many[1], few[1], rtol=1e-5)
    again = read_answers(large, [rows[:9], rows[9:20], [], rows[20:]])
    for (nll, hit), (other, same) in zip(read, again, strict=True):
        np.testing.assert_allclose(nll, other, rtol=1e-4)
        np.testing.assert_array_equal(hit, same)
