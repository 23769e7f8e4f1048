"""Environments by their Gymnasium id: the original step for step, contexts of MuJoCo's, one line where it fails."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agents.environments import ActionCodec, InvalidStep, Reset, SerialVector, make_environment
from agents.environments.gym_mujoco import _without_windows
from agents.errors import UserError

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
MUJOCO = (
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "HumanoidStandup-v5", "Reacher-v5"),
    *("Pusher-v5", "Swimmer-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
)


def original(identifier):
    """Gymnasium's own environment, made without what only its windows need."""
    with _without_windows():
        return gymnasium.make(identifier, disable_env_checker=True)


def actions(space, count, seed=0):
    """Return actions as an agent would give them, [count, A]."""
    codec, generator = ActionCodec(space), np.random.default_rng(seed)
    if codec.discrete:
        return np.eye(codec.size, dtype=np.float32)[generator.integers(codec.size, size=count)]
    return generator.uniform(-1, 1, (count, codec.size)).astype(np.float32)


@pytest.mark.parametrize("identifier", [*CLASSIC, *MUJOCO])
def test_equals_the_original_step_for_step(identifier):
    ours, theirs = make_environment(f"gym/{identifier}"), original(identifier)
    codec = ActionCodec(ours.action_space)
    assert ours.action_space == theirs.action_space
    ours.reset(seed=99)  # what was played before leaves no trace
    ours.step(codec.decode(actions(ours.action_space, 1)[0]))
    for seed in (0, 1):
        observation, info = ours.reset(seed=seed)
        expected, _ = theirs.reset(seed=seed)
        for command in actions(ours.action_space, 60, seed):
            np.testing.assert_array_equal(observation["state"], expected.astype(np.float32), strict=True)
            observation, *rest, info = ours.step(codec.decode(command))
            expected, *expected_rest, _ = theirs.step(codec.decode(command))
            assert rest == expected_rest
            if rest[1] or rest[2]:
                break
        np.testing.assert_array_equal(observation["state"], expected.astype(np.float32), strict=True)
        assert info["context"].shape == (len(ours.features),)
        np.testing.assert_array_equal(ours.reset()[0]["state"], theirs.reset()[0].astype(np.float32))  # same stream
    ours.close()


@pytest.mark.parametrize(("identifier", "limit"), [("MountainCar-v0", 200), ("Reacher-v5", 50), ("Acrobot-v1", 500)])
def test_the_registered_time_limit_truncates(identifier, limit):
    ours, theirs = make_environment(f"gym/{identifier}"), original(identifier)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    still = 1 if isinstance(ours.action_space, spaces.Discrete) else np.zeros(ours.action_space.shape, np.float32)
    for step in range(1, limit + 1):
        ended = ours.step(still)[2:4]
        assert ended == theirs.step(still)[2:4] == (False, step == limit)
    short = make_environment(f"gym/{identifier}", time_limit=4, action_repeat=3)
    short.reset(seed=0)
    assert [short.step(still)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_action_repeat_sums_rewards_and_stops_at_a_terminal_state():
    env, single = make_environment("gym/Hopper-v5", action_repeat=7), make_environment("gym/Hopper-v5")
    env.reset(seed=0)
    single.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32):
        observation, reward, terminated, truncated, _ = env.step(action)
        steps = []
        while len(steps) < 7 and not (steps and steps[-1][2]):
            steps.append(single.step(action))
        np.testing.assert_array_equal(observation["state"], steps[-1][0]["state"])
        assert (reward, terminated, truncated) == (sum(step[1] for step in steps), steps[-1][2], False)
        if terminated:
            assert len(steps) < 7  # with this seed, it falls in the middle
            return
    pytest.fail("it never fell")


def test_terminal_and_time_limit_in_records():
    env, falls = make_environment("gym/CartPole-v1"), 1
    env.reset(seed=0)
    while not env.step(0)[2]:
        falls += 1
    vector = SerialVector([lambda: make_environment("gym/CartPole-v1", time_limit=falls)] * 2)
    vector.step([Reset(0), Reset(0)])
    right, left = np.eye(2, dtype=np.float32)
    for step in range(1, falls + 1):
        records = vector.step([right, right if step % 2 else left])
    assert records["is_last"].tolist() == [True, True]
    assert records["is_terminal"].tolist() == [True, False]  # one has fallen in its last step, one was cut
    assert records["context"].shape == (2, 0)


