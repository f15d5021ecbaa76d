"""Kept results of checks, so that a second check of the same file answers at once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.assessment import Checkup, checkup_from_json
from tuneahead.errors import ModelError, TuneAheadError
from tuneahead.kept import KeptTexts, cache_folder, content_key

if TYPE_CHECKING:
    from tuneahead.columns import ColumnMapping
    from tuneahead.recipe import Recipe
    from tuneahead.workbench import Setup

LAB_BENCHMARKS = ("lab-exam", "lab-truth", "lab-generation")
"""Benchmarks that this package makes itself."""


class CheckCache:
    """Checkups by key, kept as :class:`~tuneahead.kept.KeptTexts`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._texts = KeptTexts("checks", folder)

    def load(self, key: str, path: str | Path) -> Checkup | None:
        """The checkup kept under ``key``, told to be of ``path``; None where there is none."""
        if (text := self._texts.load(key)) is None:
            return None
        try:
            found = checkup_from_json(text)
        except TuneAheadError:
            return None
        # The same rows may meanwhile lie under another name.
        return replace(found, data=replace(found.data, path=str(path)))

    def store(self, key: str, checkup: Checkup) -> None:
        """Keep a checkup, where that can be done."""
        self._texts.store(key, checkup.to_json())


def check_key(path: Path, mapping: ColumnMapping | None, recipe: Recipe, setup: Setup) -> str:
    """A name for a check: equal only for equal content, options, base, benchmark and code.

    Empty where that can't be known (a base on a hub that this machine has no copy of, a benchmark
    that another library fetches, a file that can't be read): such a check is not kept. Loads
    neither base nor data.
    """
    base = _base_stamp(setup.base_name)
    if not base:
        return ""
    try:
        return content_key(
            _file_digest(path),
            path.suffix.lower(),
            repr(mapping),
            recipe.model_dump_json(),
            base,
            _benchmark_stamp(str(setup.benchmark)),
            f"{setup.precision} {setup.device} {setup.base is None} {setup.weights}",
        )
    except (OSError, ValueError):
        return ""


def _benchmark_stamp(benchmark: str) -> str:
    """What tells a benchmark apart; raises OSError or ValueError where that can't be known."""
    from tuneahead.workbench import TASK_FILES

    if benchmark in LAB_BENCHMARKS:
        return benchmark
    path = Path(benchmark)
    if path.suffix in TASK_FILES:
        raise ValueError("the rows of a task lie elsewhere")
    # Findings call a benchmark by the name of its file.
    return f"{path.stem} {_file_digest(path)}"


def _base_stamp(base: str) -> str:
    """What tells a base apart: its files, their sizes and times; empty where they are not on this machine."""
    try:
        stats = [(path, path.stat()) for path in _base_files(base) if path.is_file()]
    except (OSError, ModelError):
        return ""
    # A file that an archive or an image brings may have the time of another that lay there before.
    return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for path, stat in stats)


def _base_files(base: str) -> list[Path]:
    """Where ``resolve_base`` would find a base, without converting or fetching anything."""
    from tuneahead.training.sources import LAB_NAMES, PACKAGED

    folder = Path(base)
    if base in ("lab", "lab-qwen2"):
        from tuneahead.lab.bases import lab_base_path

        folder = lab_base_path()
    elif base in LAB_NAMES:
        folder = cache_folder() / base
    elif base in PACKAGED:
        return PACKAGED[base].pieces()
    elif folder.is_file():
        return [folder]
    elif not folder.is_dir():
        folder = _hub_folder(base)
    return sorted(folder.iterdir())


def _hub_folder(base: str) -> Path:
    """The local snapshot of a hub id, whose name is its commit; a path that is no folder without one."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "config.json")
    except HFValidationError:
        return Path(base)
    return Path(found).parent if isinstance(found, str) else Path(base)


def _file_digest(path: Path) -> str:
    if not path.is_file():
        # Reading a pipe would wait, and take its content away from the check.
        raise OSError("not a regular file")
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
