"""Adding an environment takes what the README says, and runs as it stands there."""

import re
from pathlib import Path

import pytest
import yaml
from gymnasium.utils.env_checker import check_env

from agents.configuration import RunConfig
from agents.environments import ENVIRONMENTS, make_environment

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The only block in this language that the README has on adding an environment."""
    section = README.partition("\n## Add an environment\n")[2].partition("\n## ")[0]
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return text


@pytest.mark.filterwarnings("ignore:.*(infinity|alternative render).*")
def test_a_new_environment(monkeypatch):
    names: dict = {}
    exec(block("python"), names)
    monkeypatch.setitem(ENVIRONMENTS, "walk", names["Walk"])
    config = RunConfig.model_validate(yaml.safe_load(block("yaml")))
    assert config.contexts.training.ranges == {"wind": (-0.5, 0.5)}
    env = make_environment("walk", time_limit=3)
    check_env(env)
    start, _ = env.reset(seed=0, options={"context": {"wind": -1.0}})
    assert env.step(1)[0]["place"] == start["place"]
