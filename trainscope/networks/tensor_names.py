"""Names of tensors as training frameworks write them, and as the network itself has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_WRAPPERS = frozenset(
    {
        *("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module"),
        "_checkpoint_wrapped_module",
    }
)
"""Parts of names that DataParallel, torch.compile, Fabric and FSDP add, wherever they stand."""

_PREFIXES = ("model.", "net.", "network.", "backbone.")
"""Starts that frameworks give to the names of all of a network's tensors."""

_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""How torchvision before 0.2 wrote DenseNet's layers; its published files still do."""


def plain_names(names: Iterable[str], *, prefixes: bool = True) -> dict[str, str]:
    """Return the network's own name for every name in a state dict.

    Args:
        names: As a file holds them.
        prefixes: Also take off what frameworks put in front of every name; a network of the
            user's own may have such a name itself.
    """
    plain = {name: name for name in names}
    plain = _renamed(plain, _without_wrappers)
    while prefixes and plain:
        start = next((p for p in _PREFIXES if all(n.startswith(p) for n in plain.values())), None)
        if start is None:
            break
        plain = {name: now.removeprefix(start) for name, now in plain.items()}
    return _renamed(plain, lambda name: _OLD_DENSE_LAYER.sub(r"\1\2.", name))


def owner_names(layers: Iterable[str], tensors: Iterable[str]) -> dict[str, str]:
    """Return the network's own name for every layer of it; layers around it are left out.

    Args:
        layers: Names of modules as a file holds them, the outermost is "".
        tensors: Names of all tensors of the same file, which tell what is put in front.
    """
    start = ""
    for given, plain in plain_names(tensors).items():
        bare = _without_wrappers(given)
        if bare.endswith(plain):
            start = bare.removesuffix(plain)
            break
    names = {}
    for given in layers:
        bare = _without_wrappers(given)
        if f"{bare}." == start or (bare + ".").startswith(start):
            names[given] = bare[len(start) :]
    return _innermost(names)


def _innermost(names: dict[str, str]) -> dict[str, str]:
    """Return one layer a name: a wrapper and the layer that it wraps have the same."""
    return {given: name for name, given in {name: given for given, name in names.items()}.items()}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _renamed(names: dict[str, str], rename: Callable[[str], str]) -> dict[str, str]:
    """Return new names, or the old ones where two would fall together or one would be empty."""
    new = {name: rename(now) for name, now in names.items()}
    return new if len(set(new.values())) == len(new) and "" not in new.values() else names
