"""Where the rows of a batch lie: lines that short rows share, and the beginning that a slot's rows share.

Rows that begin with the same tokens, a chat template's system message for instance, need those only
once a line: what follows sees them as if they stood before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneahead.training.encode import Encoded

SHARED_LINES = (32, 48, 64, 96, 128, 192, 256)
"""Lengths tried for lines that short rows share."""
ATTENTION_TOKENS = 600
"""Line length at which attention costs about as much as the linear layers (measured on the lab's base)."""
LARGE_BASE_ATTENTION_TOKENS = 2_700
"""The same of a large base, whose layers are wider: reckoned from SmolLM2's 576."""
LARGE_BASE_LINE_STEP = 4
"""A large base's lines are fitted to four tokens: the search costs nothing beside a step, filling does."""
LONGEST_SHARED_LINE = 512
"""Beyond this length the explicit mask costs more memory than filling does."""
PREFIXED_LINES = 8
"""Lengths tried between one row with its prefix and all of a slot's rows behind one."""
SHORTEST_PREFIX = 16
"""Fewer tokens in common are not worth a longer line."""

Place = tuple[int, int]
"""Line, and place in the line."""


@dataclass(frozen=True)
class Placed:
    """Where one slot's rows lie: each row behind its prefix, and the copies of that prefix."""

    rows: list[Place]
    prefixes: list[Place]


@dataclass(frozen=True)
class Layout:
    """Lines of ``length`` places, and the flat range of places that each slot's rows lie in."""

    length: int
    lines: int
    slots: list[Placed]
    segments: list[tuple[int, int]]


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with and none of them trains; 0 where they are too few to be of use."""
    if len(rows) < 2:
        return 0
    first = rows[0].ids
    alike = min(common_beginning(first, row.ids) for row in rows[1:])
    common = min(alike, *(_untrained(row) for row in rows))
    return common if common >= SHORTEST_PREFIX else 0


def common_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _untrained(row: Encoded) -> int:
    """Inputs before the one that predicts the first trained token."""
    answer = row.answer.index(True) if True in row.answer else len(row.answer)
    return max(0, min(answer, len(row.ids) - 1) - 1)


def apart(lengths: Sequence[Sequence[int]], longest: int) -> Layout:
    """A line for every row, as many for each slot as the slot with most needs."""
    return _by_slots(longest, [Placed([(i, 0) for i in range(len(own))], []) for own in lengths])


def share_lines(
    lengths: Sequence[Sequence[int]],
    prefixes: Sequence[int],
    longest: int,
    *,
    by_slots: bool,
    large_base: bool,
    capacity: int = 0,
) -> Layout:
    """The layout that costs least over the line lengths tried: filling against attention.

    ``lengths`` are those of the rows without their slot's prefix, ``longest`` that of a line which
    holds any one row with it. With ``by_slots`` slots share lines too. A ``capacity`` is the only
    length that is tried.
    """
    attention = LARGE_BASE_ATTENTION_TOKENS if large_base else ATTENTION_TOKENS
    tried = []
    for size in [capacity] if capacity else _capacities(lengths, prefixes, longest, large_base=large_base):
        if by_slots:
            tried.append(_running_on(lengths, prefixes, size))
        else:
            filled = [fill_lines(own, size, n) for own, n in zip(lengths, prefixes, strict=True)]
            tried.append(_by_slots(size, filled))
    return min(tried, key=lambda found: found.lines * found.length * (1 + found.length / attention))


def _capacities(
    lengths: Sequence[Sequence[int]], prefixes: Sequence[int], longest: int, *, large_base: bool
) -> list[int]:
    fitted = range(longest, SHARED_LINES[-1] + 1, LARGE_BASE_LINE_STEP) if large_base else SHARED_LINES
    found = {longest, *(n for n in fitted if n > longest)}
    if any(prefixes):
        # Up to one line for all rows of a slot: the fewer lines, the fewer copies of the prefix.
        whole = max(n + sum(own) for n, own in zip(prefixes, lengths, strict=True))
        most = min(whole, LONGEST_SHARED_LINE)
        if most > longest:
            found |= {
                round(longest * (most / longest) ** (i / PREFIXED_LINES)) for i in range(1, PREFIXED_LINES)
            }
            found.add(most)
    return sorted(found)


def _by_slots(length: int, slots: list[Placed]) -> Layout:
    """Each slot in lines of its own, as many as the slot with most needs."""
    lines = max((line + 1 for own in slots for line, _ in own.rows), default=1)

    def moved(places: list[Place], slot: int) -> list[Place]:
        return [(slot * lines + line, at) for line, at in places]

    size = lines * length
    return Layout(
        length,
        lines * len(slots),
        [Placed(moved(own.rows, slot), moved(own.prefixes, slot)) for slot, own in enumerate(slots)],
        [(slot * size, (slot + 1) * size) for slot in range(len(slots))],
    )


def _running_on(lengths: Sequence[Sequence[int]], prefixes: Sequence[int], capacity: int) -> Layout:
    """Slot after slot without a gap, each slot's rows by first fit from where the slot before ended."""
    slots: list[Placed] = []
    segments: list[tuple[int, int]] = []
    line = start = 0
    for own, prefix in zip(lengths, prefixes, strict=True):
        filled = fill_lines(own, capacity, prefix, begin=start)
        slots.append(Placed(*([(line + i, at) for i, at in kind] for kind in (filled.rows, filled.prefixes))))
        begin = line * capacity + start
        ends = [(line + i, at + n) for (i, at), n in zip(filled.rows, own, strict=True)]
        if ends:
            line, start = max(ends)
        segments.append((begin, line * capacity + start))
    return Layout(capacity, line + 1, slots, segments)


def fill_lines(lengths: Sequence[int], capacity: int, prefix: int = 0, begin: int = 0) -> Placed:
    """Places of the rows by first fit, longest first; the first line is used up to ``begin``.

    Each line that holds a row holds the prefix before its first one.
    """
    used, opened = [begin], [prefix == 0]
    rows = [(0, 0)] * len(lengths)
    prefixes: list[Place] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        for line, taken in enumerate(used):
            if taken + length + (0 if opened[line] else prefix) <= capacity:
                break
        else:
            line = len(used)
            used.append(0)
            opened.append(prefix == 0)
        if not opened[line]:
            prefixes.append((line, used[line]))
            used[line] += prefix
            opened[line] = True
        rows[index] = (line, used[line])
        used[line] += length
    return Placed(rows, prefixes)
