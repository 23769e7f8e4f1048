"""Reports on runs: everything they hold as one HTML file that needs no other."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agents.commandline import bind
from agents.files import atomic_write
from tuning.reporting.blocks import counted, listed
from tuning.reporting.collect import Collected, collect
from tuning.reporting.page import render_page
from tuning.reporting.sections import Source, make_sections


def report_command(tokens: Sequence[str]) -> None:
    """`dreamtune report`: the arguments are those of `report`."""
    bind(report, tokens, prog="dreamtune report")()


def report(folders: list[Path], output: Path = Path("report.html")) -> Path:
    """Write what runs have reached as one HTML file: figures and tables with intervals over seeds.

    Args:
        folders: run folders, or folders that contain some, such as runs/contexts_cartpole.
        output: the HTML file.

    Returns:
        The HTML file.

    Raises:
        UserError: a folder that is not there, cannot be read or has no run, a damaged file, runs that cannot be
            compared, or an output that cannot be written.
    """
    collected = collect(folders)
    command = ["dreamtune", "report", *map(str, folders), "--output", str(output)]
    sections = make_sections(Source(collected, collected.agents[0], command))
    page = render_page(*titles(collected), sections)
    atomic_write(output, page)
    console = Console()
    console.print(f"The report is {output} ({len(page) / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)
    return output


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
    return f"{listed(labels, 4)} in {listed(worlds)}", ", ".join(parts)
