"""Dreams of images line up with the records, and their errors are the mean squares of what is seen."""

import numpy as np
import pytest
import torch
from test_dreams import ExactAgent, LateAgent, make_episode, swap

from agents.dreaming import dreams as dreaming
from agents.dreaming.channels import channels_of, image_keys
from agents.dreaming.dreams import OBSERVED, dream_episodes
from agents.dreaming.errors import image_errors, overall_errors

SIZE = 16
ROWS = torch.arange(SIZE, dtype=torch.float64)[:, None, None]


def draw(x):
    """The fake world's picture [..., 16, 16, 3] of x [...], in [0, 255]: every x has another."""
    bars = 0.5 + 0.5 * torch.sin(x.double()[..., None, None, None] * (1 + ROWS / 8) + ROWS)
    return (250 * bars).expand(*x.shape, SIZE, SIZE, 3)


class Painter:
    """Makes an agent of the fake world also decode images, ``shift`` brighter than they are."""

    def __init__(self, agent, shift=0.0):
        self.agent, self.shift = agent, shift
        self.condition, self.observe, self.imagine = agent.condition, agent.observe, agent.imagine
        self.rows = []

    def decode(self, state, latent, context):
        self.rows.append(context.shape[:-1].numel())
        decoded = self.agent.decode(state, latent, context)
        return decoded | {"observation/image": draw(latent["deter"][..., 0]).round() + self.shift}


def picture_episode(*arguments):
    episode = make_episode(*arguments)
    x = torch.from_numpy(episode["observation/state"][:, 0].copy())
    return {**episode, "observation/image": draw(x).round().to(torch.uint8).numpy()}


@pytest.fixture
def episodes():
    return [picture_episode(30, 1.0, 0), picture_episode(12, 0.5, 1), picture_episode(6, 2.0, 2)]


def dream(agent, episodes, swapped=(1, 0.5, 2)):
    channels = channels_of("fake", episodes[0])
    return dream_episodes(agent, None, episodes, swap(episodes, swapped), channels, horizon=20)


def test_images_are_no_channels_but_a_kind_of_their_own(episodes):
    assert image_keys(episodes[0]) == ("observation/image",)
    assert [c.key for c in channels_of("fake", episodes[0])] == 2 * ["observation/state"] + ["reward", "continue"]


def test_exact_agent_dreams_the_recorded_images(episodes):
    dreams = dream(Painter(ExactAgent()), episodes)
    images = dreams.images["observation/image"]
    assert images.truth.shape == (3, OBSERVED + 20, SIZE, SIZE, 3) and images.truth.dtype == np.uint8
    for index, episode in enumerate(episodes):
        records = min(len(episode["reward"]), OBSERVED + 20)
        np.testing.assert_array_equal(images.truth[index, :records], episode["observation/image"][:records])
        assert not images.truth[index, records:].any() and not images.dreamt["true"][index, records:].any()
    np.testing.assert_array_equal(images.dreamt["true"], images.truth)
    assert not dreams.swap_matters
    for errors in image_errors(dreams):
        assert errors.episodes.tolist() == [3, 3] + 6 * [2] + 12 * [1]
        assert np.all(errors.mean == 0)


def test_an_agent_that_is_late_errs_at_every_horizon(episodes):
    for errors in image_errors(dream(Painter(LateAgent()), episodes)):
        assert np.all(errors.mean > 1e-4)


def test_swapped_images_are_those_of_the_swapped_world(episodes):
    dreams = dream(Painter(ExactAgent()), episodes, (3.0, 1.5, 0.25))
    images, x = dreams.images["observation/image"], dreams.dreamt["swapped"][..., 0]
    assert dreams.swap_matters
    np.testing.assert_array_equal(images.dreamt["swapped"][:, :OBSERVED], images.truth[:, :OBSERVED])
    expected = draw(torch.from_numpy(x[0])).round().numpy()
    np.testing.assert_array_equal(images.dreamt["swapped"][0], expected)


def test_only_the_images_need_to_differ_for_the_swap_to_matter(episodes):
    dreams = dream(Painter(ExactAgent()), episodes)
    assert not dreams.swap_matters
    dreams.images["observation/image"].dreamt["swapped"][0, 9, 3, 3, 0] ^= 1
    assert dreams.swap_matters


def test_errors_are_mean_squares_of_what_is_decoded(episodes):
    """A shift of 25.5 of 255 has the square 0.01, also where the picture that is shown is cut at 255."""
    dreams = dream(Painter(ExactAgent(), shift=25.5), episodes)
    images = dreams.images["observation/image"]
    for errors in image_errors(dreams):
        np.testing.assert_allclose(errors.median, 0.01, rtol=1e-6)
    first = images.dreamt["true"][0]
    np.testing.assert_array_equal(first, np.minimum(images.truth[0].astype(int) + 25, 255))
    assert first.max() == 255 and np.isnan(images.errors["true"][2, 7:]).all()


def test_error_of_one_pixel_by_hand(episodes):
    class OneWrong(Painter):
        def decode(self, state, latent, context):
            decoded = super().decode(state, latent, context)
            decoded["observation/image"] = decoded["observation/image"].clone()
            wrong = decoded["observation/image"][..., 2, 5, 1]
            wrong += torch.where(wrong > 127, -102.0, 102.0)  # 0.4 of 255
            return decoded

    errors = image_errors(dream(OneWrong(ExactAgent()), episodes))[0]
    np.testing.assert_allclose(errors.mean, 0.16 / (SIZE * SIZE * 3), rtol=1e-6)
    assert errors.channel.key == "observation/image" and errors.channel.name.startswith("image")


def test_images_are_decoded_in_portions(episodes, monkeypatch):
    whole = dream(Painter(ExactAgent()), episodes)
    monkeypatch.setattr(dreaming, "_DECODED_ROWS", 7)
    agent = Painter(ExactAgent())
    portions = dream(agent, episodes)
    assert max(agent.rows) == 6 and sum(agent.rows) == 3 * (OBSERVED + 2 * 20)
    np.testing.assert_array_equal(portions.truth, whole.truth)
    for name in ("true", "swapped"):
        np.testing.assert_array_equal(portions.dreamt[name], whole.dreamt[name])
        np.testing.assert_array_equal(
            portions.images["observation/image"].dreamt[name], whole.images["observation/image"].dreamt[name]
        )


def test_agents_of_images_alone_have_no_overall_error(episodes):
    channels = channels_of("fake", {"observation/image": episodes[0]["observation/image"]})
    swapped = swap(episodes, (1, 0.5, 2))
    dreams = dream_episodes(Painter(ExactAgent()), None, episodes, swapped, channels, horizon=20)
    assert [channel.key for channel in dreams.channels] == ["reward", "continue"]
    assert overall_errors(dreams) == [] and len(image_errors(dreams)) == 2
