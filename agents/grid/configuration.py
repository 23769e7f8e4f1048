"""What a grid of runs is: a base configuration, variants of it and seeds, from a file in `configs/grids`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from agents.configuration import (
    RunConfig,
    check_contexts,
    find_config,
    find_grid,
    read_yaml,
    settings,
    validate,
    validate_as,
)
from agents.configuration.checking import suggestion
from agents.configuration.fields import Settings
from agents.configuration.overrides import merged
from agents.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TRAINING = "training"  # the region of the training contexts


class GridConfig(Settings):
    """A grid of runs: every variant with every seed."""

    name: str = Field(
        pattern=f"^{NAME.pattern}$",
        description="Letters, digits, '.', '_' and '-'; the runs are in runs/<name>/<variant>/seed<k>.",
    )
    base: str = Field(description="The configuration that all runs start from, by its name or path.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="What all runs change in it: values by the full paths of settings, such as agent.horizon.",
    )
    variants: dict[str, dict[str, Any]] = Field(
        min_length=1, description="By name, what each variant changes beside that, in the same way."
    )
    seeds: tuple[int, ...] = Field(min_length=1, description="Seeds of the runs of every variant, >= 0 each.")
    episodes: int | None = Field(
        default=None,
        ge=1,
        description="Judged episodes per context; null: evaluation.episodes_per_context of the configuration.",
    )
    regions: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Regions that are judged; null: all of them, and the training contexts."
    )

    @field_validator("variants")
    @classmethod
    def _variants_can_be_folders(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in variants:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"a variant is named with letters, digits, '.', '_' and '-', since it is a folder, not {name!r}"
                )
        return variants

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds, default=0) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be at least 0, and every one of them may be named once")
        return seeds


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        variant: its name.
        config: of the run, with its seed.
        folder: the run folder.
        episodes: judged episodes per context.
        regions: those that are judged.
    """

    variant: str
    config: RunConfig
    folder: Path
    episodes: int
    regions: tuple[str, ...]

    @property
    def label(self) -> str:
        """Variant and seed, such as crssm/seed0."""
        return f"{self.variant}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """What the processes of this run have printed, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}.log")


def load_grid(
    name_or_path: str, *, only: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[GridRun]:
    """Return the runs of a grid, all variants of the first seed before those of the next.

    Args:
        name_or_path: `configs/grids/<name>.yaml` here, else the shipped one; a path means itself.
        only: names of variants, or patterns such as `double_*`; None: all of them.
        seeds: in the place of those of the file.

    Raises:
        UserError: naming file (or "command line"), key and what would be valid.
    """
    path = find_grid(name_or_path)
    grid = validate_as(GridConfig, read_yaml(path), str(path))
    configs = _variant_configs(grid, str(path))
    chosen = _chosen(list(configs), only)
    if seeds is not None and (not seeds or min(seeds) < 0):
        raise UserError(f"command line: --seeds: name one or more numbers of at least 0, got {list(seeds)}")
    return [
        GridRun(
            variant=name,
            config=configs[name].model_copy(update={"seed": seed}),
            folder=Path("runs") / grid.name / name / f"seed{seed}",
            episodes=grid.episodes or configs[name].evaluation.episodes_per_context,
            regions=grid.regions or (TRAINING, *configs[name].contexts.evaluation.regions),
        )
        for seed in dict.fromkeys(grid.seeds if seeds is None else seeds)
        for name in chosen
    ]


def _variant_configs(grid: GridConfig, source: str) -> dict[str, RunConfig]:
    """Return the checked configuration of every variant, the seed aside."""
    base = find_config(grid.base)
    data = read_yaml(base)
    options = list(settings(validate(data, str(base))))
    _check_paths(grid.settings, options, f"{source}: settings")
    data = merged(data, grid.settings)
    validate(data, f"{source}: settings")
    configs: dict[str, RunConfig] = {}
    checked: list[str] = []  # environments and contexts that were looked at
    for name, given in grid.variants.items():
        place = f"{source}: variants.{name}"
        _check_paths(given, options, place)
        config = validate(merged(data, given), place)
        worlds = json.dumps([config.environment.model_dump(), config.contexts.model_dump()])
        if worlds not in checked:
            check_contexts(config, place)
            checked.append(worlds)
        known = [TRAINING, *config.contexts.evaluation.regions]
        unknown = [region for region in grid.regions or () if region not in known]
        if unknown:
            raise UserError(
                f"{source}: regions: variant {name!r} has no region {unknown[0]!r}; it has {', '.join(known)}"
            )
        configs[name] = config
    return configs


def _check_paths(given: dict[str, Any], options: Sequence[str], place: str) -> None:
    for path in given:
        if path in ("seed", "name"):
            raise UserError(f"{place}: {path!r} is not for a variant; a grid's `seeds` and the variants' names say it")
        if path not in options:
            below = [option for option in options if option.startswith(f"{path}.")]
            hint = f"; name one setting, such as {below[0]}" if below else suggestion(path, options)
            raise UserError(f"{place}: no setting {path!r}{hint}; settings are named by their full paths")


def _chosen(variants: Sequence[str], only: Sequence[str] | None) -> list[str]:
    for pattern in only or ():
        if not any(fnmatchcase(name, pattern) for name in variants):
            raise UserError(
                f"command line: --only: no variant {pattern!r}{suggestion(pattern, variants)}; "
                f"the variants are: {', '.join(variants)}"
            )
    return [name for name in variants if only is None or any(fnmatchcase(name, pattern) for pattern in only)]