@pytest.mark.parametrize("identifier", ["HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"])
def test_mujocos_features_act_and_the_default_is_the_original(identifier):
    env = make_environment(f"gym/{identifier}")
    names = {feature.name for feature in env.features if not feature.name.endswith("_mass")} | {"body_mass"}
    everything = {
        *("gravity", "actuator_strength", "joint_damping", "geom_friction", "density", "viscosity", "body_mass"),
        "floor_friction",
    }
    floating = {
        "gravity",
        "joint_damping",
        "geom_friction",
        "floor_friction",
    }  # in a plane, with damping by the medium alone
    assert names == (everything - floating if identifier == "Swimmer-v5" else everything)
    commands = actions(env.action_space, 40)

    def rollout(context):
        states = [env.reset(seed=3, options={"context": context})[0]["state"]]
        for command in commands:
            state, _, terminated, *_ = env.step(command)
            states.append(state["state"])
            if terminated:
                break
        return np.array(states)

    before = rollout({})
    for feature in env.features:
        # The floor's friction acts where it is more than that of the feet, see test_body_masses.
        after = rollout({feature.name: 9.0 if feature.name == "floor_friction" else 1.5 * feature.default or 0.3})
        length = min(len(before), len(after))
        assert np.abs(after[:length] - before[:length]).max() > 1e-5, feature.name
    np.testing.assert_array_equal(rollout({}), before)


def test_a_walker_that_starts_in_the_air_has_friction():
    names = {feature.name for feature in make_environment("gym/Walker2d-v5").features}
    assert "geom_friction" in names


def test_others_have_no_features():
    env = make_environment("gym/Acrobot-v1", features=[])
    assert env.features == () and env.reset(seed=0)[1]["context"].shape == (0,)
    with pytest.raises(UserError, match="^environment gym/Acrobot-v1: unknown context feature 'gravity'; valid: none$"):
        env.set_context({"gravity": 1.0})
    with pytest.raises(UserError, match="^environment gym/Acrobot-v1: unknown feature 'gravity'; valid: none$"):
        make_environment("gym/Acrobot-v1", features=["gravity"])


