"""YAML: texts and files to data, a configuration to a file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from agents.configuration.dotted import is_group
from agents.configuration.fields import RunConfig
from agents.errors import UserError
from agents.files import atomic_write


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


def save_config(config: RunConfig, path: Path) -> None:
    """Write the whole configuration, defaults included, as YAML; `load_config` reads the same one back.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    atomic_write(path, config_bytes(config))


def config_bytes(config: RunConfig) -> bytes:
    """Return what `save_config` writes."""
    return "\n".join([*_lines(config), ""]).encode()


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
