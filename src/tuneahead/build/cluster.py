"""Workers on a Ray cluster: each makes its chunks where it is, and sends every finished run home at once.

The store stays with whoever builds. Nothing is shared but the cluster: the machines need this package, of
the same version, and the base where the build's options name it (a hub id, a packaged base, or a folder
that all of them see).
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import queue
import socket
import sqlite3
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tuneahead import __version__
from tuneahead.build.crew import Chunk, Worker
from tuneahead.build.worker import ONE_THREAD, Message, Outbox, work
from tuneahead.errors import BuildError
from tuneahead.history.store import RunStore
from tuneahead.orphans import end_with_parent

if TYPE_CHECKING:
    from tuneahead.build.execute import BuildOptions

T = TypeVar("T")
_MESSAGES = "messages"
_ANSWER_SECONDS = 10.0
_DRAIN_SECONDS = 0.5


class ClusterCrew:
    """Workers on the Ray cluster at ``options.cluster``, one processor each; see :class:`~.crew.Crew`.

    ``local`` starts Ray on this machine; ``auto`` takes the cluster that this machine is part of; else an
    address (``10.0.0.5:6379``, ``ray://head:10001``). A program that is connected already stays so.
    Raises :class:`BuildError` without Ray, without a cluster at the address, or without a processor in it.
    """

    def __init__(self, store: RunStore, options: BuildOptions) -> None:
        self.options = options
        self._ray = _connect(options.cluster)
        processors = int(self._ray.cluster_resources().get("CPU", 0))
        if not processors:
            raise BuildError(
                f"the Ray cluster at {options.cluster!r} has no processor",
                remedy="start a node with processors: ray start --address HEAD --num-cpus N",
            )
        self.most_workers = min(options.workers, processors)
        # The desk stays with the builder, where the cluster's other machines can't take it along.
        self._desk = self._ray.remote(_Desk).options(num_cpus=0, **_here(self._ray)).remote()
        self.messages = _Homecoming(_Box(self._ray, self._desk, _MESSAGES), store)
        self._started = 0

    def start(self, number: int) -> tuple[Worker, Outbox[Chunk | None]]:
        """See :class:`~.crew.Crew`."""
        # A box of its own: that of a worker that died may hold what it had not fetched.
        self._started += 1
        box = f"tasks {self._started}"
        task = self._ray.remote(_work_away).options(num_cpus=1, max_retries=0)
        made = task.remote(number, self._desk, box, self.options, __version__)
        return _AwayWorker(self._ray, made), _Box(self._ray, self._desk, box)

    def close(self) -> None:
        """See :class:`~.crew.Crew`."""
        self.messages.drain()


class _AwayWorker:
    def __init__(self, ray: Any, made: Any) -> None:
        self.ray = ray
        self.made = made

    def is_alive(self) -> bool:
        return not self.ray.wait([self.made], timeout=0)[0]

    def ended(self) -> str:
        try:
            self.ray.get(self.made)
        except self.ray.exceptions.RayError as error:
            # An error in the worker comes wrapped in its whole traceback.
            cause = getattr(error, "cause", None) or error
            lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
            return f"the worker ended ({type(cause).__name__}: {lines[0] if lines else ''})"
        return "the worker ended"

    def stop(self, *, at_once: bool) -> None:
        # Of a cluster that is gone the workers are too.
        with suppress(ConnectionError, self.ray.exceptions.RayError):
            if at_once and self.is_alive():
                self.ray.cancel(self.made, force=True)
            self.ray.wait([self.made], timeout=30)


class _Desk:
    """Boxes by name, in one actor, that hold what workers and builder have for each other."""

    def __init__(self) -> None:
        self.boxes: dict[str, asyncio.Queue[object]] = defaultdict(asyncio.Queue)

    async def put(self, name: str, item: object) -> None:
        await self.boxes[name].put(item)

    async def get(self, name: str, seconds: float) -> tuple[object, ...]:
        """The next item alone in a tuple, or none when that many seconds brought none."""
        try:
            return (await asyncio.wait_for(self.boxes[name].get(), seconds),)
        except TimeoutError:
            return ()

    async def empty(self, name: str) -> bool:
        return self.boxes[name].empty()


class _Box(Generic[T]):
    """One box of the desk as a queue."""

    def __init__(self, ray: Any, desk: Any, name: str) -> None:
        self.ray = ray
        self.desk = desk
        self.name = name

    def put(self, item: T) -> None:
        self._ask("put", item)

    def get(self, *, timeout: float) -> T:
        found = self._ask("get", timeout)
        if not found:
            raise queue.Empty
        item: T = found[0]
        return item

    def empty(self) -> bool:
        return bool(self._ask("empty"))

    def _ask(self, what: str, *arguments: object) -> Any:
        try:
            return self.ray.get(getattr(self.desk, what).remote(self.name, *arguments))
        except (ConnectionError, self.ray.exceptions.RayError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise BuildError(
                f"the Ray cluster can't be reached any more ({type(error).__name__}: {first})",
                remedy="start the build again: runs that are stored are not made again",
            ) from None


class _MemoryStore(RunStore):
    """A worker's own store: in memory, for the disk of a machine of the cluster may be full."""

    def __init__(self) -> None:
        # It lasts as long as a connection to it is open.
        self._lasting = sqlite3.connect(self._address(), uri=True)
        super().__init__("runs of this worker")

    def _address(self) -> str:
        return "file:tuneahead?mode=memory&cache=shared"


class _Sending:
    """A worker's messages, with the run itself in place of the word that it is stored where it was made."""

    def __init__(self, box: _Box[Message], store: RunStore) -> None:
        self.box = box
        self.store = store

    def put(self, message: Message) -> None:
        kind, number, content = message
        if kind == "stored":
            record = self.store.get(str(content))
            message = ("run", number, (record, self.store.statics([record.data_id])))
        self.box.put(message)
        if kind == "chunk":
            # All of them are at home: here they would only fill the memory.
            for run_id in self.store.run_ids():
                self.store.forget(run_id)


class _Homecoming:
    """What workers say, with each run that comes in put into the store before it is called stored."""

    def __init__(self, box: _Box[Message], store: RunStore) -> None:
        self.box = box
        self.store = store

    def get(self, *, timeout: float) -> Message:
        kind, number, content = self.box.get(timeout=timeout)
        if kind != "run" or not isinstance(content, tuple):
            return kind, number, content
        record, statics = content
        for static in statics:
            self.store.add_static(*static)
        return "stored" if self.store.add(record) else "known", number, record.run_id

    def empty(self) -> bool:
        return self.box.empty()

    def drain(self) -> None:
        """Store the runs that came in and were not taken."""
        with suppress(BuildError, queue.Empty):
            while True:
                self.get(timeout=_DRAIN_SECONDS)


def _work_away(number: int, desk: Any, box: str, options: BuildOptions, version: str) -> None:
    """A worker's life on a machine of the cluster, with a store of its own that ends with it."""
    import ray
    import ray.exceptions

    os.environ.update(ONE_THREAD)
    store = _MemoryStore()
    sending = _Sending(_Box(ray, desk, _MESSAGES), store)
    if version != __version__:
        sending.put(("error", number, _other_version(version)))
        return
    # Ray ends the tasks of a builder that is gone; a worker that outlives its node's Ray ends itself.
    end_with_parent()
    work(number, _Box(ray, desk, box), sending, store, options)


def _other_version(version: str) -> BuildError:
    return BuildError(
        f"the machine {socket.gethostname()} of the cluster has tuneahead {__version__}, and the "
        f"builder {version}, whose runs may differ",
        remedy="install the same version on all machines",
    )


def _connect(address: str) -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise BuildError(f"a cluster needs Ray: {error}", remedy="pip install 'tuneahead[ray]'") from None
    if ray.is_initialized():
        return ray
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise BuildError(
            f"{address!r} needs Ray's client, which Ray alone does not bring",
            remedy="pip install 'ray[client]'",
        )
    _require_answer(address)
    # A Ray of this program alone shows no pages and reports to nobody.
    pages = False if address == "local" else None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=pages)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _no_cluster(address, error) from None
    return ray


def _require_answer(address: str) -> None:
    """Raise :class:`BuildError` when nobody listens at a host's port: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> BuildError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return BuildError(
        f"no Ray cluster answers at {address!r}: {first}",
        remedy="start one (ray start --head), give its address, or 'local' for this machine alone",
    )


def _here(ray: Any) -> dict[str, object]:
    """Options that bind an actor to this program's machine, or to the head of a cluster it is no part of."""
    if ray.util.client.ray.is_connected():
        return {"resources": {"node:__internal_head__": 0.001}}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}