def test_a_diverged_simulation_is_no_silent_restart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make_environment("gym/HalfCheetah-v5")
    env.reset(seed=0)
    env._data.qvel[0] = np.nan
    with pytest.raises(InvalidStep, match=r"HalfCheetah-v5: the simulation diverged \(mjWARN_BADQVEL\) at step 1 in"):
        env.step(np.zeros(6, np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(6, np.float32))
    env.reset(seed=0)
    env.step(np.zeros(6, np.float32))
    assert list(tmp_path.iterdir()) == []  # no log file of MuJoCo's


@pytest.mark.filterwarnings("ignore:.*(infinity|not normalized|symmetric|alternative render).*")
@pytest.mark.parametrize("identifier", ["Acrobot-v1", "Hopper-v5"])
def test_gymnasium_accepts_it(identifier):
    check_env(make_environment(f"gym/{identifier}"))


class Odd(gymnasium.Env):
    """Observations and actions of the kind that it is told."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.last = self.observation_space.sample()
        return self.last, {}

    def step(self, action):
        self.last = self.observation_space.sample()
        assert self.action_space.contains(action)
        return self.last, np.float64(1.5), np.bool_(action == 5), np.bool_(action == 6), {}


BOX = spaces.Box(-1, 1, (2, 3), np.float64)
ACTIONS = spaces.Discrete(3, start=4)
PICTURE = spaces.Box(0, 255, (32, 48, 3), np.uint8)
GRAY = spaces.Box(0, 255, (32, 32), np.uint8)


@pytest.fixture
def odd():
    """Register environments with any spaces, and forget them again."""
    made = []

    def make(observation_space, action_space=ACTIONS, pixels=None, **settings):
        made.append(f"Odd{len(made)}-v0")
        kwargs = {"observation_space": observation_space, "action_space": action_space}
        gymnasium.register(made[-1], Odd, kwargs=kwargs, **settings)
        return make_environment(f"gym/{made[-1]}", **(pixels or {}))

    yield make
    for identifier in made:
        del gymnasium.registry[identifier]


def test_observations_become_vectors_of_float32_and_images_of_uint8(odd):
    space = spaces.Dict({"a": BOX, "view": PICTURE, "gray": GRAY, "n": spaces.Box(0, 9, (), np.int64)})
    env = odd(space)
    kinds = {key: (box.dtype, box.shape) for key, box in env.observation_space.items()}
    assert kinds == {
        "a": (np.float32, (6,)),
        "view": (np.uint8, (32, 48, 3)),
        "gray": (np.uint8, (32, 32, 1)),
        "n": (np.float32, (1,)),
    }
    observation, _ = env.reset(seed=0)
    original = env._world.unwrapped.last
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation["a"], original["a"].astype(np.float32).reshape(6))
    np.testing.assert_array_equal(observation["view"], original["view"])
    np.testing.assert_array_equal(observation["gray"][..., 0], original["gray"])
    original["view"][:] = 0  # the world may use its arrays again
    assert observation["view"].any()
    assert set(odd(BOX).observation_space) == {"state"}
    assert set(odd(PICTURE).observation_space) == {"image"}
    env.observe("pixels")
    assert set(env.reset(seed=0)[0]) == {"view", "gray"}


def test_images_of_the_worlds_own_have_the_size_that_they_have(odd):
    own = spaces.Box(0, 255, (96, 96, 3), np.uint8)
    both = spaces.Dict({"image": own, "vector": BOX})
    for pixels in ({}, {"image_size": 96}, {"observations": "pixels"}, {"observations": "pixels", "image_size": 96}):
        assert odd(own, pixels=pixels).observation_space["image"].shape == (96, 96, 3)
    assert set(odd(both, pixels={"observations": "state", "image_size": 64}).observation_space) == {"vector"}
    for observations in (None, "pixels", "both"):
        expected = r"^environment gym/Odd\d+-v0: image_size is 64, but its own 'image' is 96 x 96; valid: null$"
        with pytest.raises(UserError, match=expected):
            odd(both, pixels={"observations": observations, "image_size": 64})
        with pytest.raises(
            UserError, match=r"^env.*: camera is 0, but nothing is drawn: its images are .*; valid: null$"
        ):
            odd(both, pixels={"observations": observations, "camera": 0})
    with pytest.raises(UserError, match=r"size is 32, but its own 'image' is 32 x 48; valid: null$"):
        odd(spaces.Dict({"image": PICTURE}), pixels={"image_size": 32})


def test_a_camera_needs_pixels():
    for observations in (None, "state"):
        with pytest.raises(
            UserError, match=r"Acrobot-v1: camera is 1, but nothing is drawn: pixels are not observed; v"
        ):
            make_environment("gym/Acrobot-v1", observations=observations, camera=1)
    space = make_environment("gym/Acrobot-v1", observations="pixels").observation_space
    assert space["image"].shape == (64, 64, 3)
    assert make_environment("gym/Acrobot-v1", image_size=32).observation_space.keys() == {"state"}


def test_actions_and_ends_reach_the_original(odd):
    vector = SerialVector([lambda: odd(BOX, max_episode_steps=None)])
    vector.step([Reset(0)])
    one_hot = np.eye(3, dtype=np.float32)
    for index, terminal in ((0, False), (0, False), (1, True)):  # of 4, 5 and 6
        records = vector.step([one_hot[index]])
        assert records["reward"] == 1.5 and records["is_terminal"] == terminal == records["is_last"]
    vector.step([Reset(0)])
    for index, truncated in ((0, False), (2, True)):  # the world cuts itself
        records = vector.step([one_hot[index]])
        assert records["is_last"] == truncated and not records["is_terminal"]
    with pytest.raises(RuntimeError, match="must be reset first"):
        vector.step([one_hot[0]])


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Discrete(4), spaces.Discrete(2), r"has observations Discrete\(4\); valid: Box, or Dict of Boxes"),
        (
            spaces.Dict({"a": spaces.Dict({})}),
            spaces.Discrete(2),
            r"observation 'a' is Dict\(\); valid: vectors, images",
        ),
        (spaces.Box(0, 1, (4, 4, 3)), spaces.Discrete(2), r"observation 'state' is Box.* valid: vectors, images"),
        (BOX, spaces.MultiBinary(2), r"has actions MultiBinary\(2\); valid: Discrete, Box"),
    ],
)
def test_what_no_agent_can_deal_with_is_refused(odd, observation, action, message):
    with pytest.raises(UserError, match=rf"^environment gym/Odd0-v0:? {message}"):
        odd(observation, action)


def needs(package):
    """Return a maker of a world whose package is missing."""

    def make(**_):
        raise gymnasium.error.DependencyNotInstalled(f"{package} is not installed, run `pip install {package}`")

    return make


def test_mistakes_are_one_line():
    gymnasium.register("Missing-v0", needs("swig"))
    try:
        for identifier, message in (
            ("Akrobot-v1", r"^unknown environment 'gym/Akrobot-v1': Environment .*Akrobot.* doesn't exist.*Acrobot-v1"),
            ("Acrobot-v9", "^unknown environment 'gym/Acrobot-v9': .*v9.* Valid: what Gymnasium has registered"),
            ("nowhere/Thing-v0", "^unknown environment 'gym/nowhere/Thing-v0': Namespace nowhere not found"),
            ("nomodule:Thing-v0", "^unknown environment 'gym/nomodule:Thing-v0': .*nomodule"),
            (
                "Missing-v0",
                "^environment gym/Missing-v0 cannot be made: swig is not installed, run `pip install swig`$",
            ),
        ):
            with pytest.raises(UserError, match=message) as told:
                make_environment(f"gym/{identifier}")
            assert "\n" not in str(told.value)
    finally:
        del gymnasium.registry["Missing-v0"]


def test_mujoco_needs_neither_windows_nor_opengl():
    script = (
        "import sys\n"
        "from agents.environments import make_environment\n"
        "env = make_environment('gym/HalfCheetah-v5')\n"
        "env.reset(seed=0)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('OpenGL', 'glfw', 'imageio', 'torch')])\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
