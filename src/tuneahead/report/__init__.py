"""An assessment as one HTML file."""

from tuneahead.report.render import render_html, write_html

__all__ = ["render_html", "write_html"]
