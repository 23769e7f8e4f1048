"""Run folders written by hand, with everything that a report reads: small, and with returns that are known."""

import csv
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from agents.configuration import RunConfig, save_config
from agents.run_folder import RunFolder
from agents.training.metrics import write_table

GRAVITY, LENGTH = (2.45, 9.8, 19.6), (0.2, 0.5, 1.0)
REGIONS: dict[str, list[dict[str, float]]] = {
    "interpolation": [{"gravity": 9.8, "length": 0.5}],
    "extrapolation": [
        {"gravity": gravity, "length": length}
        for gravity, length in itertools.product(GRAVITY, LENGTH)
        if (gravity, length) not in ((9.8, 0.5), (2.45, 1.0))  # one field of the grid is empty
    ],
}
RANGES = {"gravity": [4.9, 14.7], "length": [0.35, 0.75]}


def make_config(
    seed: int = 0, *, context: str = "crssm", regions: Mapping[str, Any] = REGIONS, **sections: Any
) -> RunConfig:
    """A configuration of a tiny agent on CartPole that plans 3,000 steps."""
    data: dict[str, Any] = {
        "name": "tiny",
        "seed": seed,
        "environment": {"name": "cartpole", "features": ["gravity", "length"]},
        "contexts": {
            "training": {"distribution": "round_robin", "ranges": RANGES, "count": 4},
            "evaluation": {"regions": regions},
        },
        "agent": {"world_model": {"context": context}},
        "training": {"environment_steps": 3000, "epoch_steps": 1000, "device": "cpu"},
    }
    return RunConfig.model_validate(data | sections)


def score(agent: int, seed: int, gravity: float, length: float) -> float:
    """A mean return that differs by agent, seed and context."""
    return round(400 - 30 * agent - 7 * seed - 3 * abs(gravity - 9.8) - 40 * abs(length - 0.5), 3)


def make_run(
    path: Path,
    config: RunConfig,
    *,
    steps: int = 3000,
    returns: Callable[[Mapping[str, float]], float] | None = None,
    regions: Mapping[str, Sequence[Mapping[str, float]]] = REGIONS,
) -> Path:
    """Write a run that has done so many steps, and been judged in two episodes per context if ``returns`` is given."""
    run = RunFolder(path)
    save_config(config, run.config_file)
    epochs = range(1000, steps + 1, 1000)
    write_table(
        run.metrics,
        [
            {
                "epoch": float(epoch),
                "env_steps": float(done),
                "train/return": float(done / 10 + config.seed),
                "validation/return": float(done / 8 - config.seed),
            }
            for epoch, done in enumerate(epochs, 1)
        ],
    )
    write_table(path / "timing.csv", [{"env_steps": float(done), "total_seconds": done * 0.06} for done in epochs])
    note = {"file": "agent.safetensors", "hash": "0" * 32, "env_steps": 2000, "validation_return": 250.0}
    run.checkpoints.joinpath("best").mkdir(parents=True)
    run.checkpoints.joinpath("best", "best.json").write_text(json.dumps(note))
    if returns is not None:
        write_evaluation(run.evaluation, returns, regions)
    return path


def write_evaluation(
    file: Path, returns: Callable[[Mapping[str, float]], float], regions: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    """Write two episodes per context, a little above and below its mean return."""
    names = list(next(iter(regions.values()))[0])
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["region", "context_id", *names, "seed", "episode_return", "episode_length"])
        for region, contexts in regions.items():
            for place, context in enumerate(contexts):
                for episode, around in enumerate((-2.0, 2.0)):
                    values = (*context.values(), episode, returns(context) + around, 100)
                    writer.writerow([region, place, *values])


def make_runs(folder: Path, agents: Mapping[str, str], seeds: int = 3) -> Path:
    """Write judged runs of some agents: label and how it sees the context; returns are those of `score`."""
    for index, (label, context) in enumerate(agents.items()):
        for seed in range(seeds):

            def returns(values: Mapping[str, float], index: int = index, seed: int = seed) -> float:
                return score(index, seed, values["gravity"], values["length"])

            make_run(folder / label / f"seed{seed}", make_config(seed, context=context), returns=returns)
    return folder


def make_pictures(run: Path) -> None:
    """Write a picture and a video of a dream, and a counterfactual one."""
    for file in ("dream/dream.png", "dream/image_true.gif", "counterfactual/counterfactual.png"):
        path = run / file
        path.parent.mkdir(exist_ok=True)
        frames = [Image.new("P", (40, 30), color) for color in (1, 2)]
        settings: dict[str, Any] = {"save_all": True, "append_images": frames[1:]} if path.suffix == ".gif" else {}
        frames[0].save(path, **settings)
