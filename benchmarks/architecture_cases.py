"""One case of `architectures.py`: a network, an action, its probes, and checks that share no code.

What the action did is checked without trainscope's own means: the pruned network's outputs are
those of the dense one with the same outputs of its layers at zero, in float64; parameters and FLOPs
are counted anew by torch's counter; what went of every layer is ceil(ratio * n); of every four
weights along the inputs two are zero.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import resource
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from trainscope.data import ProbeData
from trainscope.errors import TrainscopeError
from trainscope.networks import flops
from trainscope.networks.registry import find
from trainscope.probes import attempt
from trainscope.probes.curvature import Curvature
from trainscope.probes.gradient import Gradient
from trainscope.probes.jacobian import Jacobian
from trainscope.sparsify import Action, Sparsified, sparsify

Result = dict[str, Any]

ACTIONS = {
    "inner": Action(ratio=0.5),
    "all": Action(ratio=0.5, scope="all"),
    "unstructured": Action("unstructured", ratio=0.5),
    "2:4": Action("2:4"),
}
SIDES = (64, 96, 128, 160, 192)
"""Heights and widths that are tried before a network's own."""
HEAVY_WEIGHTS, HEAVY_FLOPS = 100e6, 10e9
"""Beyond either, the action alone is tried, without probes and the check of outputs."""
MASKED_FLOPS = 1e9
"""Up to so many a masked network is measured too: its shapes are the dense network's."""
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
TOLERANCE = 1e-7
"""Of the largest output, in float64; queries that were scaled are rounded to float32."""
CURVED_WEIGHTS = 10e6
ROUGH_CURVATURE = Curvature(
    top=1, tolerance=0.5, most_products=3, density_vectors=0, trace_vectors=2
)
"""Whether it runs is asked here, not what it finds."""


@dataclass(frozen=True)
class Case:
    """A network with random weights, and its sizes.

    Attributes:
        name: As `--arch` takes it.
        module: In eval mode.
        shape: The smallest input that it takes.
        facts: Its parameters, and its FLOPs at its own input and at that one.
        heavy: It is too large for probes here.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    facts: Result
    heavy: bool


def sizes(names: list[str], kept: Path) -> dict[str, int]:
    """Return how many parameters networks have, from a file where that has them."""
    found: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [name for name in names if name not in found]
    for name in missing:
        try:
            with torch.device("meta"):
                found[name] = sum(p.numel() for p in _built(name).parameters())
        except Exception:  # it computes numbers while it is built
            try:
                found[name] = sum(p.numel() for p in _built(name).parameters())
            except Exception:
                found[name] = 0
    if missing:
        kept.write_text(json.dumps(found))
    return found


def _built(name: str) -> nn.Module:
    architecture = find(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = architecture.factory(num_classes=architecture.num_classes)
    return module


def open_case(name: str) -> Case:
    """Build a network with random weights; what would be constant is drawn too."""
    torch.manual_seed(0)
    module = _built(name).eval()
    _draw(module)
    own = tuple(find(name).input_shape)
    shape = next((s for s in ((3, k, k) for k in SIDES if k < own[1]) if _takes(module, s)), own)
    facts = {
        "input": "x".join(map(str, shape)),
        "own input": "x".join(map(str, own)),
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": flops(module, own),
        "tried flops": flops(module, shape),
    }
    heavy = facts["parameters"] > HEAVY_WEIGHTS or facts["tried flops"] > HEAVY_FLOPS
    return Case(name, module, shape, facts, heavy)


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    """Give norms, biases and layer scales numbers that no check can mistake for others."""
    generator = torch.Generator().manual_seed(1)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if name not in dict(module.named_parameters()) and "running_" not in name:
            continue
        first = float(tensor.flatten()[0])
        if not bool((tensor == first).all()):
            continue
        if first == 0:
            tensor.normal_(0, 0.05, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator).mul_(max(first, 0.1))


@torch.no_grad()
def _takes(module: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        out = module(torch.randn(2, *shape))
    except Exception:
        return False
    return isinstance(out, Tensor) and bool(torch.isfinite(out).all())


def run_case(case: Case, name: str, *, quick: bool = False) -> Result:
    """Do what a user does, and check it; quickly, without the probes."""
    warnings.simplefilter("ignore")
    begun, result = time.process_time(), dict(case.facts)
    try:
        result |= _diagnosed(case, name, quick=quick)
    except TrainscopeError as error:
        result |= {"status": "refused", "sentence": str(error)}
    except MemoryError:
        result |= {"status": "over memory", "sentence": ""}
    except Exception as error:
        memory = "memory" in str(error) and "alloc" in str(error)
        status = "over memory" if memory else "traceback"
        result |= {"status": status, "sentence": f"{type(error).__name__}: {error}"}
        result["traceback"] = traceback.format_exc()[-3000:]
    result["seconds"] = round(time.process_time() - begun, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result | {"peak": peak}


def _diagnosed(case: Case, name: str, *, quick: bool) -> Result:
    begun, action = time.process_time(), ACTIONS[name]
    done = sparsify(case.module, action, case.shape)
    taken = round(time.process_time() - begun, 1)
    wrong = _faults(case, action, done)
    found: Result = {
        "status": "wrong" if wrong else "diagnosed",
        "sentence": "; ".join(wrong[:3]),
        "action seconds": taken,
        "meaning": done.record.meaning,
        "left": done.record.parameters,
        "left flops": round(
            flops(done.module, tuple(map(int, case.facts["own input"].split("x"))))
        ),
        "reached": done.record.reached,
        "notes": list(done.notes),
        "exact": None,
        "probes": {},
    }
    if not case.heavy:
        if action.structure == "filter":
            found["exact"], found["norms"] = _exact(case, done)
            if found["exact"] is not None and not found["exact"] < TOLERANCE:
                found |= {"status": "wrong", "sentence": f"outputs differ by {found['exact']:.1e}"}
        if not quick and (
            action.structure == "filter" or case.facts["tried flops"] <= MASKED_FLOPS
        ):
            found["probes"] = _probed(case, name, done.module)
    return found


def _probed(case: Case, name: str, pruned: nn.Module) -> Result:
    """Measure the pruned network on two samples; say for each probe how that ended."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, *case.shape, generator=generator)
    labels = torch.randint(1000, (2,), generator=generator)
    data = ProbeData("random", inputs, labels)
    probes: list[Any] = [Gradient()]
    if name == "inner":
        probes.append(Jacobian(samples=1, sketch=2))
        if case.facts["parameters"] <= CURVED_WEIGHTS:
            probes.append(ROUGH_CURVATURE)
    found = {probe.name: attempt(probe, pruned, data) for probe in probes}
    return {
        name: str(one.status) if one.reason is None else f"{one.status}: {one.reason}"
        for name, one in found.items()
    }


