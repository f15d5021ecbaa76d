"""Who is told what is going on."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Told what is going on, for a progress display."""

    def stage(self, text: str, total_steps: int = 0) -> None:
        """A new stage has begun; ``total_steps`` is 0 when its length is unknown."""

    def advance(self, steps: int) -> None:
        """``steps`` more of the stage's steps were made: optimiser steps, or what its text names."""


class _Silent:
    def stage(self, text: str, total_steps: int = 0) -> None:
        """Say nothing."""

    def advance(self, steps: int) -> None:
        """Say nothing."""


SILENT: Watch = _Silent()
