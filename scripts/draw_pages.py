"""Draw the pages that README.md and docs/check.md show, with a browser that needs no screen.

python scripts/draw_pages.py [--browser chromium]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tuneahead import Goal, Setup, assess, check, read_recipe, write_html
from tuneahead.assessment import Assessment, Checkup, Costs

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Size:
    """A window in pixels: as wide as a screen's text, as high as what shall be seen of the page."""

    width: int
    height: int


# To the end of the reasons, and to the end of two groups of measures.
REPORT, CHECK = Size(1100, 1410), Size(1000, 1529)


def draw(found: Assessment | Checkup, image: Path, size: Size, browser: str) -> None:
    """Write the top of a page as a picture; raises CalledProcessError where the browser fails."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_html(found, Path(folder, "page.html"))
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={size.width},{size.height}",
            f"--screenshot={image}",
        ]
        subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)


def untimed(judged: Assessment) -> Assessment:
    """Without seconds: README gives those of a quiet machine, which the one that draws need not be."""
    return replace(judged, costs=Costs())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default="chromium")
    browser = parser.parse_args().browser
    recipe = read_recipe(EXAMPLES / "recipe.yaml")
    judged = assess(EXAMPLES / "broken.jsonl", recipe, goal=Goal(gain_pp=3))
    draw(untimed(judged), IMAGES / "report.png", REPORT, browser)
    checked = check(EXAMPLES / "checks" / "duplicated.jsonl", bench=Setup(base="lab"))
    draw(checked, IMAGES / "check.png", CHECK, browser)
