"""Open-loop videos of a run that sees images, made while it trains.

At most MAX_VIDEOS epochs of a run, evenly spread and the last among them, end with a video of the first validation
episodes: they are played once more, recorded, and dreamt of after OBSERVED steps. Everything is greedy and nothing is
drawn, so a run with videos computes what it would compute without.

The videos are files, ``<image>_<environment steps>.gif``. An epoch's file is written before its checkpoint, so a run
that is continued finds the videos of all epochs that its checkpoint holds, for TensorBoard to show again; those beyond
it are written anew when their epoch comes again.
"""

from pathlib import Path

import torch

from agents.dreaming.channels import image_keys
from agents.dreaming.dreams import OBSERVED, collate, displayed, observed_conditions, open_loop
from agents.dreaming.video import MAX_EPISODES, encode_gif, open_loop_video
from agents.evaluation.rollout import run_episodes
from agents.files import atomic_write
from agents.training.validation import Validator

MAX_VIDEOS = 20
HORIZON = 45  # imagined steps
SCALE = 2  # screen pixels of an image's pixel


class OpenLoopVideos:
    """Writes and finds the videos of a run; agents without images have none.

    Args:
        validator: the agent, its validation episodes and the environments that they are played in.
        folder: where the videos lie.
        epochs: epochs in the whole run.
    """

    def __init__(self, validator: Validator, folder: Path, epochs: int) -> None:
        self.validator = validator
        self.folder = folder
        self.epochs = epochs
        self._every = -(-epochs // MAX_VIDEOS)
        spaces = validator.environments[0].observation_space
        for torn in folder.glob(".*.tmp"):  # of a write that was killed
            torn.unlink()
        self._images = any(len(space.shape or ()) == 3 for space in spaces.values())

    def due(self, epoch: int) -> bool:
        """Whether the epoch, counted from 1, ends with a video."""
        return self._images and (epoch % self._every == 0 or epoch == self.epochs)

    def write(self, env_steps: int) -> None:
        """Dream of validation episodes with the learner's present state; write a video for each image observation.

        Args:
            env_steps: environment steps done, by which the videos are found again.

        Raises:
            UserError: the disk is full or fails.
        """
        agent, state = self.validator.learner.agent, self.validator.learner.state
        environments, jobs = self.validator.environments, self.validator.jobs[:MAX_EPISODES]
        episodes = run_episodes(
            agent, state, environments, jobs, record=True, max_steps=OBSERVED - 1 + HORIZON, rows=len(environments)
        )
        records = [episode.records for episode in episodes if episode.length >= OBSERVED]
        if not records:
            return
        batch, recorded = collate(records, max(len(record["is_first"]) for record in records))
        tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
        ((_, decoded),) = open_loop(agent, state, tensors, {"true": observed_conditions(agent, state, tensors)})
        for key in image_keys(records[0]):
            video = open_loop_video(batch[key], displayed(decoded[key]), recorded)
            atomic_write(self._file(key.partition("/")[2], env_steps), encode_gif(video, SCALE))

    def find(self, env_steps: int) -> dict[str, bytes]:
        """Return the videos written after so many environment steps: GIF files by name, such as ``open_loop/image``."""
        found = sorted(self.folder.glob(self._file("*", env_steps).name))
        return {f"open_loop/{path.name.rpartition('_')[0]}": path.read_bytes() for path in found}

    def _file(self, name: str, env_steps: int) -> Path:
        return self.folder / f"{name}_{env_steps:09d}.gif"
