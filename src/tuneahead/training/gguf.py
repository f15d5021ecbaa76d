"""GGUF files, converted once into a folder that loads in under a second."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneahead.errors import ModelError
from tuneahead.kept import KeptTexts, cache_folder, digest
from tuneahead.training.adaptable import require_all_weights
from tuneahead.training.sources import READERS, PackagedModel

_READER = "pip install 'tuneahead[gguf]'"
_UNREADABLE = (ValueError, KeyError, IndexError, TypeError, EOFError, struct.error)
"""What readers of a binary file meet in a torn one."""
_BYTES_A_PARAMETER = 8
"""A conversion holds every weight in fp32 twice: the converter's, and the copy that is written."""
_SCRATCH = ".converting-"
_NEW_SECONDS, _OLD_SECONDS = 5, 86_400
"""A scratch folder may not be locked yet when it is new; where none can be, one is left when it is old."""


def convert_packaged(model: PackagedModel) -> Path:
    """Folder of a packaged model, converted at first use; raises :class:`ModelError`.

    Once converted, the package itself is no longer looked at.
    """
    folder = _folder(model.sha256)
    _clear_left(folder.parent)
    if folder.is_dir():
        return folder
    pieces = model.pieces()
    seen = file_sha256(pieces)
    if seen != model.sha256:
        raise ModelError(
            f"{pieces[0]} is not the file of base {model.name!r}: its sha256 is {seen}, "
            f"expected {model.sha256}",
            remedy=f"install it anew: {model.install}",
        )
    if len(pieces) == 1:
        return _convert(pieces[0], folder)
    with _scratch(folder.parent) as scratch:
        whole = scratch / "model.gguf"
        with whole.open("wb") as out:
            for piece in pieces:
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, out)
        return _convert(whole, folder)


def convert_file(path: Path) -> Path:
    """Folder of a GGUF file's model, converted at first use; another content gets another folder."""
    folder = _folder(_known_sha256(path))
    _clear_left(folder.parent)
    return folder if folder.is_dir() else _convert(path, folder)


def file_sha256(pieces: Sequence[Path]) -> str:
    """Hash of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for piece in pieces:
        with piece.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _known_sha256(path: Path) -> str:
    """The file's hash, kept by place, size and times: reading many gigabytes once more takes long."""
    stat = path.stat()
    seen = (path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    kept, key = KeptTexts("gguf-hashes"), digest(repr(seen))
    sha256 = kept.load(key)
    if sha256 is None:
        sha256 = file_sha256([path])
        kept.store(key, sha256)
    return sha256


def _folder(sha256: str) -> Path:
    return cache_folder() / f"gguf-{sha256[:16]}"


def _convert(path: Path, folder: Path) -> Path:
    """Convert beside the final folder and rename: others see all of it or nothing.

    Two processes may convert at once; the second finds the place taken and drops its own copy.
    """
    try:
        with _scratch(folder.parent) as scratch:
            _write_model(path, scratch)
            try:
                os.rename(scratch, folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise ModelError(
            f"can't convert {path.name} into {folder.parent}: {error.strerror or error}",
            remedy="make room there (4 bytes a parameter), or set TUNEAHEAD_CACHE to another folder",
        ) from None
    return folder


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder in the cache to write to, locked; whatever is still there in the end is deleted."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=cache))
    except OSError as error:
        raise ModelError(
            f"can't write to the cache folder {cache}: {error.strerror}",
            remedy="set TUNEAHEAD_CACHE to a folder that can be written",
        ) from None
    lock = None
    try:
        with contextlib.suppress(OSError):
            lock = _lock(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _clear_left(cache: Path) -> None:
    """Delete what conversions that were killed have left: gigabytes, which nothing else would find again."""
    for folder in cache.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether nobody writes to a scratch folder any more."""
    unused_seconds = time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    if unused_seconds < _NEW_SECONDS:
        return False
    try:
        os.close(_lock(folder))
    except BlockingIOError:
        return False
    except OSError:
        return unused_seconds > _OLD_SECONDS
    return True


def _lock(folder: Path) -> int:
    """A lock on a folder, as a file descriptor; it ends with the process, however that ends.

    Raises BlockingIOError where another has it, and another OSError where folders can't be locked: on Windows
    and on some network disks.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened


def _write_model(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

    from tuneahead.training.tensorfile import save_tensors

    _require_gguf(path)
    model: PreTrainedModel
    info: dict[str, set[str]]
    try:
        _require_room(path)
        # The converter's progress bar can't be turned off otherwise, and stderr has one of ours.
        with contextlib.redirect_stderr(io.StringIO()):
            model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, trust_remote_code=False
            )
    except (*_UNREADABLE, ImportError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"can't read {path.name}: {first}",
            remedy="fetch the file anew if it was cut short; transformers converts GGUF files of some "
            "architectures only, of others give safetensors",
        ) from None
    require_all_weights(path.name, info["missing_keys"])
    # save_pretrained would write weights as quantized, which they no longer are, and refuses to.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    weights = {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_tensors(weights, folder / "model.safetensors", {"format": "pt"})


def _require_room(path: Path) -> None:
    from gguf import GGUFReader

    from tuneahead.training.hardware import require_room

    parameters = sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
    require_room(
        _BYTES_A_PARAMETER * parameters,
        "cpu",
        f"the conversion of {path.name}, {parameters:,} parameters in fp32,",
        "give the model as safetensors, which need no conversion, or a smaller one",
    )


def _require_gguf(path: Path) -> None:
    from importlib.util import find_spec

    with path.open("rb") as content:
        magic = content.read(4)
    if magic != b"GGUF":
        raise ModelError(
            f"{path} is not a GGUF file: it begins with {magic!r}", remedy="check the path, fetch it anew"
        )
    for package in READERS:
        if find_spec(package) is None:
            raise ModelError(f"reading GGUF files needs the package {package}", remedy=_READER)
