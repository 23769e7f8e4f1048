"""Which file a name such as cartpole means."""

from pathlib import Path

from agents.configuration.checking import suggestion
from agents.errors import UserError


def find_config(name_or_path: str) -> Path:
    """Return the file meant: a path means itself, a name `configs/<name>.yaml` here, else the shipped one.

    Raises:
        UserError: there is no such file.
    """
    return _find(name_or_path, "configuration", ".")


def find_grid(name_or_path: str) -> Path:
    """Return the file of a grid of runs: as `find_config`, but in `configs/grids`.

    Raises:
        UserError: there is no such file.
    """
    return _find(name_or_path, "grid", "grids")


def _find(name_or_path: str, kind: str, subfolder: str) -> Path:
    folders = [configs / subfolder for configs in (Path("configs"), shipped_configs())]
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    known = ", ".join(names)
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; name the YAML file of a {kind}, or one of: {known}")
        return path
    for folder in folders:
        path = folder / f"{name_or_path}.yaml"
        if path.is_file():
            return path
    hint = suggestion(name_or_path, names)
    raise UserError(f"no {kind} named {name_or_path!r}{hint}; name a YAML file, or one of: {known}")


def shipped_configs() -> Path:
    """Return the folder of the configurations that come with the installation (or with the repository)."""
    package = Path(__file__).resolve().parents[1]  # agents
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
