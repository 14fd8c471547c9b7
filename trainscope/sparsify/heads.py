"""Takes whole attention heads out: their queries, keys, values and output columns together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainscope.errors import first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs, tensors_of
from trainscope.networks.heads import WAYS, Way, narrow_layers, own_config, tell
from trainscope.networks.linear import is_linear, set_widths
from trainscope.networks.masks import drop_masks
from trainscope.networks.weights import MULTIPLIED, weights_in
from trainscope.sparsify.attention import Attention, find_attentions, slow_attention
from trainscope.sparsify.candidate import Candidate, Removed, some
from trainscope.sparsify.cut import keep_slices
from trainscope.sparsify.statistics import Subject
from trainscope.sparsify.trial import failing
from trainscope.task.modes import evaluating

_TOLERANCE = 1e-10


@dataclass
class HeadsCutter:
    """Cuts the heads of a network's attentions, as `trainscope.sparsify.candidate.Cutter` says."""

    network: nn.Module
    attentions: Mapping[str, Attention]
    ways: Mapping[str, Way]
    spared: dict[str, str] = field(default_factory=dict)
    noun = "attention"
    unit = "heads"

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The attentions, in the order of the modules."""
        return tuple(self._candidate(each) for each in self.attentions.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left alone, and where heads go by groups."""
        grouped = [a for a in self.attentions.values() if a.heads > a.units]
        if not grouped:
            return ()
        size = grouped[0].heads // grouped[0].units
        names = some([attention.name for attention in grouped])
        return (f"heads that share keys and values go together, {size} at a time: {names}",)

    @property
    def untold(self) -> Mapping[str, str]:
        """Attentions whose heads are left alone, and why."""
        return self.spared

    def cut(self, removed: Removed) -> dict[str, tuple[int, ...]]:
        """Cut heads out of the network in place; return the units that went, by attention."""
        for name, units in removed.items():
            cut_units(self.network, self.attentions[name], units.tolist(), self.ways[name])
        return {name: tuple(units.tolist()) for name, units in removed.items()}

    def _candidate(self, attention: Attention) -> Candidate:
        """Describe an attention: a head is ranked by all of the matrices' weights that it owns."""
        known = {w.name: w.tensor for w in weights_in(self.network) if w.kind in MULTIPLIED}
        names = tuple(name for name in attention.labels if name in known)

        def gather(values: Mapping[str, Tensor]) -> Tensor:
            rows = []
            for name in names:
                axis, label = attention.labels[name]
                slices, units = values[name].movedim(axis, 0), range(attention.units)
                rows.append(torch.stack([slices[label == unit].flatten() for unit in units]))
            return torch.cat(rows, dim=1)

        subject = Subject(attention.name, gather(known), (), names, gather=gather)
        return Candidate(subject, (attention.name,), attention.units)


def find_heads(network: nn.Module, inputs: Inputs) -> HeadsCutter:
    """Find the attentions whose heads can be cut, each tried in a copy first.

    Args:
        network: Cut in place by the result's `cut`.
        inputs: The shape of one input, or an example of a call.
    """
    found, spared = find_attentions(network, inputs)
    shared = _shared(network)
    attentions: dict[str, Attention] = {}
    ways: dict[str, Way] = {}
    for attention in found:
        other = next((shared[name] for name in attention.labels if name in shared), None)
        if other is not None:
            spared[attention.name] = f"it shares weights with {other}"
            continue
        way = _way(network, attention)
        if isinstance(way, str):
            spared[attention.name] = way
        else:
            attentions[attention.name], ways[attention.name] = attention, way
    cutter = HeadsCutter(network, attentions, ways, spared)
    failed = failing(
        network, inputs, cutter.candidates, lambda twin: HeadsCutter(twin, attentions, ways)
    )
    for name, why in failed.items():
        spared[name] = why.replace("its outputs", "its heads")
        del attentions[name]
    return cutter


