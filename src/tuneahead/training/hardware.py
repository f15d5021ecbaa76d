"""What the machine has: device, number format and free memory, each found out and each to be overridden."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tuneahead.errors import ModelError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = ("8bit", "4bit")
SMALL_PARAMETERS = 50_000_000
"""Below this size elementwise work dominates and bf16 gains nothing (measured on the lab's bases)."""


def choose_device(device: str = "auto") -> str:
    """``auto`` takes CUDA, then MPS, then the processor; raises :class:`ModelError` for an absent one."""
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in there or (":" in device and not index.isdecimal()):
        raise ModelError(f"unknown device {device!r}", remedy="use auto, cpu, cuda, cuda:1 or mps")
    if not there[kind]:
        raise ModelError(
            f"device {device!r} was asked for, and this PyTorch ({torch.__version__}) sees none",
            remedy="use --device cpu, or install a PyTorch built for that device",
        )
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} was asked for, and there are {torch.cuda.device_count()} CUDA devices",
            remedy=f"use cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    return device


def choose_dtype(precision: str, parameters: int, device: str) -> torch.dtype:
    """Number format of weights that are not quantized, for a precision name, a size and a device.

    Raises :class:`ModelError` for an unknown name.
    """
    if precision in DTYPES:
        return DTYPES[precision]
    if precision in QUANTIZED:
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if precision != "auto":
        known = ", ".join(("auto", *DTYPES, *QUANTIZED))
        raise ModelError(f"unknown precision {precision!r}", remedy=f"use one of {known}")
    small = parameters < SMALL_PARAMETERS
    return torch.float32 if small or not native_bf16(device) else torch.bfloat16


def native_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 in hardware (elsewhere it is emulated and slower than fp32)."""
    if device.startswith("cuda"):
        # torch.cuda.is_bf16_supported() says yes to emulation as well.
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.startswith("mps"):
        return torch.backends.mps.is_macos_or_newer(14, 0)
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    own = {"bf16"} if platform.machine().lower() in ("aarch64", "arm64") else {"avx512_bf16", "amx_bf16"}
    return bool(words & own)


def free_bytes(device: str) -> int | None:
    """Memory that can still be had on the device; None where the system doesn't say."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + held)
    if device.startswith("mps"):
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if sys.platform == "linux":
        return _free_linux()
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if sys.platform == "darwin" else None


def _free_linux(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Available memory of the machine, or what the tightest limit on this process leaves, if less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    left = [_left_by_group(group) for group in _groups(root, membership)]
    return max(0, min([free, *(own for own in left if own is not None)]))


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the control groups that limit this process: its own and all above, of either version."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        # In a container the path may be that of the host, and the container's own group lies at the top.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            yield top.joinpath(*names[:depth])


def _left_by_group(group: Path) -> int | None:
    """What a control group's limit leaves; None where there is none. ``memory.max`` is of version 2."""
    for limit, usage, below in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        try:
            most = (group / limit).read_text(encoding="ascii").strip()
            used = int((group / usage).read_text(encoding="ascii"))
            lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
            stat = dict(line.split() for line in lines)
            # Files read lately count as used, weights among them, and are given up when memory is wanted.
            used -= int(stat.get(f"{below}inactive_file", 0)) + int(stat.get("slab_reclaimable", 0))
            return None if most == "max" else int(most) - used
        except (OSError, ValueError):
            continue
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is want of memory, on whatever device.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory"))
    True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Only CUDA has a class of its own for it.
    told = any(words in str(error) for words in ("out of memory", "DefaultCPUAllocator"))
    return isinstance(error, RuntimeError) and told


def require_room(needed: float, device: str, what: str, remedy: str) -> None:
    """Raise :class:`ModelError` with the number when ``needed`` bytes can't be had."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ModelError(
            f"{what} needs {needed / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB free", remedy=remedy
        )
