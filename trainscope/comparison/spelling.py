"""One spelling of one data set, network or base model: logs and run cards write them variously."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from trainscope.comparison.facts import is_digest
from trainscope.records import Run

NEED_ROOT = ("mnist", "fashionmnist", "cifar10", "cifar100")
"""Data sets by name, of which only the folder is to be said."""
_BETWEEN = re.compile(r"[-_ ]+")
_ALSO = {"imagenet1k": "imagenet", "ilsvrc2012": "imagenet", "fmnist": "fashionmnist"}


def one_spelling(runs: Iterable[Run]) -> list[Run]:
    """Return runs of which the same data sets and networks are written alike, as most have them.

    "CIFAR-10", "cifar10" and "cifar10:ROOT", wherever that is, are one data set, and "ResNet-56"
    and "resnet56" one network. Folders of images are not: their path is all that is known.
    """
    held = list(runs)
    data = _chosen(run.data for run in held if run.data is not None)
    networks = _chosen(run.architecture for run in held if run.architecture is not None)
    bases = _chosen(run.base for run in held)
    return [
        replace(
            run,
            data=None if run.data is None else data[run.data],
            architecture=None if run.architecture is None else networks[run.architecture],
            base=bases[run.base],
        )
        for run in held
    ]


def _chosen(names: Iterable[str]) -> dict[str, str]:
    """Return what each name is written as."""
    counts = Counter(names)
    by_key: dict[str, str] = {}
    for name, _ in counts.most_common():
        by_key.setdefault(folded(name), name)
    return {name: by_key[folded(name)] for name in counts}


def folded(name: str) -> str:
    """Return a name without what people write in several ways."""
    kind, colon, _ = name.partition(":")
    if colon and kind not in NEED_ROOT:
        return name  # a path, or somebody's function
    if is_digest(name):
        return name
    plain = _BETWEEN.sub("", kind.casefold())
    return _ALSO.get(plain, plain)
