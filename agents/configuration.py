"""Reading, overriding, checking and saving a run's configuration; every mistake is one `UserError` line."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agents.errors import UserError
from agents.files import atomic_write
from agents.run_config import (
    ContextsConfig,
    EnvironmentConfig,
    EvaluationConfig,
    EvaluationContextsConfig,
    ReplayConfig,
    RunConfig,
    Settings,
    TrainingConfig,
    TrainingContextsConfig,
)

__all__ = [
    "ContextsConfig",
    "EnvironmentConfig",
    "EvaluationConfig",
    "EvaluationContextsConfig",
    "ReplayConfig",
    "RunConfig",
    "Settings",
    "TrainingConfig",
    "TrainingContextsConfig",
    "check_contexts",
    "differences",
    "find_config",
    "is_group",
    "load_config",
    "one_line",
    "parse_yaml",
    "read_yaml",
    "save_config",
    "settings",
    "shipped_configs",
    "suggestion",
    "validate",
]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with 1e-4 a number as in YAML 1.2, and a key given twice refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=mark)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, source: str) -> Any:
    """Return the data of a YAML text; raise `UserError` naming `source` and the line if it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}, line {mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or "unreadable"
        raise UserError(f"{place}: not valid YAML ({problem}); correct that line") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that the YAML file holds; raise `UserError` if it cannot be read or holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; name a YAML configuration") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a readable YAML configuration") from error
    data = parse_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, such as `seed: 0`")
    return data


def shipped_configs() -> Path:
    """Return the folder of the configurations that come with the installation (or with the repository)."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(name_or_path: str) -> Path:
    """Return the file meant: a path means itself, a name `configs/<name>.yaml` here, else the shipped one.

    Raises:
        UserError: there is no such file.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; name a YAML configuration, or one of: {', '.join(_names())}")
        return path
    for folder in (Path("configs"), shipped_configs()):
        path = folder / f"{name_or_path}.yaml"
        if path.is_file():
            return path
    hint = suggestion(name_or_path, _names())
    raise UserError(
        f"no configuration named {name_or_path!r}{hint}; name a YAML file, or one of: {', '.join(_names())}"
    )


def _names() -> list[str]:
    return sorted({path.stem for folder in (Path("configs"), shipped_configs()) for path in folder.glob("*.yaml")})


def suggestion(word: str, words: Sequence[str], prefix: str = "") -> str:
    """Return ' (did you mean ...?)' with the most similar of the words, or '' where none is similar."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean '{prefix}{close[0]}'?)" if close else ""


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of that name or path, with the overrides of a command line.

    Args:
        name_or_path: see `find_config`.
        overrides: such as `["--agent.horizon", "20"]`, any field by its path, its value written as in YAML.

    Raises:
        UserError: naming file (or "command line"), key and what would be valid.
    """
    from agents.overrides import parse_overrides

    path = find_config(name_or_path)
    data = read_yaml(path)
    config = validate(data, str(path))
    if overrides:
        config = parse_overrides(data, config, overrides, str(path))
    check_contexts(config, str(path))
    return config


