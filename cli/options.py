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

from trainscope.records.action import CRITERIA, CRITERION_SAMPLES
from trainscope.records.arrays import MORE, PROBES

if TYPE_CHECKING:
    from trainscope.records import Metric

Command = TypeVar("Command", bound=Callable[..., Any])


HUB = "hf:"

ACTION_DEFAULTS: dict[str, Any] = {
    "ratio": None,
    "ratios": None,
    "structure": "filter",
    "scope": "inner",
    "criterion": "l1",
    "global_ranking": False,
    "heads": None,
    "blocks": None,
    "criterion_samples": CRITERION_SAMPLES,
}
"""What `action_options` give where nobody asks for an action."""


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

    def add(command: Command) -> Command:
        for option in (
            click.option("--unit", help="The unit of --metric, like % or dB."),
            click.option(
                "--better",
                type=click.Choice(["higher", "lower"]),
                help="Which direction of --metric is better; well-known names say it themselves.",
            ),
            click.option("--metric", help=text),
        ):
            command = option(command)
        return command

    return add


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


def unsafe_load_option(command: Command) -> Command:
    """Add the wish to run a file's code, which is never done without it."""
    return click.option(
        "--unsafe-load",
        is_flag=True,
        help="Load a whole pickled network with its own classes: this runs the file's code.",
    )(command)


def part_option(command: Command) -> Command:
    """Add which network to take of a file that holds several."""
    return click.option(
        "--part", help="Which network, where the file holds several: student, say."
    )(command)


def regrow_option(command: Command) -> Command:
    """Add the wish to let weights grow again that came pruned."""
    return click.option(
        "--regrow",
        is_flag=True,
        help="Let weights that came at zero grow again: those masked, and exact zeros taken as "
        "pruned.",
    )(command)


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


def network_options(command: Command) -> Command:
    """Add the checkpoint, how its architecture is found, and the data."""
    for add in reversed(
        (
            click.argument("checkpoint", type=Checkpoint(path_type=Path)),
            click.option("--arch", help="The architecture's name, where it is not recognised."),
            click.option(
                "--model", help="The function that builds the network: package.module:factory."
            ),
            click.option(
                "--data",
                help="digits, mnist:ROOT, fashionmnist:ROOT, cifar10:ROOT, cifar100:ROOT, "
                "imagefolder:ROOT, text:FILE, random:CxHxW (to probe alone), or "
                "package.module:factory for your own loaders. By default what the checkpoint "
                "remembers; to probe, else Gaussian inputs.",
            ),
            click.option(
                "--class-index",
                type=click.Path(path_type=Path),
                help="File that says at which output each folder of images stands: JSON or text.",
            ),
            click.option("--download", is_flag=True, help="Fetch the data where it is missing."),
            click.option(
                "--sequence-length",
                type=click.IntRange(min=2),
                help="Tokens of a sequence of text; by default 128, fewer where the network takes "
                "fewer.",
            ),
            click.option(
                "--tokenizer",
                type=click.Path(path_type=Path),
                help="Folder of the tokenizer of text, where it is not the network's own.",
            ),
            task_option,
        )
    ):
        command = add(command)
    return command


def action_options(command: Command) -> Command:
    """Add what describes a sparsifying action."""
    for add in reversed(
        (
            click.option("--ratio", type=float, help="Share to prune, in (0, 1)."),
            click.option(
                "--ratios", help="Shares by layer name: 'layer[1-3]*conv[12]=0.6,layer4*=0.21'."
            ),
            click.option(
                "--structure",
                default=ACTION_DEFAULTS["structure"],
                show_default=True,
                help="filter, unstructured, or N:M as 2:4 (2 of every 4 weights stay).",
            ),
            click.option(
                "--scope",
                type=click.Choice(["inner", "all"]),
                default=ACTION_DEFAULTS["scope"],
                show_default=True,
                help="Filters that meet no residual addition, or every coupled group.",
            ),
            click.option(
                "--criterion",
                default=ACTION_DEFAULTS["criterion"],
                show_default=True,
                help=f"What ranks them: {', '.join(_criteria())}; for blocks alone also influence.",
            ),
            click.option(
                "--criterion-samples",
                type=click.IntRange(min=1),
                default=ACTION_DEFAULTS["criterion_samples"],
                show_default=True,
                help="Training samples that a criterion which needs data is told of.",
            ),
            click.option(
                "--global",
                "global_ranking",
                is_flag=True,
                help="Rank across layers, not within each.",
            ),
            click.option(
                "--heads", type=float, help="Share of the heads of every attention to cut out."
            ),
            click.option(
                "--blocks", type=float, help="Share of every list of residual blocks to take out."
            ),
        )
    ):
        command = add(command)
    return command


def build_action(
    *,
    ratio: float | None = None,
    ratios: str | None = None,
    structure: str = "filter",
    scope: str = "inner",
    criterion: str = "l1",
    global_ranking: bool = False,
    heads: float | None = None,
    blocks: float | None = None,
    criterion_samples: int = CRITERION_SAMPLES,
    seed: int = 0,
) -> Any:
    """Return the Action that the options describe."""
    from trainscope.sparsify import Action
    from trainscope.sparsify.ratios import parse

    return Action(
        structure=structure,
        ratio=ratio,
        ratios={} if ratios is None else parse(ratios),
        scope=scope,
        criterion=criterion,
        global_ranking=global_ranking,
        seed=seed,
        heads=heads,
        blocks=blocks,
        criterion_samples=criterion_samples,
    )


def probes_option(default: str | None = None) -> Callable[[Command], Command]:
    """Return the option `--probes`, whose help names every installed probe."""
    which = "Which" if default else "Probes to run on the way"
    return click.option(
        "--probes",
        default=default,
        show_default=default is not None,
        help=f"{which}, with commas between them; installed: {', '.join(_installed())}.",
    )


def _criteria() -> list[str]:
    """Return the names of all installed criteria, ours first; nothing is imported for them."""
    names = {point.name for point in entry_points(group="trainscope.criteria")}
    return [*CRITERIA, *sorted(names.difference(CRITERIA))]


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
