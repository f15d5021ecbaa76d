"""Weights fetched from the hub before they are loaded, so that a download shows how long it will take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneahead.watch import Watch

_MB = 10**6
_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"


def fetch_weights(repository: str, watch: Watch) -> None:
    """Fetch the weights of a hub model that the hub's cache lacks; ``watch`` is told of every megabyte.

    Where the hub can't be asked, or has no such files, nothing is fetched: loading asks once more and says
    what is wrong. Raises OSError for a download that breaks off.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def shards() -> list[str]:
        try:
            index = hf_hub_download(repository, _INDEX)
        except EntryNotFoundError:
            return [_WHOLE]
        return sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))

    _fetch(repository, shards, watch)


def fetch_file(repository: str, file: str, watch: Watch) -> None:
    """Fetch one file of a hub repository as :func:`fetch_weights` does."""
    _fetch(repository, lambda: [file], watch)


def _fetch(repository: str, wanted: Callable[[], list[str]], watch: Watch) -> None:
    from huggingface_hub import hf_hub_download

    try:
        plans = [hf_hub_download(repository, file, dry_run=True) for file in wanted()]
    except Exception:
        # Of whatever library the hub's client speaks with: they have changed.
        return
    missing = [plan for plan in plans if plan.will_download]
    if not missing:
        return
    watch.stage(f"Fetching {repository}, MB", sum(plan.file_size or 0 for plan in missing) // _MB)
    counter = _counter(watch)
    for plan in missing:
        try:
            hf_hub_download(repository, plan.filename, tqdm_class=counter)
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error)) from error
    watch.stage(f"Loading base {repository}")


def _counter(watch: Watch) -> Any:
    """What the hub's client takes for a progress bar: it counts bytes and shows nothing itself."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    counted = 0

    class Counter(tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            nonlocal counted
            before = counted // _MB
            counted += int(n or 0)
            if counted // _MB > before:
                watch.advance(counted // _MB - before)

    return Counter
