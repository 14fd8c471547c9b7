"""A group that says which of its commands was meant where a name is none of them."""

from __future__ import annotations

import os

import click


class Nearest(click.Group):
    """Answers an unknown name with the nearest command, or with what a file is given to."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first argument.

        Raises:
            UsageError: There is none of that name.
        """
        name, known = args[0], self.list_commands(ctx)
        if name.startswith("-") or name in known:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"No such command '{name}'. {_hint(name, known, ctx)}", ctx)


def _hint(name: str, known: list[str], ctx: click.Context) -> str:
    from difflib import get_close_matches

    if ctx.parent is None and "\0" not in name and os.path.lexists(name):
        return f"A file follows a command: 'trainscope probe {name}' measures it."
    near = get_close_matches(name.lower(), known, 1)
    return f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(known)}."