def _faults(case: Case, action: Action, done: Sparsified) -> list[str]:
    """Return what is not as the record says."""
    wrong, record = [], done.record
    left = sum(p.numel() for p in done.module.parameters())
    if action.structure == "filter":
        if left != record.parameters:
            wrong.append(f"{left} parameters are left, and the record says {record.parameters}")
        wrong += _uneven(action, done)
        counted = _counted_flops(done.module, case.shape)
        if counted != record.flops:
            wrong.append(f"torch counts {counted} FLOPs and the record says {record.flops}")
        if not record.parameters < case.facts["parameters"]:
            wrong.append("no parameter went")
        if not record.flops < case.facts["tried flops"]:
            wrong.append("the FLOPs did not go down")
        return wrong
    dense = dict(case.module.named_parameters())
    changed = {layer.name for layer in record.layers}
    zeros = 0
    for name, parameter in done.module.named_parameters():
        owner = name.rpartition(".")[0]
        if torch.equal(parameter, dense[name]):
            continue
        if owner not in changed and name not in changed:
            wrong.append(f"{name} has changed, and the record does not say so")
        gone = parameter == 0
        zeros += int(gone.sum())  # a weight that was zero by chance is the first to go
        if not torch.equal(parameter[~gone], dense[name][~gone]):
            wrong.append(f"{name} has other numbers where it is not zero")
        if action.n_m is None:
            asked = math.ceil(round(action.ratio * gone.numel(), 9))
            if int(gone.sum()) != asked:
                wrong.append(f"{name} has {int(gone.sum())} zeros, and {asked} were asked for")
        elif not _is_two_of_four(gone):
            wrong.append(f"{name} is not 2:4 along its inputs")
    if left - zeros != record.parameters:
        wrong.append(f"{left - zeros} weights are left, and the record says {record.parameters}")
    return wrong


def _uneven(action: Action, done: Sparsified) -> list[str]:
    """Return layers that lost another share than the one asked for, by group or as a whole."""
    wrong = []
    for layer in done.record.layers:
        gone = layer.before - layer.after
        asked = math.ceil(round(action.ratio * layer.before, 9))
        if gone != asked:
            wrong.append(f"{layer.name} lost {gone} of {layer.before}, not {asked}")
    if done.record.reached is not None and not 0.49 < done.record.reached < 0.6:
        wrong.append(f"the ratio reached is {done.record.reached:.3f}")
    return wrong


