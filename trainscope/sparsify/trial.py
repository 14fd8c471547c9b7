"""Tries a cut before anything is ranked: is the result the network with those filters at zero?

A graph that was made for one shape does not show a width that is written into the network's code,
and Torch-Pruning takes what it does not know for an elementwise operation. So what they find is
tried: in a copy, two filters of each candidate (of each part, where parts must lose equally many)
are cut out, and the outputs are compared with those of the whole network in which every number
that the cut took out is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainscope.errors import first_line
from trainscope.networks.copies import whole_copy
from trainscope.networks.example import Inputs
from trainscope.networks.masks import drop_masks
from trainscope.sparsify.candidate import Candidate, Cutter
from trainscope.sparsify.verify import Outputs, run
from trainscope.task.modes import evaluating

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far outputs may differ, as a share of the largest one, by the dtype of the trial."""


def failing(
    network: nn.Module,
    inputs: Inputs,
    candidates: Sequence[Candidate],
    make: Callable[[nn.Module], Cutter],
) -> dict[str, str]:
    """Return the candidates whose cut is not what it should be, and why, by name.

    All are cut together first; where that fails, halves are tried, down to single ones.

    Args:
        network: Not touched.
        inputs: The shape of one input, or an example of a call.
        candidates: What to try.
        make: Makes a cutter for a copy of the network; it may change the copy.
    """
    tried = [candidate for candidate in candidates if candidate.count > candidate.chunks]
    why = _try(network, inputs, tried, make) if tried else None
    if why is None:
        return {}
    if len(tried) == 1:
        return {tried[0].name: why}
    half = len(tried) // 2
    return failing(network, inputs, tried[:half], make) | failing(
        network, inputs, tried[half:], make
    )


def _try(
    network: nn.Module,
    inputs: Inputs,
    candidates: Sequence[Candidate],
    make: Callable[[nn.Module], Cutter],
) -> str | None:
    cut, dtype = whole_copy(network), torch.float64
    drop_masks(cut)
    whole = evaluating(whole_copy(cut).double())
    try:
        run(whole, inputs)
    except Exception:  # its code may name a dtype
        whole, dtype = evaluating(whole_copy(cut)), torch.float32
    try:
        cutter = make(cut)
        numbered = _numbered(cut.double())
        cutter.cut({candidate.name: _some_of_each_part(candidate) for candidate in candidates})
        _take_over(cut, whole, numbered)
        got, expected = run(cut.to(dtype), inputs), run(whole, inputs)
    except Exception as error:
        return f"a trial cut of its outputs does not run: {first_line(error).rstrip('. ')}"
    if not alike(got, expected, TOLERANCE[dtype]):
        return "a trial cut of its outputs changed more than those"
    return None


def _some_of_each_part(candidate: Candidate) -> Tensor:
    """Return a filter of each half of each part: a slice of the channels has one at least."""
    part = candidate.count // candidate.chunks
    places = torch.tensor([part // 4, 3 * part // 4] if part > 2 else [0])
    return (torch.arange(candidate.chunks).unsqueeze(1) * part + places).flatten()


@torch.no_grad()
def _numbered(network: nn.Module) -> set[str]:
    """Set every number of a network to its place in its tensor; return the tensors' names."""
    names = set()
    for name, tensor in _tensors(network).items():
        tensor.copy_(torch.arange(tensor.numel(), device=tensor.device).view(tensor.shape))
        names.add(name)
    return names


@torch.no_grad()
def _take_over(cut: nn.Module, whole: nn.Module, names: set[str]) -> None:
    """Give a numbered network the numbers of the whole one, and set to zero there what it lacks."""
    sources = _tensors(whole)
    for name, tensor in _tensors(cut).items():
        if name not in names or name not in sources:
            continue
        source, places = sources[name].flatten(), tensor.detach().long().flatten()
        tensor.copy_(source[places].view(tensor.shape))
        if isinstance(sources[name], nn.Parameter):
            gone = torch.ones_like(source, dtype=torch.bool)
            gone[places] = False
            sources[name].view(-1)[gone] = 0.0


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def alike(got: Outputs, expected: Mapping[str, Tensor], tolerance: float) -> bool:
    """Say whether outputs are the same, within a share of the largest of each tensor."""
    if got.keys() != expected.keys():
        return False
    for place, right in expected.items():
        left = got[place]
        if left.shape != right.shape:
            return False
        if right.is_floating_point():
            bound = tolerance * float(right.abs().max()) if right.numel() else 0.0
            if not torch.allclose(left, right, rtol=0.0, atol=bound, equal_nan=True):
                return False
        elif not torch.equal(left, right):
            return False
    return True
