"""The networks that a plan's pruning begins with, untrained or from their files, and their data."""

from __future__ import annotations

from collections.abc import Callable

from trainscope.data import Dataset, load
from trainscope.errors import StudyError, TrainscopeError
from trainscope.networks import Network
from trainscope.networks.registry import input_shape
from trainscope.studies.executing import opened_base
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.task.modes import evaluating
from trainscope.training.weights import fresh_network

SAMPLES = {
    "digits": 1437,
    "mnist": 60_000,
    "fashionmnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "imagenet": 1_281_167,
}
"""Training samples of data that need not be here to plan with it; a folder says it by its name."""
CLASSES = {"digits": 10, "mnist": 10, "fashionmnist": 10, "cifar10": 10, "cifar100": 100}


class Roots:
    """What the runs of a plan begin with, each opened or built once.

    Args:
        tell: Told of what is opened or built.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self.tell = tell
        self._networks: dict[str, Network] = {}
        self._samples: dict[str, int | None] = {}

    def network(self, spec: RunSpec) -> Network:
        """Return the network that all pruning of a run begins with, untrained or from its file.

        Raises:
            TrainscopeError: It cannot be opened or built.
        """
        root, key = root_of(spec), root_key(spec)
        if key not in self._networks:
            if isinstance(root.base, BaseModel):
                self.tell(f"opening {root.base.path}")
                self._networks[key], _ = opened_base(root.base, spec.data, spec.task)
            else:
                self.tell(f"building {root.architecture}")
                self._networks[key] = _built(root)
        return self._networks[key]

    def samples(self, spec: RunSpec) -> int | None:
        """Return the training samples of a run's data; None where nobody knows them."""
        name = str(spec.data)
        if name not in self._samples:
            kind, _, rest = name.partition(":")
            known = SAMPLES.get(kind)
            if known is None and kind == "imagefolder" and "imagenet" in rest.lower():
                known = SAMPLES["imagenet"]
            if known is None:
                data = _data(spec)
                known = None if data is None or data.train is None else len(data.train)
            self._samples[name] = known
        return self._samples[name]


def root_of(spec: RunSpec) -> RunSpec:
    """Return the run that all others which a run stands on stand on."""
    while isinstance(spec.base, RunSpec):
        spec = spec.base
    return spec


def root_key(spec: RunSpec) -> str:
    """Return what names the network of a root: the digest of its weights, or its architecture."""
    root = root_of(spec)
    if isinstance(root.base, BaseModel):
        return root.base.digest or f"{root.base.path}"
    return f"{root.architecture}"


def _built(root: RunSpec) -> Network:
    name, data = str(root.architecture), _data(root)
    kind = str(root.data).partition(":")[0]
    classes = data.num_classes if data is not None else CLASSES.get(kind)
    module = evaluating(fresh_network(name, classes, 0))
    shape: tuple[int, ...]
    if ":" not in name:
        shape = input_shape(name)
    elif data is not None:
        shape = tuple(data.input_shape)
    else:
        raise StudyError(
            f"the inputs of {name} are not known without its data, and {root.data} is not here: "
            "fetch it, or name the folder that it is in"
        )
    return Network(module, name, shape, classes)


def _data(spec: RunSpec) -> Dataset | None:
    """Return the data where it is here."""
    name = str(root_of(spec).architecture)
    shape = (3, 224, 224) if ":" in name or name == "None" else input_shape(name)
    try:
        found = load(str(spec.data), shape)
    except TrainscopeError:
        return None
    return found if isinstance(found, Dataset) else None
