"""Folders of a hub whose network is of transformers' classes, as networks and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainscope.errors import CheckpointError
from trainscope.networks import transformers_zoo
from trainscope.networks.example import Example
from trainscope.networks.masks import set_masks
from trainscope.networks.network import Hub, Network
from trainscope.networks.rebuild import fill, is_narrower, mismatch, resize
from trainscope.networks.state_dict import Weights
from trainscope.task import Classification, Task

FORM = "hf:"
"""How a local folder may be written, to say that it is one of a hub."""
_SHOWN = 4
_EXAMPLE_TOKENS = 8


@dataclass(frozen=True)
class Head:
    """What a network is to be asked, where its configuration does not settle it.

    Attributes:
        task: The task; None for that of the network's own head.
        classes: How many classes a new head tells apart; None for the configuration's.
    """

    task: Task | None = None
    classes: int | None = None


def _check_path(path: object) -> None:
    """Refuse what is neither a network nor a path, as a state dict that was loaded.

    Raises:
        CheckpointError: It is such.
    """
    if isinstance(path, str | os.PathLike):
        return
    kind = path.__name__ if isinstance(path, type) else type(path).__name__
    way = "the network that loaded it" if isinstance(path, Mapping) else "one"
    if isinstance(path, type):
        way = f"one of it, as {kind}() makes"
    raise CheckpointError(
        f"{kind} is no network: give a torch.nn.Module, {way}, or the path of a checkpoint"
    )


def local_folder(path: str | os.PathLike[str]) -> Path:
    """Return the place that a text names: "hf:DIR" is the folder DIR.

    Raises:
        CheckpointError: "hf:" stands before what is no folder here, or it is no path.
    """
    _check_path(path)
    text = os.fspath(path)
    if not text.startswith(FORM):
        return Path(text)
    folder = Path(text.removeprefix(FORM)).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"{text}: there is no folder {folder}; nothing is fetched from a hub, so download the "
            "network first and give its folder"
        )
    return folder


def hub_of_module(module: nn.Module) -> Hub | None:
    """Return how transformers describes a module that a person brings, None for any other."""
    config = getattr(module, "config", None)
    if not type(module).__module__.startswith("transformers.") or config is None:
        return None
    folder = str(getattr(config, "_name_or_path", "") or "")
    return Hub(described(module) or {}, folder if folder and Path(folder).is_dir() else "")


def described(module: nn.Module) -> Mapping[str, Any] | None:
    """Return the configuration of a network of transformers as it stands, None of any other."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_json_string"):
        return None
    with transformers_zoo.quiet():
        found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    found["architectures"] = [type(module).__name__]
    return found


def task_of(hub: Hub) -> Task:
    """Return what a network is asked to do, by its head.

    Raises:
        CheckpointError: Transformers does not have the class.
        TaskError: The head's task is not known.
    """
    kind = transformers_zoo.class_of(hub.config)
    return transformers_zoo.task_of(kind, transformers_zoo.config_of(hub.config))


def is_headed(hub: Hub, task: Task | None) -> bool:
    """Tell whether a network has the head that a task needs; else a new one is put on it."""
    named = hub.config.get("architectures")
    kind = transformers_zoo.class_of(hub.config, task)
    return isinstance(named, list) and bool(named) and named[0] == kind.__name__


def open_hub(
    hub: Hub, weights: Weights, head: Head | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Network, bool]:
    """Return the network that a configuration describes, and whether its layers are narrower.

    Args:
        hub: The configuration.
        weights: Names as transformers has them, or had them in an older version.
        head: What it is to be asked.
        dtype: That of the weights.

    Raises:
        CheckpointError: They do not fit each other.
    """
    head = head or Head()
    kind = transformers_zoo.class_of(hub.config, head.task)
    config = transformers_zoo.config_of(hub.config)
    headed = is_headed(hub, head.task)
    if head.classes is not None and not headed:
        config.num_labels = head.classes
    if isinstance(head.task, Classification) and getattr(config, "pad_token_id", None) is None:
        end = getattr(config, "eos_token_id", None)
        config.pad_token_id = end if isinstance(end, int) else 0
    loaded = transformers_zoo.load(kind, config, weights.tensors, dtype=dtype)
    module, name = loaded.module, kind.__name__
    notes = []
    if loaded.random:
        notes.append(_random(loaded, name, headed=headed))
    if loaded.left_out:
        notes.append(
            f"Tensors that {name} has no place for were left out: {_listed(loaded.left_out)}."
        )
    narrower = bool(loaded.other)
    if narrower:
        _narrow(module, loaded.other, weights, name)
    set_masks(module, _own_names(module, weights))
    example = _example(module)
    classes = getattr(config, "num_labels", None)
    tells = _tells_classes(kind, config, head)
    network = Network(
        module=module,
        architecture=transformers_zoo.PREFIX + name,
        input_shape=_shape_of(example),
        num_classes=classes if tells else None,
        recognised="config.json",
        notes=tuple(notes),
        example=example if example is not None and example.kwargs else None,
        hub=replace(hub, config=described(module) or hub.config),
    )
    return network, narrower


