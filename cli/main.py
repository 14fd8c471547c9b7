"""The `trainscope` command: finds its sub-commands by name and imports only the one asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from keyword import iskeyword

import click

from trainscope.errors import TrainscopeError

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


INTERRUPTED = 130
"""The exit code that shells give to a command ended by Ctrl-C."""


class Commands(click.Group):
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
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what the user can put right is one line and exit code 2."""
        try:
            return super().invoke(ctx)
        except TrainscopeError as error:
            message = str(error)
        except (KeyboardInterrupt, click.Abort):
            click.echo("trainscope: interrupted", err=True)
            return ctx.exit(INTERRUPTED)
        except click.UsageError as error:
            message = f"{error.format_message()} See '{(error.ctx or ctx).command_path} --help'."
        click.echo(f"trainscope: {' '.join(message.split())}", err=True)
        return ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trainscope-pruning", prog_name="trainscope")
def main() -> None:
    """Measure what pruning did to a network's trainability, and what retraining will need."""


if __name__ == "__main__":
    sys.exit(main())
