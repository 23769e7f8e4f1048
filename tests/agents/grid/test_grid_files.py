"""Files of grids: the shipped ones are the published protocol, and every mistake is one line."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest

from agents.commandline import parse_train
from agents.configuration import shipped_configs
from agents.environments import draw_contexts
from agents.errors import UserError
from agents.grid import GridRun, load_grid
from agents.grid.configuration import GridConfig

SHIPPED = sorted(path.stem for path in (shipped_configs() / "grids").glob("*.yaml"))
GRAVITY_OUTSIDE = [0.98, 1.715, 2.45, 3.185, 3.92, 15.68, 16.66, 17.64, 18.62, 19.6]
GRAVITY_OUTSIDE_DOUBLE = [0.98, 2.45, 3.92, 15.68, 17.64, 19.6]
# By world: the second feature, its training range, default and values alone, and those that vary with the first.
WORLDS = {
    "cartpole": (
        ("length", (0.35, 0.75), 9.8, 0.5),
        [0.4, 0.5, 0.6, 0.7, 0.1, 0.15, 0.2, 0.25, 0.3, 0.8, 0.85, 0.9, 0.95, 1.0],
        [0.5, 0.7, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0],
    ),
    "walker": (
        ("actuator_strength", (0.5, 1.5), 9.81, 1.0),
        [0.5, 0.75, 1.0, 1.25, 1.5, 0.1, 0.2, 0.3, 0.4, 1.6, 1.7, 1.8, 1.9, 2.0],
        [0.5, 1.0, 1.5, 0.1, 0.3, 1.6, 1.8, 2.0],
    ),
}


@cache
def shipped(name: str) -> list[GridRun]:
    return load_grid(name)


def published(world: str) -> dict[str, set[tuple[float, float]]]:
    """The 84 contexts of the protocol by region, from its lists of values."""
    (_, (low, high), first, second), alone, together = WORLDS[world]
    single_first = {(gravity, second) for gravity in [4.9, 7.35, first, 12.25, 14.7, *GRAVITY_OUTSIDE]}
    single_second = {(first, value) for value in alone} - single_first
    double = set(product([4.9, first, 14.7, *GRAVITY_OUTSIDE_DOUBLE], together)) - single_first - single_second
    assert (len(single_first), len(single_second), len(double)) == (15, 13, 56)
    regions: dict[str, set[tuple[float, float]]] = {"interpolation": set(), "one_factor": set(), "extrapolation": set()}
    for gravity, value in single_first | single_second | double:
        outside = (not 4.9 <= gravity <= 14.7) + (not low <= value <= high)
        regions[("interpolation", "one_factor", "extrapolation")[outside]].add((gravity, value))
    return regions


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_grid_judges_the_published_contexts(name: str) -> None:
    world = name.split("_")[1]
    second = WORLDS[world][0][0]
    expected = published(world)
    for run in shipped(name):
        assert run.config.environment.features == ("gravity", second)  # both are in every context vector
        regions = run.config.contexts.evaluation.regions
        values = {region: [(c["gravity"], c[second]) for c in contexts] for region, contexts in regions.items()}
        assert {region: set(contexts) for region, contexts in values.items()} == expected
        assert sum(map(len, values.values())) == 84
        assert (run.episodes, set(run.regions)) == (50, set(expected))


@pytest.mark.parametrize("name", [name for name in SHIPPED if "paper" in name])
def test_the_protocol_at_the_scale_of_the_paper(name: str) -> None:
    world = name.split("_")[1]
    second, bounds, *_ = WORLDS[world][0]
    ranges = {"first": {"gravity": (4.9, 14.7)}, "second": {second: bounds}}
    ranges |= {"double": ranges["first"] | ranges["second"]}
    runs = {run.variant: run for run in shipped(name)}
    assert len(shipped(name)) == 13 * 10
    agents = ("hidden", "concat", "crssm", "inferred")
    settings = ("single_first", "single_second", "double")
    assert list(runs) == ["default", *(f"{setting}_{agent}" for setting in settings for agent in agents)]
    for variant, run in runs.items():
        training = run.config.contexts.training
        setting, agent = variant.rsplit("_", 1) if variant != "default" else ("", "hidden")
        assert run.config.agent.world_model.context == agent
        if variant == "default":
            assert (training.distribution, training.ranges, training.contexts) == ("default", {}, ())
        else:
            assert (training.distribution, training.count, training.seed) == ("round_robin", 100, 0)
            assert training.ranges == ranges[setting.removeprefix("single_")]
        numbers = run.config.training
        assert (numbers.environment_steps, numbers.train_ratio) == (50_000 if world == "cartpole" else 500_000, 512)
        environment = run.config.environment
        assert (environment.name, environment.num_envs, environment.action_repeat) == (
            {"cartpole": "cartpole", "walker": "dmc/walker/walk"}[world],
            4,
            1,
        )
        assert environment.observations == ("pixels" if "pixels" in name else None)
        assert numbers.timeouts == "truncate"
        assert run.config.replay.capacity >= numbers.environment_steps


def test_a_feature_that_varies_alone_has_the_values_that_it_has_together_with_another() -> None:
    alone = draw_contexts({"gravity": (4.9, 14.7)}, 100, 0)
    together = draw_contexts({"gravity": (4.9, 14.7), "length": (0.35, 0.75)}, 100, 0)
    assert [context["gravity"] for context in alone] == [context["gravity"] for context in together]


def test_the_small_grid_is_what_its_runs_were_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands that train them one by one: a folder that these have made is gone on with."""
    runs = {run.label: run for run in shipped("contexts_cartpole")}
    assert list(runs) == [
        f"{variant}/seed{seed}"
        for seed in (0, 1, 2)
        for variant in ("default", "hidden", "concat", "crssm", "inferred")
    ]
    for variant in ("hidden", "concat", "crssm", "inferred"):
        command = ["cartpole", "--run", "x", "--seed", "2", "--agent.world_model.context", variant]
        assert parse_train(command)[0] == runs[f"{variant}/seed2"].config
    command = ["cartpole", "--run", "x", "--seed", "1", "--contexts.training.distribution", "default"]
    command += ["--contexts.training.ranges", "{}", "--agent.world_model.context", "hidden"]
    assert parse_train(command)[0] == runs["default/seed1"].config
    assert runs["crssm/seed2"].folder == Path("runs/contexts_cartpole/crssm/seed2")


