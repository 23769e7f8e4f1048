"""Pictures and videos that a run's commands have made, as parts of the page, as far as there is room for them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agents.files import read_intact
from tuning.reporting.blocks import Block, Code, Folded, Grid, Heading, Picture, Text, listed
from tuning.reporting.collect import Agent, Run

#: All pictures of a page together have at most so many bytes: base64 makes a third more of them, and mail servers
#: take 20 to 25 MB.
LARGEST_PAGE = 12 * 2**20
_TYPES = {".png": "image/png", ".gif": "image/gif"}


@dataclass(frozen=True)
class Kind:
    """Pictures in one folder of a run.

    Attributes:
        folder: its name.
        title: what they are.
        about: how they are read.
        command: what makes them, before the run's folder.
        captions: of known files; others are captioned by their name.
    """

    folder: str
    title: str
    about: str
    command: str
    captions: dict[str, str]


KINDS = (
    Kind(
        "dream",
        "Dreams",
        "After five observed steps the agent dreams on with nothing but the recorded actions: under the world's true "
        "context and under a swapped one, against what happened.",
        "dreamtune dream",
        {
            "dream.png": "examples and the error by horizon",
            "image.png": "film strip: what happened, the dream, their difference",
            "image_true.gif": "video under the true context: what happened, the dream, their difference",
            "image_swapped.gif": "video under the swapped context: what happened, the dream, their difference",
        },
    ),
    Kind(
        "counterfactual",
        "Counterfactual dreams",
        "Dreams under another context than the recorded one, judged against the real simulator in that other context, "
        "from the same state with the same actions.",
        "dreamtune counterfactual",
        {
            "counterfactual.png": "errors of dreams against the simulator in the swapped context",
            "counterfactual.gif": "video of dreams and of the simulator in the swapped context",
            "image.gif": "video of dreams and of the simulator in the swapped context",
        },
    ),
    Kind(
        "latents",
        "Latent states",
        "What the agent's latent states tell of the context: linear probes, judged in contexts that they were not "
        "fitted to, and principal components.",
        "dreamtune latents",
        {"latents.png": "how well each feature is read, and where the states of a context lie"},
    ),
)


def picture_blocks(agents: Sequence[Agent]) -> list[Block]:
    """Return the pictures by kind and agent; first seeds are seen at once, others folded.

    First seeds are also the first to get room on the page; what finds none is named with its folder.
    """
    found = [
        (kind, agent, place, run, path)
        for kind in KINDS
        for agent in agents
        for place, run in enumerate(_runs_with(kind, agent))
        for path in _files(kind, run)
    ]
    room, left_out, damaged = LARGEST_PAGE, [], []
    pictures: dict[Path, Picture] = {}
    for kind, agent, _, run, path in sorted(found, key=lambda one: one[2]):
        content = read_intact(path)
        if len(content) > room:
            left_out.append(str(path))
            continue
        picture = _embed(content, path, kind, f"{agent.label}, seed {run.config.seed}")
        if picture is None:
            damaged.append(str(path))
            continue
        room -= len(content)
        pictures[path] = picture
    blocks: list[Block] = []
    for kind in KINDS:
        blocks += _kind_blocks(kind, agents, pictures)
    lacking = [kind for kind in KINDS if not any(one[0] is kind for one in found)]
    if lacking:
        commands = "\n".join(f"{kind.command} FOLDER" for kind in lacking)
        blocks += [Text(f"Not made yet: {listed([kind.title.lower() for kind in lacking])}."), Code(commands)]
    for words, paths in (
        (f"Left out, since pictures may take {LARGEST_PAGE // 2**20} MiB of a report", left_out),
        ("Cannot be read as pictures", damaged),
    ):
        if paths:
            blocks += [Folded(f"{words}: {len(paths)} of {len(found)}", [Code("\n".join(paths))])]
    return blocks


def _runs_with(kind: Kind, agent: Agent) -> list[Run]:
    return [run for run in agent.runs if _files(kind, run)]


def _files(kind: Kind, run: Run) -> list[Path]:
    folder = run.folder.path / kind.folder
    return sorted(path for path in folder.glob("*") if path.suffix in _TYPES and path.is_file())


def _embed(content: bytes, path: Path, kind: Kind, whose: str) -> Picture | None:
    """The picture with its caption; None if the file is not one."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    about = kind.captions.get(path.name, path.stem.replace("_", " "))
    uri = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return Picture(uri, size, f"{kind.title} of {whose}: {about}", f"{whose}: {about}.")


def _kind_blocks(kind: Kind, agents: Sequence[Agent], pictures: dict[Path, Picture]) -> list[Block]:
    first: list[Block] = []
    lacking: list[str] = []
    for agent in agents:
        by_run = [(run, [pictures[path] for path in _files(kind, run) if path in pictures]) for run in agent.runs]
        shown = [(run, own) for run, own in by_run if own]
        if not shown:
            lacking.append(agent.label)
            continue
        (_, own), *others = shown
        first += _laid_out(own)
        if others:
            seeds = listed([str(run.config.seed) for run, _ in others])
            folded = [block for _, more in others for block in _laid_out(more)]
            first.append(Folded(f"{agent.label}: seed{'s' if len(others) > 1 else ''} {seeds}", folded))
    if not first:
        return []
    blocks: list[Block] = [Heading(kind.title), Text(kind.about), *first]
    if lacking:
        blocks.append(Text(f"No such pictures of {listed(lacking)}; {kind.command} FOLDER makes them."))
    return blocks


def _laid_out(pictures: Sequence[Picture]) -> list[Block]:
    """Wide pictures below one another, small ones beside one another."""
    wide = [picture for picture in pictures if picture.size[0] > 700]
    small = [picture for picture in pictures if picture.size[0] <= 700]
    return [*wide, *([Grid(small, 300)] if small else [])]
