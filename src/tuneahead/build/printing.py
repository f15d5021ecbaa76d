"""How a build that runs by itself tells how far it is: in lines, for a log."""

from __future__ import annotations

import math
import time
from typing import TextIO

from tuneahead.build.execute import BuildProgress

LINE_SECONDS = 60.0


class ProgressLines:
    """Prints a line a minute, and what happened to workers as soon as it is known.

    To ``stream``, or stdout.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self.last = 0.0
        self.told = 0

    def __call__(self, progress: BuildProgress) -> None:
        """Print what is new."""
        for setback in progress.setbacks[self.told :]:
            print(setback, file=self.stream, flush=True)
        self.told = len(progress.setbacks)
        if time.monotonic() - self.last > LINE_SECONDS:
            self.last = time.monotonic()
            left = progress.seconds_left / 60
            # Under a minute is some time still.
            text = ", no step made yet" if math.isnan(left) else f", {math.ceil(left)} min left"
            said = f"{progress.runs_done} of {progress.runs_total} runs{text}"
            print(said, file=self.stream, flush=True)
