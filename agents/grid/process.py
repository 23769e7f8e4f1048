"""A process that works on one run of a grid, as the one that started it sees it."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from agents.errors import UserError
from agents.grid.configuration import GridRun
from agents.grid.work import BUSY, encode

PACKAGES = Path(__file__).resolve().parents[2]  # where the packages lie that this process runs
PROGRAM = "import sys; from agents.grid.work import main; sys.exit(main())"
PATIENCE = 20.0  # seconds that a process is given to stop by itself


class Worker:
    """The process of one run. What it prints is appended to the run's log.

    It is a session of its own: Ctrl-C on the terminal reaches the process that started it, and that one stops it.

    Args:
        run: the run.

    Raises:
        UserError: the log cannot be written.
    """

    def __init__(self, run: GridRun) -> None:
        self.run = run
        try:
            run.log.parent.mkdir(parents=True, exist_ok=True)
            log = run.log.open("ab")
        except OSError as error:
            raise UserError(f"{run.log}: cannot be written ({error.strerror})") from error
        with log:
            log.write(f"--- {datetime.now():%Y-%m-%d %H:%M:%S} {run.label}\n".encode())
            log.flush()
            self._begin = log.tell()
            path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode(run))
            self._process.stdin.close()
        except BrokenPipeError:  # it has died already, which its exit code tells
            pass

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    @property
    def busy(self) -> bool:
        """Whether it ended because another process works in the run folder."""
        return self._process.returncode == BUSY

    def failure(self) -> str | None:
        """Return in a line why the process failed; None if it did not."""
        code = self._process.returncode
        if code in (0, BUSY):
            return None
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"
        return self._last_line() or f"ended with exit code {code}"

    def interrupt(self) -> None:
        """Ask the process to stop."""
        self._process.send_signal(signal.SIGINT)

    def wait_or_kill(self, deadline: float) -> None:
        """Wait for the process until ``deadline`` (of time.monotonic), then kill it; what it saved stays."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_line(self) -> str:
        """Return the last line that this process has printed."""
        try:
            with self.run.log.open("rb") as log:
                log.seek(self._begin)
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:  # somebody has removed it
            return ""
        return lines[-1].strip().removeprefix("error: ") if lines else ""
