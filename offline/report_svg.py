"""How figures of the report look, and how a figure becomes SVG: the same figure gives the same bytes, everywhere.

matplotlib is used through figures alone, never through pyplot, which would keep state between reports. Text stays text,
so that it can be searched and takes the reader's font; data never becomes markup (matplotlib escapes it) nor
mathematics (which a dollar sign in a name would ask for).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = [
    "ARCHETYPE_COLORS",
    "BLUE",
    "GREEN",
    "GREY",
    "GRID",
    "GROUND",
    "INK",
    "MARGIN_PX",
    "MUTED",
    "ORANGE",
    "PANEL",
    "PURPLE",
    "SKY",
    "VERMILION",
    "archetype_color",
    "archetype_ink",
    "as_label",
    "drawing",
    "inline_svg",
    "new_figure",
    "standalone_svg",
    "tidy",
]

# Okabe and Ito's palette, which the colour-blind can tell apart: https://jfly.uni-koeln.de/color/
BLUE: Final = "#0072b2"
SKY: Final = "#56b4e9"
GREEN: Final = "#009e73"
ORANGE: Final = "#e69f00"
VERMILION: Final = "#d55e00"
PURPLE: Final = "#cc79a7"
GREY: Final = "#8c939c"
ARCHETYPE_COLORS: Final = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#6a51a3", "#7f6a00")

# Those of text, lines and ground, and blue, follow the page into dark mode: nothing else may have just these values.
INK: Final = "#1f2a37"
MUTED: Final = "#5b6573"
GRID: Final = "#e3e7ec"
GROUND: Final = "#fefefe"
PANEL: Final = "#f5f7f9"
_VARIABLES: Final = {INK: "--ink", MUTED: "--muted", GRID: "--grid", GROUND: "--card", BLUE: "--blue"}

_FONTS: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stream_fp",
    "text.parse_math": False,
    # Comes with matplotlib, so text is measured alike everywhere; it is wider than the fonts that are shown.
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.solid_capstyle": "round",
    "path.simplify": False,
}
#: Around a picture that stands for itself.
MARGIN_PX: Final = 14
#: What XML 1.0 cannot hold, and what would turn a line of text around.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_TAG: Final = re.compile(r"<[^!?][^>]*>")


def archetype_color(archetype_id: int) -> str:
    """Return the colour of an archetype; they repeat where there are many."""
    return ARCHETYPE_COLORS[archetype_id % len(ARCHETYPE_COLORS)]


def archetype_ink(archetype_id: int) -> str:
    """Return the colour of an archetype, dark enough for text on a light ground and for a ground of white text."""
    red, green, blue = (round(255 * 0.7 * part) for part in to_rgb(archetype_color(archetype_id)))
    return f"#{red:02x}{green:02x}{blue:02x}"


def as_label(text: str, max_length: int = 40) -> str:
    r"""Return text from data in one line that SVG can hold, cut where it is long.

    Examples
    --------
    >>> as_label("calm\nthen\x00 wild")
    'calm then  wild'
    >>> as_label("abcdefgh", 5)
    'abcd…'
    """
    text = _UNPRINTABLE.sub(" ", text)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


@contextmanager
def drawing() -> Iterator[None]:
    """Hold matplotlib to the style of the report while a figure is made and written."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # Text is measured with a font that lacks, say, Chinese; the browser's has it.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def new_figure(width_px: float, height_px: float, *, pad_px: float = 3) -> Figure:
    """Return an empty figure of a size in pixels of a browser, whose parts are laid out not to overlap."""
    layout = ConstrainedLayoutEngine(w_pad=pad_px / 96, h_pad=pad_px / 96)
    return Figure(figsize=(width_px / 96, height_px / 96), dpi=72, facecolor="none", edgecolor="none", layout=layout)


def tidy(axes: Axes, *, grid: str = "y") -> None:
    """Take away what is no information: frame, ticks, and grid lines but those along one axis ("" for none)."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    if grid == "x":
        axes.grid(visible=True, axis="x")
    elif grid == "y":
        axes.grid(visible=True, axis="y")


def inline_svg(figure: Figure, *, name: str, description: str) -> Markup:
    """Return a figure as an ``svg`` element for a page: as wide as there is room, in the page's colours.

    Parameters
    ----------
    figure : Figure
    name : str
        Unique within the page, of letters, digits and hyphens: begins the ids that the element uses.
    description : str
        For those who do not see it. Must not hold what came from data.
    """
    width, height = figure.get_size_inches() * 96

    def rewritten(match: re.Match[str]) -> str:
        tag = re.sub(r'\bid="', f'id="{name}-', match[0])
        tag = re.sub(r'href="#', f'href="#{name}-', tag)
        tag = re.sub(r"url\(#", f"url(#{name}-", tag)
        for color, variable in _VARIABLES.items():
            tag = re.sub(rf"\b(fill|stroke): {color}\b", rf"\1: var({variable})", tag)
        # The page names the font once for all its figures.
        return re.sub(r" font-family: [^;]*;", "", tag)

    body = _svg_body(figure)
    # In a page the style of one figure would be that of all, and of the page.
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    # Text has its angle brackets escaped, so this sees tags alone.
    body = _TAG.sub(rewritten, body)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" role="img" '
        f'aria-label="{description}" viewBox="0 0 {width * 0.75:g} {height * 0.75:g}" '
        f'style="max-width: {width * 1.25:.0f}px">'
    )
    # matplotlib has escaped what is text in it.
    return Markup(f"{opening}\n{body}</svg>")  # noqa: S704


def standalone_svg(figure: Figure, *, title: str) -> str:
    """Return a figure as an SVG document on a light ground, with a margin; `title` must not come from data."""
    width, height = (side * 96 + 2 * MARGIN_PX for side in figure.get_size_inches())
    margin = MARGIN_PX * 0.75
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}" height="{height:g}" viewBox="{-margin:g} {-margin:g} {width * 0.75:g} {height * 0.75:g}" '
        f'role="img">\n<title>{title}</title>\n'
        f'<rect x="{-margin:g}" y="{-margin:g}" width="100%" height="100%" rx="6" fill="{GROUND}"/>\n'
        f"{_svg_body(figure)}</svg>\n"
    )


def _svg_body(figure: Figure) -> str:
    """Return what stands between the ``svg`` tags, without metadata, which would hold addresses and the time."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, count=1, flags=re.DOTALL)
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")].lstrip()
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", body)
    return _TAG.sub(lambda match: match[0].replace("'DejaVu Sans'", _FONTS), body)
