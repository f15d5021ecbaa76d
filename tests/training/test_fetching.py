"""Bases from a hub, here one on this machine: what is fetched, what is told of it, what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_fixtures import write_tiny_gguf
from local_hub import BROKEN, GATED, local_hub
from training_fixtures import write_tiny_model

from tuneahead.training.models import load_base

LOAD = """
import json, sys
from tuneahead.errors import ModelError
from tuneahead.training import fetching
from tuneahead.training.models import load_base

class Told:
    def __init__(self): self.stages, self.parts = [], 0
    def stage(self, text, total_steps=0): self.stages.append([text, total_steps])
    def advance(self, steps): self.parts += steps

fetching._MB = 1000
for name in sys.argv[1:]:
    told, found = Told(), {}
    try:
        base = load_base(name, device="cpu", watch=told)
        found = {"name": base.name, "fingerprint": base.fingerprint}
    except ModelError as error:
        found = {"error": str(error), "remedy": error.remedy}
    print(json.dumps(found | {"stages": told.stages, "parts": told.parts}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("hub")
    for name in ("org/tiny", "org/parts", GATED, BROKEN, "org/pickled"):
        write_tiny_model(root / name)
    shutil.move(root / "org/pickled/model.safetensors", root / "org/pickled/pytorch_model.bin")
    _split(root / "org/parts")
    (root / "org/quantized").mkdir()
    write_tiny_gguf(root / "org/quantized/tiny.gguf")
    with local_hub(root) as address:
        yield root, address


def _split(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        places |= dict.fromkeys(names, f"model-{number}.safetensors")
        part = {name: weights[name] for name in names}
        save_file(part, folder / f"model-{number}.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def loaded(hub: tuple[Path, str], home: Path, *names: str, **more: str) -> list[dict[str, object]]:
    """What a process of its own gets for these bases: the hub's address is read as its client is loaded."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub[1],
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_base_from_a_hub_is_that_of_its_folder_and_its_download_is_shown(
    hub: tuple[Path, str], tmp_path: Path
) -> None:
    whole, again, parts, quantized = loaded(
        hub, tmp_path, "org/tiny", "org/tiny", "org/parts", "org/quantized/tiny.gguf"
    )
    own = load_base(str(hub[0] / "org/tiny"), device="cpu").fingerprint
    assert whole["name"] == "org/tiny"
    assert whole["fingerprint"] == again["fingerprint"] == parts["fingerprint"] == own
    size = (hub[0] / "org/tiny/model.safetensors").stat().st_size // 1000
    assert whole["stages"] == [["Fetching org/tiny, MB", size], ["Loading base org/tiny", 0]]
    assert whole["parts"] == size
    assert again["stages"] == [] and again["parts"] == 0, "it was there"
    assert (
        parts["parts"] == sum(p.stat().st_size for p in (hub[0] / "org/parts").glob("*.safetensors")) // 1000
    )
    assert quantized["name"] == "org/quantized/tiny.gguf" and quantized["parts"] > 0  # type: ignore[operator]
    (offline,) = loaded(hub, tmp_path, "org/tiny", HF_HUB_OFFLINE="1")
    assert offline["fingerprint"] == own, "what was fetched is loaded without the hub"


@pytest.mark.slow
def test_what_a_hub_does_not_give_is_told_with_what_to_do(hub: tuple[Path, str], tmp_path: Path) -> None:
    gated, pickled, missing, closed, absent = loaded(
        hub, tmp_path, GATED, "org/pickled", "org/never", f"{GATED}/a.gguf", "org/quantized/none.gguf"
    )
    assert "can't load base model 'org/gated'" in str(gated["error"]) and "hf auth login" in str(
        gated["remedy"]
    )
    assert "model.safetensors" in str(pickled["error"]) and "never run" in str(pickled["remedy"])
    assert "check the name" in str(missing["remedy"]) and "hf auth login" in str(missing["remedy"])
    assert "hf auth login" in str(closed["remedy"])
    assert "no file org/quantized/none.gguf" in str(absent["error"])


@pytest.mark.slow
def test_a_download_that_breaks_off_is_told_as_such(hub: tuple[Path, str], tmp_path: Path) -> None:
    (broken,) = loaded(hub, tmp_path, BROKEN)
    assert "can't load base model 'org/broken': peer closed connection" in str(broken["error"])
    assert "hf download" in str(broken["remedy"])
