"""The process of one run of a grid: trains it to the end and judges it, each unless that is done.

It reads a `GridRun` as JSON from its standard input and ends with the exit codes of the command line, or `BUSY` where
another process works in the run folder.
"""

import json
import signal
import sys
from functools import partial
from pathlib import Path

from agents.configuration import config_bytes, validate
from agents.configuration.yaml_files import parse_yaml
from agents.exit_codes import run as run_command
from agents.grid.configuration import GridRun
from agents.grid.count import count_episodes
from agents.grid.state import is_judged, is_trained
from agents.run_folder import Occupied, RunFolder

BUSY = 75  # sysexits.h: temporary failure


def encode(run: GridRun) -> bytes:
    """Return the run as the process reads it."""
    fields = {"variant": run.variant, "folder": str(run.folder), "episodes": run.episodes, "regions": run.regions}
    return json.dumps(fields | {"config": config_bytes(run.config).decode()}).encode()


def decode(content: bytes) -> GridRun:
    """Return what `encode` was given."""
    fields = json.loads(content)
    config = validate(parse_yaml(fields["config"], "grid"), "grid")
    folder, regions = Path(fields["folder"]), tuple(fields["regions"])
    return GridRun(fields["variant"], config, folder, fields["episodes"], regions)


def work(run: GridRun) -> None:
    """Train the run's agent to the end and judge it.

    Raises:
        Occupied: another process works in the run folder.
        UserError: see `agents.train.train` and `agents.evaluate.evaluate`.
        KeyboardInterrupt: the same call goes on from the last checkpoint.
    """
    folder = RunFolder.prepare(run.folder, run.config)
    if not is_trained(run):
        from agents.train import train

        train(run.config, run.folder)
    with folder.lock():
        if not is_judged(run):
            from agents.evaluate import judge

            judge(run.folder, run.episodes, run.regions, partial(count_episodes, run.folder))


def main() -> int:
    """Do what the standard input says and return the exit code."""
    # A shell starts what it runs in the background deaf to interrupts, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = decode(sys.stdin.buffer.read())
    busy = False

    def command() -> None:
        nonlocal busy
        try:
            work(run)
        except Occupied as error:
            busy = True
            print(error, file=sys.stderr)

    code = run_command(command)
    return BUSY if busy else code
