"""A network's depth: its lists of blocks, and what else in it counts them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from trainscope.networks.heads import own_numbers

_DEPTH = re.compile(r"layer|block|depth")
_PLACE = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "block_idx"})


def drop(network: nn.Module, blocks: Mapping[str, Sequence[int]]) -> None:
    """Take blocks out of lists, in place, and tell the network how many are left.

    Configurations that count the blocks, or list something for each, follow, and so do the places
    that blocks know of themselves.

    Args:
        network: Changed in place.
        blocks: The places of those that go, by the name of the list.
    """
    for name, gone in blocks.items():
        owner = name.rpartition(".")[0]
        parent, stack = network.get_submodule(owner), network.get_submodule(name)
        children = list(stack.named_children())
        kept = [child for place, child in enumerate(children) if place not in set(gone)]
        numbered = [key for key, _ in children] == [str(n) for n in range(len(children))]
        modules = {str(n) if numbered else key: m for n, (key, m) in enumerate(kept)}
        stack._modules.clear()
        stack._modules.update(modules)
        stayed = [place for place in range(len(children)) if place not in set(gone)]
        for place, (old, module) in enumerate(zip(stayed, modules.values(), strict=True)):
            for inner in module.modules():
                for attribute, value in list(vars(inner).items()):
                    if attribute in _PLACE and type(value) is int and value == old:
                        setattr(inner, attribute, place)
        _tell(network, parent, name, len(children), stayed)


def _tell(network: nn.Module, parent: nn.Module, name: str, before: int, stayed: list[int]) -> None:
    """Bring the counts of blocks in modules and configurations to what is left."""
    for attribute, value in list(own_numbers(parent)):
        if value == before and _DEPTH.search(attribute):
            setattr(parent, attribute, len(stayed))
    around = [network, *(network.get_submodule(path) for path in _owners(name))]
    configs = {id(c): c for m in around if (c := vars(m).get("config")) is not None}
    inner = [value for c in configs.values() for value in vars(c).values()]
    configs |= {id(c): c for c in inner if hasattr(c, "to_dict") and hasattr(c, "model_type")}
    stages = [int(part) for part in name.split(".") if part.isdigit()]
    for config in configs.values():
        counts = [
            key
            for key, value in vars(config).items()
            if type(value) is int and value == before and _DEPTH.search(key)
        ]
        side = "decoder" if "decoder" in name else "encoder"
        other = "encoder" if side == "decoder" else "decoder"
        own = [key for key in counts if side in key]
        for key in own or [key for key in counts if other not in key]:
            setattr(config, key, len(stayed))
        for key, value in list(vars(config).items()):
            if not isinstance(value, list | tuple):
                continue
            if key == "depths" and stages and stages[0] < len(value):
                if value[stages[0]] == before:
                    new = [*value]
                    new[stages[0]] = len(stayed)
                    setattr(config, key, type(value)(new))
            elif len(value) == before and "layer" in key and "pattern" not in key:
                setattr(config, key, type(value)(value[place] for place in stayed))


def _owners(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def drop_missing(network: nn.Module, names: Iterable[str]) -> bool:
    """Take out the blocks that a network has more than tensors of these names have, in place.

    Blocks of a list whose keys are numbers are counted on from 0, so there the last ones go.

    Returns:
        Whether any went.
    """
    there = set(names)
    gone: dict[str, list[int]] = {}
    for name, keys in block_lists(network).items():
        paths = [f"{name}.{key}.".lstrip(".") for key in keys]
        missing = [
            place
            for place, path in enumerate(paths)
            if not any(tensor.startswith(path) for tensor in there)
        ]
        if missing and len(missing) < len(keys):
            gone[name] = missing
    drop(network, gone)
    return bool(gone)


def block_lists(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the lists of two or more blocks of one class that hold weights, outermost first."""
    found: dict[str, tuple[str, ...]] = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or any(
            name.startswith(f"{outer}.") for outer in found
        ):
            continue
        children = dict(module.named_children())
        kinds = {type(child) for child in children.values()}
        plain = any(not list(child.children()) for child in children.values())
        held = all(any(True for _ in child.parameters()) for child in children.values())
        if len(children) > 1 and len(kinds) == 1 and not plain and held:
            found[name] = tuple(children)
    # A list of stages holds lists of blocks: it is the inner ones that count.
    stages = {
        name
        for name in found
        if any(
            isinstance(inner, nn.ModuleList | nn.Sequential) and len(inner) > 1 and _is_list(inner)
            for child in network.get_submodule(name).children()
            for inner in child.modules()
        )
    }
    if not stages:
        return found
    kept = {name: keys for name, keys in found.items() if name not in stages}
    for name in stages:
        for key in found[name]:
            path = f"{name}.{key}".lstrip(".")
            for inner, keys in block_lists(network.get_submodule(path)).items():
                kept[f"{path}.{inner}".rstrip(".")] = keys
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    return dict(sorted(kept.items(), key=lambda item: order[item[0]]))


def _is_list(module: nn.Module) -> bool:
    kinds = {type(child) for child in module.children()}
    return len(kinds) == 1 and all(list(child.children()) for child in module.children())
