"""Trains an agent, or continues to: the one entry point of training."""

import signal
from contextlib import closing
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.trainer.states import TrainerStatus
from rich.console import Console

from agents.configuration import RunConfig
from agents.run_folder import RunFolder
from agents.training.boundary import EpochBoundary
from agents.training.build import configure_torch
from agents.training.curve import draw_curve
from agents.training.lightning_module import LightningAgent
from agents.training.memory import memory_errors, training_advice
from agents.training.metrics import TensorBoard
from agents.training.progress import ProgressReport
from agents.training.quiet import quiet_lightning
from agents.training.session import Session
from agents.training.videos import OpenLoopVideos


def train(config: RunConfig, folder: Path) -> None:
    """Train the agent of ``config`` in ``folder``; a run begun there goes on from its last checkpoint.

    The folder then holds ``checkpoints/`` (the latest, and ``best`` by validation), ``metrics.csv``,
    ``timing.csv``, ``tensorboard/``, ``curve.png`` and, of agents that see images, ``videos/``. A finished run is
    left as it is.

    Args:
        config: of the run.
        folder: the run folder, new or begun with the same configuration.

    Raises:
        UserError: the folder belongs to another configuration or process, no checkpoint is intact, the disk
            or the device's memory is full, or training diverged. What was saved before stays.
        KeyboardInterrupt: the user interrupted; the same call goes on from the last checkpoint.
    """
    configure_torch(config)
    console = Console()
    run = RunFolder.prepare(folder, config)
    with run.lock(), memory_errors(training_advice(config)):
        session = Session(config, run)
        try:
            _train(session, console)
        finally:
            session.close()
        draw_curve(session.rows, run.path / "curve.png", config.name)
        _tell_end(session, console)


def _train(session: Session, console: Console) -> None:
    total = session.config.training.environment_steps
    path, done = session.run.path, session.env_steps
    rows = [row | timing for row, timing in zip(session.rows, session.timing, strict=True)]
    videos = OpenLoopVideos(session.validator, path / "videos", session.schedule.epochs)
    with closing(TensorBoard(session.run.tensorboard, rows, videos.find)) as board:
        if session.epochs_left == 0:
            _say(console, f"{path}: finished before ({done} steps), nothing to train")
            return
        if done:
            _say(console, f"{path}: continuing at {done} of {total} steps")
        with ProgressReport(total, done, console) as progress:
            fit(session, EpochBoundary(session, progress, board, videos))


def fit(session: Session, boundary: pl.Callback) -> None:
    """Let Lightning run the epochs that are left.

    Raises:
        KeyboardInterrupt: the user interrupted (Lightning itself would exit with code 1).
    """
    handler = signal.getsignal(signal.SIGINT)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if session.device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=session.epochs_left,
            callbacks=[boundary],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            inference_mode=False,
            plugins=[LightningEnvironment()],
        )
        try:
            trainer.fit(LightningAgent(session.learner, session.validator), datamodule=session.data)
        except SystemExit as ending:
            if trainer.state.status != TrainerStatus.INTERRUPTED:
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from ending


def _tell_end(session: Session, console: Console) -> None:
    note = session.best.read_note()
    if note is not None:
        steps, score, invalid = note["env_steps"], note["validation_return"], note["validation_invalid"]
        count = len(session.validator.jobs) - invalid
        others = f" ({invalid} more were invalid)" if invalid else ""
        _say(
            console,
            f"kept: the agent of {steps} steps, mean return {score:.1f} in {count} validation episodes{others}",
        )
    elif not any("validation/return" in row for row in session.rows):
        _say(console, "kept: no agent, for every validation episode was invalid")
    _say(console, f"curve: {session.run.path / 'curve.png'}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
