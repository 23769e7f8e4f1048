"""A run's configuration.

* ``fields.py``: every field, with meaning, unit, range, default and source.
* ``checking.py``: data to a checked configuration, and every mistake told in one line.
* ``contexts.py``: whether contexts and regions are what they say.
* ``dotted.py``: settings by their dotted paths, and in which of them two configurations differ.
* ``yaml_files.py``: YAML to data, a configuration to a file.
* ``finding.py``: which file a name means.
* ``overrides.py``: settings on a command line.
* ``loading.py``: all of these at once, from a name to a checked configuration.
"""

from agents.configuration.checking import check_drawing, validate, validate_as
from agents.configuration.contexts import check_contexts
from agents.configuration.dotted import differences, settings
from agents.configuration.fields import (
    ContextsConfig,
    EnvironmentConfig,
    EvaluationConfig,
    EvaluationContextsConfig,
    ReplayConfig,
    RunConfig,
    TrainingConfig,
    TrainingContextsConfig,
)
from agents.configuration.finding import find_config, find_grid, shipped_configs
from agents.configuration.loading import load_config
from agents.configuration.yaml_files import config_bytes, read_yaml, save_config

__all__ = [
    "ContextsConfig",
    "EnvironmentConfig",
    "EvaluationConfig",
    "EvaluationContextsConfig",
    "ReplayConfig",
    "RunConfig",
    "TrainingConfig",
    "TrainingContextsConfig",
    "check_contexts",
    "check_drawing",
    "config_bytes",
    "differences",
    "find_config",
    "find_grid",
    "load_config",
    "read_yaml",
    "save_config",
    "settings",
    "shipped_configs",
    "validate",
    "validate_as",
]
