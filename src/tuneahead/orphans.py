"""Worker processes end with the one that started them, whatever ended that."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time


def end_with_parent() -> None:
    """In a worker process: ends it a second after its parent at most, which, killed, could not say so."""
    started_by = multiprocessing.parent_process()
    # The parent may be gone already.
    parent = os.getppid() if started_by is None else started_by.pid
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
