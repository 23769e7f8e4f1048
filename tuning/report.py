"""Reports on runs: everything they hold as one HTML file that needs no other."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agents.commandline import bind
from agents.errors import UserError
from agents.files import atomic_write
from tuning.reporting.blocks import counted, listed
from tuning.reporting.collect import Agent, Collected, collect
from tuning.reporting.numbers import find_numbers
from tuning.reporting.page import render_page
from tuning.reporting.sections import Source, make_sections


def report_command(tokens: Sequence[str]) -> None:
    """`dreamtune report`: the arguments are those of `report`."""
    bind(report, tokens, prog="dreamtune report")()


def report(
    folders: list[Path],
    output: Path = Path("report.html"),
    reference: str | None = None,
    references: Path | None = None,
) -> Path:
    """Write what runs have reached as one HTML file: figures and tables with intervals over seeds.

    Args:
        folders: run folders, or folders that contain some, such as runs/contexts_cartpole.
        output: the HTML file.
        reference: label of the agent that the others are compared with; None: the first one.
        references: CSV file of random and expert returns (`dreamtune references`), to normalize scores by.

    Returns:
        The HTML file.

    Raises:
        UserError: a folder that is not there, cannot be read or has no run, a damaged file, runs that cannot be
            compared, no agent of that label, references that do not fit, or an output that cannot be written.
    """
    check_output(output)
    command = ["dreamtune", "report", *map(str, folders), "--output", str(output)]
    command += [] if reference is None else ["--reference", reference]
    command += [] if references is None else ["--references", str(references)]
    console = Console()
    with console.status("reading the runs") as status:
        collected = collect(folders)
        chosen = choose_reference(collected, reference)
        status.update("computing intervals")
        numbers = find_numbers(collected.scores, collected.agents, chosen, references)
        status.update("drawing")
        page = render_page(*titles(collected), make_sections(Source(collected, numbers, chosen, command)))
        atomic_write(output, page)
    console.print(f"The report is {output} ({len(page) / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)
    return output


def check_output(path: Path) -> None:
    """Raise `UserError` if the file cannot be written, before anything is computed."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file, such as {path / 'report.html'}")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{path}: cannot be written in {there}; choose a folder you may write to")


def choose_reference(collected: Collected, label: str | None) -> Agent | None:
    """Return the agent that others are compared with: the named one, else the first; None if there is no other.

    Raises:
        UserError: there is none of that label, or it was not judged.
    """
    judged = {score.agent for score in collected.scores}
    agents = {agent.label: agent for agent in collected.agents if agent.label in judged}
    if label is not None and label not in agents:
        raise UserError(f"reference: no judged agent {label!r}; there are: {', '.join(agents) or 'none'}")
    if len(agents) < 2:
        return None
    return agents[label] if label is not None else next(iter(agents.values()))


def titles(collected: Collected) -> tuple[str, str]:
    """The title of the page and the line below it."""
    runs = [run for agent in collected.agents for run in agent.runs]
    worlds = list(dict.fromkeys(run.config.environment.name for run in runs))
    labels = [agent.label for agent in collected.agents]
    parts = [counted(len(labels), "agent"), counted(len(runs), "run")]
    contexts = {(score.region, score.context_id) for score in collected.scores}
    if contexts:
        regions = {region for region, _ in contexts}
        parts.append(f"judged in {counted(len(contexts), 'context')} of {counted(len(regions), 'region')}")
    return f"{listed(labels, 6)} in {listed(worlds)}", ", ".join(parts)
