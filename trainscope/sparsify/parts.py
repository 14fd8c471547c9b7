"""The scope `inner` in the parts of a network that cannot be followed as a whole.

A detector's code goes over lists of images and boxes, which no trace can follow; its backbone takes
and gives tensors. A part's outputs are kept as they are, so that nothing outside it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from trainscope.networks.example import Example, Inputs, as_example, tensors_of
from trainscope.sparsify.candidate import OUTPUT, Candidate, Removed
from trainscope.sparsify.channels import UntraceableError, follow
from trainscope.sparsify.inner_cutter import InnerCutter
from trainscope.sparsify.layers import Channels, makes
from trainscope.sparsify.trial import failing
from trainscope.sparsify.verify import run
from trainscope.task.calls import ModuleCall, hooked

_LEAVES = "its outputs leave the part of the network that a trace can follow"
_OUTSIDE = "it is in no part of the network that a trace can follow"


@dataclass(frozen=True)
class _Part:
    """One module that a trace can follow.

    Attributes:
        name: The module's.
        channels: Where its channels are.
        first: It holds the network's first convolution.
    """

    name: str
    channels: Channels
    first: bool


class PartsCutter:
    """Cuts inner filters in parts of a network, each by a cutter of its own."""

    def __init__(self, network: nn.Module, parts: list[_Part], blocked: Mapping[str, str]) -> None:
        self._cutters = {
            part.name: InnerCutter(
                network.get_submodule(part.name), part.channels, spare_first=part.first
            )
            for part in parts
        }
        self.noun, self.unit = "inner convolution", "filters"
        found: list[Candidate] = []
        spared: dict[str, str] = {name: _OUTSIDE for name, m in network.named_modules() if makes(m)}
        for prefix, cutter in self._cutters.items():
            chosen = cutter.candidates if cutter.unit == self.unit else ()
            found += [_under(prefix, candidate) for candidate in chosen]
            for candidate in cutter.candidates:
                for layer in candidate.layers:
                    spared.pop(f"{prefix}.{layer}", None)
            spared |= {
                f"{prefix}.{name}": _LEAVES if why == OUTPUT else why
                for name, why in cutter.spared.items()
            }
        self.candidates = tuple(each for each in found if each.name not in blocked)
        self.spared = spared | dict(blocked)
        self.untold = dict(blocked) | {
            f"{prefix}.{name}": why
            for prefix, cutter in self._cutters.items()
            for name, why in cutter.untold.items()
            if why != OUTPUT
        }
        notes = (note for cutter in self._cutters.values() for note in cutter.notes)
        self.notes: tuple[str, ...] = tuple(notes)

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut the network in place; return the outputs that went, by layer (norms too)."""
        gone: dict[str, tuple[int, ...]] = {}
        for prefix, cutter in self._cutters.items():
            own = {
                c.name: removed[f"{prefix}.{c.name}"]
                for c in cutter.candidates
                if f"{prefix}.{c.name}" in removed
            }
            if own:
                gone |= {f"{prefix}.{name}": places for name, places in cutter.cut(own).items()}
        return gone


def by_parts(network: nn.Module, inputs: Inputs) -> PartsCutter:
    """Find the inner filters in the largest parts that a trace can follow, and try them.

    Args:
        network: Run once in eval mode.
        inputs: An example of a call.

    Raises:
        UntraceableError: No part with inner filters can be followed.
    """
    example = as_example(inputs)
    calls = _calls(network, example)
    parts = _followed(network, calls)
    cutter = PartsCutter(network, parts, {})
    if not cutter.candidates:
        raise UntraceableError("no part of it that a trace can follow holds inner filters")
    failed = failing(network, example, cutter.candidates, lambda copy: PartsCutter(copy, parts, {}))
    return PartsCutter(network, parts, failed) if failed else cutter


def _under(prefix: str, candidate: Candidate) -> Candidate:
    """Return a candidate of a part as one of the whole network."""
    inner = candidate.subject

    def gather(values: Mapping[str, Tensor]) -> Tensor:
        start = f"{prefix}."
        own = {n.removeprefix(start): v for n, v in values.items() if n.startswith(start)}
        return inner.laid_out(own)

    subject = replace(
        inner,
        name=f"{prefix}.{inner.name}",
        parameters=tuple(f"{prefix}.{name}" for name in inner.parameters),
        gather=gather,
    )
    layers = tuple(f"{prefix}.{name}" for name in candidate.layers)
    return replace(candidate, subject=subject, layers=layers)


def _calls(network: nn.Module, example: Example) -> dict[str, list[Example]]:
    """Return what each module was called with, in the order of the first calls."""
    found: dict[str, list[Example]] = {}

    def note(call: ModuleCall[str]) -> None:
        found.setdefault(call.key, []).append(Example(call.args, dict(call.kwargs)))

    with hooked(network.named_modules(), before=note):
        run(network, example)
    return found


def _followed(network: nn.Module, calls: Mapping[str, list[Example]]) -> list[_Part]:
    """Return the largest modules, called once with tensors, that a trace can follow."""
    makers = [name for name in calls if makes(network.get_submodule(name))]
    first = next((n for n in makers if not isinstance(network.get_submodule(n), nn.Linear)), "")
    found: list[_Part] = []
    waiting = [name for name, _ in network.named_children()][::-1]
    while waiting:
        name = waiting.pop()
        module = network.get_submodule(name)
        inside = [each for each in makers if each.startswith(f"{name}.")]
        channels = None
        if len(inside) > 1 and all(len(calls[each]) == 1 for each in inside):
            channels = _channels(module, calls.get(name, []))
        if channels is not None:
            found.append(_Part(name, channels, first in inside))
        else:
            waiting += [f"{name}.{child}" for child, _ in module.named_children()][::-1]
    return found


def _channels(module: nn.Module, calls: list[Example]) -> Channels | None:
    if len(calls) != 1:
        return None
    given: dict[str, Tensor] = tensors_of((calls[0].args, dict(calls[0].kwargs)))
    if not given:
        return None
    try:
        return follow(module, calls[0])
    except UntraceableError:
        return None
