"""How many steps of a build are done, whatever happens to its workers."""

from __future__ import annotations

from collections.abc import Mapping


class StepTally:
    """Counts finished runs with all their steps, and what workers have made of the others.

    >>> tally = StepTally({"a": 100, "b": 50})
    >>> tally.made(0, 80)
    >>> tally.restart(0)
    >>> tally.made(0, 30)
    >>> tally.done, tally.total
    (30, 150)
    """

    def __init__(self, steps: Mapping[str, int]) -> None:
        """``steps``: of each run that is to be made, by its identifier."""
        self.total = sum(steps.values())
        self._open = dict(steps)
        self._made: dict[int, int] = {}

    @property
    def done(self) -> int:
        """Steps done."""
        under_way = sum(max(0, made) for made in self._made.values())
        return min(self.total, self.total - sum(self._open.values()) + under_way)

    def made(self, worker: int, steps: int) -> None:
        """A worker made ``steps`` more on the runs that it has in work."""
        self._made[worker] = self._made.get(worker, 0) + steps

    def restart(self, worker: int) -> None:
        """What a worker made of unfinished runs is void, or it begins others."""
        self._made.pop(worker, None)

    def finish(self, worker: int, run_id: str) -> None:
        """A worker's run is stored: all its steps count, also where it broke off."""
        steps = self._open.pop(run_id, 0)
        self.made(worker, -steps)

    def drop(self, run_id: str) -> None:
        """A run is not to be made any more: its steps are none of this build's."""
        self.total -= self._open.pop(run_id, 0)
