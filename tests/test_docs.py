"""The pages: links lead somewhere, and commands that are shown have the options they are shown with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from tuneahead.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith("http"):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands() -> dict[str, set[str]]:
    """The options of every command, by what follows ``tuneahead``."""
    top: Any = typer.main.get_command(app)
    under = top.commands["runs"].commands
    every = {**top.commands, **{f"runs {name}": command for name, command in under.items()}}
    return {
        name: {option for one in command.params for option in one.opts} for name, command in every.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_has_the_options_it_shows(page: Path) -> None:
    known = commands()
    for name, rest in re.findall(
        r"\btuneahead ((?:runs )?[a-z]+)([^`\n#|]*)", page.read_text(encoding="utf-8")
    ):
        if name in known:
            given = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest)
            assert not set(given) - known[name] - {"--help"}, f"{name}{rest}"
