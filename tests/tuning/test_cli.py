"""The command line, as a user meets it: real processes, their exit codes, and one line for every mistake."""

import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import tuning.cli
from agents.commandline import bind, parse_train
from agents.compare import compare
from agents.configuration import find_config, load_config, shipped_configs
from agents.counterfactual import counterfactual
from agents.curve import curve
from agents.dream import dream
from agents.errors import UserError
from agents.evaluate import evaluate
from agents.exit_codes import run
from agents.grid import grid, load_grid
from agents.latents import latents
from agents.references import references
from agents.run_folder import RunFolder
from tuning.report import report

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
# A run of one epoch, so that a process that trains takes seconds.
SHORT = ("--training.environment_steps", "100")


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, where `main` is called without the seconds that a new process takes to import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def succeed(*arguments: str) -> None:
    assert tuning.cli.main(arguments) == 0, arguments


def process(
    *arguments: str, folder: Path, environment: dict[str, str], file_limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does; a limit on the size of files, in bytes, fails writes as a full disk does."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [sys.executable, "-m", "tuning.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=limit,
    )


def only_line(complaint: str) -> str:
    """Return the one line that a mistake is told in."""
    lines = complaint.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), complaint
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_names_every_command_and_does_not_wait_for_torch(command_environment: dict[str, str]) -> None:
    program = "import sys, tuning.cli; tuning.cli.main([]); sys.exit('torch' in sys.modules)"
    begin = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", program], env=command_environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert all(f"  {name} " in finished.stdout for name in tuning.cli.COMMANDS)
    assert time.perf_counter() - begin < 5.0  # 0.05 s where nothing else runs
    assert tuning.cli.main(["--help"]) == 0


