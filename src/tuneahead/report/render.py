"""One self-contained HTML file from an assessment or a checkup."""

from __future__ import annotations

from html import escape
from pathlib import Path

from tuneahead.assessment import Assessment, Checkup
from tuneahead.errors import TuneAheadError
from tuneahead.report.health import HealthView, health_view
from tuneahead.report.page import ReportView
from tuneahead.report.view import report_view
from tuneahead.wholefile import write_whole

FRAME_STYLE = "width: 100%; height: 900px; border: 0"


def render_html(found: Assessment | Checkup) -> str:
    """The report of an assessment or a checkup as HTML: all inline, no script, no outside request."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("tuneahead.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    styles, _, _ = loader.get_source(environment, "report.css")
    view: HealthView | ReportView
    if isinstance(found, Checkup):
        name, view = "checkup.html", health_view(found)
    else:
        name, view = "report.html", report_view(found)
    return environment.get_template(name).render(r=view, css=Markup(styles))


def framed_html(found: Assessment | Checkup) -> str:
    """The same page for a notebook, in a frame: its styles are for it alone."""
    # Half a surrogate, as in a file name that is no UTF-8, would keep the notebook from being saved.
    page = escape(render_html(found).encode("utf-8", "replace").decode())
    return f'<iframe srcdoc="{page}" title="TuneAhead" style="{FRAME_STYLE}"></iframe>'


def write_html(found: Assessment | Checkup, path: str | Path) -> Path:
    """Write the report to ``path``; raises :class:`TuneAheadError` when that can't be done.

    A report that was there is then left as it was.
    """
    target = Path(path)
    # Encoded before the file is opened: half a surrogate, as in a file name that is no UTF-8, has no bytes.
    page = render_html(found).encode("utf-8", "replace")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, page)
    except OSError as error:
        raise TuneAheadError(
            f"can't write the report to {target}: {error.strerror}",
            remedy="give a path in a folder that you can write to, on a disk with room",
        ) from None
    return target
