"""Options that several commands share."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainscope.records.arrays import MORE, PROBES

if TYPE_CHECKING:
    from trainscope.records import Metric

Command = TypeVar("Command", bound=Callable[..., Any])


HUB = "hf:"


def is_typed(name: str) -> bool:
    """Tell whether the option of the command that runs was typed, even as its default is."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return one decorator that adds options, which help shows in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def shape_option(command: Command) -> Command:
    """Add the shape of one input."""
    return click.option(
        "--input-shape",
        metavar="CxHxW",
        callback=lambda _, __, value: value and _shape(value),
        help="The shape of one input, like 1x28x28, where it is not the architecture's own.",
    )(command)


def metric_options(text: str) -> Callable[[Command], Command]:
    """Add --metric, with its help, and --better and --unit, which say what the name does not."""
    return together(
        click.option("--metric", help=text),
        click.option(
            "--better",
            type=click.Choice(["higher", "lower"]),
            help="Which direction of --metric is better; well-known names say it themselves.",
        ),
        click.option("--unit", help="The unit of --metric, like % or dB."),
    )


def metric_asked(metric: str | None, better: str | None, unit: str | None) -> Metric | None:
    """Return the metric that `metric_options` name; None for none.

    Raises:
        UsageError: A direction or a unit is there without a name.
        RecordError: The name does not say which direction is better, or is of training data.
    """
    from trainscope.records.imports.metrics import metric_of

    if metric is not None:
        return metric_of(metric, better, unit)
    if better is not None or unit is not None:
        raise click.UsageError("--better and --unit are of --metric NAME: give that too.")
    return None


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,6}(x[1-9]\d{0,6})*", text):
        raise click.BadParameter(f"'{text}' is not a shape like 1x28x28")
    return tuple(int(side) for side in text.split("x"))


class Place(click.Path):
    """The path of a file or folder, there or not, with a name that a system can have."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, or refuse its name in a sentence."""
        text = os.fspath(value)
        if not text.strip():
            self.fail("the name is empty: give the name of a file or folder", param, ctx)
        if "\0" in text:
            self.fail(f"{text!r} holds a NUL character, which no name can", param, ctx)
        if text == "-" and not self.allow_dash:
            self.fail(
                "'-' is no name: what goes to stdout goes there without this option, and nothing "
                "is read from stdin",
                param,
                ctx,
            )
        try:
            os.lstat(text)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                short = f"'{text[:40]}…'"
                self.fail(f"{short} is longer than a name can be: shorten it", param, ctx)
        return super().convert(value, param, ctx)


class PagePlace(Place):
    """The path of a page, which is HTML."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, or refuse the name of a file of another kind."""
        path = super().convert(value, param, ctx)
        if Path(path).suffix.lower() not in ("", ".html", ".htm"):
            self.fail(f"{path} is no page: end its name in .html", param, ctx)
        return path


class Checkpoint(Place):
    """The path of a checkpoint: a file, a folder of a hub, or such a folder as "hf:DIR"."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, without what says that it is of a hub."""
        text = os.fspath(value)
        if not text.startswith(HUB):
            return super().convert(value, param, ctx)
        folder = Path(text.removeprefix(HUB)).expanduser()
        if not folder.is_dir():
            self.fail(
                f"there is no folder {folder} for {text}; nothing is fetched from a hub, so "
                "download the network first and give its folder",
                param,
                ctx,
            )
        return super().convert(folder, param, ctx)


def seed_option(command: Command) -> Command:
    """Add the seed."""
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 2),
        default=0,
        show_default=True,
        help="Random seed of every draw.",
    )(command)


def no_titles_option(command: Command) -> Command:
    """Add the wish for figures without titles."""
    return click.option(
        "--no-titles",
        is_flag=True,
        help="Draw figures without titles: in papers they have captions.",
    )(command)


def task_option(command: Command) -> Command:
    """Add what the network is asked to do."""
    return click.option(
        "--task",
        help="What the network is asked to do: classification (the default), binary, multi-label, "
        "regression, segmentation, detection, language-modelling, masked-language-modelling, or "
        "package.module:object for a task of yours. Fields follow a name: "
        "classification:output=logits. By default what the head of a network of transformers is "
        "for.",
    )(command)


def probes_option(default: str | None = None) -> Callable[[Command], Command]:
    """Return the option `--probes`, whose help names every installed probe."""
    which = "Which" if default else "Probes to run on the way"
    return click.option(
        "--probes",
        default=default,
        show_default=default is not None,
        help=f"{which}, with commas between them; installed: {', '.join(_installed())}.",
    )


def _installed() -> list[str]:
    """Return the names of all installed probes, ours first; nothing is imported for them."""
    names = {point.name for point in entry_points(group="trainscope.probes")}
    ours = (*PROBES, *MORE)
    return [*(name for name in ours if name in names), *sorted(names.difference(ours))]


def probe_names(text: str) -> list[str]:
    """Return the names of probes that an option lists, each once.

    Raises:
        ProbeError: There is nothing before, between or behind two commas.
    """
    from trainscope.errors import ProbeError

    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ProbeError(
            f"--probes '{text}' has an empty name: write names with one comma between them, like "
            "gradient,jacobian"
        )
    return list(dict.fromkeys(names))
