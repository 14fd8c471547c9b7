"""The `trainscope` command: finds its sub-commands by name and imports only the one asked for."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword

import click

from trainscope.cli.boundary import Boundary, debug_option, is_first
from trainscope.version import VERSION

GROUPS = {
    "Start": {
        "demo": "Pretrain a small network, prune it, and show the damage.",
    },
    "Measure": {
        "probe": "Measure trainability before and after a sparsifying action.",
        "inspect": "Say what is in a checkpoint file, without running anything in it.",
    },
    "Retrain": {
        "schedule": "Print the LR schedule of a recipe like F90,1e-1.",
        "train": "Train a network from random weights.",
        "retrain": "Prune a checkpoint and retrain it.",
        "pipeline": "Pretrain, prune and retrain.",
        "scratch": "Train a pruned architecture from random weights.",
    },
    "Compare": {
        "compare": "Compare runs: what they show, and how fair that is.",
        "estimate": "Estimate how many extra epochs a small learning rate needs.",
        "import": "Make a Run from another tool's log.",
    },
    "Study": {
        "study": "Run grids of runs that survive kills, and ask for their results.",
        "oracle": "Try which filters to keep, and retrain what was tried.",
        "correlate": "Say which number known before retraining goes with its end.",
    },
}
"""Each command's one-line help, by what it is for."""

COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}
"""The same by name; `NAME` is the command NAME of the module trainscope.cli.NAME."""


TOGETHER = frozenset({"probe"})
"""Commands that all processes of a job run; any other is run by the first alone."""
_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


class Commands(Boundary):
    """A group whose commands are imported when they are run, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in TOGETHER and not is_first():
            return click.Command(cmd_name, add_help_option=False, context_settings=_ANYTHING)
        name = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)  # `import` is import_.py
        module = import_module(f"trainscope.cli.{name}")
        command: click.Command = module.command
        if not any(param.name == "debug" for param in command.params):
            command.params.append(debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tables without importing anything, all of one width."""
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in group.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="trainscope")
def main() -> None:
    """Measure what pruning did to a network's trainability, and what retraining will need.

    Begin with `trainscope demo`, or with a file of your own: `trainscope probe FILE --ratio 0.9`.
    `trainscope COMMAND --help` says what a command takes.
    """


main.params.append(debug_option())
