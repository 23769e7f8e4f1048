"""Sections to one HTML file that needs no other: styles, script, figures and pictures lie within it."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tuning.reporting.blocks import Section
from tuning.reporting.svg import AGENTS, agent_dash

_HERE = Path(__file__).parent


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> bytes:
    """Return the HTML file: UTF-8, every text escaped, and only the page's own script allowed to run.

    Args:
        title, subtitle: what is reported.
        sections: at least one, in the order of the page; their names are unique.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    page = environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        version=version("dreamtune"),
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8").rstrip()),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        colors=len(AGENTS),
        dash=_dash_array,
    )
    return page.lstrip().encode("utf-8", errors="replace")  # names of folders may hold bytes that are no text


def _dash_array(agent: int) -> str:
    """The agent's dash in SVG's words for a line of 2.6 pixels; empty for a solid one."""
    style = agent_dash(agent)
    return "" if style == "-" else " ".join(f"{2.6 * length:g}" for length in style[1])