def validate(data: Mapping[str, Any], source: str, overridden: Sequence[str] = ()) -> RunConfig:
    """Return the data as a checked configuration.

    Args:
        data: as read from YAML.
        source: what an error names as the origin of a key.
        overridden: the dotted keys that came from the command line, which errors then name as the origin.

    Raises:
        UserError: for the first wrong key, with what would be valid.
    """
    try:
        # Through JSON because pydantic's strict mode then takes lists for tuples and whole numbers for
        # floats, and nothing else for anything: no "8" for 8, no true for 1.
        return RunConfig.model_validate_json(json.dumps(_whole(data), default=str), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise UserError(_describe(_first(errors), source, overridden)) from error


def _first(errors: list[ErrorDetails]) -> ErrorDetails:
    """Return the first error; where a field may be of several kinds, the one for the kind that was meant."""
    first = errors[0]
    if not isinstance(first["input"], dict):
        return first
    field = first["loc"][:-1]
    return max((error for error in errors if error["loc"][: len(field)] == field), key=lambda e: len(e["loc"]))


def _whole(data: Any) -> Any:
    """Replace whole floats such as 1e6 by integers, which are valid for both kinds of fields."""
    if isinstance(data, Mapping):
        return {str(key): _whole(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_whole(value) for value in data]
    if isinstance(data, float) and data.is_integer() and abs(data) < 2**53:
        return int(data)
    return data


# What pydantic says, in the words of YAML.
_WORDS = [
    ("^Input should be a valid array", "must be a list"),
    ("^Input should be (an object|a valid dictionary)", "must be a mapping of keys to values"),
    ("^Input should be a valid integer", "must be an integer"),
    ("^Input should be a valid", "must be a"),
    ("^Input should", "must"),
    ("^Field required", "must be given"),
]


def _describe(error: ErrorDetails, source: str, overridden: Sequence[str]) -> str:
    parts, model, description = _locate(error["loc"])
    key = ".".join(parts)
    if any(key == given or key.startswith(given + ".") for given in overridden):
        source = "command line"
    if error["type"] == "extra_forbidden" and model is not None:
        valid = list(model.model_fields)
        return f"{source}: unknown key {key!r}{suggestion(parts[-1], valid)}; valid here: {', '.join(valid)}"
    message = error["msg"].removeprefix("Value error, ")
    for words, better in _WORDS:
        message = re.sub(words, better, message)
    place = f"{source}: {key}" if key else source
    value = error["input"]
    shown = "" if isinstance(value, dict | list) else f", got {json.dumps(value, default=str)}"
    meaning = f" ({description.split('. ')[0].rstrip('.')})" if description and model is None else ""
    return f"{place}: {message}{shown}{meaning}"


def _locate(loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None, str | None]:
    """Return what pydantic's location means: the keys, the group that holds the last one, its description.

    The group is None where the last key is a setting; pydantic's names for kinds of a setting are left out.
    """
    keys: list[str] = []
    model: type[BaseModel] | None = RunConfig
    kinds: dict[str, type[BaseModel]] = {}
    description = None
    for part in map(str, loc):
        if model is not None:
            keys.append(part)
            field = model.model_fields.get(part)
            if field is None:
                break
            annotation: Any = field.annotation
            options = [annotation, *get_args(annotation)]
            kinds = {kind.__name__: kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)}
            model = annotation if annotation in kinds.values() else None
            description = field.description
        elif part in kinds:
            model = kinds[part]
        elif "[" not in part:
            keys.append(part)
    return keys, model, description


def save_config(config: RunConfig, path: Path) -> None:
    """Write the whole configuration, defaults included, as YAML; `load_config` reads the same one back.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    atomic_write(path, "\n".join([*_lines(config), ""]).encode())


def _lines(group: BaseModel, indent: str = "") -> Iterator[str]:
    for name, value in group.model_dump(mode="json").items():
        if is_group(group, name):
            yield f"{indent}{name}:"
            yield from _lines(getattr(group, name), indent + "  ")
        else:
            yield f"{indent}{name}: {one_line(value)}"


def one_line(value: Any) -> str:
    """Return a setting's value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()


def settings(config: BaseModel) -> dict[str, Any]:
    """Return every setting by its dotted path, its value as YAML holds it."""
    found: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        if is_group(config, name):
            found |= {f"{name}.{path}": inner for path, inner in settings(getattr(config, name)).items()}
        else:
            found[name] = value
    return found


def is_group(model: BaseModel, name: str) -> bool:
    """Return whether that field of the model is a group of settings; a choice of models is one setting."""
    annotation = type(model).model_fields[name].annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def differences(one: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return, by dotted path, the two values of every setting in which the configurations differ."""
    first, second = settings(one), settings(other)
    return {path: (first[path], second[path]) for path in first if first[path] != second[path]}


def check_contexts(config: RunConfig, source: str) -> None:
    """Check the environment's name, the features and all context values against the environment.

    Raises:
        UserError: an unknown environment or feature, or a value out of the feature's bounds.
    """
    from agents.environments import make_environment

    environment = make_environment(config.environment.name, features=config.environment.features)
    try:
        bounds = {feature.name: feature for feature in environment.features}
    finally:
        environment.close()
    training = config.contexts.training
    places = [("contexts.training.ranges", {name: value}) for name, pair in training.ranges.items() for value in pair]
    places += [("contexts.training.contexts", context) for context in training.contexts]
    for region, contexts in config.contexts.evaluation.regions.items():
        places += [(f"contexts.evaluation.regions.{region}", context) for context in contexts]
    for key, context in places:
        for name, value in context.items():
            feature = bounds.get(name)
            if feature is None:
                raise UserError(
                    f"{source}: {key}: the environment {config.environment.name!r} shows no feature {name!r}"
                    f"{suggestion(name, list(bounds))}; it shows: {', '.join(bounds)}"
                )
            if not feature.low <= value <= feature.high:
                raise UserError(
                    f"{source}: {key}: {name} must be from {feature.low:g} to {feature.high:g} "
                    f"{feature.unit}, got {value:g}"
                )
