"""How a page is rendered from a template of this package: one HTML document that needs nothing else.

jinja2 escapes whatever is text; only what our own charts and templates wrote passes as it is, and is typed so
(`Markup`).

Invariant: the same values give the same bytes.
"""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from offline.report_svg import as_label

__all__ = ["render_template"]

_MAX_TEXT: Final = 4000


def render_template(template: str, **values: object) -> str:
    """Return what `template` makes of `values`; it ends with a line end."""
    # Made anew each time: a page is rendered once in a process, and nothing is kept between two.
    environment = Environment(
        loader=PackageLoader("offline"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    return page if page.endswith("\n") else page + "\n"


def _printable(value: object) -> object:
    """Take control characters out of text, and the end of what no reader would read to."""
    return as_label(value, _MAX_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value
