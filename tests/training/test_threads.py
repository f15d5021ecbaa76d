"""Passes side by side give what passes one after another give."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_loop import RECIPE, run_one
from training_fixtures import make_examples

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.training.encode import Encoded
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base
from tuneahead.training.probe import prepare_data
from tuneahead.training.scoring import read_answers, score_benchmark, text_losses
from tuneahead.training.threads import passes_at_once, side_by_side

SETTINGS = ProbeSettings(record_steps=30, cue_steps=(0, 30), flatness_at=30)


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


def test_an_error_comes_after_all_have_ended(large: Base) -> None:
    ended: list[int] = []

    def fine() -> None:
        time.sleep(0.1)
        ended.append(1)

    def wrong() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side(large, [wrong, fine])
    assert ended == [1] and torch.get_num_threads() == 3


def test_the_same_seed_gives_the_same_trace(large: Base) -> None:
    data = prepare_data(large, make_examples(60), RECIPE)
    recipe = RECIPE.replace(batch_size=12)
    first, second = (run_one(large, data, recipe, SETTINGS).trace for _ in range(2))
    np.testing.assert_array_equal(first.steps.loss_sum_nats, second.steps.loss_sum_nats)
    np.testing.assert_array_equal(first.steps.grad_norm, second.steps.grad_norm)
    assert first.cues[-1].heldout_loss_nats == second.cues[-1].heldout_loss_nats


def test_scores_and_losses_are_those_of_one_thread(large: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few tokens a pass, so that there are many.
    monkeypatch.setattr("tuneahead.training.scoring.LARGE_BASE_TOKENS_PER_PASS", 64)
    monkeypatch.setattr("tuneahead.training.scoring.TOKENS_PER_PASS", 64)
    words = ("red", "blue", "green", "one two", "three")
    items = tuple(
        ChoiceItem(str(i), f"what is {words[i % 5]} {words[i % 3]}", words[: 2 + i % 3], (i % 2,))
        for i in range(24)
    )
    benchmark = Benchmark("choices", "accuracy", items)
    rows = [Encoded((3, *range(20, 24 + i % 7)), (False, *([True] * (4 + i % 7))), 1) for i in range(30)]
    names = used_threads(monkeypatch)
    many = score_benchmark(large, benchmark), text_losses(large, [rows], None, [0])
    read = read_answers(large, [rows[:9], rows[9:20], [], rows[20:]])
    assert len(names) == 3, names
    large.__dict__["is_large"] = False
    few = score_benchmark(large, benchmark), text_losses(large, [rows], None, [0])
    np.testing.assert_allclose(many[0].margin_nats, few[0].margin_nats, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(many[1], few[1], rtol=1e-5)
    again = read_answers(large, [rows[:9], rows[9:20], [], rows[20:]])
    for (nll, hit), (other, same) in zip(read, again, strict=True):
        np.testing.assert_allclose(nll, other, rtol=1e-4)
        np.testing.assert_array_equal(hit, same)
