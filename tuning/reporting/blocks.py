"""What a section of a report is made of. ``report.html.jinja`` has a macro for each kind; texts are escaped there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph; `Markup` may hold tags."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Heading:
    """The title of what follows within a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Notes:
    """Things to mend or to know, as a list; an item is a text and the commands that mend it, if any does."""

    items: Sequence[tuple[str, Sequence[str]]]
    kind: str = "notes"


@dataclass(frozen=True)
class Facts:
    """Terms and what is to be said of each."""

    items: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown.
        small: shown below it, such as an interval.
        key: what it is sorted by, a number or a text; an empty text comes last.
        agent: the index of an agent whose color is shown before the text, or None.
    """

    text: str
    small: str = ""
    key: float | str = ""
    agent: int | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, an explanation shown on pointing at it, and whether it holds numbers."""

    title: str
    help: str = ""
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted; the first column names the rows."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """An inline SVG with what is above and below it.

    Attributes:
        svg: see `svg.inline_svg`.
        title: above it; may be empty.
        caption: below it; may be empty.
        agent: the index of the agent that the title names, or None.
    """

    svg: Markup
    title: str = ""
    caption: str = ""
    agent: int | None = None
    kind: str = "figure"


@dataclass(frozen=True)
class Grid:
    """Figures or pictures beside one another, as many as there is room for; each at least ``width`` pixels wide."""

    blocks: Sequence["Block"]
    width: int = 360
    kind: str = "grid"


@dataclass(frozen=True)
class Legend:
    """Which color and dash stands for which agent, beside the names of agents that are shown."""

    agents: Sequence[tuple[int, str]]
    kind: str = "legend"


@dataclass(frozen=True)
class Picture:
    """A PNG or GIF file within the page.

    Attributes:
        uri: a data URI.
        size: width and height in pixels.
        alt: what is seen, for those who do not see it.
        caption: above it.
    """

    uri: str
    size: tuple[int, int]
    alt: str
    caption: str
    kind: str = "picture"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown on demand."""

    summary: str
    blocks: Sequence["Block"]
    kind: str = "folded"


Block = Text | Heading | Notes | Facts | Table | Figure | Grid | Legend | Picture | Code | Folded


@dataclass(frozen=True)
class Section:
    """A part of the report with a place in its table of contents; ``name`` is its id on the page."""

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number as text with a true minus; nothing for NaN."""
    if math.isnan(value):
        return ""
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def number_cell(
    value: float, interval: tuple[float, float] | None = None, digits: int = 1, *, sign: bool = False, none: str = ""
) -> Cell:
    """A cell with a number and its interval below it; ``none`` where there is no number or no interval."""
    if math.isnan(value):
        return Cell(none or "–")
    small = ""
    if interval is not None:
        low, high = (number(bound, digits, sign) for bound in interval)
        small = none if math.isnan(interval[0]) else f"{low} to {high}"
    return Cell(number(value, digits, sign), small, value)


def listed(items: Sequence[str], most: int = 6) -> str:
    """Names in a sentence, the rest of a long list as a number."""
    shown = list(items[:most])
    if len(items) > most:
        return ", ".join(shown) + f" and {len(items) - most} more"
    return ", ".join(shown[:-1]) + f" and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
