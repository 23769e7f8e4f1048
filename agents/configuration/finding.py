"""Which file a name such as cartpole means."""

from pathlib import Path

from agents.configuration.checking import suggestion
from agents.errors import UserError


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


def shipped_configs() -> Path:
    """Return the folder of the configurations that come with the installation (or with the repository)."""
    package = Path(__file__).resolve().parents[1]  # agents
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _names() -> list[str]:
    return sorted({path.stem for folder in (Path("configs"), shipped_configs()) for path in folder.glob("*.yaml")})
