"""Data to a checked configuration; every mistake is one `UserError` line that says what would be valid."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agents.configuration.fields import RunConfig
from agents.errors import UserError

if TYPE_CHECKING:
    from agents.environments import ContextualEnv

Model = TypeVar("Model", bound=BaseModel)


def validate(data: Mapping[str, Any], source: str, overridden: Sequence[str] = ()) -> RunConfig:
    """Return the data as a checked configuration of a run; see `validate_as`."""
    return validate_as(RunConfig, data, source, overridden)


def validate_as(model: type[Model], data: Mapping[str, Any], source: str, overridden: Sequence[str] = ()) -> Model:
    """Return the data as a checked model.

    Args:
        model: what it shall be.
        data: as read from YAML.
        source: what an error names as the origin of a key.
        overridden: the dotted keys that came from the command line, which errors then name as the origin.

    Raises:
        UserError: for the first wrong key, with what would be valid.
    """
    try:
        # Through JSON because pydantic's strict mode then takes lists for tuples and whole numbers for
        # floats, and nothing else for anything: no "8" for 8, no true for 1.
        return model.model_validate_json(json.dumps(_whole(data), default=str), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise UserError(_describe(model, _first(errors), source, overridden)) from error


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


def _describe(root: type[BaseModel], error: ErrorDetails, source: str, overridden: Sequence[str]) -> str:
    parts, model, description = _locate(root, error["loc"])
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


def _locate(root: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None, str | None]:
    """Return what pydantic's location means: the keys, the group that holds the last one, its description.

    The group is None where the last key is a setting; pydantic's names for kinds of a setting are left out.
    """
    keys: list[str] = []
    model: type[BaseModel] | None = root
    kinds: dict[str, type[BaseModel]] = {}
    description = None
    for part in map(str, loc):
        kind = part.removesuffix("]").rpartition(" ")[2]  # of checked ones pydantic says "function-after[f(), Kind]"
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
        elif kind in kinds:
            model = kinds[kind]
        elif "[" not in part:
            keys.append(part)
    return keys, model, description


def suggestion(word: str, words: Sequence[str], prefix: str = "") -> str:
    """Return ' (did you mean ...?)' with the most similar of the words, or '' where none is similar."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean '{prefix}{close[0]}'?)" if close else ""


def make_environment_of(config: RunConfig) -> "ContextualEnv":
    """Return the environment as the run will have it."""
    from agents.environments import make_environment

    return make_environment(config.environment.name, **config.environment.settings())


def check_drawing(config: RunConfig) -> None:
    """Observe the environment once if pixels are asked for: whether it can be drawn shows only then.

    Raises:
        UserError: it cannot be drawn, or not here.
    """
    if config.environment.observations not in ("pixels", "both"):
        return
    from agents.environments import InvalidStep

    environment = make_environment_of(config)
    try:
        with suppress(InvalidStep):  # what becomes of these, the run decides
            environment.reset(seed=config.seed)
    finally:
        environment.close()
