"""What a replay's manifest tells: plain JSON data that names page files and counts records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from agents.errors import Damaged, UserError
from agents.replay.storage import Spec

PLAIN, WITH_LATENTS = 1, 2  # formats


@dataclass(frozen=True)
class Kind:
    """Pages of one kind, those of the records or those of their latents.

    Attributes:
        specs: what a record of them holds.
        pages: file names, stream by stream, oldest first.
    """

    specs: Mapping[str, Spec]
    pages: Sequence[Sequence[str]]

    def told(self) -> dict[str, Any]:
        """Return it as JSON data."""
        specs = {key: [list(spec.shape), np.dtype(spec.dtype).name] for key, spec in self.specs.items()}
        return {"specs": specs, "pages": self.pages}

    @classmethod
    def understood(cls, told: Mapping[str, Any]) -> Self:
        """Return what ``told`` gave; errors of any type where it is damaged."""
        return cls({key: Spec(tuple(shape), dtype) for key, (shape, dtype) in told["specs"].items()}, told["pages"])


@dataclass(frozen=True)
class Manifest:
    """A saved replay.

    Attributes:
        kinds: of the records; of the latents, if they are kept.
        capacity, page_length: of the replay.
        serials: of the pages, stream by stream.
        next_serial: of the page table.
        length: records of each stream.
        unserved: how many of the last ones are unserved.
    """

    kinds: Sequence[Kind]
    capacity: int
    page_length: int
    serials: Sequence[Sequence[int]]
    next_serial: int
    length: Sequence[int]
    unserved: Sequence[int]

    def told(self) -> dict[str, Any]:
        """Return it as JSON data: format 1, as it always was, or with latents format 2."""
        names = ("capacity", "page_length", "serials", "next_serial", "length", "unserved")
        told = {"format": PLAIN, **self.kinds[0].told(), **{name: getattr(self, name) for name in names}}
        if len(self.kinds) == 1:
            return told
        return told | {"format": WITH_LATENTS, "latents": self.kinds[1].told()}

    @classmethod
    def understood(cls, told: Mapping[str, Any], folder: Path) -> Self:
        """Return what ``told`` gave.

        Args:
            told: the JSON data.
            folder: named in errors.

        Raises:
            Damaged: it contradicts itself, or something is missing.
            UserError: another version wrote it.
        """
        kept = told.get("format", PLAIN)
        if kept not in (PLAIN, WITH_LATENTS):
            raise UserError(
                f"{folder}: replay manifest of format {kept}; this version reads {PLAIN} and {WITH_LATENTS}, "
                "so continue with the one that wrote it"
            )
        try:
            page_length = int(told["page_length"])
            length, unserved = np.array([told["length"], told["unserved"]], np.int64)
            needed = (-(-length // page_length)).tolist()
            kinds = [Kind.understood(kind) for kind in ([told] if kept == PLAIN else [told, told["latents"]])]
            for numbers in (told["serials"], *(kind.pages for kind in kinds)):
                if not needed or [len(stream) for stream in numbers] != needed:
                    raise ValueError("its pages do not match its lengths")
            capacity, next_serial = int(told["capacity"]), int(told["next_serial"])
            return cls(kinds, capacity, page_length, told["serials"], next_serial, length.tolist(), unserved.tolist())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{folder}: damaged replay manifest: {error!r}; use another checkpoint") from error
