"""Who makes the runs of a build: worker processes of this machine; those of a cluster are in ``cluster``."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections import deque
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

from tuneahead.build.plan import RunPlan
from tuneahead.build.worker import ONE_THREAD, Inbox, Message, Outbox, work
from tuneahead.environment import environment
from tuneahead.history.store import RunStore
from tuneahead.orphans import end_with_parent

if TYPE_CHECKING:
    from tuneahead.build.execute import BuildOptions

Chunk = list[RunPlan]


class Worker(Protocol):
    """A worker that was started."""

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""

    def ended(self) -> str:
        """How it ended, in words."""

    def stop(self, *, at_once: bool) -> None:
        """Wait for its end, or bring it about."""


class Crew(Protocol):
    """Starts workers and hears them."""

    @property
    def most_workers(self) -> int:
        """How many may be at work together."""

    @property
    def messages(self) -> Inbox[Message]:
        """What all workers say. A run is in the store when it is called stored."""

    def start(self, number: int) -> tuple[Worker, Outbox[Chunk | None]]:
        """A new worker, and where the chunks go that it is to make; None sends it home."""

    def close(self) -> None:
        """Once every worker has ended: store what they had said and nobody heard."""


class LocalCrew:
    """Worker processes of this machine, which write to the store themselves."""

    def __init__(self, store: RunStore, options: BuildOptions) -> None:
        self.store = store
        self.options = options
        self.most_workers = options.workers
        self._context = multiprocessing.get_context("spawn")
        self.messages = _Pipes()

    def start(self, number: int) -> tuple[Worker, Outbox[Chunk | None]]:
        """See :class:`Crew`."""
        tasks: multiprocessing.Queue[Chunk | None] = self._context.Queue()
        heard, said = self._context.Pipe(duplex=False)
        arguments = (number, tasks, said, self.store, self.options)
        process = self._context.Process(target=_work_here, args=arguments, daemon=True)
        try:
            # The child inherits these, which torch reads as it loads; the parent keeps its own.
            with environment(ONE_THREAD):
                process.start()
        finally:
            # The worker has its own: once that is gone too, the pipe says so.
            said.close()
        self.messages.add(heard)
        return _LocalWorker(process), tasks

    def close(self) -> None:
        """See :class:`Crew`. These workers stored their runs before they said so."""


def _work_here(
    number: int,
    tasks: Inbox[Chunk | None],
    said: Connection,
    store: RunStore,
    options: BuildOptions,
) -> None:
    # Ctrl+C reaches every process of the terminal; the builder ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    work(number, tasks, _Voice(said), store, options)


class _Voice:
    """A worker's end of its pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def put(self, message: Message) -> None:
        try:
            self.pipe.send(message)
        except BrokenPipeError:
            # Nobody hears any more: the builder is gone.
            raise SystemExit(1) from None


class _Pipes:
    """What workers say, each through a pipe of its own: one killed while it speaks silences no other."""

    def __init__(self) -> None:
        self.pipes: list[Connection] = []
        self.heard: deque[Message] = deque()

    def add(self, pipe: Connection) -> None:
        """Hear another worker."""
        self.pipes.append(pipe)

    def get(self, *, timeout: float) -> Message:
        """See :class:`~.worker.Inbox`."""
        if not self.heard:
            self._hear(timeout)
        if not self.heard:
            raise queue.Empty
        return self.heard.popleft()

    def empty(self) -> bool:
        """See :class:`~.worker.Inbox`."""
        self._hear(0)
        return not self.heard

    def _hear(self, timeout: float) -> None:
        ready = wait(self.pipes, timeout)
        for pipe in [one for one in self.pipes if one in ready]:
            try:
                message: Message = pipe.recv()
                self.heard.append(message)
            except (EOFError, OSError):
                # The worker has ended, perhaps in the middle of a message.
                self.pipes.remove(pipe)
                pipe.close()


class _LocalWorker:
    def __init__(self, process: BaseProcess) -> None:
        self.process = process

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def ended(self) -> str:
        return how_it_ended(self.process.exitcode)

    def stop(self, *, at_once: bool) -> None:
        if at_once and self.process.is_alive():
            self.process.terminate()
        self.process.join(timeout=30)


def how_it_ended(exitcode: int | None) -> str:
    """A dead worker's exit code in words."""
    reasons = {-signal.SIGKILL: ": it was killed, often for want of memory", 1: ": its error stands above"}
    return f"the worker ended with {exitcode}{reasons.get(exitcode or 0, '')}"
