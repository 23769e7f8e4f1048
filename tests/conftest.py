"""What every test needs: one thread, and no colored or wrapped output from the commands under test."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401

REPOSITORY = Path(__file__).resolve().parents[1]

# Two workers share two cores, and results must not depend on how many threads there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
torch.set_flush_denormal(True)


def pytest_configure(config: pytest.Config) -> None:
    """Check the shapes in signatures: in tests only, since it takes time that no measurement should hold."""
    if not config.getoption("benchmark_only", default=False):
        checked = (
            "worldmodels",
            "agents.dreamerv3",
            "agents.returns",
            "agents.optimizer",
            "agents.dreaming.video",
            "agents.latent_analysis.probe",
        )
        install_import_hook(checked, "tests.shapes.check")


@pytest.fixture
def repository() -> Path:
    """Return the root of the repository."""
    return REPOSITORY


@pytest.fixture
def command_environment() -> dict[str, str]:
    """Return the environment variables with which a test starts a command in another working directory."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "NO_COLOR": "1"}