def test_every_field_is_documented() -> None:
    assert [name for name, field in GridConfig.model_fields.items() if not field.description] == []


def write(folder: Path, **changes: str) -> str:
    fields = {
        "name": "mine",
        "base": "smoke",
        "variants": "{a: {}, b_one: {agent.horizon: 3}, b_two: {}}",
        "seeds": "[0, 1]",
    }
    path = folder / "mine.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in (fields | changes).items() if value))
    return str(path)


def test_what_a_file_leaves_out_is_that_of_the_configuration(tmp_path: Path) -> None:
    runs = load_grid(write(tmp_path, settings="{agent.horizon: 4, training.threads: 2}"))
    assert [run.label for run in runs] == [
        "a/seed0",
        "b_one/seed0",
        "b_two/seed0",
        "a/seed1",
        "b_one/seed1",
        "b_two/seed1",
    ]
    assert [run.config.agent.horizon for run in runs[:3]] == [4, 3, 4]
    assert {run.config.training.threads for run in runs} == {2}
    assert [run.config.seed for run in runs] == [0, 0, 0, 1, 1, 1]
    assert {(run.episodes, run.regions) for run in runs} == {(2, ("training", "interpolation", "extrapolation"))}


def test_a_part_of_a_grid_may_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path)
    chosen = load_grid(path, only=["b_*"], seeds=[7])
    assert [run.label for run in chosen] == ["b_one/seed7", "b_two/seed7"]
    assert [run.label for run in load_grid(path, only=["b_two", "a"], seeds=[1])] == ["a/seed1", "b_two/seed1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nmae": "x"}, "mine.yaml: unknown key 'nmae' (did you mean 'name'?); valid here: name, base, settings,"),
        ({"name": ""}, "mine.yaml: name: must be given"),
        ({"name": "a/b"}, "mine.yaml: name: "),
        ({"base": "smok"}, "no configuration named 'smok' (did you mean 'smoke'?)"),
        ({"variants": "{}"}, "mine.yaml: variants: "),
        ({"variants": "{a: }"}, "mine.yaml: variants.a: must be a mapping of keys to values"),
        ({"variants": "{a/b: {}}"}, "a variant is named with letters, digits, '.', '_' and '-', since it is a folder"),
        (
            {"variants": "{a: {agent.horizn: 3}}"},
            "mine.yaml: variants.a: no setting 'agent.horizn' (did you mean 'agent.horizon'?)",
        ),
        (
            {"variants": "{a: {agent: {horizon: 3}}}"},
            "variants.a: no setting 'agent'; name one setting, such as agent.world_model.size; settings are named by",
        ),
        (
            {"variants": "{a: {agent.horizon: 0}}"},
            "mine.yaml: variants.a: agent.horizon: must be greater than or equal",
        ),
        ({"variants": "{a: {seed: 3}}"}, "mine.yaml: variants.a: 'seed' is not for a variant"),
        (
            {"variants": "{a: {contexts.training.ranges: {gravity: [20, 30], length: [0.1, 0.2]}}}"},
            "mine.yaml: variants.a: contexts.evaluation.regions.interpolation: {gravity: 9.8, length: 0.4} does not",
        ),
        ({"settings": "{training.thread: 3}"}, "mine.yaml: settings: no setting 'training.thread' (did you mean"),
        ({"settings": "{training.threads: 0}"}, "mine.yaml: settings: training.threads: must be greater"),
        ({"seeds": "[]"}, "mine.yaml: seeds: "),
        ({"seeds": "[0, -1]"}, "mine.yaml: seeds: seeds must be at least 0, and every one of them may be named once"),
        ({"seeds": "[1, 1]"}, "every one of them may be named once"),
        ({"episodes": "0"}, "mine.yaml: episodes: must be greater than or equal to 1, got 0"),
        (
            {"regions": "[interpolatoin]"},
            "mine.yaml: regions: variant 'a' has no region 'interpolatoin'; it has training, interpolation, extra",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line(changes: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_grid(write(tmp_path, **changes))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(
        UserError, match=r"--only: no variant 'b_oen' \(did you mean 'b_one'\?\); the variants are: a, b"
    ):
        load_grid(path, only=["b_oen"])
    with pytest.raises(UserError, match=r"--seeds: name one or more numbers of at least 0, got \[-1\]"):
        load_grid(path, seeds=[-1])
    with pytest.raises(UserError, match=r"no grid named 'contexts_cartpol' \(did you mean 'contexts_cartpole'\?\)"):
        load_grid("contexts_cartpol")
    with pytest.raises(
        UserError, match=r"absent\.yaml: no such file; name the YAML file of a grid, or one of: contexts"
    ):
        load_grid("absent.yaml")


def test_the_readme_s_grid(tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    text = readme.partition("**Grids.**")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "mine.yaml").write_text(text)
    runs = load_grid(str(tmp_path / "mine.yaml"))
    found = [(run.config.seed, run.variant) for run in runs]
    assert found == list(product([0, 1, 2], ["hidden", "crssm"]))
    assert {run.episodes for run in runs} == {50}