def dense_of(network: Network) -> nn.Module:
    """Return the network that the configuration of an opened one describes, without numbers."""
    config = transformers_zoo.config_of(network.hub.config if network.hub else {})
    return transformers_zoo.skeleton(type(network.module), config)


def _random(loaded: transformers_zoo.Filled, name: str, *, headed: bool) -> str:
    """Say which tensors are random.

    Raises:
        CheckpointError: They are more than the head of another network.
    """
    state = loaded.module.state_dict()
    missing = sum(state[each].numel() for each in loaded.random if each in state)
    if headed or 2 * missing > sum(tensor.numel() for tensor in state.values()):
        raise CheckpointError(
            f"the folder lacks {_listed(loaded.random)}, which {name} has: download it again, or "
            "give the folder of that network"
        )
    return (
        f"THE HEAD IS RANDOM: the folder has no {_listed(loaded.random)}, so these {missing:,} "
        f"weights of {name} are drawn anew (seed 0) and nothing was learned by them. Train the "
        "network for this task before its numbers are read as those of a trained one."
    )


def _narrow(
    module: nn.Module, other: Mapping[str, tuple[int, ...]], weights: Weights, name: str
) -> None:
    """Resize the layers of a network to narrower tensors, and fill them.

    Raises:
        CheckpointError: A tensor is wider than the configuration says.
    """
    dense = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    found = {**dense, **other}
    if not is_narrower(dense, found):
        raise CheckpointError(f"the weights do not fit: {mismatch(dense, found, name)}")
    values = dict(module.state_dict())
    for each in other:
        source = weights.tensors.get(each)
        if source is None:
            raise CheckpointError(f"the weights do not fit: {mismatch(dense, found, name)}")
        values[each] = source
    resize(module, found)
    fill(module, values, assign=False)


def _own_names(module: nn.Module, weights: Weights) -> dict[str, torch.Tensor]:
    """Return masks by the names that the network's parameters have.

    Raises:
        CheckpointError: A mask is of no parameter.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    found = {}
    for given, mask in weights.masks.items():
        own = [name for name in names if given in (name, name.partition(".")[2])]
        own = own or [name for name in names if given.endswith(f".{name}")]
        if len(own) != 1:
            raise CheckpointError(f"the mask of '{given}' is of no weight of the network")
        found[own[0]] = mask
    return found


def _tells_classes(kind: type[nn.Module], config: Any, head: Head) -> bool:
    if head.task is not None:
        return isinstance(head.task, Classification)
    try:
        return isinstance(transformers_zoo.task_of(kind, config), Classification)
    except CheckpointError:
        raise
    except Exception:  # a head of no task that is known
        return False


def _example(module: nn.Module) -> Example | None:
    """Return a call that the network takes, None where nobody but its data can say one."""
    config: Any = module.config
    name = getattr(module, "main_input_name", "")
    given: Any
    if name == "input_ids":
        vocabulary = int(getattr(config, "vocab_size", 0) or 0)
        context = getattr(config, "max_position_embeddings", None)
        length = min(_EXAMPLE_TOKENS, context if isinstance(context, int) else _EXAMPLE_TOKENS)
        drawn = torch.Generator().manual_seed(0)
        ids = torch.randint(max(vocabulary, 1), (2, max(length, 1)), generator=drawn)
        given = Example(kwargs={"input_ids": ids})
    elif name == "pixel_values":
        side = getattr(config, "image_size", 224)
        height, width = side if isinstance(side, list | tuple) else (side, side)
        channels = getattr(config, "num_channels", 3)
        given = Example((torch.zeros(2, channels, height, width),))
    else:
        return None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            given.run(module)
    except Exception:  # it takes more than its main input
        return None
    return given  # type: ignore[no-any-return]


def _shape_of(example: Example | None) -> tuple[int, ...]:
    if example is None:
        return ()
    (first,) = (*example.args, *example.kwargs.values())
    return tuple(first.shape[1:])


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more