def _is_two_of_four(gone: Tensor) -> bool:
    flat = gone.movedim(1, -1)
    return bool((flat.reshape(*flat.shape[:-1], -1, 4).sum(-1) == 2).all())


def _counted_flops(module: nn.Module, shape: tuple[int, ...]) -> int:
    counter = FlopCounterMode(display=False)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)  # the counter follows gradients, and fails at a leaf's
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(1, *shape))
    torch.backends.mha.set_fastpath_enabled(True)
    for parameter in trained:
        parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def _exact(case: Case, done: Sparsified) -> tuple[float | None, bool]:
    """Return how far outputs are from the dense network's with what went at zero.

    A norm over channels (layer norm, group norm) that has lost some normalises over those left, so
    both networks are then compared with such norms made plain products with their weights; the
    second value says so. Of a norm that is not torch's own it is not known how: None.
    """
    zeroed, cut = copy.deepcopy(case.module).double(), copy.deepcopy(done.module).double()
    dense, pruned = dict(zeroed.named_modules()), dict(cut.named_modules())
    narrower = False
    for name, module in pruned.items():
        if isinstance(module, _NORMS) and name in dense and module.weight is not None:
            narrower |= module.weight.shape != dense[name].weight.shape
        elif type(module).__name__.endswith("Norm") and name in dense:
            own = own_of(dense[name])
            cut_along = any(p.shape != own[leaf].shape for leaf, p in own_of(module).items())
            if cut_along and not type(module).__module__.startswith("torch.nn"):
                return None, True
    for name, places in done.removed.items():
        module, index = dense[name], torch.tensor(places)
        for leaf in ("weight", "bias"):
            tensor = getattr(module, leaf, None)
            if tensor is not None:
                turned = leaf == "weight" and getattr(module, "transposed", False)
                tensor.index_fill_(1 if turned else 0, index, 0.0)
    for name, module in pruned.items():
        if isinstance(module, nn.MultiheadAttention):
            _zero_attention(dense[name], module)
    if narrower:
        _zero_the_rest(zeroed, cut)
    inputs = torch.randn(1, *case.shape, generator=torch.Generator().manual_seed(2)).double()
    with _PlainNorms() if narrower else contextlib.nullcontext():
        expected, got = zeroed(inputs), cut(inputs)
    return float((got - expected).abs().max() / expected.abs().max()), narrower


def own_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's own parameters, not those of its parts."""
    return dict(module.named_parameters(recurse=False))


def _zero_attention(dense: nn.Module, cut: nn.MultiheadAttention) -> None:
    """Set to zero what one of torch's attentions has lost: it goes by its width, under no name."""
    assert isinstance(dense, nn.MultiheadAttention)
    gone = torch.nonzero(~torch.isin(dense.out_proj.bias, cut.out_proj.bias)).flatten()
    if len(gone) and dense.in_proj_weight is not None:
        rows = torch.cat([gone + part * dense.embed_dim for part in range(3)])
        for tensor, places in (
            *((dense.in_proj_weight, rows), (dense.in_proj_bias, rows)),
            *((dense.out_proj.weight, gone), (dense.out_proj.bias, gone)),
        ):
            if tensor is not None:
                tensor.index_fill_(0, places, 0.0)


def _zero_the_rest(zeroed: nn.Module, cut: nn.Module) -> None:
    """Set to zero what parameters that no record names have lost along their last axis."""
    left = dict(cut.named_parameters())
    for name, parameter in zeroed.named_parameters():
        own = left[name]
        if own.shape == parameter.shape or own.shape[:-1] != parameter.shape[:-1]:
            continue
        owner = zeroed.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            continue  # the inputs of a layer: what feeds it is zero
        columns, kept = parameter.flatten(0, -2) if parameter.ndim > 1 else parameter[None], own
        kept = kept.flatten(0, -2) if kept.ndim > 1 else kept[None]
        stays = (columns[0][:, None] == kept[0][None]).any(dim=1)
        parameter[..., ~stays] = 0.0


class _PlainNorms(TorchFunctionMode):
    """Inside, layer and group norms multiply by their weights, and do not normalise."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in ("layer_norm", "group_norm", "rms_norm"):
            return func(*args, **kwargs)
        value = args[0]
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
        if weight is None:
            return value.clone()
        axis = 1 if name == "group_norm" else value.ndim - 1
        return value * weight.view([-1 if i == axis else 1 for i in range(value.ndim)])
