"""Kept checks: the same answer for the same question, and never a wrong or broken one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from made_assessment import made_checkup

from tuneahead import kept
from tuneahead.checkcache import CheckCache, check_key
from tuneahead.columns import ColumnMapping
from tuneahead.recipe import Recipe
from tuneahead.workbench import Setup

RECIPE, SETUP = Recipe(), Setup()


def key_of(path: Path, recipe: Recipe = RECIPE, setup: Setup = SETUP, **mapping: str) -> str:
    return check_key(path, ColumnMapping(**mapping) if mapping else None, recipe, setup)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}')
    return path


def test_a_checkup_is_given_back_whole_under_the_name_asked_for(tmp_path: Path) -> None:
    found = made_checkup()
    CheckCache(tmp_path).store("k", found)
    back = CheckCache(tmp_path).load("k", "moved.jsonl")
    assert back is not None
    assert replace(back, data=replace(back.data, path=found.data.path)).to_json() == found.to_json()
    assert back.data.path == "moved.jsonl"
    assert CheckCache(tmp_path).load("other", "x") is None


def test_equal_content_has_one_key_and_everything_that_matters_another(data: Path, tmp_path: Path) -> None:
    first = key_of(data)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data.read_bytes())
    assert len(first) == 32 and key_of(copy) == first
    items = tmp_path / "items.jsonl"
    items.write_text("{}")
    others = [
        key_of(data, Recipe(max_length=99)),
        key_of(data, setup=Setup(benchmark="lab-truth")),
        key_of(data, setup=Setup(base="lab")),
        key_of(data, setup=Setup(base="lab", weights=False)),
        key_of(data, setup=Setup(benchmark=str(items))),
        key_of(data, prompt="prompt", answer="answer"),
        key_of(data, setup=Setup(base=str(_base(tmp_path)))),
    ]
    items.write_text('{"more": 1}')
    others.append(key_of(data, setup=Setup(benchmark=str(items))))
    # A benchmark is known by the name of its file, which stands in the findings.
    others.append(key_of(data, setup=Setup(benchmark=str(items.rename(tmp_path / "exam.jsonl")))))
    renamed = tmp_path / "data.json"
    renamed.write_bytes(data.read_bytes())
    others.append(key_of(renamed))
    data.write_text('{"prompt": "p", "answer": "b"}')
    others.append(key_of(data))
    assert len({first, *others}) == 12


def _base(folder: Path) -> Path:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    return base


def test_a_changed_base_or_changed_code_is_another_key(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _base(tmp_path)
    first = key_of(data, setup=Setup(base=str(base)))
    (base / "config.json").write_text('{"more": 1}')
    changed = key_of(data, setup=Setup(base=str(base)))
    package = tmp_path / "package"
    package.mkdir()
    (package / "checks.py").write_text("new = True")
    monkeypatch.setattr(kept, "_PACKAGE", package)
    assert len({first, changed, key_of(data, setup=Setup(base=str(base)))}) == 3


def test_another_model_of_the_same_size_and_time_is_another_key(data: Path, tmp_path: Path) -> None:
    weights = _base(tmp_path) / "model.safetensors"
    keys = set()
    for content in ("one", "two"):
        weights.write_text(content)
        os.utime(weights, (0, 0))
        keys.add(key_of(data, setup=Setup(base=str(weights.parent))))
    assert len(keys) == 2


def test_a_gguf_file_and_a_base_in_the_cache_are_told_apart_by_their_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path))
    for base, file in ((str(tmp_path / "m.gguf"), "m.gguf"), ("lab-llama", "lab-llama/model.safetensors")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("one")
        first = key_of(data, setup=Setup(base=base))
        (tmp_path / file).write_text("another")
        assert len({first, key_of(data, setup=Setup(base=base)), ""}) == 3


def test_what_cannot_be_known_has_no_key_and_is_not_kept(data: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text("task: mine\ndataset_path: json\n")
    unknown = (
        Setup(base="nobody/no-such-model"),
        Setup(base="./no such: base"),
        Setup(benchmark="arc_easy"),
        Setup(benchmark=str(task)),
    )
    for setup in unknown:
        assert key_of(data, setup=setup) == ""
    assert key_of(tmp_path / "nowhere.jsonl") == ""
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert key_of(tmp_path / "pipe.jsonl") == ""
    CheckCache(tmp_path).store("", made_checkup())
    assert not (tmp_path / "checks").exists()
    assert CheckCache(tmp_path).load("", data) is None


def test_a_text_that_is_no_checkup_is_no_result(tmp_path: Path) -> None:
    kept.KeptTexts("checks", tmp_path).store("k", "{}")
    assert CheckCache(tmp_path).load("k", "x") is None
