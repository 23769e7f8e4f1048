"""From a name or a path to a checked configuration."""

from collections.abc import Sequence

from agents.configuration.checking import validate
from agents.configuration.contexts import check_contexts
from agents.configuration.fields import RunConfig
from agents.configuration.finding import find_config
from agents.configuration.overrides import parse_overrides
from agents.configuration.yaml_files import read_yaml


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of that name or path, with the overrides of a command line.

    Args:
        name_or_path: see `find_config`.
        overrides: such as `["--agent.horizon", "20"]`, any field by its path, its value written as in YAML.

    Raises:
        UserError: naming file (or "command line"), key and what would be valid.
    """
    path = find_config(name_or_path)
    data = read_yaml(path)
    config = validate(data, str(path))
    if overrides:
        config = parse_overrides(data, config, overrides, str(path))
    check_contexts(config, str(path))
    return config
