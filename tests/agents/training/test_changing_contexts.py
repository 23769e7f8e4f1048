"""A run whose contexts change within episodes: what is recorded, judged and continued, and what the model sees."""

import numpy as np
import pytest
import torch
from training_run import tiny_config

from agents.configuration import check_contexts
from agents.environments import Change
from agents.errors import UserError
from agents.evaluation.episodes import list_jobs
from agents.evaluation.rollout import run_episodes
from agents.run_folder import RunFolder
from agents.train import train
from agents.training import build
from agents.training.session import Session
from agents.training.validation import validation_jobs

CHANGING = {"training": {"distribution": "round_robin", "ranges": {"gravity": (4.9, 14.7)}, "count": 5}}
CHANGING["training"]["change_every"] = 4


def config(**sections):
    return tiny_config(**{"contexts": CHANGING, "environment": {"time_limit": 30}, **sections})


def outcome(folder):
    """Return all files of checkpoints, replay and metrics, but for times."""
    run = RunFolder(folder)
    paths = [*run.replay.iterdir(), *run.checkpoints.rglob("*.safetensors"), run.metrics]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_stopped_run_comes_to_the_same_end(tmp_path, monkeypatch):
    short = config(training={"environment_steps": 60})
    train(short, tmp_path / "whole")
    save, saved = Session.save, []

    def save_and_stop(session):
        save(session)
        saved.append([episode for episode in session.collector.open if episode])
        raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "save", save_and_stop)
        with pytest.raises(RuntimeError, match="stop"):
            train(short, tmp_path / "stopped")
    # An open episode was saved between two of its changes.
    assert any(episode.reset.changes[0].step < len(episode.actions) for episode in saved[0])
    train(short, tmp_path / "stopped")
    whole, stopped = outcome(tmp_path / "whole"), outcome(tmp_path / "stopped")
    assert len(whole) > 5 and whole == stopped


def test_replay_holds_the_context_of_every_record(tmp_path):
    session = Session(config(), RunFolder.prepare(tmp_path / "run", config()))
    try:
        collector, contexts = session.collector, build.training_contexts(config())
        records = []
        for _ in range(60):
            collector.tick()
            records.append(collector.records)
    finally:
        session.close()
    age, changes, before = -1, 0, -1
    for record in records:
        age = 0 if record["is_first"][0] else age + 1
        assert record["context"][0, 0] == np.float32(contexts[record["context_id"][0]]["gravity"])
        if age % 4 == 1 and age > 1:  # steps 5, 9, ... are the first of another context
            changes += int(record["context_id"][0] != before)  # which may be the same by chance
        elif age > 0:
            assert record["context_id"][0] == before
        before = record["context_id"][0]
    assert changes >= 5


def test_the_sequence_model_sees_the_context_of_each_transition():
    agent = build.build_agent(config(agent={"world_model": {"context": "crssm"}}))
    state = agent.initial_state(0)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "observation/state": torch.randn(1, 6, 4, generator=generator),
        "action": torch.nn.functional.one_hot(torch.zeros(1, 6, dtype=torch.long), 2).float(),
        "is_first": torch.zeros(1, 6, dtype=torch.bool),
        "context": torch.full((1, 6, 2), 9.0),
    }
    before = agent.observe(state, batch)["deter"]
    batch["context"][:, 3:, 0] = 14.0  # the transition from record 2 to record 3 is the first under the new one
    after = agent.observe(state, batch)["deter"]
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3], after[:, 3]).all()


def test_judged_episodes_go_through_their_region_in_turn():
    regions = {"one": [{"gravity": 5.0}], "three": [{"gravity": 5.0}, {"gravity": 6.0}, {"gravity": 7.0}]}
    jobs = list_jobs(regions, 1, 0, change_steps=(3, 5, 7))
    assert jobs[0].changes == tuple(Change(step, {"gravity": 5.0}, 0) for step in (3, 5, 7))
    gravity, ids = (6.0, 7.0, 5.0), (1, 2, 0)
    assert jobs[1].changes == tuple(
        Change(step, {"gravity": g}, i) for step, g, i in zip((3, 5, 7), gravity, ids, strict=True)
    )
    assert [job.seed for job in jobs] == [job.seed for job in list_jobs(regions, 1, 0)]
    assert validation_jobs(regions["three"], 1, 0, (3,))[0].changes[0].step == 3
    agent = build.build_agent(config())
    episode = run_episodes(
        agent, agent.initial_state(0), [build.make_vector(config(), 1)], jobs[1:2], record=True, rows=1
    )[0]
    assert episode.records["context"][:6, 0].tolist() == [5.0, 5.0, 5.0, 6.0, 6.0, 7.0]
    assert episode.records["context_id"][:6].tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("contexts", "environment", "message"),
    [
        ({"training": {"distribution": "default", "change_every": 3}}, {}, "change_every must be null"),
        (CHANGING, {"name": "gym/CartPole-v1", "features": ()}, "contexts.training.change_every: .* shows no feature"),
        (
            {"evaluation": {"change_every": 3}},
            {"name": "frozen"},
            "contexts.evaluation.change_every: the context of 'cartpole' acts at a reset only",
        ),
        ({"evaluation": {"change_every": 3}}, {"name": "endless"}, "has no time limit; give environment.time_limit"),
    ],
)
def test_what_cannot_change_is_refused_in_one_line(monkeypatch, contexts, environment, message):
    from agents.environments.classic import CartPole
    from agents.environments.registry import ENVIRONMENTS

    class Frozen(CartPole):
        live_context = False

    class Endless(CartPole):
        longest_episode = None

    monkeypatch.setitem(ENVIRONMENTS, "frozen", Frozen)
    monkeypatch.setitem(ENVIRONMENTS, "endless", Endless)
    with pytest.raises((UserError, ValueError), match=message):
        check_contexts(config(contexts=contexts, environment=environment), "walk.yaml")
