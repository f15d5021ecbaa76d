"""Writing tensors to a safetensors file, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write beside ``path`` and rename.

    Raises :class:`OSError` where that fails, on a full disk for instance.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(dict(tensors), part, metadata=dict(metadata))
        os.replace(part, path)
    except SafetensorError as error:
        # It tells the system's errors only as text: "I/O error: File too large (os error 27)".
        told = re.search(r"([^:]+) \(os error (\d+)\)", str(error))
        code, why = (int(told[2]), told[1].strip()) if told else (errno.EIO, str(error))
        raise OSError(code, why, str(path)) from None
    finally:
        part.unlink(missing_ok=True)
