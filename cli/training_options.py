"""Options that every training shares, and what they build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainscope.cli.options import Place, is_typed, probes_option, seed_option, together
from trainscope.cli.tracking import tracking_options
from trainscope.training.settings import OPTIMIZERS, PRECISIONS

if TYPE_CHECKING:
    from trainscope.training.settings import LoRA, Settings

OPTIMIZER = ("optimizer", "momentum", "betas", "eps", "weight_decay")
SETTINGS = (
    *OPTIMIZER,
    "batch_size",
    "label_smoothing",
    "clip",
    "augment",
    "precision",
    "seed",
)
LORA = ("lora", "lora_alpha", "lora_targets")
OF_OPTIMIZERS = {"momentum": ("sgd",), "betas": ("adam", "adamw"), "eps": ("adam", "adamw")}
"""Options that not every optimizer has."""


optimizer_options = together(
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        default="sgd",
        show_default=True,
        help="SGD with momentum, Adam, or AdamW.",
    ),
    click.option("--momentum", type=float, default=0.9, show_default=True, help="Momentum of SGD."),
    click.option(
        "--betas",
        default="0.9,0.999",
        show_default=True,
        callback=lambda _, __, value: _pair(value),
        help="Decay rates of Adam and AdamW.",
    ),
    click.option(
        "--eps",
        type=float,
        default=1e-8,
        show_default=True,
        help="Epsilon of Adam and AdamW.",
    ),
    click.option(
        "--weight-decay",
        type=float,
        default=5e-4,
        show_default=True,
        help="L2 for SGD and Adam, decoupled for AdamW.",
    ),
)
"""The optimizer and its own settings."""


training_options = together(
    optimizer_options,
    click.option(
        "--batch-size", type=int, default=64, show_default=True, help="Samples in a step."
    ),
    click.option(
        "--label-smoothing",
        type=float,
        default=0.0,
        show_default=True,
        help="Share of the target spread over all classes.",
    ),
    click.option("--clip", type=float, help="Largest 2-norm of the gradient."),
    click.option(
        "--augment/--no-augment",
        default=True,
        show_default=True,
        help="The data set's standard augmentation.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="Precision of training; auto is mixed precision where the device has it.",
    ),
    seed_option,
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ..."),
    click.option(
        "--norms/--no-norms",
        default=True,
        show_default=True,
        help="Keep the gradient's norm at every step.",
    ),
    probes_option(),
    click.option("--probe-epochs", help="After which epochs, like 0,1,5; by default after each."),
    click.option("--probe-every", type=int, help="Measure every so many steps instead."),
    click.option(
        "--samples",
        type=click.IntRange(min=2),
        default=256,
        show_default=True,
        help="Pinned samples of the probes.",
    ),
    click.option(
        "--output",
        type=Place(path_type=Path),
        help="Folder of the run; by default runs/NAME, named by its settings.",
    ),
    tracking_options,
    click.option("--json", "as_json", is_flag=True, help="Print the Run as JSON."),
)
"""The optimizer and the rest, what is measured on the way, the device and the output."""


lora_options = together(
    click.option(
        "--lora",
        type=int,
        metavar="RANK",
        help="Train low-rank adapters under the masks, and merge them at the end.",
    ),
    click.option(
        "--lora-alpha",
        type=float,
        help="Their scale times the rank; by default twice the rank.",
    ),
    click.option(
        "--lora-targets",
        help="Layers to adapt, with commas between them, like c_attn,*.mlp.*; by default "
        "every linear, convolutional and attention layer.",
    ),
)
"""Low-rank adapters in the place of the weights."""


def _pair(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 2:
        raise click.BadParameter(f"'{text}' is no pair of numbers like 0.9,0.999")
    return found


def build_settings(options: dict[str, Any]) -> Settings:
    """Take the settings out of a command's options, those of them that it has.

    Raises:
        ScheduleError: One of them is out of range or of another optimizer, or one of LoRA's stands
            without a rank.
    """
    from trainscope.training.settings import Settings

    lora = _lora(**{name: options.pop(name, None) for name in LORA})
    given = {name: options.pop(name) for name in SETTINGS if name in options}
    settings = Settings(**given, lora=lora)
    _check_optimizer(settings.optimizer)
    return settings


def _check_optimizer(optimizer: str) -> None:
    """Refuse options that the optimizer does not have, where they were typed.

    Raises:
        ScheduleError: One was.
    """
    from trainscope.errors import ScheduleError

    for name, owners in OF_OPTIMIZERS.items():
        if is_typed(name) and optimizer not in owners:
            raise ScheduleError(
                f"--{name} is of {' and '.join(owners)}, and --optimizer {optimizer} does not have "
                "it: leave it out, or name the optimizer"
            )


def _lora(lora: int | None, lora_alpha: float | None, lora_targets: str | None) -> LoRA | None:
    from trainscope.errors import ScheduleError
    from trainscope.training.settings import LoRA

    if lora is None:
        if lora_alpha is not None or lora_targets is not None:
            raise ScheduleError("--lora-alpha and --lora-targets are of LoRA: give its --lora RANK")
        return None
    names = () if lora_targets is None else tuple(n.strip() for n in lora_targets.split(","))
    return LoRA(lora, lora_alpha, names)