def test_a_mistake_in_a_configuration_does_not_wait_for_torch(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    (tmp_path / "mine.yaml").write_text("agent: {horizn: 3}\n")
    program = (
        "import sys, agents.configuration, tuning.cli\n"
        "assert tuning.cli.main(['train', 'mine.yaml']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=command_environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert "unknown key 'agent.horizn'" in only_line(finished.stderr)


@pytest.mark.parametrize("command", tuning.cli.COMMANDS)
def test_every_command_has_help(command: str, in_process: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        tuning.cli.main([command, "--help"])
    assert ending.value.code == 0
    assert f"usage: dreamtune {command}" in capsys.readouterr().out


def test_help_of_train_shows_the_settings_of_the_file(
    in_process: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "79")  # one column of boxes
    with pytest.raises(SystemExit):
        tuning.cli.main(["train", "cartpole", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "[OPTIONS] NAME|FILE" in shown
    assert "--training.train_ratio FLOAT Replayed steps per policy step, > 0." in shown
    assert "--environment.observation_scale YAML|null" in shown
    assert "(default: '{state: [2.4, 3.0, 0.21, 3.0]}')" in shown
    assert "--environment.vector {serial,subprocess}" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "no command 'trian'; the commands are: train"),
        (["train"], "name a configuration first, such as `dreamtune train cartpole`, or use --resume"),
        (["train", "smok"], "no configuration named 'smok' (did you mean 'smoke'?)"),
        (["train", "absent.yaml"], "absent.yaml: no such file"),
        (["train", "smoke", "--sede", "3"], "unknown option '--sede' (did you mean '--seed'?)"),
        (["train", "smoke", "--seed", "x"], 'seed: must be an integer, got "x"'),
        (["train", "smoke", "--training.threads", "0"], "threads: must be greater than or equal to 1, got 0"),
        (["train", "smoke", "--replay.storage", "disk"], "must be 'ram', 'mmap' or 'device', got \"disk\""),
        (
            ["train", "smoke", "--environment.observations", "pixels", "--environment.camera", "1"],
            "environment cartpole: camera is 1, but there is no choice",
        ),
        (["train", "smoke", "--run", "a", "--resume", "b"], "b: no such run folder"),
        (["train", "--resume", "absent"], "absent: no such run folder"),
        (["evaluate", "absent"], "absent: no such run folder"),
        (["dream", "absent"], "absent: no such run folder"),
        (["evaluate"], "Missing from dreamtune evaluate"),
        (["dream", "absent", "--horizn", "3"], "unknown option '--horizn' (did you mean '--horizon'?)"),
        (["dream", "absent", "--horizon", "x"], "horizon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], told: str, in_process: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuning.cli.main(arguments) == 2
    assert told in only_line(capsys.readouterr().err)
    assert list(in_process.iterdir()) == []


def test_a_mistake_of_a_real_process(tmp_path: Path, command_environment: dict[str, str]) -> None:
    (tmp_path / "mine.yaml").write_text("training: {train_rato: 3}\n")
    finished = process("train", "mine.yaml", folder=tmp_path, environment=command_environment)
    assert (finished.returncode, finished.stdout) == (2, "")
    told = "mine.yaml: unknown key 'training.train_rato' (did you mean 'train_ratio'?)"
    assert told in only_line(finished.stderr)


def test_train_evaluate_and_dream_and_the_same_command_again(
    in_process: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = in_process / "runs" / "smoke"
    succeed("train", "smoke", *SHORT)
    succeed("evaluate", "runs/smoke")
    succeed("dream", "runs/smoke")
    header, *rows = (run_folder / "evaluation.csv").read_text().splitlines()
    assert header == "region,context_id,gravity,length,seed,episode_return,episode_length"
    assert len(rows) == (4 + 2 + 4) * 2  # contexts of training, interpolation, extrapolation; two episodes each
    assert (run_folder / "dream" / "dream.png").read_bytes().startswith(b"\x89PNG")
    assert (run_folder / "curve.png").is_file() and (run_folder / "metrics.csv").is_file()

    before = contents(run_folder / "checkpoints")
    succeed("train", "smoke", *SHORT)
    succeed("train", "--resume", "runs/smoke")
    assert contents(run_folder / "checkpoints") == before

    capsys.readouterr()
    assert tuning.cli.main(["train", "smoke", *SHORT, "--seed", "5", "--run", "runs/smoke"]) == 2
    told = "runs/smoke: the run of another configuration; it differs in seed (0 there, 5 now)"
    assert told in only_line(capsys.readouterr().err)
    assert contents(run_folder / "checkpoints") == before


def test_a_full_disk_loses_nothing(in_process: Path, command_environment: dict[str, str]) -> None:
    succeed("train", "smoke", *SHORT)
    run_folder = in_process / "runs" / "smoke"
    before = contents(run_folder / "checkpoints") | contents(run_folder / "replay")
    longer = ("train", "smoke", "--training.environment_steps", "200")
    finished = process(*longer, folder=in_process, environment=command_environment, file_limit=20_000)
    assert finished.returncode == 2, finished.stderr
    told = "free some room and run the same command again, nothing saved before is lost"
    assert told in only_line(finished.stderr)
    after = contents(run_folder / "checkpoints") | contents(run_folder / "replay")
    assert before.items() <= after.items()
    succeed(*longer)
    assert (run_folder / "checkpoints" / "step-000000000200").is_dir()


def test_an_interrupt_is_no_traceback(tmp_path: Path, command_environment: dict[str, str]) -> None:
    training = subprocess.Popen(
        [sys.executable, "-m", "tuning.cli", "train", "smoke", "--training.environment_steps", "100000"],
        cwd=tmp_path,
        env=command_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background deaf to interrupts, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoints = tmp_path / "runs" / "smoke" / "checkpoints"
    deadline = time.monotonic() + 60.0
    while not (checkpoints.is_dir() and list(checkpoints.glob("step-*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    training.send_signal(signal.SIGINT)
    _, complaint = training.communicate(timeout=60)
    assert training.returncode == 130, complaint
    assert "interrupted; give the same command again to go on from the last checkpoint" in complaint
    assert "Traceback" not in complaint


def test_an_interrupt_promises_only_what_was_saved(
    in_process: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.train.train", interrupted)
    monkeypatch.setattr("agents.evaluate.RunFolder.open", interrupted)
    assert tuning.cli.main(["train", "smoke"]) == tuning.cli.main(["evaluate", "runs/smoke"]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "interrupted; no checkpoint was saved yet: the same command begins anew",
        "interrupted",
    ]


def test_exit_codes() -> None:
    def raising(error: BaseException) -> int:
        def command() -> None:
            raise error

        return run(command)

    assert run(lambda: None) == 0
    assert raising(UserError("a mistake")) == 2
    assert raising(OSError(28, "No space left on device", "here")) == 2
    assert raising(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):  # a mistake of ours keeps its traceback
        raising(ZeroDivisionError())


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise UserError("one\n  two")

    assert run(command) == 2
    assert capsys.readouterr().err == "error: one two\n"


def test_the_run_folder_follows_from_name_run_or_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_train(["smoke"])[1] == Path("runs/smoke")
    assert parse_train(["smoke", "--name", "other"])[1] == Path("runs/other")
    config, folder = parse_train(["smoke", "--run", "elsewhere", "--seed", "3"])
    assert (folder, config.seed) == (Path("elsewhere"), 3)
    RunFolder.prepare(folder, config)
    assert parse_train(["--resume", "elsewhere"]) == (config, folder)
    with pytest.raises(UserError, match="--run and --resume both name the run folder"):
        parse_train(["smoke", "--run", "a", "--resume", "elsewhere"])


def test_the_console_script_is_this_command_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"dreamtune": "tuning.cli:main"}


# ---- what the README says


def readme_commands() -> list[list[str]]:
    """Return the commands in the README's blocks marked bash, comments and environment variables left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [command for command in commands if command]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def test_the_readme_shows_commands() -> None:
    named = {command[0] for command in readme_commands()}
    assert {"make", "dreamtune"} <= named
    assert {command[1] for command in readme_commands() if command[0] == "make"} >= {"train", "test"}


def test_every_command_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is parsed and checked as a whole; those of the small run are run below."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    known = {"export", "make", "dreamtune", "git", "cd", "pip", "python", "python3", "tensorboard", "tail", "cat", "ls"}
    for command in readme_commands():
        program, *arguments = command
        if program == "make":
            targets = {argument for argument in arguments if "=" not in argument}
            assert targets <= make_targets(), command
        elif program == "dreamtune":
            check(arguments)
        else:
            assert program in known, command


def test_the_small_run_of_the_readme_runs(in_process: Path) -> None:
    """The commands about `smoke`, in their order and as they stand."""
    small = [command[1:] for command in readme_commands() if command[0] == "dreamtune" and "smoke" in " ".join(command)]
    assert [command[0] for command in small] == ["train", "evaluate", "dream"]
    for command in small:
        succeed(*command)


def check(arguments: list[str]) -> None:
    """Check a dreamtune command as far as can be without letting it run."""
    command, *tokens = arguments or ["--help"]
    assert command in (*tuning.cli.COMMANDS, "--help"), arguments
    if "--help" in (command, *tokens):
        return
    if command == "train":
        if "--resume" in tokens:
            name = tokens[0] if not tokens[0].startswith("--") else "cartpole"
            RunFolder.prepare(tokens[tokens.index("--resume") + 1], load_config(name))
        parse_train(tokens)
    elif command == "grid":
        bind(grid, tokens, prog=command)
        load_grid(tokens[0])
    else:
        others = {
            "evaluate": evaluate,
            "dream": dream,
            "counterfactual": counterfactual,
            "latents": latents,
            "curve": curve,
            "compare": compare,
            "references": references,
            "report": report,
        }
        bind(others[command], tokens, prog=command)


def test_shipped_configurations_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in shipped_configs().glob("*.yaml"):
        assert find_config(path.stem) == path
