"""The scalar quantities that a dream is compared in: observation dimensions, reward and continue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Names and units of observation dimensions, by environment and observation key.
_DIMENSIONS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("cartpole", "state"): (
        ("cart position", "m"),
        ("cart velocity", "m/s"),
        ("pole angle", "rad"),
        ("pole angular velocity", "rad/s"),
    ),
    ("pendulum", "state"): (("cos(angle)", ""), ("sin(angle)", ""), ("angular velocity", "rad/s")),
}


@dataclass(frozen=True)
class Channel:
    """One scalar quantity.

    Attributes:
        key: key of the record (or ``continue``), such as ``observation/state``.
        dimension: index into the flattened value; 0 for scalars.
        name: what it is.
        unit: its unit; empty if it has none or it is not known.
        scale: what recorded values were divided by; values are shown multiplied by it, in ``unit``.
    """

    key: str
    dimension: int
    name: str
    unit: str
    scale: float = 1.0

    @property
    def label(self) -> str:
        """Name with unit, for axes."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def channels_of(
    environment: str, records: Mapping[str, NDArray], scales: Mapping[str, Sequence[float]] | None = None
) -> tuple[Channel, ...]:
    """Channels of an environment's records [T, ...]: observation dimensions, then reward and continue.

    Images are compared as a whole (see ``image_keys``), not as a channel for every pixel.

    Args:
        environment: its name, such as ``cartpole``.
        records: of any episode.
        scales: by observation key (without ``observation/``), what its dimensions were divided by.
    """
    channels = []
    for key in sorted(records):
        prefix, _, name = key.partition("/")
        if prefix != "observation" or records[key].ndim > 2:
            continue
        size = int(np.prod(records[key].shape[1:], dtype=int))
        known = _DIMENSIONS.get((environment, name), ())
        numbered = [(f"{name}[{index}]" if size > 1 else name, "") for index in range(size)]
        names = known if len(known) == size else numbered
        scale = (scales or {}).get(name, (1.0,) * size)
        channels += [Channel(key, index, *names[index], scale[index]) for index in range(size)]
    return (*channels, Channel("reward", 0, "reward", ""), Channel("continue", 0, "continue", "probability"))


def image_keys(records: Mapping[str, NDArray]) -> tuple[str, ...]:
    """Keys of an environment's records that hold images [T, H, W, C], such as ``observation/image``."""
    return tuple(key for key in sorted(records) if key.startswith("observation/") and records[key].ndim == 4)