def cut_units(network: nn.Module, attention: Attention, units: Sequence[int], way: Way) -> None:
    """Cut units of heads out of one attention, in place.

    Args:
        network: Changed in place.
        attention: As `find_attentions` found it in this network or another of its shape.
        units: Which units go.
        way: How its modules are told.
    """
    gone = torch.tensor(sorted(units))
    narrow_layers(network, attention.whole)
    old = _lengths(attention)
    for name, (axis, label) in attention.labels.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        keep_slices(module, leaf, axis, torch.nonzero(~torch.isin(label, gone)).flatten())
        if is_linear(module):
            set_widths(module)
        elif isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = module.weight.shape
    _cut_buffers(network.get_submodule(attention.whole), attention, gone)
    kept = attention.units - len(gone)
    whole, module = (network.get_submodule(n) for n in (attention.whole, attention.name))
    counts = {attention.heads, attention.units}
    tell(whole, counts, old, (kept, attention.units), widths=way.widths)
    if way.config:
        own_config(module, counts, (kept, attention.units))


def _lengths(attention: Attention) -> set[int]:
    """Return the widths that follow the number of heads: of all queries, keys, packed rows."""
    return {len(label) for _, label in attention.labels.values()} - {
        attention.units,
        attention.heads,
    }


def _cut_buffers(whole: nn.Module, attention: Attention, gone: Tensor) -> None:
    """Cut the buffers beside cut parameters that are as long as one: a bias that is held at 0."""
    prefix = f"{attention.whole}." if attention.whole else ""
    axis_labels = {len(label): label for _, label in attention.labels.values()}
    named = {name.removeprefix(prefix) for name in attention.labels}
    for name, buffer in list(whole.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        beside = any(other.rpartition(".")[0] == owner for other in named)
        if "bias" in leaf and beside and buffer.ndim == 1 and len(buffer) in axis_labels:
            kept = torch.nonzero(~torch.isin(axis_labels[len(buffer)], gone)).flatten()
            keep_slices(whole.get_submodule(owner), leaf, 0, kept)


def _shared(network: nn.Module) -> dict[str, str]:
    """Return the parameters that two modules have, with the name in the second one."""
    first: dict[int, str] = {}
    found = {}
    for owner, module in network.named_modules():
        for leaf, parameter in module._parameters.items():
            name = f"{owner}.{leaf}".strip(".")
            if parameter is not None and first.setdefault(id(parameter), name) != name:
                found[first[id(parameter)]] = name
    return found


def _way(network: nn.Module, attention: Attention) -> Way | str:
    """Return the way to tell an attention alone of its loss, or why there is none."""
    why = "it does not run with fewer heads"
    for way in WAYS:
        try:
            if _holds(network, attention, way):
                return way
            why = "without one of its heads it is not what it is with that head at zero"
        except Exception as error:
            if way == WAYS[0]:
                why = f"it does not run with fewer heads: {first_line(error).rstrip('. ')}"
    return why


@torch.no_grad()
def _holds(network: nn.Module, attention: Attention, way: Way) -> bool:
    """Say whether an attention without its first unit is what it is with that unit at zero."""
    whole = evaluating(whole_copy(network.get_submodule(attention.whole)).double())
    drop_masks(whole)
    holder, dense = nn.Module(), nn.Module()
    _place(holder, attention.whole, whole)
    _place(dense, attention.whole, whole_copy(whole))
    output = dense.get_submodule(attention.output)
    axis, label = attention.labels[f"{attention.output}.weight"]
    output.get_parameter("weight").movedim(axis, 0)[label == 0] = 0.0
    cut_units(holder, attention, [0], way)
    with slow_attention():
        expected = tensors_of(attention.call.run(dense.get_submodule(attention.whole)))
        got = tensors_of(attention.call.run(holder.get_submodule(attention.whole)))
    if expected.keys() != got.keys():
        return False
    place = next(iter(expected))  # what else it returns may count heads: attention maps
    bound = _TOLERANCE * max(float(expected[place].abs().max()), 1e-300)
    return got[place].shape == expected[place].shape and torch.allclose(
        got[place], expected[place], rtol=0.0, atol=bound
    )


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path below an empty one, so that names are those in the network."""
    *owners, leaf = path.split(".")
    for owner in owners:
        if owner not in root._modules:
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    root.add_module(leaf, module)
