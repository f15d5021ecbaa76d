"""Processes that measure blocks of rows beside the one that reads them."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tuneahead.blocks import BlockMeasures, BlockMeter
from tuneahead.errors import TuneAheadError
from tuneahead.examples import Example
from tuneahead.orphans import end_with_parent

_meter: BlockMeter | None = None
"""In a worker process: its own meter."""


def measured_apart(
    blocks: Iterator[list[Example]], meter: BlockMeter, workers: int
) -> Iterator[tuple[list[Example], BlockMeasures]]:
    """Blocks with their measures, in order, made by ``workers`` processes with copies of ``meter``.

    Few blocks are under way at a time, so memory stays bounded. Raises :class:`TuneAheadError`
    when a process ends unasked.
    """
    context = multiprocessing.get_context("spawn")
    under_way: deque[tuple[list[Example], Future[BlockMeasures]]] = deque()
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(meter,)) as pool:
        try:
            for block in blocks:
                under_way.append((block, pool.submit(_measure, block)))
                if len(under_way) > 3 * workers:
                    first, measures = under_way.popleft()
                    yield first, measures.result()
            while under_way:
                first, measures = under_way.popleft()
                yield first, measures.result()
        except BrokenProcessPool:
            raise TuneAheadError(
                "a process that measured rows ended without a word",
                remedy="memory may have run out: close other programs, or use --workers 1",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(meter: BlockMeter) -> None:
    global _meter
    _meter = meter
    # Ctrl+C reaches every process of the terminal; the reading one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _measure(block: list[Example]) -> BlockMeasures:
    assert _meter is not None
    return _meter.measure(block)
