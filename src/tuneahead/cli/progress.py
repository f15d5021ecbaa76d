"""What the user sees while a command works: one progress bar on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _CountColumn(MofNCompleteColumn):
    """How many are done of how many, where that is known: ``0/?`` tells nobody anything."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class ProgressBar:
    """A :class:`tuneahead.watch.Watch` that draws; silent where stderr is no terminal.

    Use it as a context manager: leaving it removes the bar.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _CountColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            # Else its end would be an empty line there.
            disable=not console.is_interactive,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str, total_steps: int = 0) -> None:
        """Begin a new stage; a length of 0 is shown as a moving bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=total_steps or None)

    def measure(self, text: str, done: int, total: int) -> None:
        """Show ``done`` of ``total``, under a text that may change."""
        if self._task is not None:
            self._progress.update(self._task, description=text, completed=done, total=total)

    def advance(self, steps: int) -> None:
        """Count ``steps`` more."""
        if self._task is not None:
            self._progress.advance(self._task, steps)
