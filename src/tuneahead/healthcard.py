"""Health card of a data set for the terminal: how it is, what was found, what was measured."""

from __future__ import annotations

import math

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tuneahead.assessment import Checkup
from tuneahead.features.catalogue_static import STATIC_SECTIONS
from tuneahead.printable import printable
from tuneahead.report import words
from tuneahead.terminal import COLOURS, data_line, findings_table, print_section

LABEL_CELLS = 22
VALUE_CELLS = 28
TWO_COLUMNS_FROM = 2 * (LABEL_CELLS + VALUE_CELLS + 4)
"""Width of a terminal, in characters, from which measures stand in two columns."""


def print_checkup(console: Console, checkup: Checkup, note: str = "") -> None:
    """Print the whole card; ``note`` is a last line of its own."""
    plain = "utf" not in (console.encoding or "").lower()
    console.print(_head(checkup, console.width, plain))
    print_section(console, "Findings", findings_table(checkup.findings))
    sections = [part for title in STATIC_SECTIONS if (part := _section(checkup, title, console.width, plain))]
    if sections:
        print_section(console, "Measured", Group(*sections))
    said = (
        _shown(words.sampling_note(checkup.data), plain),
        words.MEASURES_NOTE if sections else "",
        f"Checked in {words.duration(checkup.costs.check_seconds)}, nothing was trained.",
        note,
    )
    for line in said:
        if line:
            console.print(Text(line, style="dim"))


def _head(checkup: Checkup, width: int, plain: bool) -> Panel:
    decision, word, counted = words.health(checkup)
    head = Text(word.upper(), style=f"bold {COLOURS[decision]}")
    head.append(f"  {counted}", style="not bold default")
    title = Text(printable(checkup.data.path))
    title.truncate(max(20, width - 8), overflow="ellipsis")
    return Panel(
        Group(head, Text(_shown(data_line(checkup.data).plain, plain)), _base_line(checkup)),
        title=title,
        title_align="left",
        border_style=COLOURS[decision],
        padding=(1, 2),
    )


def _base_line(checkup: Checkup) -> Text:
    note = words.base_note(checkup)
    return Text(note, style="dim") if note else Text(f"base = {checkup.base}")


def _section(checkup: Checkup, title: str, width: int, plain: bool) -> RenderableType | None:
    values, samples = checkup.features.values, checkup.data.samples
    cells = [
        (
            Text(words.feature_label(row.name)),
            Text(_shown(words.measured_value(row.name, values[row.name], samples.get(row.name)), plain)),
        )
        for row in STATIC_SECTIONS[title]
        if row.name not in words.SAID_BESIDE and math.isfinite(values.get(row.name, math.nan))
    ]
    if not cells:
        return None
    columns = 2 if width >= TWO_COLUMNS_FROM else 1
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(columns):
        table.add_column(overflow="fold", width=LABEL_CELLS + 8 * (columns == 1))
        table.add_column(justify="right", width=VALUE_CELLS)
    rows = math.ceil(len(cells) / columns)
    for place in range(rows):
        # Down the first column, then down the second, as one reads a list.
        table.add_row(*(part for cell in cells[place::rows] for part in cell))
    return Group(Text(_named(checkup, title), style="dim"), table)


def _named(checkup: Checkup, title: str) -> str:
    title = title.replace("the benchmark", checkup.benchmark or "the benchmark")
    return title.replace("The base's", f"{checkup.base}'s") if checkup.base else title


def _shown(text: str, plain: bool) -> str:
    text = text.replace("−", "-")
    # Not every terminal's encoding has these signs.
    return text.replace("∞", "inf").replace("±", "+/-").replace("²", "2") if plain else text
