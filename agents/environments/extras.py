"""Packages of the optional extras, imported when an environment that needs one is made."""

import importlib
from typing import Any

from agents.errors import UserError


def import_extra(module: str, *, environment: str, extra: str) -> Any:
    """Return a module of a package that an extra of this project installs.

    Args:
        module: what to import, such as ``ale_py.roms``.
        environment: what needs it, for the message.
        extra: the extra that installs it, in this project's folder: ``make setup EXTRAS=dev,<extra>``.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise UserError(
            f"environment {environment} needs the package {package}, which {reason}; "
            f"in the project's folder it comes with: make setup EXTRAS=dev,{extra} "
            f"(without make: pip install -e '.[{extra}]')"
        ) from error
