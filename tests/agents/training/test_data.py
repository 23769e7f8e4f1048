"""What sequences start from: the latents of acting, those that updates leave behind, and burn-in."""

import numpy as np
import pytest
import torch
from training_run import TINY_AGENT, tiny_config

from agents.dreamerv3 import compact, expand
from agents.run_folder import RunFolder
from agents.seeding import torch_generator
from agents.training.session import Session

TICKS = 40  # records of each of the two streams


@pytest.fixture
def make_session(tmp_path):
    """A session with disturbed weights, so that latents depend on those before, and some ticks behind it."""
    sessions = []

    def make(context="crssm", **training):
        section = {"environment_steps": 120, "start_steps": 30} | training
        model = TINY_AGENT["world_model"] | {"context": context, "context_encoder": {"history": 9}}
        config = tiny_config(agent={"world_model": model}, training={**tiny_config().training.model_dump(), **section})
        session = Session(config, RunFolder.prepare(tmp_path / f"run{len(sessions)}", config))
        sessions.append(session)
        for value in session.learner.state["parameters"].values():
            value += 0.3 * torch.randn(value.shape, generator=torch_generator(0, "test"))
        for _ in range(TICKS):
            session.collector.tick()
        return session

    yield make
    for session in sessions:
        session.close()


def whole_streams(session):
    """Return the records [E, N, ...] of all streams and the posteriors that acting computed, step by step."""
    replay, agent, learner = session.replay, session.learner.agent, session.learner
    everything, positions = np.arange(2), np.tile(np.arange(TICKS), (2, 1))
    records = replay._pages[0].gather(everything, positions, "cpu")
    noise = [agent.act_noise(2, torch_generator(learner.seed, "act", tick))["posterior"] for tick in range(TICKS)]
    return records, agent.observe(learner.state, records, torch.stack(noise, 1)), torch.stack(noise, 1)


def test_sequences_start_from_the_latent_that_was_acted_on(make_session):
    session = make_session(sequence_start="stored")
    records, posterior, noise = whole_streams(session)
    assert records["is_last"].sum() > 2  # episodes end within sequences
    places = session.replay.draw(16, 6, np.random.default_rng(0), before=1)
    batch = session.data.batch(places)
    assert batch["carry/deter"].shape == (16, 16) and batch["carry/stoch"].shape == (16, 4, 2)
    trained = [(env, slice(start + 1, start + 7)) for env, start in zip(places.streams, places.starts, strict=True)]
    for key, value in records.items():
        assert torch.equal(batch[key], torch.stack([value[env, steps] for env, steps in trained])), key
    before = torch.stack([records["action"][env, steps.start - 1] for env, steps in trained])
    assert torch.equal(batch["carry/action"], before)

    given = torch.stack([noise[env, steps] for env, steps in trained])
    observed = session.learner.agent.observe(session.learner.state, batch, given)
    wanted = torch.stack([posterior["deter"][env, steps] for env, steps in trained])
    torch.testing.assert_close(observed["deter"], wanted, rtol=0, atol=0.01)
    assert torch.equal(
        observed["stoch"].argmax(-2), torch.stack([posterior["stoch"][env, steps] for env, steps in trained]).argmax(-2)
    )
    zero = {key: value for key, value in batch.items() if not key.startswith("carry/")}
    without = session.learner.agent.observe(session.learner.state, zero, given)
    assert (without["deter"][:, 0] - wanted[:, 0]).abs().max() > 0.1


def test_updates_renew_the_latents_of_the_steps_that_they_trained(make_session):
    session = make_session(sequence_start="stored")
    replay, learner = session.replay, session.learner
    positions = np.tile(np.arange(TICKS), (2, 1))

    def kept():
        return replay._pages[1].gather(np.arange(2), positions, "cpu")

    drawn, real = [], replay.draw
    replay.draw = lambda *arguments, **options: drawn.append(real(*arguments, **options)) or drawn[-1]
    expected = kept()
    batches = session.data._batches()
    updates = 0
    for batch in batches:
        if updates:  # this batch starts from what the updates before left
            start = {key: value[drawn[-1].streams, drawn[-1].starts] for key, value in expected.items()}
            for key, value in expand(start, 4).items():
                assert torch.equal(batch[f"carry/{key}"], value)
        noise = learner.agent.update_noise(4, 6, torch_generator(learner.seed, "update", learner.updates))
        posterior = learner.agent.observe(learner.state, batch, noise["posterior"])
        learner.update(batch)
        places = drawn[-1]
        for row in range(4):
            env, start = places.streams[row], places.starts[row]
            for key, value in compact(posterior["deter"][row], posterior["stoch"][row]).items():
                expected[key][env, start + 1 : start + 7] = value
        updates += 1
    assert updates > 5
    for key, value in kept().items():
        assert torch.equal(value, expected[key]), key


def test_burn_in_gives_the_records_before(make_session):
    session = make_session(burn_in=3)
    assert not session.replay.keeps_latents
    records, _, _ = whole_streams(session)
    places = session.replay.draw(8, 6, np.random.default_rng(0), before=3)
    batch = session.data.batch(places)
    for row, (env, start) in enumerate(zip(places.streams, places.starts, strict=True)):
        for key, value in records.items():
            assert torch.equal(batch[f"burn_in/{key}"][row], value[env, start : start + 3])
            assert torch.equal(batch[key][row], value[env, start + 3 : start + 9])
    session.learner.update(batch)
    assert session.learner.latents == {}


@pytest.mark.parametrize("training", [{}, {"burn_in": 3}, {"sequence_start": "stored"}])
def test_an_agent_that_infers_the_context_gets_the_records_before(make_session, training):
    """Those before each sequence as its history, and what the state is found from besides, as without a history."""
    session = make_session("inferred", **training)
    records, posterior, noise = whole_streams(session)
    places = session.replay.draw(8, 6, np.random.default_rng(0), before=9)
    batch = session.data.batch(places)
    for row, (env, start) in enumerate(zip(places.streams, places.starts, strict=True)):
        for key, value in records.items():
            assert torch.equal(batch[f"history/{key}"][row], value[env, start : start + 9])
            assert torch.equal(batch[key][row], value[env, start + 9 : start + 15])
            if "burn_in" in training:
                assert torch.equal(batch[f"burn_in/{key}"][row], value[env, start + 6 : start + 9])
        if "sequence_start" in training:
            assert torch.equal(batch["carry/action"][row], records["action"][env, start + 8])
            deter = posterior["deter"][env, start + 8]
            torch.testing.assert_close(batch["carry/deter"][row], deter, rtol=0, atol=0.01)
    session.learner.update(batch)
    assert set(session.learner.latents) == ({"latent/deter", "latent/stoch"} if "sequence_start" in training else set())


def test_every_fresh_step_is_trained_once(make_session):
    """Blocks of T new steps behind the step before, which the block before has trained."""
    replay = make_session(sequence_start="stored").replay
    places = replay.draw(12, 6, np.random.default_rng(0), before=1)  # 39 steps of each stream make 6 blocks
    trained = sorted(
        (int(env), int(start) + 1 + step)
        for env, start in zip(places.streams, places.starts, strict=True)
        for step in range(6)
    )
    assert trained == [(env, step) for env in range(2) for step in range(1, 37)]


def test_nothing_is_prepared_by_default(make_session):
    session = make_session()
    sampled = session.replay.fork().sample(4, 6, np.random.default_rng(0))
    batch = session.data.batch(session.replay.draw(4, 6, np.random.default_rng(0)))
    assert batch.keys() == sampled.keys()
    assert all(torch.equal(batch[key], value) for key, value in sampled.items())
