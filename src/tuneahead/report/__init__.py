"""An assessment as one HTML file."""

from tuneahead.report.render import framed_html, render_html, write_html

__all__ = ["framed_html", "render_html", "write_html"]
