"""Passes side by side: what a large base is asked, without gradients, on a thread a pass.

Threads that share every product have to wait for each other thousands of times a pass; passes over
different rows meet once. SmolLM2 answers 206 questions on two threads in 6.9 s instead of 8.5 (on one:
13.3). Training steps gain nothing: their products are small, and much of their work is Python, of
which one line runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from tuneahead.training.models import Base

LARGE_BASE_TOKENS_PER_PASS = 1_024
"""On a processor: beyond it the activations leave the cache (200 questions took 12 s against 17)."""
LOGITS_AT_ONCE = 2**29
"""Entries of all passes' logits together, where every token counts: some 5 GiB with their copies."""

T = TypeVar("T")


def passes_at_once(base: Base) -> int:
    """How many passes may run side by side: one a thread on a large base on a processor, as memory allows.

    A small base's passes are mostly Python, of which one line runs at a time.
    """
    if base.device != "cpu" or not base.is_large or base.in_training:
        return 1
    vocabulary = int(base.model.config.get_text_config().vocab_size)
    return max(1, min(torch.get_num_threads(), LOGITS_AT_ONCE // (LARGE_BASE_TOKENS_PER_PASS * vocabulary)))


def side_by_side(base: Base, tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of ``tasks``, in their order; run at once as far as the base and the machine allow.

    They see the gradient mode of the caller. When one raises, so does this, once those under way have
    ended; on Ctrl-C too, tasks that have not begun are left out.
    """
    count = min(passes_at_once(base), len(tasks))
    if count < 2:
        return [task() for task in tasks]
    threads, graded = torch.get_num_threads(), torch.is_grad_enabled()

    def run(task: Callable[[], T]) -> T:
        with torch.set_grad_enabled(graded):
            return task()

    # Threads of one call: kept ones would not outlive a fork, and starting them costs nothing beside a pass.
    pool = ThreadPoolExecutor(count, "tuneahead-pass", torch.set_num_threads, (threads // count,))
    futures: list[Future[T]] = []
    try:
        for task in tasks:
            futures.append(pool.submit(run, task))
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)
        # What a thread sets for itself is also what threads that begin later take for their own.
        torch.set_num_threads(threads)
    failed = [future for future in futures if not future.cancelled() and future.exception() is not None]
    if failed:
        try:
            failed[0].result()
        finally:
            # An error's traceback holds this frame, and through it all that the passes saw.
            del failed, futures
    return [future.result() for future in futures]
