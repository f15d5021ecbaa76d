"""One self-contained HTML file from an assessment."""

from __future__ import annotations

from pathlib import Path

from tuneahead.assessment import Assessment
from tuneahead.errors import TuneAheadError
from tuneahead.report.view import report_view


def render_html(assessment: Assessment) -> str:
    """The report as HTML text: styles and drawings inline, no script, no outside request."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("tuneahead.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    styles, _, _ = loader.get_source(environment, "report.css")
    return environment.get_template("report.html").render(r=report_view(assessment), css=Markup(styles))


def write_html(assessment: Assessment, path: str | Path) -> Path:
    """Write the report to ``path``; raises :class:`TuneAheadError` when that can't be done."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render_html(assessment), encoding="utf-8")
    except OSError as error:
        raise TuneAheadError(
            f"can't write the report to {target}: {error.strerror}",
            remedy="give a path in a folder you can write to",
        ) from None
    return target
