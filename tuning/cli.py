"""The command line `dreamtune`: it mounts the commands that `agents` and `tuning` define.

A command's module is imported when the command is called, so that the help comes without waiting for torch.
"""

import importlib
import sys
from collections.abc import Sequence

# By command: the module and function that take its arguments, and a line for the help.
COMMANDS = {
    "train": (
        "agents.commandline",
        "train_command",
        "train an agent, or go on with a run: dreamtune train cartpole",
    ),
    "evaluate": (
        "agents.commandline",
        "evaluate_command",
        "judge the kept agent: dreamtune evaluate runs/cartpole",
    ),
    "grid": (
        "agents.commandline",
        "grid_command",
        "train and judge a grid of runs: dreamtune grid contexts_cartpole",
    ),
    "dream": (
        "agents.commandline",
        "dream_command",
        "dream against what happened: dreamtune dream runs/cartpole",
    ),
    "latents": (
        "agents.commandline",
        "latents_command",
        "what latents tell of the context: dreamtune latents runs/cartpole",
    ),
    "counterfactual": (
        "agents.commandline",
        "counterfactual_command",
        "dream under swapped contexts, and score it: dreamtune counterfactual runs/cartpole",
    ),
    "compare": (
        "agents.commandline",
        "compare_command",
        "agents over seeds, and whether these suffice: dreamtune compare runs/contexts_cartpole",
    ),
    "references": (
        "agents.commandline",
        "references_command",
        "random and expert returns to normalize by: dreamtune references cartpole",
    ),
    "curve": (
        "agents.commandline",
        "curve_command",
        "learning curve over seeds: dreamtune curve runs/a runs/b",
    ),
    "report": (
        "tuning.report",
        "report_command",
        "everything runs hold as one HTML file: dreamtune report runs",
    ),
}

HELP = "\n".join(
    [
        "usage: dreamtune COMMAND ...",
        "",
        "World-model reinforcement learning in many worlds.",
        "",
        *(f"  {name:<15}{line}" for name, (_, _, line) in COMMANDS.items()),
        "",
        "dreamtune COMMAND --help tells a command's arguments and settings.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 after a mistake of the user's, 130 if interrupted."""
    name, *tokens = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(HELP)
        return 0
    if name not in COMMANDS:
        print(f"error: no command {name!r}; the commands are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[name]
    run = importlib.import_module("agents.exit_codes").run
    command = getattr(importlib.import_module(module), function)
    code: int = run(lambda: command(tokens))
    return code


if __name__ == "__main__":
    sys.exit(main())
