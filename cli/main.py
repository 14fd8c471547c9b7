"""The `trainscope` command: finds its sub-commands by name and imports only the one asked for."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword

import click

from trainscope.cli.boundary import Boundary, debug_option

COMMANDS = {
    "probe": "Measure trainability before and after a sparsifying action.",
    "inspect": "Say what is in a checkpoint file, without running anything in it.",
    "schedule": "Print the LR schedule of a recipe like F90,1e-1.",
    "train": "Train a network from random weights.",
    "retrain": "Prune a checkpoint and retrain it.",
    "pipeline": "Pretrain, prune and retrain.",
    "scratch": "Train a pruned architecture from random weights.",
    "import": "Make a Run from another tool's log.",
    "compare": "Compare runs: what they show, how fair that is, on the terminal or a page.",
    "estimate": "Estimate how many extra epochs a small learning rate needs.",
    "demo": "Pretrain a small network, prune it, and show the damage.",
}
"""Each command's one-line help; `NAME` is the command NAME of the module trainscope.cli.NAME."""


class Commands(Boundary):
    """A group whose commands are imported when they are run, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)  # `import` is import_.py
        module = import_module(f"trainscope.cli.{name}")
        command: click.Command = module.command
        if not any(param.name == "debug" for param in command.params):
            command.params.append(debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trainscope-pruning", prog_name="trainscope")
def main() -> None:
    """Measure what pruning did to a network's trainability, and what retraining will need."""


main.params.append(debug_option())
