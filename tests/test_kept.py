"""Texts kept by content: given back whole or not at all, whatever happens to the files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from tuneahead import kept
from tuneahead.kept import KeptTexts, cache_folder, content_key

TEXT = "a finding in 38 rows"


def test_a_text_is_given_back_under_its_key_and_kind_only(tmp_path: Path) -> None:
    KeptTexts("texts", tmp_path).store("k", TEXT)
    assert KeptTexts("texts", tmp_path).load("k") == TEXT
    assert KeptTexts("others", tmp_path).load("k") is None
    KeptTexts("texts", tmp_path).store("", TEXT)
    assert KeptTexts("texts", tmp_path).load("") is None


def test_equal_parts_have_one_key_and_changed_code_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content_key("a", 1)
    assert first == content_key("a", 1) and len(first) == 32
    monkeypatch.setattr(kept, "_PACKAGE", tmp_path)
    assert len({first, content_key("a", 2), content_key("a", 1)}) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: text.replace("38 rows", "39 rows"),
        lambda text: json.dumps({"digest": kept.digest("{}x"), "text": "{}"}),
        lambda text: json.dumps({"digest": "x", "text": 3}),
        lambda text: "\x00" * 99,
    ],
)
def test_a_damaged_file_is_no_result(tmp_path: Path, damage: object) -> None:
    cache = KeptTexts("texts", tmp_path)
    cache.store("k", TEXT)
    path = tmp_path / "texts" / "k.json"
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    assert cache.load("k") is None
    cache.store("k", TEXT)
    assert cache.load("k") is not None


def test_a_folder_that_cannot_be_written_or_read_is_an_empty_cache(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where the folder should be")
    KeptTexts("texts", taken).store("k", TEXT)
    assert KeptTexts("texts", taken).load("k") is None


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    KeptTexts("texts", tmp_path).store("k", TEXT)
    assert list((tmp_path / "texts").iterdir()) == []


def test_many_writers_and_readers_share_a_folder(tmp_path: Path) -> None:
    seen = []

    def work() -> None:
        cache = KeptTexts("texts", tmp_path)
        for _ in range(20):
            cache.store("k", TEXT)
            seen.append(cache.load("k") is not None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["k.json"]


def test_the_oldest_results_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    cache = KeptTexts("texts", tmp_path)
    for age, key in enumerate(("a", "b", "c")):
        cache.store(key, TEXT)
        if (path := tmp_path / "texts" / f"{key}.json").exists():
            os.utime(path, (1_000 + age, 1_000 + age))
    cache.store("d", TEXT)
    assert sorted(path.stem for path in (tmp_path / "texts").iterdir()) == ["c", "d"]


def test_the_folder_is_the_one_named_or_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNEAHEAD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("TUNEAHEAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tuneahead"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cache_folder().parents
