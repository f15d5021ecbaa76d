"""Options that several commands share, and how their text becomes checked values."""

from __future__ import annotations

import math
import os
from collections import abc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.errors import DataError, RecipeError, TuneAheadError

if TYPE_CHECKING:
    from rich.console import Console

    from tuneahead.dataset import ColumnMapping
    from tuneahead.recipe import Recipe
    from tuneahead.verdict import Goal

JUDGED, DATA, OUTPUT = "What it is judged on", "Data and recipe", "Output"

DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="Training data: JSONL, JSON, CSV, TSV or Parquet.", show_default=False
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", "-r", help="Recipe as YAML or JSON.", rich_help_panel=DATA, show_default=False),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Set one field of the recipe; may be repeated.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--mapping",
        "-m",
        metavar="PART=COLUMN",
        rich_help_panel=DATA,
        show_default=False,
        help="Name a column, as in prompt=question or answer=reply; may be repeated. Parts: prompt, answer, "
        "messages, text, system, input, history.",
    ),
]
_BASE = "'lab' (packaged tiny model), 'smollm2', a folder, a .gguf file or a hub id."
BaseName = Annotated[str, typer.Option("--base", "-b", help=_BASE, rich_help_panel=JUDGED)]
BaseOrNone = Annotated[
    str | None,
    typer.Option(
        "--base",
        "-b",
        help=f"{_BASE} Without one, window, template and end of text are not checked.",
        rich_help_panel=JUDGED,
        show_default=False,
    ),
]
_BENCHMARK = "lab-exam, lab-truth, lab-generation, a file of items, or a task of lm-evaluation-harness."
BenchmarkName = Annotated[str, typer.Option(help=_BENCHMARK, rich_help_panel=JUDGED)]
BenchmarkOrLabExam = Annotated[
    str,
    typer.Option(
        "--benchmark",
        help=f"{_BENCHMARK[:-1]} (default: lab-exam).",
        rich_help_panel=JUDGED,
        show_default=False,
    ),
]
"""Empty where none was named: what then happens differs from naming lab-exam."""
GoalScore = Annotated[
    float | None,
    typer.Option(
        "--goal",
        metavar="POINTS",
        help="Score to reach, 0 to 100.",
        rich_help_panel=JUDGED,
        show_default=False,
    ),
]
GainPoints = Annotated[
    float | None,
    typer.Option(
        "--gain",
        metavar="POINTS",
        help="Points to gain over the base (default goal: no worse than it).",
        rich_help_panel=JUDGED,
        show_default=False,
    ),
]
ProbeSteps = Annotated[
    int, typer.Option(help="Length of the probe in optimiser steps, 5 or more.", rich_help_panel=JUDGED)
]
PredictorFolder = Annotated[
    str,
    typer.Option(
        "--predictor",
        help="Folder that 'fit' wrote (default: the shipped one).",
        rich_help_panel=JUDGED,
        show_default=False,
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price",
        metavar="PER_HOUR",
        help="Price of this machine an hour, in any currency: costs are then shown in money too.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=JUDGED)]
StoreFile = Annotated[Path, typer.Option("--store", help="SQLite file that holds the runs.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout, nothing else.", rich_help_panel=OUTPUT)
]
HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html", help="Write the report as one HTML file.", rich_help_panel=OUTPUT, show_default=False
    ),
]
ExitCode = Annotated[
    bool,
    typer.Option("--exit-code", help="End with 0 for go, 3 for no go, 4 for unsure.", rich_help_panel=OUTPUT),
]


def read_price(price: float | None) -> float:
    """The price an hour, NaN where none was given; raises TuneAheadError for one that is none."""
    from tuneahead.workbench import require_price

    if price is None:
        return math.nan
    # Typed, not a number is no price; from Python it says that there is none.
    return require_price(0.0 if math.isnan(price) else price)


def read_recipe_options(path: Path | None, settings: list[str] | None) -> Recipe:
    """The recipe of a file (or the defaults) with single fields set.

    Raises :class:`RecipeError`, for epochs that max_steps would make void too.
    """
    from tuneahead.recipe import Recipe, make_recipe, plain_fields, read_recipe

    recipe = Recipe() if path is None else read_recipe(path)
    changes = {name: _value(name, text) for name, text in _pairs(settings, "--set", "learning_rate=1e-3")}
    if not changes:
        return recipe
    made = make_recipe({**recipe.model_dump(), **plain_fields(changes, "--set")}, "--set")
    if "epochs" in changes and made.max_steps is not None:
        raise RecipeError(
            f"--set epochs={changes['epochs']} has no effect: max_steps is {made.max_steps:,}, which wins",
            remedy="set max_steps itself, or add --set max_steps=none to go by epochs",
        )
    return made


