"""Matplotlib figures as inline SVG that follows the page: its font, and its colors in light and dark.

Colors that the page decides are drawn as the placeholders below, which become CSS variables of ``report.css``.
"""

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER, MISSING = "#010203", "#020304", "#030405", "#040506", "#050607"
# Agents beyond these share a color, not a dash.
AGENTS = ("#0072b2", "#d55e00", "#009e73", "#b5558e", "#a87400", "#5b6770", "#8a5a2b", "#3a5bc7")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)), (0, (8, 3)))
PLACEHOLDERS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)"} | {
    color: f"var(--agent-{index})" for index, color in enumerate(AGENTS)
}
_URLS = {MISSING: "url(#missing)"}  # a hatching that the page defines once

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of agents may hold dollar signs
    "font.size": 12.0,
    "axes.titlesize": 12.5,
    "axes.labelsize": 12.0,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def difference_color(share: float) -> str:
    """The placeholder of a difference's color.

    Args:
        share: in [-1, 1]; 0 is no difference, 1 the most of more, -1 the most of less.
    """
    return f"#fe{'0' if share < 0 else '1'}0{round(100 * min(abs(share), 1)):02x}"


def agent_color(index: int) -> str:
    """The placeholder of an agent's color."""
    return AGENTS[index % len(AGENTS)]


def agent_dash(index: int) -> Any:
    """The line style of an agent: a second sign beside the color."""
    return DASHES[index % len(DASHES)]


@contextmanager
def report_style() -> Iterator[None]:
    """Figures are made and converted within it."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the letters that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in CSS pixels, at which its text is as large as the page's small print."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def inline_svg(figure: "Figure", name: str, description: str, tips: Mapping[str, str] | None = None) -> Markup:
    """Return the figure as an SVG element: equal figures give equal text.

    Args:
        figure: made by `new_figure` within `report_style`, as this call must be too.
        name: unique on the page; the element's ids begin with it.
        description: what is seen, for those who do not see it.
        tips: texts shown at artists of these gids, which must be unique.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    width, height = (72 * inches for inches in figure.get_size_inches())
    body = text.getvalue().split("<svg", 1)[1].split(">", 1)[1]
    for noise in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r"<defs>\s*</defs>"):
        body = re.sub(noise, "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _convert(tag[0], name), body)
    for gid, tip in (tips or {}).items():
        opening = f'<g id="{name}-{gid}">'
        body = body.replace(opening, f"<g><title>{html.escape(tip)}</title>", 1)
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {1.25 * width:g}px" role="img" '
        f'aria-label="{html.escape(description)}">'
    )
    return Markup(opening + re.sub(r"\n\s*", "\n", body))


def _convert(tag: str, name: str) -> str:
    """One tag of Matplotlib's SVG with the page's colors, font and ids, and no more digits than can be seen."""
    for color, variable in PLACEHOLDERS.items():
        tag = tag.replace(color, variable)
    tag = re.sub(r"#fe([01])0([0-9a-f]{2})", _mix, tag)
    for color, url in _URLS.items():
        tag = tag.replace(color, url)
    tag = re.sub(r"(font: [\d.]+px |font-family: )[^;\"]*", r"\1var(--font)", tag)  # as versions of Matplotlib write it
    tag = re.sub(r'(?<= id=")', f"{name}-", tag)
    tag = re.sub(r"(?<=url\(#)(?!missing\))", f"{name}-", tag)
    tag = re.sub(r'(?<=href="#)', f"{name}-", tag)
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)


def _mix(color: re.Match[str]) -> str:
    """The color of a `difference_color`: between that of no difference and that of the most."""
    return f"color-mix(in oklab, var(--{('less', 'more')[int(color[1])]}) {int(color[2], 16)}%, var(--equal))"
