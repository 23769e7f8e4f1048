"""The rules that a program can hold: who may import whom, what stands where, how long a file gets."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("worldmodels", "agents", "tuning")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TOP_LEVEL = {
    *PACKAGES, "configs", "notebooks", "tests",
    "pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE", "CITATION.cff",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}, line {node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def offences(paths: list[Path], forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{name_of(path)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        if any(name == banned or name.startswith(banned + ".") for banned in forbidden)
    ]


def files(*folders: str) -> list[Path]:
    found = [path for path in FILES if name_of(path).startswith(folders)]
    assert found, f"nothing in {folders}"
    return found


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import a.b\ndef f():\n    from c.d import e\n    import g as h\n")
    assert imported(file) == {"a.b", "c.d", "c.d.e", "g"}


def test_arrows_point_one_way() -> None:
    assert offences(files("worldmodels/"), ("agents", "tuning")) == []
    assert offences(files("agents/"), ("tuning",)) == []


def test_world_models_know_no_environment_training_or_study() -> None:
    forbidden = (
        "lightning",
        "pytorch_lightning",
        "optuna",
        "gymnasium",
        "dm_control",
        "mujoco",
        "torchrl",
        "tyro",
    )
    assert offences(files("worldmodels/"), forbidden) == []


def test_agents_know_no_study() -> None:
    assert offences(files("agents/"), ("optuna",)) == []


def test_the_algorithm_knows_no_training_loop_environment_or_replay() -> None:
    forbidden = (
        "lightning",
        "pytorch_lightning",
        "gymnasium",
        "agents.training",
        "agents.environments",
        "agents.replay",
    )
    assert offences(files("agents/dreamerv3/"), forbidden) == []


def test_environments_and_replay_know_no_agent() -> None:
    forbidden = ("worldmodels", "lightning", "agents.dreamerv3", "agents.training")
    assert offences(files("agents/environments/", "agents/replay/"), forbidden) == []


def test_nothing_else_stands_at_the_top_level() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    # Where there is no git (a source archive), what lies there counts, but for what .gitignore names.
    paths = listed.stdout.splitlines() if listed.returncode == 0 else [path.name for path in ROOT.iterdir()]
    entries = {path.split("/")[0] for path in paths}
    assert {entry for entry in entries if not entry.startswith(".")} - {"runs", "studies"} <= TOP_LEVEL


def test_configs_hold_nothing_but_values() -> None:
    assert {path.suffix for path in (ROOT / "configs").rglob("*") if path.is_file()} == {".yaml"}


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name_of)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_packages_import_without_opengl() -> None:
    """A machine without a display or OpenGL can train: only drawing a picture of a scene may need it."""
    modules = [name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in FILES]
    program = (
        "import importlib, json, sys\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    loaded = json.loads(finished.stdout.splitlines()[-1])
    assert "agents.environments.dmc" in loaded
    assert [name for name in loaded if name.split(".")[0] in ("OpenGL", "glfw")] == []
