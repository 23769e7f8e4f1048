"""How a command ends: a user's mistake is told in one line with exit code 2."""

import os
import sys
from collections.abc import Callable

from agents.errors import UserError
from agents.files import disk_full, full_message


def run(command: Callable[[], object]) -> int:
    """Call a command and return its exit code: 2 after a user's mistake (told in a line), 130 if stopped."""
    try:
        command()
        return 0
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output is gone, as in `dreamtune ... | head`; what is left to print goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        words = disk_full(error)
        if words is None:
            raise
        return _fail(full_message(getattr(error, "filename", None) or "a file of the run", words))


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
