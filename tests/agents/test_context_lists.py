"""Lists of contexts: every mistake is one line that names file, key and what would be valid."""

from pathlib import Path

import pytest

from agents.configuration import load_config
from agents.errors import UserError

DOUBLE = "{distribution: round_robin, ranges: {gravity: [4.9, 14.7], length: [0.35, 0.75]}}"
SINGLE = "{distribution: round_robin, ranges: {gravity: [4.9, 14.7]}}"
LISTED = "{distribution: fixed, contexts: [{gravity: 5}, {gravity: 9}, {gravity: 7}]}"
DEFAULT = "{distribution: default}"
#: What `dreamtune train cartpole` is told for an agent that is trained in the default context only.
AS_DEFAULT = ["--contexts.training.distribution", "default", "--contexts.training.ranges", "{}"]


def write(folder: Path, training: str, region: str, contexts: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(f"contexts: {{training: {training}, evaluation: {{regions: {{{region}: {contexts}}}}}}}\n")
    return str(path)


@pytest.mark.parametrize(
    ("training", "region", "contexts"),
    [
        # Both ends of a training range are inside it.
        (DOUBLE, "interpolation", "[{gravity: [4.9, 14.7], length: [0.35, 0.75]}]"),
        (DOUBLE, "extrapolation", "[{gravity: [4.89, 14.71], length: [0.34, 0.76]}]"),
        (DOUBLE, "one_factor", "[{gravity: 4.89, length: 0.75}, {gravity: 14.7, length: 0.76}]"),
        (DOUBLE, "one_factor", "[{length: 0.76}]"),  # gravity is left out of the list: its default, inside
        # A feature that never varies in training has no range to be in or out of.
        (SINGLE, "interpolation", "[{gravity: 9.8, length: [0.1, 0.5]}]"),
        (SINGLE, "extrapolation", "[{gravity: 2, length: [0.1, 0.5]}]"),
        (SINGLE, "one_factor", "[{gravity: 2, length: [0.1, 0.5, 0.7]}, {gravity: 9.8, length: 0.1}]"),
        (DEFAULT, "interpolation", "[{gravity: [4.9, 9.8], length: 0.5}]"),
        (DEFAULT, "extrapolation", "[{gravity: 2, length: 0.1}]"),
        (DEFAULT, "one_factor", "[{gravity: 9.8, length: 0.1}]"),
        # A list of training contexts ranges from its lowest to its highest value.
        (LISTED, "interpolation", "[{gravity: [5, 6, 9]}]"),
        (LISTED, "extrapolation", "[{gravity: [4.9, 9.8]}]"),
        (DOUBLE, "elsewhere", "[{gravity: [4.9, 19.6], length: [0.5, 1]}]"),  # this name claims nothing
    ],
)
def test_regions_that_are_what_they_say(training: str, region: str, contexts: str, tmp_path: Path) -> None:
    load_config(write(tmp_path, training, region, contexts))


@pytest.mark.parametrize(
    ("training", "region", "contexts", "told"),
    [
        (
            DOUBLE,
            "interpolation",
            "[{gravity: 9.8, length: 0.5}, {gravity: 9.8, length: 0.8}]",
            "{gravity: 9.8, length: 0.8} does not belong here: gravity is inside [4.9, 14.7], length is outside "
            "[0.35, 0.75]; in interpolation every feature that varies in training must be inside its range; move",
        ),
        (
            DOUBLE,
            "extrapolation",
            "[{gravity: 2, length: 0.35}]",
            "{gravity: 2, length: 0.35} does not belong here: length is inside [0.35, 0.75], gravity is outside",
        ),
        (DOUBLE, "extrapolation", "[{gravity: 2}]", "{gravity: 2} does not belong here: length is inside"),
        (DOUBLE, "one_factor", "[{gravity: 2, length: 0.1}]", "in one_factor exactly one feature must be outside"),
        (DOUBLE, "one_factor", "[{gravity: 9, length: 0.5}]", "in one_factor exactly one feature must be outside"),
        (SINGLE, "interpolation", "[{gravity: 2, length: 0.5}]", "gravity is outside [4.9, 14.7]"),
        (SINGLE, "extrapolation", "[{gravity: 9.8, length: 0.1}]", "gravity is inside [4.9, 14.7]"),
        (SINGLE, "one_factor", "[{gravity: 9, length: 0.5}]", "gravity is inside [4.9, 14.7]"),
        (LISTED, "extrapolation", "[{gravity: 6}]", "gravity is inside [5, 9]"),
        (DEFAULT, "extrapolation", "[{gravity: 9.8, length: 0.5}]", "does not belong here: it is the training context"),
        (DEFAULT, "one_factor", "[{}]", "{} does not belong here: it is the training context"),
        (
            DOUBLE,
            "here",
            "[{gravity: 9, length: 0.5}, {gravity: 10}]",
            "the context {gravity: 10} lacks length, which others of this list name; give it in all of them "
            "(its default is 0.5) or in none",
        ),
        (DOUBLE, "here", "[{}, {gravity: 10}]", "the context {} lacks gravity"),
        (DOUBLE, "here", "[{gravity: .nan, length: 1}]", "here.0.gravity: must be a finite number, got NaN"),
        (DOUBLE, "here", "[{gravity: [9, -.inf]}]", "here.1.gravity: must be a finite number, got -Infinity"),
        (DOUBLE, "here", "[{gravity: 9, length: 5.1}]", "here: length must be from 0.05 to 5 m, got 5.1"),
    ],
)
def test_contexts_that_are_not_what_they_should_be(
    training: str, region: str, contexts: str, told: str, tmp_path: Path
) -> None:
    path = write(tmp_path, training, region, contexts)
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: contexts.evaluation.regions.{region}") and "\n" not in message
    assert told in message


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            "{distribution: fixed, contexts: [{gravity: 5, length: 1}, {length: 1}]}",
            "contexts.training.contexts: the context {length: 1} lacks gravity",
        ),
        (
            "{distribution: fixed, contexts: [{gravity: .nan}]}",
            "contexts.training.contexts.0.gravity: must be a finite",
        ),
        (
            "{distribution: uniform, ranges: {gravity: [1, .inf]}}",
            "contexts.training.ranges.gravity.1: must be a finite",
        ),
        (
            "{distribution: uniform, ranges: {gravity: [0, 1]}}",
            "contexts.training.ranges: gravity must be from 0.1 to 100 m/s^2, got 0",
        ),
    ],
)
def test_training_contexts_that_are_not_what_they_should_be(training: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, training, "here", "[{}]"))
    message = str(caught.value)
    assert f"{tmp_path}/mine.yaml: {told}" in message and "\n" not in message


@pytest.mark.parametrize("name", ["cartpole", "smoke", "dmc_walker_walk"])
def test_agents_trained_in_the_default_context_may_be_judged_in_the_same_regions(name: str) -> None:
    config = load_config(name, AS_DEFAULT)
    assert config.contexts.evaluation == load_config(name).contexts.evaluation
