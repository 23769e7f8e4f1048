"""The settings of a configuration by their dotted paths, such as agent.horizon."""

from typing import Any

from pydantic import BaseModel

from agents.configuration.fields import RunConfig


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
