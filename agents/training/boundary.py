"""What happens at the end of an epoch, when nothing is half done: metrics, the kept agent, the checkpoint."""

import time
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
        kept = session.best.offer(session.learner.state, session.env_steps, row["validation/return"])
        session.save()
        session.write_tables()
        self.board.write(row | timing)
        self.progress.epoch(row, timing, kept)

    def _row(self, episodes: list[Episode]) -> Row:
        """Return the epoch's row of metrics.csv: nothing in it depends on the clock."""
        session = self.session
        returns = np.array([episode.episode_return for episode in episodes])
        row = {
            "epoch": float(len(session.rows) + 1),
            "env_steps": float(session.env_steps),
            "updates": float(session.learner.updates),
            "validation/return": float(returns.mean()),
            "validation/return_std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
            "validation/return_min": float(returns.min()),
            "validation/length": float(np.mean([episode.length for episode in episodes])),
        }
        return row | summarize(session.collector.pop_finished()) | session.learner.pop_metrics()

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
