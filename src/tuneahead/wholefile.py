"""Files written whole or not at all: a full disk or a kill leaves what was there before."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed to it at the end, and removed if that is not reached.

    Whoever reads ``path`` meanwhile gets the old file or the new one, never a part. A pipe or a terminal is
    written to as it is, and so is a file in a folder that takes no new ones. Raises :class:`OSError`.
    """
    target = path.resolve()
    if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
        yield target
        return
    # Under a name that nothing else has, lest two writers at once share it; not by mkstemp, whose files
    # only their owner may read.
    part = target.with_name(f"tuneahead-{secrets.token_hex(8)}.part")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as :func:`whole_file` does; raises :class:`OSError`."""
    with whole_file(path) as part:
        part.write_bytes(content)
