"""Runs of a grid without any training: their folders are filled by hand."""

import csv
import json
from pathlib import Path

from agents.configuration import save_config
from agents.evaluation.episodes import evaluation_seed
from agents.grid import GridRun
from agents.run_folder import RunFolder
from tests.agents.training.training_run import tiny_config

STEPS = 120  # of tiny_config
REGIONS = {"interpolation": [{"gravity": 9.8}, {"gravity": 12.25}], "extrapolation": [{"gravity": 19.6}]}


def make_run(folder: Path, variant: str = "crssm", seed: int = 0, *, episodes: int = 2, **sections: object) -> GridRun:
    """Return a run that is judged in three contexts of two regions."""
    ranges = {"training": {"distribution": "round_robin", "ranges": {"gravity": (4.9, 14.7)}, "count": 5}}
    contexts = ranges | {"evaluation": {"regions": REGIONS}}
    config = tiny_config(**({"contexts": contexts, "seed": seed} | sections))  # type: ignore[arg-type]
    return GridRun(variant, config, folder / variant / f"seed{seed}", episodes, ("interpolation", "extrapolation"))


def trained(run: GridRun, steps: int = STEPS) -> None:
    """Leave what training leaves after so many steps, in epochs of 30 of which the first has no update."""
    folder = RunFolder(run.folder)
    save_config(run.config, folder.config_file)
    done = range(30, steps + 1, 30)
    folder.metrics.write_text("epoch,env_steps\n" + "".join(f"{n},{step}\n" for n, step in enumerate(done, 1)))
    rows = "".join(f"{step},{1000 if step == 30 else 10},{0 if step == 30 else 5}\n" for step in done)
    (run.folder / "timing.csv").write_text("env_steps,env_steps_per_second,updates_per_second\n" + rows)
    best = folder.checkpoints / "best" / "best.json"
    best.parent.mkdir(parents=True, exist_ok=True)
    best.write_text(json.dumps({"file": "agent", "hash": "", "env_steps": steps, "validation_return": 1.0}))


def judged(run: GridRun, *, episodes: int = 2, seed: int = 0, regions: dict = REGIONS) -> None:
    """Leave what an evaluation leaves."""
    with (run.folder / "evaluation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["region", "context_id", "gravity", "length", "seed", "episode_return", "episode_length"])
        for region, contexts in regions.items():
            for index, context in enumerate(contexts):
                for episode in range(episodes):
                    chosen = evaluation_seed(seed, region, index, episode)
                    writer.writerow([region, index, context["gravity"], 0.5, chosen, 10.0, 10])
