"""The run that the notebooks look at unless they are given another one: small enough to train while one waits."""

import os
import time
from pathlib import Path

from agents.configuration import load_config
from agents.run_folder import Occupied
from agents.train import train

#: Names a folder for the example run; where it is not set, the run is ``runs/notebook``.
VARIABLE = "DREAMTUNE_EXAMPLE_RUN"
_WAIT_SECONDS = 2.0


def example_run() -> Path:
    """Return the folder of the run of ``configs/notebook.yaml``; it is trained if nobody has done so before.

    The folder is that which the environment variable ``DREAMTUNE_EXAMPLE_RUN`` names, else ``runs/notebook``, in the
    folder above where the working directory is one of notebooks. A training that was stopped goes on; one that another
    process is at is waited for.

    Raises:
        UserError: the folder holds the run of another configuration, or cannot be written.
    """
    here = Path.cwd()
    root = here.parent if here.name == "notebooks" else here
    folder = Path(os.environ.get(VARIABLE) or root / "runs" / "notebook")
    config = load_config("notebook")
    while True:
        try:
            train(config, folder)  # says so where there is nothing left to train
            return folder
        except Occupied:
            time.sleep(_WAIT_SECONDS)
