"""The bar over episodes: the time left is called so, and without a terminal there is a line at the start."""

import io

import pytest
from rich.console import Console

from agents.evaluation.progress import episode_progress


@pytest.mark.parametrize(("episodes", "told"), [(1, "recording 1 episode"), (16, "recording 16 episodes")])
def test_a_line_at_the_start_and_the_finished_bar_without_a_terminal(episodes, told):
    text = io.StringIO()
    with episode_progress("recording", episodes, Console(file=text, width=80)) as on_episode:
        assert text.getvalue() == f"{told}\n"
        for _ in range(episodes):
            on_episode()
    (line,) = text.getvalue().splitlines()[1:]
    assert f"{episodes}/{episodes} episodes 0:00:00 left" in line


def test_only_the_bar_on_a_terminal():
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, color_system=None)
    with episode_progress("evaluating", 200, console) as on_episode:
        on_episode()
    shown = text.getvalue()
    assert "1/200 episodes -:--:-- left" in shown and shown.count("\n") == 1
    assert "evaluating 200" not in shown
