"""How many heads attentions have: where their modules keep the number, and how it is changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from trainscope.networks.linear import is_linear
from trainscope.networks.meta import Shapes
from trainscope.networks.narrow_attention import NarrowAttention

HEAD = re.compile(r"head")
SIZE = re.compile(r"dim|size|width|channels")
_COUNTS = frozenset({"h", "nh", "n_h"})
_WIDTH_NAMES = ("all_head", "attn_dim", "inner", "split", "proj", "kv", "q_size", "attention_dim")


@dataclass(frozen=True)
class Way:
    """How a module is told that it has fewer heads.

    Attributes:
        widths: Which attributes that hold the width of all heads follow: those named as
            such a width, all that hold its number, or none.
        config: It is given a configuration of its own, with its own counts.
    """

    widths: str
    config: bool


WAYS = [Way(widths, config) for config in (False, True) for widths in ("named", "all", "none")]


def is_count(name: str) -> bool:
    """Say whether an attribute's name says that it counts heads."""
    return name in _COUNTS or (bool(HEAD.search(name)) and not SIZE.search(name))


def own_numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers among a module's own attributes, by name."""
    for name, value in vars(module).items():
        if type(value) is int and name[0] != "_" and value > 0:
            yield name, value


def narrow_layers(network: nn.Module, whole: str) -> None:
    """Give torch's own attention layers a class that may have any number of heads, in place."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.MultiheadAttention and (
            name == whole or name.startswith(f"{whole}.")
        ):
            if not name:
                raise TypeError("a network that is one attention layer")
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, NarrowAttention.of(module))


def tell(
    whole: nn.Module,
    counts: Set[int],
    lengths: Set[int],
    kept: tuple[int, int],
    *,
    widths: str = "named",
) -> None:
    """Bring the attributes of an attention's modules to the heads that are left, in place.

    Args:
        whole: The module that holds all of it.
        counts: How many heads, and groups of heads, there were.
        lengths: The widths of all queries, keys and so on that there were.
        kept: How many units are left, and of how many.
        widths: As `Way.widths`.
    """
    for module in whole.modules():
        if is_linear(module) or isinstance(module, nn.Embedding):
            continue
        torchs = isinstance(module, nn.MultiheadAttention)
        for name, value in list(own_numbers(module)):
            follows = value in counts and is_count(name)
            if value in lengths and not torchs and "head_dim" not in name:
                named = any(word in name for word in _WIDTH_NAMES)
                follows |= widths == "all" or (widths == "named" and named)
            if follows:
                setattr(module, name, value * kept[0] // kept[1])


def own_config(module: nn.Module, counts: Set[int], kept: tuple[int, int]) -> None:
    """Give a module a configuration of its own, for it reads its counts there at every call."""
    config = copy.copy(vars(module).get("config"))
    if config is None:
        return
    for name in ("num_attention_heads", "num_key_value_heads"):
        value = getattr(config, name, None)
        if type(value) is int and value in counts:
            setattr(config, name, value * kept[0] // kept[1])
    setattr(module, "config", config)  # noqa: B010 - mypy takes it for a submodule


def follow_shapes(network: nn.Module, shapes: Shapes) -> None:
    """Bring the counts of heads to tensors of narrower shapes, in place; no tensor is changed.

    An attention whose matrices all have one share of their rows or columns has that share of its
    heads.

    Args:
        network: Dense, or as narrow already.
        shapes: For every name of its state dict.
    """
    done: list[str] = []
    for name, module in reversed(list(network.named_modules())):
        if any(other == name or other.startswith(f"{name}.") for other in done):
            continue
        config = vars(module).get("config")
        counts = {value for key, value in own_numbers(module) if is_count(key)}
        from_config = not counts and "attention" in type(module).__name__.lower()
        told = [getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value")]
        if from_config or (counts and config is not None):
            counts |= {count for count in told if type(count) is int}
        if not counts:
            continue
        found = _share(module, f"{name}.".lstrip("."), shapes)
        if found is None and any(parameter.ndim > 1 for parameter in module.parameters()):
            done.append(name)  # what is narrower around it, as an MLP, says nothing of its heads
        if found is None or any(count * found % 1 for count in counts):
            continue
        share, lengths = found, _lengths(module, f"{name}.".lstrip("."), shapes)
        kept = (share.numerator, share.denominator)
        narrow_layers(network, name)
        own_config(network.get_submodule(name), counts, kept)
        tell(network.get_submodule(name), counts, lengths, kept)
        done.append(name)


def _share(module: nn.Module, prefix: str, shapes: Shapes) -> Fraction | None:
    """Return the one share that all shorter axes have of their lengths; None where there is none.

    torch's own attention that is narrower inside and outside alike has its heads still.
    """
    shares = set()
    for name, parameter in module.named_parameters():
        found = shapes.get(prefix + name, tuple(parameter.shape))
        for old, new in zip(parameter.shape, found, strict=False):
            if new < old:
                shares.add(Fraction(new, old))
        leaf = name.rpartition(".")[2]
        if leaf == "in_proj_weight" and parameter.shape != found and found[0] == 3 * found[1]:
            return None
    return shares.pop() if len(shares) == 1 else None


def _lengths(module: nn.Module, prefix: str, shapes: Shapes) -> set[int]:
    return {
        old
        for name, parameter in module.named_parameters()
        for old, new in zip(parameter.shape, shapes.get(prefix + name, ()), strict=False)
        if new < old
    }
