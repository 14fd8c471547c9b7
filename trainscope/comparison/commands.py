"""The command that retrains one run's method under another run's setup, or words for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from trainscope.comparison.facts import is_digest, method_of
from trainscope.comparison.spelling import NEED_ROOT, folded
from trainscope.records import Kind, Run
from trainscope.records.action import CRITERIA, CRITERION_SAMPLES
from trainscope.records.run import UNKNOWN
from trainscope.records.text import count_of
from trainscope.training.schedule import LRSchedule, write_lr
from trainscope.training.shapes import FEW_STAGES, cosine, in_words, warm_up

OF_A_KIND = ("digits", "random", "imagefolder", *NEED_ROOT)


def retrain_line(
    method: Run,
    schedule: LRSchedule,
    setup: Run,
    *,
    base: str | None = None,
    seeds: Sequence[int | None] = (0,),
) -> list[str]:
    """Return the commands, one a seed; one line of words where trainscope cannot do that.

    What stands in capitals, like CHECKPOINT and ROOT, is for the reader to fill in.

    Args:
        method: Its pruning is taken.
        schedule: The LR schedule to retrain with.
        setup: Its data and optimizer settings are taken.
        base: The base model's digest or name, to name the checkpoint by.
        seeds: The seeds.
    """
    rates = [stage.lr for stage in schedule.stages]  # nobody trains at LR 0, and logs have it
    if _can_prune(method) and min(rates) > 0:
        return [retrain_command(method, schedule, setup, base=base, seed=seed) for seed in seeds]
    known = [str(seed) for seed in seeds if seed is not None]
    last = f", seed{'s' if len(known) > 1 else ''} {', '.join(known)}" if known else ""
    source = "" if not base or base == UNKNOWN else f" from base model {base}"
    return [
        f"{method_of(method) or 'the method'} again{source} under {in_words(schedule)} "
        f"({count_of(schedule.total, 'epoch')}{last})"
    ]


def _can_prune(run: Run) -> bool:
    """Return whether `retrain` or `scratch` can be told what was pruned."""
    pruning = run.pruning
    if pruning is None or run.kind in (Kind.SCRATCH_E, Kind.SCRATCH_B):
        return True
    action = pruning.action
    sized = pruning.ratio is not None or (
        action is not None and (action.ratios or action.heads or action.blocks)
    )
    return bool(sized) and pruning.criterion in CRITERIA  # another is its authors' to run


SETTINGS = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 5e-4,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "clip": None,
}
"""The usual optimizer settings, which a command need not name."""


def retrain_command(
    method: Run, schedule: LRSchedule, setup: Run, *, base: str | None = None, seed: int | None = 0
) -> str:
    """Return the command that retrains one run's method under another run's setup.

    Args:
        method: Its pruning is taken.
        schedule: The LR schedule to retrain with.
        setup: Its data and optimizer settings are taken.
        base: The base model's digest, to name the checkpoint by.
        seed: The seed.
    """
    name = _checkpoint(base)
    if method.kind in (Kind.SCRATCH_E, Kind.SCRATCH_B):
        budget = "epochs" if method.kind is Kind.SCRATCH_E else "flops"
        words = [f"trainscope scratch --like {name} --budget {budget}"]
        words.append(f"--schedule {schedule} --epochs {schedule.total}")
    else:
        words = [f"trainscope retrain {name}", *_pruning_options(method), _options(schedule)]
    for option, usual in SETTINGS.items():
        value = setup.settings.get(option, usual)
        if value is not None and value != usual:
            words.append(f"--{option.replace('_', '-')} {_value(value)}")
    if method.kind not in (Kind.SCRATCH_E, Kind.SCRATCH_B):
        words += _lora_options(setup)
    if setup.data:
        words.append(f"--data {shlex.quote(_data(setup.data))}")
    if seed is not None:
        words.append(f"--seed {seed}")
    return " ".join(words)


def _lora_options(run: Run) -> list[str]:
    rank, alpha = run.number("lora_rank"), run.number("lora_alpha")
    if rank is None:
        return []
    words = [f"--lora {rank:g}"]
    if alpha is not None and alpha != 2 * rank:
        words.append(f"--lora-alpha {alpha:g}")
    targets = str(run.settings.get("lora_targets", "all"))
    if targets != "all":
        words.append(f"--lora-targets {shlex.quote(targets.replace(' ', ''))}")
    return words


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _checkpoint(base: str | None) -> str:
    if not base or base == UNKNOWN:
        return "CHECKPOINT"
    short = base[:8] if is_digest(base) else re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip("-")
    return f"CHECKPOINT-{short}"


def _data(name: str) -> str:
    """Return what `--data` takes, with ROOT where a folder must be named."""
    if ":" not in name and folded(name) in NEED_ROOT:
        return f"{folded(name)}:ROOT"
    if name.startswith("text:"):  # whose path is that of another machine, perhaps
        return "text:FILE"
    return name if name.split(":")[0] in OF_A_KIND else "imagefolder:ROOT"


def _pruning_options(run: Run) -> list[str]:
    pruning = run.pruning
    if pruning is None:
        return []
    action, words = pruning.action, []
    if action is not None and action.ratios:
        given = ",".join(f"{name}={share:g}" for name, share in action.ratios.items())
        words.append(f"--ratios '{given}'")
    elif pruning.ratio is not None:
        words.append(f"--ratio {pruning.ratio:g}")
    for option, value, usual in (
        ("criterion", pruning.criterion, "l1"),
        ("structure", pruning.structure, "filter"),
        ("scope", pruning.scope, "inner"),
    ):
        if value is not None and value != usual:
            words.append(f"--{option} {shlex.quote(value)}")
    told = None if action is None else action.collected
    if told is not None and told.samples != CRITERION_SAMPLES:
        words.append(f"--criterion-samples {told.samples}")
    if action is not None and action.global_ranking:
        words.append("--global")
    for part in ("heads", "blocks"):
        share = None if action is None else getattr(action, part)
        if share is not None:
            words.append(f"--{part} {share:g}")
    return words


def _options(schedule: LRSchedule) -> str:
    """Return the options that say a schedule, those of a cosine where it is one."""
    rates = schedule.rates()
    peak, rise = max(rates), rates.index(max(rates))
    if len(schedule.stages) > FEW_STAGES:
        made = cosine(peak, schedule.total - rise)
        if (warm_up(made, rise) if rise else made) == schedule:
            rest = f" --warmup {rise}" if rise else ""
            return f"--recipe F{schedule.total - rise},{write_lr(peak)} --shape cosine{rest}"
    return f"--schedule {schedule} --epochs {schedule.total}"