def _value(name: str, text: str) -> object:
    from tuneahead.yamltext import SurprisingYaml, read_yaml

    try:
        return read_yaml(text, strict=True)
    except SurprisingYaml as error:
        raise RecipeError(f"--set {name}: {error}", remedy="write a number such as 600 or 2e-4") from None
    except ValueError:
        shown = f"{name}={text[:40]}"
        raise RecipeError(f"can't read the value of --set {shown}", remedy="give a plain value") from None


def read_mapping(pairs: list[str] | None) -> ColumnMapping | None:
    """The columns named on the command line; raises :class:`DataError` for an unknown part."""
    from dataclasses import fields

    from tuneahead.dataset import ColumnMapping

    chosen = dict(_pairs(pairs, "--mapping", "prompt=question"))
    known = [field.name for field in fields(ColumnMapping)]
    for name in chosen:
        if name not in known:
            raise DataError(f"--mapping knows no part {name!r}", remedy=f"use one of {', '.join(known)}")
    return ColumnMapping(**chosen) if chosen else None


def read_goal(minimum_pp: float | None, gain_pp: float | None) -> Goal:
    """The goal; raises :class:`TuneAheadError` when both kinds are given or one is impossible."""
    from tuneahead.verdict import Goal, require_goal

    require_goal(minimum_pp, gain_pp, ("--goal", "--gain"))
    return Goal(minimum_pp, gain_pp)


def check_outputs(outputs: abc.Mapping[str, Path | None], *inputs: Path | str | None) -> None:
    """Before any work: what is written, by option, must be distinct and must not take an input's place.

    Raises :class:`DataError` otherwise.
    """
    taken: dict[Path, str] = {}
    for option, output in outputs.items():
        if output is None:
            continue
        _refuse_overwriting(output, *inputs)
        other = taken.setdefault(output.resolve(), option)
        if other != option:
            raise DataError(
                f"is what both {other} and {option} would write", path=output, remedy="name two places"
            )


def require_writable_file(path: Path | None, option: str) -> None:
    """Before any work: raises :class:`DataError` where no file can be written at ``path``."""
    if path is None:
        return
    if path.is_dir():
        raise DataError(
            f"is a folder, and {option} writes a file",
            path=path,
            remedy="name a file in it, or another place",
        )
    if path.exists():
        _require_access(path, option)
    else:
        require_writable_folder(path.parent, option)


def require_writable_folder(path: Path | None, option: str) -> None:
    """Before any work: raises :class:`DataError` where no folder can be made or written to at ``path``."""
    if path is None:
        return
    there = next((one for one in (path, *path.parents) if one.exists()), Path())
    if not there.is_dir():
        raise DataError(f"is a file, and {option} needs a folder", path=there, remedy="name another place")
    _require_access(there, option)


def _require_access(path: Path, option: str) -> None:
    if not os.access(path, os.W_OK):
        raise DataError(f"can't be written to, as {option} needs", path=path, remedy="name another place")


def _refuse_overwriting(output: Path, *inputs: Path | str | None) -> None:
    if not output.exists():
        return
    for given in inputs:
        # A benchmark may be a name as well as a file.
        if given and Path(given).exists() and output.samefile(given):
            raise DataError(
                "would be overwritten by what is written", path=given, remedy="name another output file"
            )


def open_console() -> Console:
    """The console that results are printed on: stdout, without colouring of numbers and paths."""
    from rich.console import Console

    return Console(highlight=False)


def _pairs(texts: list[str] | None, option: str, example: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise TuneAheadError(f"{option} {text!r} is not NAME=VALUE", remedy=f"write {option} {example}")
        name, value = name.strip(), value.strip()
        if (earlier := dict(out).get(name)) is not None:
            raise TuneAheadError(
                f"{option} {name} was given twice, as {earlier} and as {value}", remedy="give it once"
            )
        out.append((name, value))
    return out
