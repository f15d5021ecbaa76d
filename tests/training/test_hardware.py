"""Device, number format and memory: chosen by the machine, overridden by the user, refused when absent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tuneahead.errors import ModelError
from tuneahead.training import hardware
from tuneahead.training.hardware import (
    _free_linux,
    choose_device,
    choose_dtype,
    free_bytes,
    native_bf16,
    require_room,
)
from tuneahead.training.memory import quantization_config


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="'cuda:1' was asked for"):
            choose_device("cuda:1")
    with pytest.raises(ModelError, match="unknown device 'gpu'") as caught:
        choose_device("gpu")
    assert "cuda" in caught.value.remedy


def test_a_card_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ModelError, match="'cuda:2' was asked for, and there are 2 CUDA devices"):
        choose_device("cuda:2")
    with pytest.raises(ModelError, match="unknown device 'cuda:x'"):
        choose_device("cuda:x")


@pytest.mark.skipif(sys.platform != "linux", reason="containers of Linux")
def test_a_container_s_limit_counts_without_what_was_read_lately(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 500000\nslab_reclaimable 1000\n")
    assert _free_linux(tmp_path) == 1_000_000 - (900_000 - 501_000)
    (tmp_path / "memory.current").write_text("1900000\n")
    assert _free_linux(tmp_path) == 0, "never less than nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="control groups of Linux")
def test_the_tightest_limit_of_a_process_counts_wherever_its_group_lies(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("9:name=systemd:/\n4:cpu,memory:/job/step\n0::/user/run\n")
    assert (free := _free_linux(tmp_path, membership)) is not None and free > 1_000_000, "no limit is known"
    first = tmp_path / "memory" / "job"
    (first / "step").mkdir(parents=True)
    for group, limit in ((first, 1_000_000), (first / "step", 9_223_372_036_854_771_712)):
        (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (group / "memory.usage_in_bytes").write_text("700000\n")
        (group / "memory.stat").write_text("inactive_file 0\ntotal_inactive_file 100000\n")
    assert _free_linux(tmp_path, membership) == 400_000
    second = tmp_path / "user"
    (second / "run").mkdir(parents=True)
    for group, limit in ((second, "500000"), (second / "run", "max")):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("300000\n")
        (group / "memory.stat").write_text("anon 300000\n")
    assert _free_linux(tmp_path, membership) == 200_000


def test_bf16_is_taken_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    big, small = 100_000_000, 1_000_000
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(hardware, "native_bf16", lambda device, answer=native: answer)
        assert choose_dtype("auto", big, "cpu") == dtype
        assert choose_dtype("4bit", big, "cuda") == dtype
        assert choose_dtype("auto", small, "cpu") == torch.float32
    assert choose_dtype("bf16", small, "cpu") == torch.bfloat16
    with pytest.raises(ModelError, match="unknown precision 'int3'"):
        choose_dtype("int3", big, "cpu")


def test_old_graphics_cards_have_no_native_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not native_bf16("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert native_bf16("cuda:1")


def test_want_of_memory_is_said_with_the_number() -> None:
    free = free_bytes("cpu")
    assert free is None or 2**20 < free < 2**50
    require_room(1000, "cpu", "a small thing", "nothing")
    if free is not None:
        with pytest.raises(ModelError, match=r"a large thing needs 1048576\.0 GiB, cpu has \d+\.\d GiB free"):
            require_room(2.0**50, "cpu", "a large thing", "take a smaller one")


def test_quantized_bases_need_a_device_that_has_them_and_their_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert quantization_config("bf16", "cpu") is None
    with pytest.raises(
        ModelError, match="4bit needs a CUDA device or a processor, the base would run on mps"
    ):
        quantization_config("4bit", "mps")
    monkeypatch.setattr("tuneahead.training.memory.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="8bit needs bitsandbytes and accelerate") as caught:
        quantization_config("8bit", "cuda")
    assert caught.value.remedy == "pip install 'tuneahead[quantized]'"
