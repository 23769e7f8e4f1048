"""Configurations: what is shipped, what is read, and how every mistake is told."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from agents.configuration import (
    RunConfig,
    differences,
    find_config,
    finding,
    load_config,
    save_config,
    settings,
    shipped_configs,
)
from agents.configuration.fields import expand_contexts
from agents.environments.registry import ENVIRONMENTS
from agents.errors import UserError
from tests.agents.pixel_world import Dot
from tests.extras import extra_of, needs

SHIPPED = sorted(path.stem for path in shipped_configs().glob("*.yaml"))


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def complaint(folder: Path, text: str, *overrides: str) -> str:
    """Return the error of a configuration, which must be one line."""
    with pytest.raises(UserError) as caught:
        load_config(write(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


def models(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += models(field.annotation)
    return found


@pytest.mark.parametrize("model", models(RunConfig), ids=lambda model: model.__name__)
def test_every_field_is_documented_and_nothing_unknown_is_taken(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
    assert model.model_config["frozen"] and model.model_config["extra"] == "forbid"


def shipped(name: str) -> Any:
    """Return the name as a parameter that is skipped where its environment's package is missing."""
    data = yaml.safe_load((shipped_configs() / f"{name}.yaml").read_text(encoding="utf-8"))
    extra = extra_of(data["environment"]["name"])
    return pytest.param(name, marks=[needs(extra)] if extra else [])


@pytest.mark.parametrize("name", [shipped(name) for name in SHIPPED])
def test_shipped_configurations_load_and_survive_saving(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.name == name
    saved = tmp_path / "config.yaml"
    save_config(config, saved)
    assert load_config(str(saved)) == config
    # Nothing is left to a default that a later version might change.
    assert set(settings(config)) == set(settings(RunConfig()))
    assert yaml.safe_load(saved.read_text())["environment"]["num_envs"] == config.environment.num_envs


def test_cartpole_trains_in_the_published_contexts() -> None:
    contexts = load_config("cartpole").contexts
    assert contexts.training.ranges == {"gravity": (4.9, 14.7), "length": (0.35, 0.75)}
    assert (contexts.training.distribution, contexts.training.count) == ("round_robin", 100)
    regions = contexts.evaluation.regions

    def outside(context: dict[str, float]) -> int:
        return sum(not low <= context[name] <= high for name, (low, high) in contexts.training.ranges.items())

    everything = [tuple(sorted(context.items())) for region in regions.values() for context in region]
    assert len(everything) == len(set(everything)) == 84
    factors = {"interpolation": {0}, "one_factor": {1}, "extrapolation": {2}}
    assert {region: {outside(context) for context in regions[region]} for region in regions} == factors


def test_walker_is_judged_in_the_published_contexts() -> None:
    contexts = load_config("dmc_walker_walk").contexts
    everything = [tuple(sorted(c.items())) for region in contexts.evaluation.regions.values() for c in region]
    assert len(everything) == len(set(everything)) == 84


def test_lists_of_values_stand_for_their_product() -> None:
    expanded = expand_contexts([{"gravity": [1.0, 2.0], "length": [3.0, 4.0]}, {"gravity": 5.0}])
    assert expanded == (
        {"gravity": 1.0, "length": 3.0},
        {"gravity": 1.0, "length": 4.0},
        {"gravity": 2.0, "length": 3.0},
        {"gravity": 2.0, "length": 4.0},
        {"gravity": 5.0},
    )


def test_a_name_means_the_file_here_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("smoke") == shipped_configs() / "smoke.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "smoke.yaml").write_text("seed: 7\n")
    assert load_config("smoke").seed == 7
    assert load_config(str(shipped_configs() / "smoke.yaml")).seed == 0


def test_shipped_configurations_lie_in_the_package_once_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_configs() == Path(__file__).resolve().parents[2] / "configs"
    monkeypatch.setattr(finding, "__file__", str(tmp_path / "agents" / "configuration" / "finding.py"))
    assert shipped_configs() == tmp_path / "configs"
    (tmp_path / "agents" / "configs").mkdir(parents=True)
    assert shipped_configs() == tmp_path / "agents" / "configs"


def test_omitted_fields_have_their_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == RunConfig()
    assert differences(load_config(write(tmp_path, "seed: 3")), RunConfig()) == {"seed": (3, 0)}


def test_numbers_may_be_written_in_any_usual_way(tmp_path: Path) -> None:
    text = "agent: {hyperparameters: {learning_rate: 1e-4, warmup: 200}}\nreplay: {capacity: 1e6}"
    config = load_config(write(tmp_path, text))
    assert config.agent.hyperparameters.learning_rate == 0.0001
    assert config.agent.hyperparameters.warmup == 200.0
    assert config.replay.capacity == 1_000_000 and isinstance(config.replay.capacity, int)


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["--seed", "3"], "seed", 3),
        (["--seed=3"], "seed", 3),
        (["--agent.hyperparameters.learning_rate", "1e-5"], "agent.hyperparameters.learning_rate", 1e-5),
        (["--agent.hyperparameters.learning-rate", "1e-5"], "agent.hyperparameters.learning_rate", 1e-5),
        (["--environment.features", "length", "gravity"], "environment.features", ["length", "gravity"]),
        (["--environment.features", "[length, gravity]"], "environment.features", ["length", "gravity"]),
        (["--environment.features", "null"], "environment.features", None),
        (["--agent.world_model.context", "hidden"], "agent.world_model.context", "hidden"),
        (
            ["--contexts.training.ranges", "{gravity: [9, 10]}"],
            "contexts.training.ranges",
            {"gravity": [9.0, 10.0]},
        ),
        (["--contexts.evaluation.regions", "{}"], "contexts.evaluation.regions", {}),
    ],
)
def test_overrides_change_that_setting_and_no_other(overrides: list[str], path: str, value: Any) -> None:
    before, after = settings(load_config("smoke")), settings(load_config("smoke", overrides))
    assert after == before | {path: value}


