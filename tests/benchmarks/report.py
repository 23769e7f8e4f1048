"""A sitting's tables as text."""

from collections.abc import Iterator, Sequence

from tests.benchmarks.tables import APPENDED, OTHERS, SITTING, Row, Tables

LEFT_OUT = {*SITTING, "software", "rounds"}


def report(tables: Tables) -> Iterator[str]:
    """Yield the lines of all tables, and last how the update times compare."""
    for name, rows in tables.items():
        columns = [column for column in APPENDED.get(name, OTHERS) if column not in LEFT_OUT]
        yield from ("", name, *aligned([columns, *([str(row[column]) for column in columns] for row in rows)]))
    ratios = list(compare(tables.get("updates", [])))
    if ratios:
        yield from ("", "update times compared, medians", *ratios)


def aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows of text with columns of equal width."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def compare(updates: Sequence[Row]) -> Iterator[str]:
    """Yield ours as a multiple of TorchRL's update of the same kind, and bfloat16 of float32."""
    ours = {_kind(row): row for row in updates if row["code"] == "dreamtune"}
    for row in updates:
        if row["code"].startswith("torchrl") and _kind(row) in ours:
            yield f"  {_name(row)}: dreamtune / {row['code']} = {_ratio(ours[_kind(row)], row)}"
    for row in ours.values():
        plain = ours.get(_kind(row | {"dtype": "float32"}))
        if row["dtype"] == "bfloat16" and plain:
            yield f"  {_name(row)}: bfloat16 / float32 = {_ratio(row, plain)}"


def _ratio(row: Row, to: Row) -> str:
    """The ratio of the medians, and of the minima, which foreign load moves least."""
    median, least = (float(row[name]) / float(to[name]) for name in ("ms_median", "ms_min"))
    return f"{median:.3f} (minima {least:.3f})"


def _kind(row: Row) -> tuple[str, ...]:
    names = ("device", "hardware", "size", "observation", "batch", "length", "dtype")
    return tuple(str(row[name]) for name in names)


def _name(row: Row) -> str:
    return f"{row['size']} {row['observation']} {row['batch']}x{row['length']} {row['dtype']} on {row['hardware']}"
