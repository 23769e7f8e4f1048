"""From a command line to a call: options by tyro, all of them checked. How a call ends: `agents.exit_codes`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from agents.configuration import RunConfig, check_contexts, check_drawing, find_config, read_yaml, settings, validate
from agents.configuration.overrides import apply_overrides, check_options, parse
from agents.errors import UserError
from agents.run_folder import RunFolder


def bind(function: Callable[..., object], tokens: Sequence[str], *, prog: str) -> Callable[[], object]:
    """Return the call of a function with the arguments of a command line, all of them checked.

    Required parameters are positional arguments, the others options; their help is the function's docstring.

    Args:
        function: what shall be called, its parameters annotated.
        tokens: the command line after the command.
        prog: the command, such as "dreamtune dream".

    Raises:
        UserError: the arguments do not fit.
    """

    @functools.wraps(function)
    def capture(*positional: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return positional, named

    check_options(tokens, list(inspect.signature(function).parameters))
    positional, named = parse(capture, tokens, prog=prog)
    return functools.partial(function, *positional, **named)


@dataclass(frozen=True)
class TrainArguments:
    """Train an agent; the same command again, or --resume, goes on where it stopped."""

    config: Annotated[Positional[str | None], arg(metavar="NAME|FILE")]
    """A name such as cartpole (configs/cartpole.yaml here, else the shipped one), or a YAML file."""
    run: Annotated[Path | None, arg(metavar="FOLDER")]
    """The run folder; null: runs/<name>."""
    resume: Annotated[Path | None, arg(metavar="FOLDER")]
    """Go on in this run folder; without NAME or FILE, with the configuration it was begun with."""
    settings: Annotated[RunConfig, arg(name="")]
    """Any field of the configuration by its path, its value as in YAML."""


def parse_train(tokens: Sequence[str]) -> tuple[RunConfig, Path]:
    """Return what `dreamtune train` shall do: the configuration and the run folder.

    Args:
        tokens: `[NAME or FILE] [--run FOLDER] [--resume FOLDER] [--any.setting value ...]`.

    Raises:
        UserError: any mistake in the command line, the file or the run folder.
    """
    name = tokens[0] if tokens and not tokens[0].startswith("-") else None
    resume = _option(tokens, "--resume")
    help_wanted = "--help" in tokens or "-h" in tokens
    if resume is not None:
        RunFolder.open(resume)
    if name is not None:
        path = find_config(name)
    elif resume is not None:
        path = RunFolder(resume).config_file
    elif help_wanted:
        path = None
    else:
        raise UserError("command line: name a configuration first, such as `dreamtune train cartpole`, or use --resume")
    data = {} if path is None else read_yaml(path)
    config = validate(data, str(path))
    check_options(tokens, [*settings(config), "run", "resume"])
    default = TrainArguments(config=name, run=None, resume=None, settings=config)
    # tyro leaves a positional argument that is given out of the help.
    tokens = tokens[1:] if help_wanted and name is not None else tokens
    arguments: TrainArguments = parse(TrainArguments, tokens, prog="dreamtune train", default=default)
    if arguments.run is not None and arguments.resume is not None:
        raise UserError("command line: --run and --resume both name the run folder; give one of them")
    given: Any = arguments.settings
    config = apply_overrides(data, given, str(path))
    check_contexts(config, str(path))
    return config, arguments.resume or arguments.run or Path("runs") / config.name


def train_command(tokens: Sequence[str]) -> None:
    """`dreamtune train`: see `parse_train` for the arguments."""
    config, folder = parse_train(tokens)
    check_drawing(config)
    from agents.train import train

    try:
        train(config, folder)
    except KeyboardInterrupt as interrupt:
        saved = any(RunFolder(folder).checkpoints.glob("step-*"))
        interrupt.add_note(
            "give the same command again to go on from the last checkpoint"
            if saved
            else "no checkpoint was saved yet: the same command begins anew"
        )
        raise


def evaluate_command(tokens: Sequence[str]) -> None:
    """`dreamtune evaluate`: the arguments are those of `agents.evaluate.evaluate`."""
    from agents.evaluate import evaluate

    bind(evaluate, tokens, prog="dreamtune evaluate")()


def grid_command(tokens: Sequence[str]) -> None:
    """`dreamtune grid`: the arguments are those of `agents.grid.grid`."""
    from agents.grid import grid

    bind(grid, tokens, prog="dreamtune grid")()


def dream_command(tokens: Sequence[str]) -> None:
    """`dreamtune dream`: the arguments are those of `agents.dream.dream`."""
    from agents.dream import dream

    bind(dream, tokens, prog="dreamtune dream")()


def latents_command(tokens: Sequence[str]) -> None:
    """`dreamtune latents`: the arguments are those of `agents.latents.latents`."""
    from agents.latents import latents

    bind(latents, tokens, prog="dreamtune latents")()


def counterfactual_command(tokens: Sequence[str]) -> None:
    """`dreamtune counterfactual`: the arguments are those of `agents.counterfactual.counterfactual`."""
    from agents.counterfactual import counterfactual

    bind(counterfactual, tokens, prog="dreamtune counterfactual")()


def compare_command(tokens: Sequence[str]) -> None:
    """`dreamtune compare`: the arguments are those of `agents.compare.compare`."""
    from agents.compare import compare

    bind(compare, tokens, prog="dreamtune compare")()


def references_command(tokens: Sequence[str]) -> None:
    """`dreamtune references`: the arguments are those of `agents.references.references`."""
    from agents.references import references

    bind(references, tokens, prog="dreamtune references")()


def curve_command(tokens: Sequence[str]) -> None:
    """`dreamtune curve`: the arguments are those of `agents.curve.curve`."""
    from agents.curve import curve

    bind(curve, tokens, prog="dreamtune curve")()


def _option(tokens: Sequence[str], option: str) -> str | None:
    for index, token in enumerate(tokens):
        if token == option and index + 1 < len(tokens):
            return tokens[index + 1]
        if token.startswith(option + "="):
            return token.split("=", 1)[1]
    return None
