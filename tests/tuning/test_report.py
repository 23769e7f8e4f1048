"""Reports on runs without a browser: what they say, what is missing, mistakes in one line, the same bytes again."""

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tuning.cli
from agents.errors import UserError
from tests.tuning.report_runs import REGIONS, make_config, make_pictures, make_run, make_runs
from tuning.report import report
from tuning.reporting.collect import collect


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents of three judged seeds each; not to be changed."""
    return make_runs(tmp_path_factory.mktemp("runs"), {"crssm": "crssm", "hidden": "hidden"})


def text_of(page: Path) -> str:
    """What a page says, without tags, styles and scripts."""
    content = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())


def test_the_command_writes_the_page(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "report.html"
    assert tuning.cli.main(["report", str(runs), "--output", str(output)]) == 0
    assert f"The report is {output}" in capsys.readouterr().out
    content = output.read_text()
    assert content.startswith("<!DOCTYPE html>") and content.count("</html>") == 1
    said = text_of(output)
    assert "crssm and hidden in cartpole" in said
    assert "2 agents, 6 runs, judged in 8 contexts of 2 regions" in said
    assert "training range of gravity (m/s²) 4.9 to 14.7" in said


def test_the_same_runs_give_the_same_bytes_in_another_process(
    runs: Path, tmp_path: Path, command_environment: dict[str, str]
) -> None:
    page = tmp_path / "report.html"
    first = report([runs], page).read_bytes()
    page.unlink()
    command = [sys.executable, "-m", "tuning.cli", "report", str(runs), "--output", str(page)]
    elsewhere = command_environment | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    finished = subprocess.run(command, env=elsewhere, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr
    assert page.read_bytes() == first


def test_there_is_no_address_to_ask(runs: Path, tmp_path: Path) -> None:
    make_pictures(shutil.copytree(runs / "crssm" / "seed0", tmp_path / "seed0"))
    content = report([tmp_path / "seed0"], tmp_path / "report.html").read_text()
    assert content.count("data:image/") == 3
    attributes = re.findall(r'(?:src|href|action|data|poster)="([^"]*)"', content)
    assert attributes and all(value.startswith(("#", "data:")) for value in attributes)
    assert set(re.findall(r"url\(([^)]*)\)", content)) == set(re.findall(r"url\((#[^)]*)\)", content))
    assert "@import" not in content and "http://" not in content and "https://" not in content


def test_what_is_missing_is_said_with_the_command_that_makes_it(runs: Path, tmp_path: Path) -> None:
    here = shutil.copytree(runs, tmp_path / "my runs")
    (here / "hidden" / "seed1" / "evaluation.csv").unlink()
    make_run(here / "young" / "seed0", make_config(), steps=1000)
    make_run(here / "unborn" / "seed0", make_config(), steps=0)
    said = text_of(report([here], tmp_path / "report.html"))
    assert f"dreamtune evaluate '{here}/hidden/seed1'" in said
    assert f"dreamtune train --resume '{here}/young/seed0'" in said
    assert "young seed 0 (1,000 of 3,000 steps)" in said and "unborn seed 0 (0 of 3,000 steps)" in said
    assert "Not evaluated, so in no table or map of returns: 3 of 8 runs" in said
    assert "The agents have different numbers of judged seeds: crssm 3 and hidden 2." in said


def test_runs_that_were_never_judged_still_make_a_report(tmp_path: Path) -> None:
    make_run(tmp_path / "alone", make_config())
    page = report([tmp_path / "alone"], tmp_path / "report.html")
    said = text_of(page)
    assert "1 agent, 1 run" in said and f"dreamtune evaluate {tmp_path}/alone" in said
    ids = re.findall(r'<section id="(\w+)"', page.read_text())
    assert ids == ["overview", "curves", "pictures", "configuration", "reading", "reproducing"]


def test_runs_of_one_agent_that_differ_in_more_than_the_seed_are_told(tmp_path: Path) -> None:
    make_run(tmp_path / "mixed" / "seed0", make_config(0))
    make_run(tmp_path / "mixed" / "seed1", make_config(1, context="hidden"))
    told = [problem.told for problem in collect([tmp_path]).problems]
    assert any("The runs of mixed differ in more than their seed: agent.world_model.context." in one for one in told)


def test_differences_of_configuration(runs: Path, tmp_path: Path) -> None:
    content = report([runs], tmp_path / "report.html").read_text()
    table = content.split("Settings in which the agents differ")[-1].split("</table>")[0]
    rows = re.findall(r"<t[hd][^>]*>([^<]*)<", table.split("<tbody>")[1])
    assert [row.strip() for row in rows] == ["agent.world_model.context", "crssm", "hidden"]


def test_mistakes_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("")
    other = make_run(
        tmp_path / "other", make_config(), returns=lambda _: 1.0, regions={"interpolation": REGIONS["extrapolation"]}
    )
    for arguments, told in (
        ([str(empty)], f"{empty}: no run in it"),
        ([str(tmp_path / "absent")], "absent: no such folder"),
        ([str(runs), "--output", str(file / "report.html")], "report.html: cannot be written"),
        ([str(runs), "--output", str(empty)], f"{empty}: is a folder; name a file"),
        ([str(runs), str(other)], "judged different contexts in region"),
        ([str(runs), "--reference", "hiden"], "no judged agent 'hiden'; there are: crssm, hidden"),
        ([], "no run named"),
    ):
        assert tuning.cli.main(["report", *arguments]) == 2
        complaint = capsys.readouterr().err.strip()
        assert complaint.startswith("error: ") and told in complaint and len(complaint.splitlines()) == 1


@pytest.mark.parametrize("name", ["metrics.csv", "timing.csv", "evaluation.csv"])
def test_a_damaged_table_is_one_line(name: str, runs: Path, tmp_path: Path) -> None:
    here = shutil.copytree(runs / "crssm" / "seed0", tmp_path / "seed0")
    (here / name).write_text("env_steps,train/return\n1000,many\n")
    with pytest.raises(UserError, match=f"{name}: (damaged|line 1)"):
        report([here], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_pictures_that_are_none_and_that_are_too_many_are_named(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(runs / "crssm" / "seed0", tmp_path / "seed0")
    make_pictures(here)
    (here / "dream" / "broken.png").write_bytes(b"\x89PNG, or not")
    page = report([here], tmp_path / "report.html")
    assert "Cannot be read as pictures: 1 of 4" in text_of(page) and f"{here}/dream/broken.png" in text_of(page)
    sizes = sorted(path.stat().st_size for path in here.rglob("*") if path.suffix in (".png", ".gif"))
    monkeypatch.setattr("tuning.reporting.pictures.LARGEST_PAGE", sizes[0])
    page = report([here], tmp_path / "report.html")
    assert page.read_text().count("data:image/") < 3 and "Left out" in text_of(page)
