"""Environments in processes of their own, which may crash or hang without taking the run along."""

import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from agents.environments.base import InvalidStep
from agents.environments.vector import (
    Actor,
    InvalidSteps,
    Make,
    OnInvalid,
    Records,
    Reset,
    check_commands,
    check_count,
    empty_records,
)
from agents.errors import UserError

_LOGGER = logging.getLogger(__name__)
_MOST_CRASHES = 5  # in a row, without a step in between, until the environment counts as broken
_START_TIMEOUT = 120.0  # seconds; a worker imports the environment's libraries first


class _Lost(Exception):
    """A worker died or did not answer in time."""


class SubprocessVector:
    """Environments in one process each (`VectorEnvironment`).

    A worker that dies or does not answer is replaced, its record marked as lost, and a warning logged.

    Args:
        makes: E functions that each make one environment; they are sent to fresh ("spawn") processes, so
            they must be picklable: ``functools.partial(make_environment, "cartpole")``, not a lambda.
        timeout: seconds that all environments together may take for one step.
        on_invalid, told: see `InvalidSteps`.

    Raises:
        UserError: an environment refused to be made, see `make_environment`.
        RuntimeError: an environment could not be made for another reason.
    """

    def __init__(
        self,
        makes: Sequence[Make],
        *,
        timeout: float = 60.0,
        on_invalid: OnInvalid = "stop",
        told: set[str] | None = None,
    ) -> None:
        self.num_envs = check_count(makes)
        self._invalid = InvalidSteps(on_invalid, self.num_envs, told=told)
        self._timeout = timeout
        self._closed = False
        self._crashes = [0] * self.num_envs
        self._awaits_reset = [True] * self.num_envs
        self._workers: list[_Worker] = []
        try:
            for index, make in enumerate(makes):
                self._workers.append(_Worker(index, make))
            deadline = time.monotonic() + _START_TIMEOUT
            faces = [worker.receive(deadline) for worker in self._workers]
        except BaseException as error:
            self.close()
            if isinstance(error, _Lost):
                raise RuntimeError(f"{error} while it was starting") from None
            raise
        self.observation_space, self.action_space, self.features = faces[0]

    def step(self, commands: Sequence[Reset | np.ndarray]) -> Records:
        """See `VectorEnvironment.step`."""
        check_commands(commands, self._awaits_reset)
        records = empty_records(self.observation_space, len(self.features), self.num_envs)
        deadline = time.monotonic() + self._timeout
        failures = {index: self._try_to_send(index, command) for index, command in enumerate(commands)}
        error: Exception | None = None
        for index, failure in failures.items():
            try:
                if failure is not None:
                    raise failure
                record = self._workers[index].receive(deadline)
            except _Lost as lost:
                records["lost"][index] = True
                failures[index] = lost
            except InvalidStep as invalid:
                self._awaits_reset[index] = records["lost"][index] = True
                error = error or self._invalid.refuse(index, invalid)
            except (UserError, RuntimeError) as raised:  # hear the others first, lest answers pile up
                self._awaits_reset[index] = True
                error = error or raised
            else:
                self._invalid.accept(index, record["is_last"])
                self._crashes[index] = 0 if not record["is_first"] else self._crashes[index]
                self._awaits_reset[index] = record["is_last"]
                for key, value in record.items():
                    records[key][index] = value
        for index, failure in failures.items():
            if failure is not None:
                self._replace(index, failure)
        if error is not None:
            raise error
        return records

    def _try_to_send(self, index: int, command: Reset | np.ndarray) -> _Lost | None:
        try:
            self._workers[index].send(command)
        except _Lost as lost:
            return lost
        return None

    def _replace(self, index: int, lost: _Lost) -> None:
        """Start a new worker in the place of a lost one."""
        self._crashes[index] += 1
        self._awaits_reset[index] = True
        if self._crashes[index] >= _MOST_CRASHES:
            raise RuntimeError(f"{lost}, {self._crashes[index]} times in a row without a step in between")
        _LOGGER.warning("%s; it is restarted and its open episode dropped", lost)
        old = self._workers[index]
        old.stop(grace=0.0)
        self._workers[index] = _Worker(index, old.make)
        try:
            self._workers[index].receive(time.monotonic() + _START_TIMEOUT)
        except _Lost as again:
            raise RuntimeError(f"{again} while it was restarting") from None

    def close(self) -> None:
        """See `VectorEnvironment.close`; workers that do not end by themselves are killed."""
        if self._closed:
            return
        self._closed = True
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.stop(grace=5.0)


class _Worker:
    """The parent's end of one process."""

    def __init__(self, index: int, make: Make) -> None:
        self.make = make
        self._index = index
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), name=f"environment {index}", daemon=True)
        self._process.start()
        theirs.close()  # so that a dead worker is noticed as the end of the pipe

    def send(self, command: Reset | np.ndarray | None) -> None:
        try:
            self._pipe.send(command)
        except OSError:
            raise self._death() from None

    def receive(self, deadline: float) -> Any:
        """Return the answer to what was sent, or raise what the environment raised, or `_Lost`."""
        try:
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                raise _Lost(f"environment {self._index} did not answer in time")
            succeeded, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if not succeeded:
            raise answer
        return answer

    def _death(self) -> _Lost:
        self._process.join(1.0)
        return _Lost(f"the process of environment {self._index} died (exit code {self._process.exitcode})")

    def ask_to_end(self) -> None:
        try:
            self._pipe.send(None)
        except OSError:
            return  # it has ended already

    def stop(self, *, grace: float) -> None:
        """End the process; kill it if it has not ended after ``grace`` seconds."""
        self._process.join(grace)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Make) -> None:
    """Run in the worker: make the environment, tell its spaces and features, then obey until told to end.

    Every answer is (True, result) or (False, exception).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears an interrupt and closes
    try:
        actor = Actor(make())
        env = actor.env
        answer: Any = (env.observation_space, env.action_space, env.features)
        pipe.send((True, answer))
    except Exception as error:
        pipe.send((False, _portable(error)))
        return
    while True:
        try:
            command = pipe.recv()
        except EOFError:  # the parent is gone
            return
        if command is None:
            env.close()
            return
        try:
            answer = (True, actor.obey(command))
        except Exception as error:
            answer = (False, _portable(error))
        pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """Return the exception as one that certainly survives the way to the parent."""
    if isinstance(error, InvalidStep):
        return error
    if isinstance(error, UserError):
        return UserError(str(error))
    return RuntimeError(f"an environment's process raised:\n{traceback.format_exc().rstrip()}")
