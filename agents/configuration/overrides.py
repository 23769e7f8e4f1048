"""Settings on a command line: `--agent.horizon 20`, any field of a configuration by its path, in YAML.

tyro names the options and writes the help; their values go into the data that the file gave, for the same
checks as the file's own.
"""

import contextlib
import copy
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from pydantic import BaseModel
from tyro.conf import PositionalRequiredArgs
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from agents.configuration.checking import suggestion, validate
from agents.configuration.dotted import is_group, settings
from agents.configuration.fields import RunConfig
from agents.configuration.yaml_files import one_line, parse_yaml
from agents.errors import UserError


@dataclass(frozen=True)
class Present:
    """A setting that the command line leaves as it is."""

    value: Any


@dataclass(frozen=True)
class Given:
    """A setting that the command line gives."""

    value: Any


def parse_overrides(data: Mapping[str, Any], config: RunConfig, tokens: Sequence[str], source: str) -> RunConfig:
    """Return a configuration with a command line's settings in the place of the file's.

    Args:
        data: what the file says.
        config: the same, checked, with defaults.
        tokens: such as `["--agent.horizon", "20"]`.
        source: the file's name, for errors.

    Raises:
        UserError: an unknown setting, or a value that does not fit.
    """
    check_options(tokens, list(settings(config)))
    return apply_overrides(data, parse(RunConfig, tokens, prog="dreamtune", default=config), source)


def parse(target: Callable[..., Any], tokens: Sequence[str], *, prog: str, default: Any = None) -> Any:
    """Build what tyro builds of a command line, every configuration in it as nested `Present` and `Given`.

    Args:
        target: a function, dataclass or configuration.
        tokens: the command line after the command; `--help` prints the help and exits with code 0.
        prog: the command, such as "dreamtune train".
        default: an instance that holds the defaults.

    Raises:
        UserError: the arguments do not fit.
    """
    registry = ConstructorRegistry()
    registry.struct_rule(_settings_rule)
    complaint = io.StringIO()
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                target,
                args=list(tokens),
                prog=prog,
                use_underscores=True,
                config=(PositionalRequiredArgs,),
                registry=registry,
                **defaults,
            )
    except SystemExit as ending:
        if ending.code in (0, None):
            raise
        # tyro tells it in a box of several lines: keep the words.
        words = " ".join(re.sub(r"[\u2500-\u257f]+|\x1b\[[0-9;]*m", " ", complaint.getvalue()).split())
        raise UserError(f"command line: {words}") from ending


def _settings_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not (isinstance(info.type, type) and issubclass(info.type, BaseModel)):
        return None
    model: BaseModel = info.default
    present = model.model_dump(mode="json")
    fields = []
    for name, field in type(model).model_fields.items():
        if is_group(model, name):
            value = getattr(model, name)
            fields.append(StructFieldSpec(name=name, type=type(value), default=value, helptext=field.description))
        else:
            annotation: Any = Annotated[Any, _yaml_values(name, field.annotation)]
            default = Present(present[name])
            fields.append(StructFieldSpec(name=name, type=annotation, default=default, helptext=field.description))
    return StructConstructorSpec(instantiate=dict, fields=tuple(fields))


def _yaml_values(name: str, annotation: Any) -> PrimitiveConstructorSpec[Any]:
    """Return how tyro reads one setting: as a YAML value, or as several, which make a list."""

    def read(tokens: list[str]) -> Given:
        values = [parse_yaml(token, f"command line: --{name}") for token in tokens]
        scalar = len(values) == 1 and not (_is_list(annotation) and not isinstance(values[0], list | None))
        return Given(values[0] if scalar else values)

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=_kind(annotation),
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda present: [_shortened(one_line(present.value))],  # for the help
    )


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(option) in (tuple, list) for option in _options(annotation))


def _kind(annotation: Any) -> str:
    names = {
        int: "INT",
        float: "FLOAT",
        str: "STR",
        bool: "BOOL",
        type(None): "null",
        tuple: "LIST",
        list: "LIST",
    }
    kinds = []
    for option in _options(annotation):
        option = get_args(option)[0] if get_origin(option) is Annotated else option
        if get_origin(option) is Literal:
            kinds.append("{" + ",".join(map(str, get_args(option))) + "}")
        else:
            kinds.append(names.get(get_origin(option) or option, "YAML"))
    return "|".join(kinds)


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def check_options(tokens: Sequence[str], options: Sequence[str]) -> None:
    """Check the names of all options on a command line.

    Args:
        tokens: the command line.
        options: the valid names, without dashes.

    Raises:
        UserError: the first unknown option, with the most similar valid one.
    """
    for token in tokens:
        if not token.startswith("--"):
            continue
        name = token[2:].split("=")[0].replace("-", "_")
        if name in (*options, "help"):
            continue
        last = name.rsplit(".", 1)[-1]
        same_ending = [option for option in options if option.rsplit(".", 1)[-1] == last]
        hint = f" (did you mean '--{same_ending[0]}'?)" if same_ending else suggestion(name, options, "--")
        raise UserError(f"command line: unknown option '--{name}'{hint}; --help lists all options")


def apply_overrides(data: Mapping[str, Any], parsed: Mapping[str, Any], source: str) -> RunConfig:
    """Return the checked configuration of a file's data with the given settings in their places.

    Args:
        data: what the file says.
        parsed: nested dicts of `Present` and `Given`, from `parse`.
        source: the file's name, for errors.

    Raises:
        UserError: a value that does not fit.
    """
    given = dict(_given(parsed))
    return validate(merged(data, given), source, overridden=list(given))


def merged(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a file's data with settings, by their dotted paths, in their places."""
    copied = copy.deepcopy(dict(data))
    for path, value in given.items():
        *groups, name = path.split(".")
        group = copied
        for part in groups:
            if not isinstance(group.get(part), dict):
                group[part] = {}
            group = group[part]
        group[name] = value
    return copied


def _given(parsed: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    given: list[tuple[str, Any]] = []
    for name, value in parsed.items():
        if isinstance(value, Given):
            given.append((prefix + name, value.value))
        elif not isinstance(value, Present):
            given += _given(value, f"{prefix}{name}.")
    return given
