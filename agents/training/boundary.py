"""What happens at the end of an epoch, when nothing is half done: metrics, the kept agent, the checkpoint."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from agents.evaluation.rollout import Episode
from agents.training.collector import summarize
from agents.training.data import Tick
from agents.training.metrics import Row, TensorBoard
from agents.training.progress import ProgressReport
from agents.training.session import Session, check_finite
from agents.training.videos import OpenLoopVideos

_LOGGER = logging.getLogger(__name__)


class EpochBoundary(Callback):
    """Ends every epoch: a row of metrics, the best agent kept, the checkpoint, tables and TensorBoard, in this order.

    Tables and TensorBoard come last, hold only what a checkpoint holds, and are written anew from it when a
    run is continued, so one that is killed anywhere in between finds all of it again.

    Args:
        session: the run.
        progress: told about every tick and epoch.
        board: the run's TensorBoard.
        videos: written at the end of some epochs, before their checkpoint.
    """

    def __init__(self, session: Session, progress: ProgressReport, board: TensorBoard, videos: OpenLoopVideos) -> None:
        self.session = session
        self.progress = progress
        self.board = board
        self.videos = videos
        self._epoch_started = self._validation_started = time.monotonic()
        self._updates_before = session.learner.updates
        self._told_invalid = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._epoch_started = time.monotonic()
        self._updates_before = self.session.learner.updates

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tick, batch_idx: int
    ) -> None:
        """Move the progress bar."""
        self.progress.steps(batch.index * self.session.schedule.num_envs, self.session.collector.finished)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of training."""
        self._validation_started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch; Lightning has run validation by now."""
        session = self.session
        row = self._row(session.validator.pop_episodes())
        check_finite(row)
        if self.videos.due(len(session.rows) + 1):
            self.videos.write(session.env_steps)
        timing = self._timing(row)
        session.rows.append(row)
        session.timing.append(timing)
        kept = self._offer(row)
        session.save()
        session.write_tables()
        self.board.write(row | timing)
        self.progress.epoch(row, timing, kept)

    def _offer(self, row: Row) -> bool:
        """Let the agent be kept if it is the best so far; without a valid validation episode it cannot be."""
        session, invalid = self.session, int(row.get("validation/invalid", 0))
        if invalid and not self._told_invalid:
            self._told_invalid = True
            _LOGGER.warning(
                "%d of %d validation episodes were invalid at %d environment steps: they are in no mean, and an agent "
                "with fewer of them is kept before one with a higher return",
                *(invalid, len(session.validator.jobs), session.env_steps),
            )
        if "validation/return" not in row:
            return False
        return session.best.offer(session.learner.state, session.env_steps, row["validation/return"], invalid)

    def _row(self, episodes: list[Episode]) -> Row:
        """Return the epoch's row of metrics.csv: nothing in it depends on the clock."""
        session = self.session
        row = {
            "epoch": float(len(session.rows) + 1),
            "env_steps": float(session.env_steps),
            "updates": float(session.learner.updates),
        }
        row |= _judge(episodes)
        collector = session.collector
        row |= summarize(collector.pop_finished(), collector.pop_dropped())
        return row | session.learner.pop_metrics()

    def _timing(self, row: Row) -> Row:
        """Return the epoch's row of timing.csv."""
        now = time.monotonic()
        training = self._validation_started - self._epoch_started
        before = self.session.timing[-1]["total_seconds"] if self.session.timing else 0.0
        seconds = now - self._epoch_started
        return {
            "env_steps": row["env_steps"],
            "training_seconds": training,
            "validation_seconds": now - self._validation_started,
            "env_steps_per_second": self.session.config.training.epoch_steps / seconds,
            "updates_per_second": (row["updates"] - self._updates_before) / training,
            "total_seconds": before + seconds,
        }


def _judge(episodes: Sequence[Episode]) -> Row:
    """Return what the valid validation episodes come to and the number of the others, each if there are any."""
    valid = [episode for episode in episodes if not episode.invalid]
    row: Row = {}
    if valid:
        returns = np.array([episode.episode_return for episode in valid])
        row["validation/return"] = float(returns.mean())
        row["validation/return_std"] = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        row["validation/return_min"] = float(returns.min())
        row["validation/length"] = float(np.mean([episode.length for episode in valid]))
    if len(valid) < len(episodes):
        row["validation/invalid"] = float(len(episodes) - len(valid))
    return row