def test_flags_of_the_context_can_be_given_one_by_one() -> None:
    config = load_config("smoke", ["--agent.world_model.context", "{decoder: true}"])
    assert config.agent.world_model.flags.decoder and not config.agent.world_model.flags.actor
    assert settings(config)["agent.world_model.context"]["decoder"] is True


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "agent: {horizn: 3}",
            "mine.yaml: unknown key 'agent.horizn' (did you mean 'horizon'?); valid here: world_model,",
        ),
        ("sede: 3", "mine.yaml: unknown key 'sede' (did you mean 'seed'?); valid here: name, seed,"),
        ("seed: abc", 'mine.yaml: seed: must be an integer, got "abc" (Seed of everything'),
        ("seed: '3'", 'mine.yaml: seed: must be an integer, got "3"'),
        ("seed: true", "mine.yaml: seed: must be an integer, got true"),
        ("seed: 1.5", "mine.yaml: seed: must be an integer"),
        ("environment: 3", "mine.yaml: environment: must be a mapping of keys to values, got 3"),
        (
            "environment: {features: gravity}",
            'mine.yaml: environment.features: must be a list, got "gravity"',
        ),
        ("seed: -1", "mine.yaml: seed: must be greater than or equal to 0, got -1"),
        ("training: {train_ratio: .inf}", "mine.yaml: training.train_ratio: must be a finite number"),
        ("replay: {storage: disk}", "mine.yaml: replay.storage: must be 'ram', 'mmap' or 'device', got \"disk\""),
        ("agent: {world_model: {context: crsm}}", "must be 'hidden', 'concat', 'crssm' or 'inferred', got \"crsm\""),
        (
            "agent: {world_model: {context: {decodr: true}}}",
            "mine.yaml: unknown key 'agent.world_model.context.decodr' (did you mean 'decoder'?)",
        ),
        ("agent: {world_model: {bins: 4}}", "mine.yaml: agent.world_model: bins=4 must be odd"),
        ("name: a/b", "mine.yaml: name: "),
        (
            "environment: {observation_scale: {state: [1, 0]}}",
            "observation_scale: the numbers for 'state' must all be > 0",
        ),
        (
            "environment: {features: [length, length]}",
            "environment.features: every feature may be named once",
        ),
        (
            "contexts: {training: {ranges: {gravity: [2, 1]}}}",
            "'gravity' must go from low to high, got [2, 1]",
        ),
        ("contexts: {training: {distribution: uniform}}", "'uniform' takes ranges and no contexts"),
        ("contexts: {training: {contexts: [{gravity: 9}]}}", "'default' takes neither ranges nor contexts"),
        (
            "contexts: {evaluation: {regions: {training: [{}]}}}",
            "'training' is always that of the training contexts",
        ),
        ("contexts: {evaluation: {regions: {here: []}}}", "the region 'here' needs at least one context"),
        (
            "contexts: {evaluation: {regions: {here: 3}}}",
            "contexts.evaluation.regions.here: must be a list, got 3",
        ),
        (
            "training: {environment_steps: 1500}",
            "mine.yaml: training.epoch_steps (1000) must divide training.environment_steps (1500)",
        ),
        (
            "environment: {num_envs: 3}",
            "mine.yaml: environment.num_envs (3) must divide training.epoch_steps (1000)",
        ),
        ("training: {start_steps: 8}", "training.start_steps (8) must be at least environment.num_envs x "),
        (
            "training: {sequence_start: stored, start_steps: 64}\nenvironment: {num_envs: 1}",
            "start_steps (64) must be at least environment.num_envs x (training.batch_length + 1 before it) = 65",
        ),
        (
            "training: {burn_in: 9, start_steps: 72}\nenvironment: {num_envs: 1}",
            "start_steps (72) must be at least environment.num_envs x (training.batch_length + 9 before it) = 73",
        ),
        ("training: {sequence_start: stored, burn_in: 2}", "burn_in (2) is for sequence_start zero"),
        ("training: {sequence_start: one}", "training.sequence_start: must be 'zero' or 'stored'"),
        (
            "training: {sequence_start: stored}\nagent: {world_model: {classes: 257}}",
            "training.sequence_start stored keeps classes as bytes: agent.world_model.classes (257)",
        ),
        ("replay: {capacity: 100}", "mine.yaml: replay.capacity (100) must be at least 4096"),
        ("seed: [", "mine.yaml, line 1: not valid YAML"),
        ("seed: 1\nname: a\nseed: 2", "mine.yaml, line 3: not valid YAML (key 'seed' is given twice)"),
        ("- 3", "mine.yaml: must be a mapping of keys to values"),
        ("\x00", "mine.yaml: not valid YAML"),
        ("environment: {name: cartpol}", "unknown environment 'cartpol'; valid: cartpole, pendulum"),
        ("environment: {features: [gravty]}", "gravty"),
        (
            "contexts: {training: {distribution: uniform, ranges: {gravty: [9, 10]}}}",
            "training.ranges: the environment 'cartpole' shows no feature 'gravty' (did you mean 'gravity'?)",
        ),
        (
            "contexts: {evaluation: {regions: {far: [{gravity: [9, 2000]}]}}}",
            "contexts.evaluation.regions.far: gravity must be from 0.1 to 100 m/s^2, got 2000",
        ),
        (
            "environment: {features: [length]}\ncontexts: {training: {distribution: fixed, contexts: [{gravity: 9}]}}",
            "training.contexts: the environment 'cartpole' shows no feature 'gravity'; it shows: length",
        ),
    ],
)
def test_mistakes_in_a_file_are_told_with_file_key_and_remedy(text: str, told: str, tmp_path: Path) -> None:
    assert told in complaint(tmp_path, text)


