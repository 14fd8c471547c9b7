"""What tensors do not tell of a pickled network (strides, pooling, activations), taken from it.

A network rebuilt from tensors has its architecture's own settings and activations. The file's may
be others: a stride of 1, a max-pooling taken out. They are compared layer by layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainscope.errors import CheckpointError
from trainscope.networks.forward import check_forward
from trainscope.networks.network import Network
from trainscope.networks.readers.contents import KIND, Geometry, is_plain
from trainscope.networks.tensor_names import owner_names

_WIDTHS = frozenset(
    {"training", "groups", "in_channels", "out_channels", "in_features", "out_features"}
    | {"num_features", "num_channels", "normalized_shape", "embed_dim", "kdim", "vdim"}
    | {"head_dim", "hidden_dim", "num_classes", "aux_logits"}
)
"""Settings that the tensors tell; by hand pruned networks often have them wrong."""

_SPATIAL = frozenset({"kernel_size", "stride", "padding", "dilation", "output_size"})

_PADDING = "_reversed_padding_repeated_twice"  # what a padding mode other than zeros goes by

_REPLACEABLE = tuple(f"torch.nn.modules.{room}." for room in ("activation", "pooling", "dropout"))
_IDENTITY = "torch.nn.modules.linear.Identity"
_SYNCED = "torch.nn.modules.batchnorm.SyncBatchNorm"
_SHOWN = 5


def apply_geometry(network: Network, geometry: Geometry, state: Iterable[str]) -> Network:
    """Give a rebuilt network the settings, activations and poolings that its file has.

    Args:
        network: Its module is changed in place.
        geometry: Class and plain settings by the name of a layer, as the file has it.
        state: The names of the file's tensors, which tell its wrappers.

    Returns:
        The network with a note that names what was changed.

    Raises:
        CheckpointError: A layer is of another class than the architecture's, the number of groups
            differs, or the network does not run with the settings.
    """
    layers = {name: geometry[given] for given, name in owner_names(geometry, state).items()}
    taken: dict[str, dict[str, object]] = {}
    for name, layer in layers.items():
        changes = _apply(network, name, layer, set(layers))
        if changes:
            taken[name] = changes
    notes = _foreign(network, layers)
    if taken:
        check_forward(network.module, network.input_shape, network.architecture)
        notes.append(_told(taken))
    return replace(network, notes=(*network.notes, *notes), geometry=taken)


def _apply(
    network: Network, name: str, layer: Mapping[str, object], names: set[str]
) -> dict[str, object]:
    """Bring one layer to what the file says, and return what was changed."""
    parts = dict(network.module.named_modules())
    own, kind = parts.get(name), str(layer.get(KIND, ""))
    if network.recognised == "--model":  # its classes are the business of who named it
        return {} if own is None or kind != kind_of(own) else _set(own, layer, network, name)
    if own is None:
        owner = parts.get(name.rpartition(".")[0])
        if isinstance(owner, nn.Sequential):  # it runs all that it holds
            raise _another(network, name, kind, "absent")
        return {}
    missing = [
        child for child, _ in own.named_children() if f"{name}.{child}".strip(".") not in names
    ]
    if missing and isinstance(own, nn.Sequential) and kind:
        there = parts[f"{name}.{missing[0]}".strip(".")]
        raise _another(network, f"{name}.{missing[0]}", "absent", kind_of(there))
    if kind in ("", kind_of(own)) or (kind == _SYNCED and isinstance(own, _BatchNorm)):
        return _set(own, layer, network, name)
    if not kind.startswith("torch.nn."):
        return {}  # a class that nobody here has read, which a note says
    new = _made(kind)
    if new is None or next(own.parameters(), None) is not None:
        raise _another(network, name, kind, kind_of(own))
    settings = _set(new, layer, network, name, every=True)
    owner_name, _, leaf = name.rpartition(".")
    setattr(network.module.get_submodule(owner_name), leaf, new.eval())
    return {**settings, KIND: kind}


def _foreign(network: Network, layers: Geometry) -> list[str]:
    """Return a sentence on the first class of the file that is not the architecture's."""
    if network.recognised == "--model":
        return []
    parts = dict(network.module.named_modules())
    for name, layer in layers.items():
        kind = str(layer.get(KIND, ""))
        known = not kind or kind.startswith("torch.nn.") or kind == kind_of(parts.get(name))
        if name in parts and not known:
            return [
                f"The code of {kind} is not in the file: the network computes what "
                f"{network.architecture} does."
            ]
    return []


def _told(taken: Mapping[str, Mapping[str, object]]) -> str:
    words = []
    for name, changes in taken.items():
        kind = str(changes.get(KIND, "")).rpartition(".")[2]
        words += [f"{name} = {kind}"] if kind else [f"{name}.{key}".lstrip(".") for key in changes]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return f"Taken over from the file: {', '.join(words[:_SHOWN])}{more}."


def _set(
    own: nn.Module, layer: Mapping[str, object], network: Network, name: str, *, every: bool = False
) -> dict[str, object]:
    """Give a layer the settings of the file that it has too, and return those that differed."""
    groups = layer.get("groups")
    if isinstance(own, nn.modules.conv._ConvNd) and groups not in (None, own.groups):
        raise CheckpointError(
            f"the layer '{name}' has {groups} groups in the file and {own.groups} in "
            f"{network.architecture}; say which network it is with --model"
        )
    changed: dict[str, object] = {}
    for key, value in layer.items():
        if key == KIND or key in _WIDTHS or (key.startswith("_") and key != _PADDING):
            continue
        told = key in _settings_of(type(own)) if every else key in vars(own)
        if told and (every or (is_plain(vars(own)[key]) and vars(own)[key] != value)):
            _check_reach(network, name, key, value)
            setattr(own, key, value)
            changed[key] = value
    if isinstance(own, nn.MultiheadAttention) and isinstance(own.num_heads, int):
        own.head_dim = own.embed_dim // max(own.num_heads, 1)
    return changed


def _settings_of(kind: type[nn.Module]) -> frozenset[str]:
    """Return what a layer is told when it is made; other attributes could hide its methods."""
    return frozenset(inspect.signature(kind).parameters) - set(dir(kind))


def _check_reach(network: Network, name: str, key: str, value: object) -> None:
    """Refuse a padding or the like that is larger than an input: it would only take memory."""
    numbers = value if isinstance(value, tuple | list) else (value,)
    most = max(network.input_shape)
    if key in _SPATIAL and any(isinstance(n, int) and n > most for n in numbers):
        raise CheckpointError(
            f"the layer '{name}' has a {key} of {value} in the file, and an input is {most} wide; "
            "say which network it is with --model package.module:factory"
        )


def _made(kind: str) -> nn.Module | None:
    """Return a layer of one of torch's classes without weights, its settings yet to be set."""
    if not kind.startswith(_REPLACEABLE) and kind != _IDENTITY:
        return None
    found = getattr(nn, kind.rpartition(".")[2], None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        return None
    made = object.__new__(found)
    nn.Module.__init__(made)
    return made if kind_of(made) == kind else None


def kind_of(module: nn.Module | None) -> str:
    """Return "module.name" of a module's class, the empty word for none."""
    kind = type(module)
    return "" if module is None else f"{kind.__module__}.{kind.__qualname__}"


def _another(network: Network, name: str, kind: str, own: str) -> CheckpointError:
    return CheckpointError(
        f"the layer '{name}' is {kind} in the file and {own} in {network.architecture}; "
        "say which network it is with --model package.module:factory"
    )
