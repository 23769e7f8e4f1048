"""Packages of optional extras: what needs a missing one is skipped, unless ``make test EXTRAS=...`` promised it."""

import importlib.util
import os

import pytest

PACKAGES = {"box2d": "Box2D", "minigrid": "minigrid", "crafter": "crafter", "atari": "ale_py"}


def needs(extra: str) -> pytest.MarkDecorator:
    """Mark a test, or a parameter of one, that needs the package of this extra."""
    missing = importlib.util.find_spec(PACKAGES[extra]) is None
    promised = {extra, "domains"} & set(os.environ.get("EXTRAS", "").split(","))
    return pytest.mark.skipif(missing and not promised, reason=f"needs {PACKAGES[extra]}: extra {extra!r}")


def extra_of(environment: str) -> str | None:
    """Return the extra that an environment needs, None if it needs none."""
    family = environment.split("/")[0]
    return family if family in PACKAGES else None
