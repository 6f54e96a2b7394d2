"""One self-contained page: no script, no font, no request."""

from __future__ import annotations

import jinja2

from sparsify.report.tables import Report, headline, notes, tables


def render(report: Report) -> str:
    """The report as one HTML page."""
    # The template stands beside this module, in a wheel too.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparsify.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2")
    return page.render(
        title=report["title"], headline=headline(report), tables=tables(report), notes=notes(report), report=report
    )