def test_the_environment_is_made_as_the_run_will_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, "image"))
    told = complaint(tmp_path, "environment: {name: dot, observations: state}")
    assert told == "environment dot has no state to observe; valid observations: pixels"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["--agent.horizn", "3"],
            "command line: unknown option '--agent.horizn' (did you mean '--agent.horizon'?)",
        ),
        (["--learning_rate", "3"], "(did you mean '--agent.hyperparameters.learning_rate'?)"),
        (["--seed", "-1"], "command line: seed: must be greater than or equal to 0, got -1"),
        (["--seed", "1", "2"], "command line: seed: must be an integer"),
        (["--seed"], "command line: seed: must be an integer"),
        (["--seed", "{"], "command line: --seed, line 1: not valid YAML"),
        (
            ["--environment.vector", "serail"],
            "command line: environment.vector: must be 'serial' or 'subprocess'",
        ),
        (["extra"], "command line: "),
    ],
)
def test_mistakes_on_the_command_line_are_told_as_such(overrides: list[str], told: str, tmp_path: Path) -> None:
    assert told in complaint(tmp_path, "", *overrides)


def test_a_mistake_in_the_file_is_not_blamed_on_the_command_line(tmp_path: Path) -> None:
    assert complaint(tmp_path, "training: {threads: 0}", "--seed", "3").startswith("mine.yaml: training.threads")


def test_missing_files_are_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration named 'cartpol' \(did you mean 'cartpole'\?\)"):
        load_config("cartpol")
    with pytest.raises(UserError, match=r"absent\.yaml: no such file.*cartpole"):
        load_config(str(tmp_path / "absent.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a text file"):
        load_config(str(tmp_path / "binary.yaml"))


def test_differences_are_named_by_path() -> None:
    one = load_config("smoke")
    other = load_config("smoke", ["--seed", "1", "--agent.world_model.context", "{actor: true}"])
    different = differences(one, other)
    assert set(different) == {"seed", "agent.world_model.context"}
    assert different["seed"] == (0, 1)
    assert different["agent.world_model.context"][0] == "crssm"
