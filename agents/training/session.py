"""All parts of a run put together, new or continued from its latest checkpoint."""

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

from agents.configuration import RunConfig
from agents.dreamerv3 import flatten_state, latent_specs
from agents.errors import Damaged, UserError
from agents.evaluation.rollout import open_environments
from agents.replay import PageStore, Replay, Spec
from agents.run_folder import RunFolder
from agents.training import build
from agents.training.capture import choose_recorder
from agents.training.checkpoint import BestAgent, Checkpoint, Checkpoints, disk_errors, restore_state
from agents.training.collector import Collector
from agents.training.data import ExperienceData
from agents.training.learner import Learner
from agents.training.metrics import Row, write_table
from agents.training.schedule import Schedule
from agents.training.validation import Validator, validation_jobs

VALIDATION_ENVS = 32  # environments that play validation episodes side by side


def make_schedule(config: RunConfig) -> Schedule:
    """Return the timetable of a configuration."""
    training = config.training
    return Schedule(
        num_envs=config.environment.num_envs,
        environment_steps=training.environment_steps,
        epoch_steps=training.epoch_steps,
        train_ratio=training.train_ratio,
        batch_size=training.batch_size,
        batch_length=training.batch_length,
        start_steps=training.start_steps,
    )


class Session:
    """A run in memory.

    Args:
        config: of the run.
        run: its folder; the latest intact checkpoint there is continued.

    Attributes:
        rows, timing: of metrics.csv and timing.csv, one per epoch done.

    Raises:
        UserError: no checkpoint is intact, the note on the kept agent is damaged, or the environments do not come
            back to where they were.
    """

    def __init__(self, config: RunConfig, run: RunFolder) -> None:
        self.config = config
        self.run = run
        self.schedule = make_schedule(config)
        self.device = build.choose_device(config)
        self.checkpoints = Checkpoints(run.checkpoints, run.replay, config.training.keep_checkpoints)
        self.best = BestAgent(run.checkpoints / "best")
        self._tidy()
        self.rows: list[Row] = []
        self.timing: list[Row] = []
        with ExitStack() as stack:
            self._assemble(stack)
            self._closing = stack.pop_all()

    def _assemble(self, stack: ExitStack) -> None:
        config = self.config
        self._told: set[str] = set()  # kinds of invalid steps that were logged
        vector = build.make_vector(config, config.environment.num_envs, told=self._told)
        stack.callback(vector.close)
        self._specs = build.record_specs(vector)
        self._change_steps = build.change_steps_of(config, config.contexts.training.change_every)
        found = self.checkpoints.latest(self._load_replay)
        self.replay = found[1] if found else self._new_replay()
        agent = build.build_agent(config, vector, self.device)
        state = agent.initial_state(config.seed)
        self.learner = Learner(
            agent,
            state,
            seed=config.seed,
            device=self.device,
            precision=config.training.precision,
            recorder=choose_recorder(self.device, config.training.capture),
        )
        self.collector = Collector(
            self.learner,
            vector,
            self.replay,
            build.training_distribution(config),
            seed=config.seed,
            change_steps=self._change_steps,
            timeouts=config.training.timeouts,
        )
        self.validator = self._make_validator(stack)
        self.data = ExperienceData(
            self.schedule,
            self.collector,
            self.replay,
            self.learner,
            self.validator,
            seed=config.seed,
            burn_in=config.training.burn_in,
        )
        if found:
            self._restore(found[0])
            self.write_tables()  # they may be ahead of a checkpoint that was fallen back to

    @property
    def env_steps(self) -> int:
        """Environment steps done."""
        return self.collector.ticks * self.schedule.num_envs

    @property
    def epochs_left(self) -> int:
        """Epochs still to be trained."""
        return self.schedule.epochs - self.collector.ticks // self.schedule.epoch_length

    def _tidy(self) -> None:
        """Remove what a kill left half written."""
        self.best.tidy()
        for torn in self.run.path.glob(".*.tmp"):
            torn.unlink()

    def _new_replay(self) -> Replay:
        return Replay(
            self._specs,
            capacity=self.config.replay.capacity,
            streams=self.schedule.num_envs,
            page_length=self.config.replay.page_length,
            **self._make_stores(),
        )

    def _load_replay(self, manifest: dict[str, Any]) -> Replay:
        return Replay.load(manifest, self.run.replay, **self._make_stores())

    def _make_stores(self) -> dict[str, PageStore]:
        """Return the arena of the records' pages and, if sequences start from stored latents, that of these."""
        stores = {"store": build.make_store(self.config, self.run, self._specs)}
        if self.config.training.sequence_start == "stored":
            told = latent_specs(self.config.agent).items()
            specs = {key: Spec(shape, dtype) for key, (shape, dtype) in told}
            stores["latents"] = build.make_store(self.config, self.run, specs)
        return stores

    def _make_validator(self, stack: ExitStack) -> Validator:
        count = self.config.evaluation.validation_episodes
        make = partial(build.make_vector, self.config, 1, serial=True, told=self._told)
        environments = stack.enter_context(open_environments(make, min(count, VALIDATION_ENVS)))
        contexts = build.training_contexts(self.config)
        jobs = validation_jobs(contexts, count, self.config.seed, self._change_steps)
        return Validator(self.learner, environments, jobs)

    def _restore(self, checkpoint: Checkpoint) -> None:
        progress = checkpoint.progress
        restore_state(self.learner.state, checkpoint.agent, self.run.checkpoints)
        # What counts is what this command says, not what the tree was saved with.
        self.learner.agent.apply_hyperparameters(self.learner.state, self.config.agent.hyperparameters)
        self.learner.updates = int(self.learner.state["counters", "updates"])
        if self.learner.updates != progress["updates"]:
            raise Damaged(
                f"{self.run.checkpoints}: the checkpoint tells {progress['updates']} updates, its agent "
                f"{self.learner.updates}; restore it from a copy, or choose another folder with --run"
            )
        self.rows, self.timing = progress["rows"], progress["timing"]
        self.collector.restore(progress["collector"], checkpoint.collector)

    def save(self) -> None:
        """Write a checkpoint of the present moment, between two epochs.

        Raises:
            UserError: the disk is full or fails; earlier checkpoints are untouched.
        """
        with disk_errors(self.run.replay):
            manifest = self.replay.save(self.run.replay)
        collector, tensors = self.collector.save()
        progress = {
            "collector": collector,
            "updates": self.learner.updates,
            "rows": self.rows,
            "timing": self.timing,
            "replay": manifest,
        }
        leaves = flatten_state(self.learner.state)
        self.checkpoints.save(self.env_steps, Checkpoint(progress, leaves, tensors))

    def write_tables(self) -> None:
        """Write metrics.csv and timing.csv anew from the rows.

        Raises:
            UserError: the disk is full or fails.
        """
        write_table(self.run.metrics, self.rows)
        write_table(self.run.path / "timing.csv", self.timing)

    def close(self) -> None:
        """Close the environments."""
        self._closing.close()


def check_finite(row: Row) -> None:
    """Refuse to go on from numbers that are none.

    Raises:
        UserError: a metric is NaN or infinite.
    """
    for name, value in row.items():
        if not math.isfinite(value):
            raise UserError(
                f"training diverged: {name} is {value} at {row['env_steps']:.0f} environment steps; start a "
                "new run with a lower agent.hyperparameters.learning_rate (the best agent so far is kept)"
            )
