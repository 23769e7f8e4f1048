"""Returns by context: what is drawn where one, two, three or no features vary, and where contexts lie on no grid."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tests.tuning.report_runs import make_config, make_run
from tuning.reporting.blocks import Block, Figure, Grid, Heading, Text
from tuning.reporting.collect import collect
from tuning.reporting.maps import Axis, Place, difference_scale, draw_map, is_grid, same_scale
from tuning.reporting.svg import PLACEHOLDERS, difference_color
from tuning.reporting.worlds import field_of, world_blocks

Contexts = Sequence[Mapping[str, float]]


def blocks_of(folder: Path, regions: Mapping[str, Contexts]) -> list[Block]:
    """What is shown of two agents with two seeds each, whose returns differ by 5."""
    features = list(next(iter(regions.values()))[0])
    for place, label in enumerate(("first", "second")):
        for seed in (0, 1):
            config = make_config(
                seed,
                regions={},
                environment={"name": "cartpole", "features": features},
                contexts={
                    "training": {"distribution": "round_robin", "ranges": {features[0]: [4.9, 14.7]}, "count": 4}
                },
            )
            make_run(
                folder / label / f"seed{seed}",
                config,
                returns=lambda context, place=place, seed=seed: 100 + sum(context.values()) + 5 * place + seed,
                regions=regions,
            )
    collected = collect([folder])
    return world_blocks(collected, collected.agents[0])


def headings(blocks: Sequence[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def drawn(blocks: Sequence[Block]) -> list[str]:
    """All figures of some blocks."""
    inner = [block for grid in blocks if isinstance(grid, Grid) for block in grid.blocks]
    return [str(block.svg) for block in (*blocks, *inner) if isinstance(block, Figure)]


def test_one_feature_is_a_line_with_its_interval(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, {"all": [{"gravity": value} for value in (2.0, 9.8, 15.0)]})
    assert headings(blocks) == ["Mean return by gravity"]
    (figure,) = drawn(blocks)
    assert "gravity (m/s²)" in figure and "var(--agent-0)" in figure and "var(--agent-1)" in figure
    told = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert "The training range of first is shaded." in told


def test_three_features_are_pairs(tmp_path: Path) -> None:
    contexts = [
        {"gravity": gravity, "length": length, "masscart": mass}
        for gravity in (5.0, 10.0)
        for length in (0.4, 0.6)
        for mass in (0.5, 1.0)
    ]
    blocks = blocks_of(tmp_path, {"all": contexts})
    pairs = ["gravity and length", "gravity and masscart", "length and masscart"]
    assert headings(blocks) == [
        words for pair in pairs for words in (f"Mean return by {pair}", f"Difference to first by {pair}")
    ]
    field = field_of(collect([tmp_path]).scores, "second", ("gravity", "length"))
    # The mean over masses 0.5 and 1; the second agent returns 5 more, and a seed its number.
    assert field[5.0, 0.4] == pytest.approx({0: 105 + 5.4 + 0.75, 1: 106 + 5.4 + 0.75})


def test_nothing_is_drawn_of_a_single_context(tmp_path: Path) -> None:
    assert blocks_of(tmp_path, {"all": [{"gravity": 9.8}]}) == []


def test_contexts_on_no_grid_are_dots_at_their_place(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform([5.0, 0.3], [14.0, 0.8], (60, 2))
    blocks = blocks_of(tmp_path, {"training": [{"gravity": x, "length": y} for x, y in values]})
    maps = drawn(blocks)
    assert sum(svg.count("<title>gravity ") for svg in maps) == 3 * 60
    assert not any("url(#missing)" in svg for svg in maps)
    assert not any("Hatched" in block.text for block in blocks if isinstance(block, Text))


def test_the_training_contexts_are_not_among_the_fields_of_a_grid(tmp_path: Path) -> None:
    grid = [{"gravity": x, "length": y} for x in (2.0, 9.8) for y in (0.2, 0.5)]
    blocks = blocks_of(tmp_path, {"all": grid, "training": [{"gravity": 5.5, "length": 0.45}]})
    assert sum(svg.count("<title>gravity ") for svg in drawn(blocks)) == 3 * 4


def rectangles(svg: str) -> list[np.ndarray]:
    """Corners of the unfilled paths, which are outlines."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--ink\)', svg)
    return [np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2) for path in paths]


@pytest.mark.parametrize(
    ("trained", "columns"), [((4.9, 14.7), (1, 3)), ((9.8, 9.8), (2, 2)), ((5.0, 14.0), (2, 2)), ((30.0, 40.0), None)]
)
def test_the_outline_holds_the_values_of_training(
    trained: tuple[float, float], columns: tuple[int, int] | None
) -> None:
    xs, ys = (2.0, 4.9, 9.8, 14.7, 19.6), (0.2, 0.5)
    places = [Place(x, y, x + y, f"{x} {y}") for x in xs for y in ys]
    x, y = Axis("gravity", xs, trained), Axis("length", ys, (0.4, 0.6))
    svg = str(draw_map(places, x, y, same_scale([place.mean for place in places], "return"), "map", "fields"))
    outlines = rectangles(svg)
    if columns is None:
        assert outlines == []
        return
    cells = [
        np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
        for path in re.findall(r'<g><title>[^<]*</title>\s*<path d="([^"]*)"', svg)
    ]
    assert len(cells) == 10
    width = cells[0][:, 0].max() - cells[0][:, 0].min()
    left = min(cell[:, 0].min() for cell in cells)
    (outline,) = outlines
    assert outline[:, 0].min() == pytest.approx(left + columns[0] * width, abs=0.1)
    assert outline[:, 0].max() == pytest.approx(left + (columns[1] + 1) * width, abs=0.1)
    assert outline[:, 1].max() - outline[:, 1].min() == pytest.approx(width, abs=0.1)  # the row of 0.5


def test_maps_share_a_scale_and_differences_are_symmetric() -> None:
    scale = same_scale([3.0, 9.0, 5.0], "return")
    assert (scale.low, scale.high) == (3.0, 9.0) and scale.color(1.0) == matplotlib.colormaps["viridis"](1.0)
    scale = difference_scale([-2.0, 7.0], "difference")
    assert (scale.low, scale.high) == (-7.0, 7.0)
    assert scale.color(0.5) == difference_color(0.0)
    axes = [Axis("x", (1.0, 2.0), None), Axis("y", (1.0,), None)]
    svg = str(draw_map([Place(1, 1, -7, "a"), Place(2, 1, 3.5, "b")], *axes, scale, "map", "two"))
    assert "color-mix(in oklab, var(--less) 100%, var(--equal))" in svg
    assert "color-mix(in oklab, var(--more) 50%, var(--equal))" in svg


def test_placeholders_are_no_colors_of_the_maps() -> None:
    colors = {matplotlib.colors.to_hex(color) for color in matplotlib.colormaps["viridis"](np.arange(256))}
    placeholders = {*PLACEHOLDERS, *(difference_color(share) for share in np.linspace(-1, 1, 201))}
    assert not colors & placeholders


def test_what_is_a_grid() -> None:
    axis = Axis("x", tuple(range(15)), None)
    assert is_grid(axis, Axis("y", tuple(range(14)), None), 84)  # the published protocol
    many = Axis("y", tuple(range(100)), None)
    assert not is_grid(many, many, 100)
