"""Tests run the notebooks on an example run of their own, which the first of them trains for all."""

import os
import shutil
import tempfile

VARIABLE = "DREAMTUNE_EXAMPLE_RUN"
_made: list[str] = []


def pytest_configure() -> None:
    """Name a temporary folder; worker processes inherit the name from the process that starts them."""
    if not os.environ.get(VARIABLE):
        _made.append(tempfile.mkdtemp(prefix="dreamtune-notebooks-"))
        os.environ[VARIABLE] = os.path.join(_made[0], "notebook")


def pytest_unconfigure() -> None:
    """Remove it where it was made."""
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)
    if _made:
        del os.environ[VARIABLE]
