"""Open-loop videos of a run: which epochs have one, what they show, and that they change nothing."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_run import TINY_AGENT, tiny_config

from agents import train as entry
from agents.environments import ENVIRONMENTS
from agents.run_folder import RunFolder
from agents.train import train
from agents.training.session import Session
from agents.training.videos import OpenLoopVideos
from tests.agents.pixel_world import SIZE, Dot

CONTEXTS = {"training": {"distribution": "fixed", "contexts": ({"drift": -1.0}, {"drift": 1.0})}}


def pixel_config(**sections):
    """The tiny run in the world of the dot, its episodes 12 steps long."""
    environment = {"name": "dot", "num_envs": 2, "features": None, "time_limit": 12}
    agent = {"world_model": {**TINY_AGENT["world_model"], "depth": 2}}
    return tiny_config(**{"environment": environment, "contexts": CONTEXTS, "agent": agent, **sections})


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, "image"))


def shown(folder):
    """What TensorBoard shows: for each tag of images its (step, file)."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in events.Tags()["images"]}


def kept(folder):
    return {int(path.stem.split("_")[1]): path.read_bytes() for path in sorted((folder / "videos").iterdir())}


def results(folder):
    """Everything that training computed."""
    checkpoints = folder / "checkpoints"
    tensors = {str(path.relative_to(folder)): path.read_bytes() for path in checkpoints.rglob("*.safetensors")}
    assert len(tensors) >= 2
    return tensors | {"metrics": (folder / "metrics.csv").read_bytes()}


def test_every_epoch_has_its_video_and_tensorboard_shows_it(pictures, tmp_path):
    train(pixel_config(), tmp_path / "run")
    videos = kept(tmp_path / "run")
    assert list(videos) == [30, 60, 90, 120]
    assert len(set(videos.values())) == 4  # the agent learns in between
    assert shown(tmp_path / "run" / "tensorboard") == {"open_loop/image": list(videos.items())}
    with Image.open(io.BytesIO(videos[120])) as video:
        # Three validation episodes side by side; 12 steps and the first record, then the pause of 10 frames.
        assert video.size == (3 * 2 * (SIZE + 4), 2 * (3 * SIZE + 4))


def test_videos_change_nothing_that_is_computed(pictures, tmp_path, monkeypatch):
    train(pixel_config(), tmp_path / "with")
    monkeypatch.setattr(OpenLoopVideos, "due", lambda self, epoch: False)
    train(pixel_config(), tmp_path / "without")
    assert not (tmp_path / "without" / "videos").exists()
    assert results(tmp_path / "with") == results(tmp_path / "without")


def test_a_continued_run_shows_every_video_once(pictures, tmp_path, monkeypatch):
    train(pixel_config(), tmp_path / "whole")
    save = Session.save

    def interrupted(session):
        if session.env_steps == 90:  # its video is written, its checkpoint is not
            raise KeyboardInterrupt
        save(session)

    monkeypatch.setattr(Session, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(pixel_config(), tmp_path / "run")
    assert list(kept(tmp_path / "run")) == [30, 60, 90]
    torn = tmp_path / "run" / "videos" / ".image_000000120.gif.1.tmp"
    torn.write_bytes(b"half")
    monkeypatch.setattr(Session, "save", save)
    monkeypatch.setattr(entry, "fit", lambda *_: None)
    train(pixel_config(), tmp_path / "run")  # continued, and stopped before its next epoch
    assert [step for step, _ in shown(tmp_path / "run" / "tensorboard")["open_loop/image"]] == [30, 60]
    assert not torn.exists()
    monkeypatch.undo()
    monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, "image"))
    train(pixel_config(), tmp_path / "run")
    whole = kept(tmp_path / "whole")
    assert kept(tmp_path / "run") == whole
    assert shown(tmp_path / "run" / "tensorboard") == {"open_loop/image": list(whole.items())}


def test_the_video_is_of_the_validation_episodes(pictures, tmp_path):
    session = Session(pixel_config(), RunFolder(tmp_path))
    try:
        agent, state, vector = session.learner.agent, session.learner.state, session.validator.environments[0]
        OpenLoopVideos(session.validator, tmp_path / "videos", 4).write(7)
        video = kept(tmp_path)[7]
        job = session.validator.jobs[1]
        env = Dot("image", time_limit=12)
        observation, info = env.reset(seed=job.seed, options={"context": job.context})
        carry, images, first = agent.initial_carry(1), [observation["image"]], True
        while len(images) < 13:
            records = {
                "observation/image": torch.from_numpy(images[-1])[None],
                "is_first": torch.tensor([first]),
                "context": torch.tensor(np.array(info["context"]))[None],
            }
            action, carry = agent.act(state, carry, records, None)
            observation, *_, info = env.step(int(action.argmax()))
            images.append(observation["image"])
            first = False
        assert vector.num_envs == 1
        with Image.open(io.BytesIO(video)) as file:
            for step, image in enumerate(images):
                file.seek(step)
                frame = np.array(file.convert("RGB"))[::2, ::2].astype(int)
                column = frame[:, SIZE + 4 : 2 * (SIZE + 4)]
                assert np.abs(column[2 : 2 + SIZE, 2:-2] - image).max() < 24  # palette
                assert column[0, 0].tolist() == ([0, 255, 0] if step < 5 else [255, 0, 0])
    finally:
        session.close()


def test_a_long_run_has_twenty_videos_and_the_last_epoch_one(pictures, tmp_path):
    session = Session(pixel_config(), RunFolder(tmp_path))
    try:
        due = {n: OpenLoopVideos(session.validator, tmp_path, n) for n in (1, 20, 21, 500)}
        epochs = {n: [epoch for epoch in range(1, n + 1) if videos.due(epoch)] for n, videos in due.items()}
        assert epochs[1] == [1] and epochs[20] == list(range(1, 21))
        assert epochs[21] == [*range(2, 21, 2), 21]
        assert epochs[500] == list(range(25, 501, 25))
    finally:
        session.close()


def test_agents_without_images_have_no_videos(monkeypatch, tmp_path):
    monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, "place"))
    train(pixel_config(training={"environment_steps": 30}), tmp_path / "run")
    assert not (tmp_path / "run" / "videos").exists()
    assert shown(tmp_path / "run" / "tensorboard") == {}


def test_episodes_too_short_to_dream_of_are_left_out(pictures, tmp_path):
    environment = {"name": "dot", "num_envs": 2, "features": None, "time_limit": 4}
    train(pixel_config(environment=environment, training={"environment_steps": 30}), tmp_path / "run")
    assert not (tmp_path / "run" / "videos").exists()
