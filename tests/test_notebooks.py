"""Notebooks as they are committed: no outputs, thin, and all of them about a run that is named in the first cell."""

from pathlib import Path

import nbformat
import pytest
from nbstripout import strip_output

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
NAMES = {"counterfactual_contexts", "imagined_rollouts", "latent_context"}


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_one_for_each_question():
    assert {path.stem for path in NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path):
    cells = code(read(path))
    assert cells
    for cell in cells:
        assert cell.outputs == [] and cell.execution_count is None
    stripped = strip_output(read(path), keep_output=False, keep_count=False, keep_id=False)
    assert stripped == read(path), f"run: nbstripout {path.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_run_is_named_first_and_the_rest_is_thin(path):
    first, *others = code(read(path))
    assert first.source.endswith("run = mine or example_run()") and "mine: Path | None = None" in first.source
    assert others and all("example_run" not in cell.source for cell in others)
    for cell in others:
        assert "matplotlib" not in cell.source, "plotting lives in the packages"
        assert len(cell.source.splitlines()) <= 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_asks_and_answers(path):
    cells = read(path).cells
    title = cells[0]
    assert title.cell_type == "markdown" and title.source.splitlines()[0].endswith("?")
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert "**What to look at.**" in prose and ("not mean" in prose)
