"""Page files: safetensors named by their content, written once, shared by every manifest of a folder."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from agents.errors import Damaged
from agents.files import digest, read_intact
from agents.replay.storage import Array, Spec

_PAGE = re.compile(r"[0-9a-f]{32}\.safetensors")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.safetensors\.[0-9]+\.tmp")


def encode_page(records: Mapping[str, Array]) -> tuple[str, bytes]:
    """Return (file name, content) of a page; the name is a digest of the content.

    Args:
        records: [rows, ...] for each key.
    """
    content = safetensors.numpy.save({key: np.ascontiguousarray(value) for key, value in records.items()})
    return f"{digest(content)}.safetensors", content


def read_page(folder: Path, name: str, specs: Mapping[str, Spec], rows: int) -> dict[str, Array]:
    """Return the records [rows, ...] of a page file.

    Raises:
        Damaged: the file is missing, damaged, or holds other records than ``specs`` and ``rows`` say.
        UserError: the file cannot be read for another reason.
    """
    path = folder / name
    if not _PAGE.fullmatch(name):
        raise Damaged(f"{path}: not the name of a replay page; the manifest is damaged")
    content = read_intact(path, path.stem)
    try:
        records = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise Damaged(f"{path}: not a replay page: {error}") from error
    expected = {key: ((rows, *spec.shape), spec.dtype) for key, spec in specs.items()}
    if {key: (value.shape, value.dtype) for key, value in records.items()} != expected:
        raise Damaged(f"{path}: this replay page holds other records than its manifest says")
    return records


def collect_garbage(folder: Path, kept_manifests: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Remove the page files that no kept manifest names, and what interrupted saves left behind.

    Nothing else in the folder is touched. No save into the folder may run at the same time: its pages are
    not named by any manifest yet.

    Args:
        folder: where the page files lie; may be missing.
        kept_manifests: as returned by ``Replay.save``.

    Returns:
        The removed files, sorted.
    """
    tables = [pages for manifest in kept_manifests for pages in (manifest, manifest.get("latents")) if pages]
    kept = {name for table in tables for stream in table["pages"] for name in stream}
    if not folder.is_dir():
        return []
    removed = []
    for path in sorted(folder.iterdir()):
        garbage = _PAGE.fullmatch(path.name) and path.name not in kept
        if garbage or _TEMPORARY.fullmatch(path.name):
            path.unlink()
            removed.append(path)
    return removed
