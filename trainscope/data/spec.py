"""Data by name, as `--data` takes it: `digits`, `mnist:ROOT`, `random:3x32x32`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from trainscope.data import embedded, folder, text, torchvision_sets
from trainscope.data.dataset import Dataset
from trainscope.data.given import given_data
from trainscope.errors import DataError
from trainscope.foreign import called, find_callable
from trainscope.task import Task

FORMS = (
    "digits, mnist:ROOT, fashionmnist:ROOT, cifar10:ROOT, cifar100:ROOT, imagefolder:ROOT, "
    "text:FILE, package.module:factory"
)


TEXT = "text:"


@dataclass(frozen=True)
class RandomInputs:
    """Gaussian inputs of a shape, for a network whose data is not at hand."""

    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the inputs as `--data` takes them."""
        return "random:" + "x".join(str(side) for side in self.shape)


def load(
    spec: str,
    input_shape: tuple[int, ...],
    *,
    download: bool = False,
    task: Task | None = None,
    reading: text.Reading | None = None,
) -> Dataset | RandomInputs:
    """Return the data that a text names.

    Args:
        spec: One of the forms above, or `random:CxHxW`. `package.module:factory` names a function
            of the user's own that returns a loader, or a pair of them, train and test.
        input_shape: (C, H, W) of the network, to which folders of images are resized.
        download: Fetch what torchvision can fetch.
        task: What the batches are for; by default classification, of text what it shows.
        reading: How text becomes the network's batches; by default bytes.

    Raises:
        DataError: The text is of no form, or the data is not where it says.
    """
    if is_text(spec):
        place = Path(spec.removeprefix(TEXT)).expanduser()
        return text.load(place, reading or text.Reading(), task)
    found = _named(spec, input_shape, download=download, task=task)
    if task is None or isinstance(found, RandomInputs):
        return found
    return replace(found, task=task)


def is_text(spec: object) -> bool:
    """Tell whether data is text of a file or folder."""
    return isinstance(spec, str) and spec.startswith(TEXT) and spec != TEXT


def is_factory(spec: str) -> bool:
    """Tell whether a text names a function of the user's own."""
    kind = spec.partition(":")[0]
    known = kind in (*torchvision_sets.KNOWN, "imagefolder", "random", "text")
    return not known and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec) is not None


def _named(
    spec: str, input_shape: tuple[int, ...], *, download: bool, task: Task | None
) -> Dataset | RandomInputs:
    kind, colon, rest = spec.partition(":")
    if spec == "digits":
        return embedded.digits()
    if kind == "random":
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", rest):
            raise DataError(f"'{spec}' is not of the form random:CxHxW, like random:3x32x32")
        return RandomInputs(tuple(int(side) for side in rest.split("x")))
    if colon and rest and kind in torchvision_sets.KNOWN:
        return torchvision_sets.load(kind, Path(rest).expanduser(), download=download)
    if colon and rest and kind == "imagefolder":
        return folder.load(Path(rest).expanduser(), input_shape)
    if is_factory(spec):
        return _made(spec, task)
    raise DataError(f"no data is named '{spec}': write one of {FORMS} or random:CxHxW")


def _made(spec: str, task: Task | None) -> Dataset:
    """Return the data that a function of the user's own makes."""
    factory = find_callable(spec, "--data", DataError)
    made = called(factory, spec, "--data", DataError)
    return given_data(made, spec, task)  # type: ignore[arg-type]
