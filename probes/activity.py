"""Dead and dormant units, and the rank of the features: what the loss of plasticity is told by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from trainscope.data import ProbeData
from trainscope.errors import ProbeError
from trainscope.networks.linear import is_linear
from trainscope.probes.jackknife import grouped_stderr, stepped
from trainscope.probes.probe import Need
from trainscope.probes.scalar_spec import ScalarSpec
from trainscope.probes.subject.evaluation import run
from trainscope.probes.subject.footprint import footprint
from trainscope.probes.subject.lent import Lent
from trainscope.probes.subject.passes import NonFiniteError
from trainscope.records import Cost, Measurement, Scalar
from trainscope.task.calls import ModuleCall, hooked

Values = NDArray[np.float64]

_ACTIVATIONS = frozenset(
    {
        *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.gelu),
        *(F.silu, F.mish, F.elu, F.elu_, F.celu, F.selu, F.leaky_relu, F.leaky_relu_, F.prelu),
        *(torch.prelu, F.hardswish, F.hardtanh, F.softplus, F.tanh, torch.tanh, Tensor.tanh),
        *(torch.selu, torch.celu, Tensor.tanh_),
    }
)
_OWN = re.compile("gelu|swish|silu|mish|relu|activation", re.IGNORECASE)
"""Names of classes, of somebody's own, that compute an activation of simpler functions."""


@dataclass(frozen=True)
class Activity:
    """How many units do something, and in how many directions the features go.

    A unit is a channel of what an activation function returns, at every call of one (ReLU and its
    kin, GELU, SiLU, Mish, ELU, softplus, tanh; sigmoids, which are gates as a rule, and what is
    inside of recurrent layers and fused attention are not seen). With a = the mean of the absolute
    activation over samples and places, a unit's score is a over the mean of a in its layer. Weights
    that a mask holds are zero here as anywhere, so units that a mask left without inputs count.

    - `dead_share`: the share of all units whose activation is 0 at every sample and place;
    - `dormant_share`: the share whose score is at most `tau` (Sokar et al. 2023); in a layer whose
      units are all 0, all of them;
    - `effective_rank`: exp of the entropy of the singular values' shares (Roy and Vetterli 2007)
      of the features [N, d], from 1 to min(N, d): the inputs of the last linear layer that is
      called, at several positions of a sample their mean;
    - `srank`: how many of the largest singular values add up to 1 - `delta` of all (Kumar et al.
      2021).

    Standard errors are the jackknife's over eight groups of samples, widened for few, and at least
    half of the step that the number moves in (one unit, one rank). Both ranks grow with the number
    of samples until that is far above d, so they compare at one alone. Arrays: `layers`, by the
    module that the activation is called in (#2 for its second call), `units`, `dead_shares`
    and `dormant_shares` of each, and the features' `singular_values`, largest first.

    Attributes:
        tau: The score up to which a unit is dormant; 0.025 as the authors'.
        delta: Of the srank; 0.01 as the authors'.
    """

    tau: float = 0.025
    delta: float = 0.01

    name: ClassVar[str] = "activity"
    title: ClassVar[str] = "Activity of units"
    scalars: ClassVar[tuple[ScalarSpec, ...]] = (
        ScalarSpec("dead_share", "dead units", "%", "lower", drawn="linear"),
        ScalarSpec("dormant_share", "dormant units", "%", "lower", drawn="linear"),
        ScalarSpec("effective_rank", "effective rank of the features", "", "higher", "linear"),
        ScalarSpec("srank", "srank of the features", "", "higher", "linear"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUTS})

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.tau < 1:
            raise ProbeError(f"activity: tau is {self.tau:g}; give a score from 0 up to 1")
        if not 0 < self.delta < 1:
            raise ProbeError(f"activity: delta is {self.delta:g}; give a share between 0 and 1")

    def measure(self, network: nn.Module, data: ProbeData) -> Measurement:
        """Measure a network, in eval mode, on the pinned samples; it is left untouched.

        What the network does not have (an activation function that is seen, a linear layer) is a
        number without a value, with the reason; status `non-finite values` where an activation is
        NaN or infinite.

        Raises:
            ProbeError: The network's outputs do not fit the task.
        """
        return run(self.name, network, data, self._measure, loss=False)

    def estimate(self, network: nn.Module, data: ProbeData) -> Cost:
        """Return what `measure` is expected to take, without running the network."""
        graph = footprint(network, data).graph
        memory = None if graph is None else min(len(data), data.batch_size) * graph
        return Cost(forward=len(data), memory=memory)

    @torch.no_grad()
    def _measure(self, lent: Lent) -> Measurement:
        lent = replace(lent, model=lent.network)  # whose modules are seen as they are named
        parts = [_look(lent, batch) for batch in lent.batches()]
        first = parts[0] if parts else _look(lent, lent.look)
        names = list(first.means)
        if any(list(part.means) != names for part in parts):
            return Measurement.skipped(self.name, "its activations change from batch to batch")
        means = {n: _joined(lent, [part.means[n] for part in parts]) for n in names}
        most = {n: _joined(lent, [part.most[n] for part in parts]) for n in names}
        features = None
        if first.features is not None:
            kept = [part.features for part in parts if part.features is not None]
            features = _joined(lent, kept)
        for values in (*means.values(), *([] if features is None else [features])):
            if not np.isfinite(values).all():
                raise NonFiniteError("an activation is NaN or infinite")
        scalars = {**self._units(means, most), **self._ranks(features)}
        arrays: dict[str, list[object]] = {
            "layers": list(names),
            "units": [means[n].shape[1] for n in names],
            "dead_shares": [100 * float((most[n].max(0) == 0).mean()) for n in names],
            "dormant_shares": [100 * float(self._dormant(means[n]).mean()) for n in names],
        }
        if features is not None:
            arrays["singular_values"] = np.linalg.svd(features, compute_uv=False).tolist()
        notes = {"activations": f"{len(names)} calls of activation functions"}
        return Measurement(self.name, scalars=scalars, arrays=arrays, notes=notes)

    def _units(self, means: dict[str, Values], most: dict[str, Values]) -> dict[str, Scalar]:
        if not means:
            why = "no activation function is seen in the network"
            return {n: Scalar(None, "%", reason=why) for n in ("dead_share", "dormant_share")}
        count = len(next(iter(means.values())))

        def dead(kept: NDArray[np.int64]) -> float:
            return _share([each[kept].max(0) == 0 for each in most.values()])

        def dormant(kept: NDArray[np.int64]) -> float:
            return _share([self._dormant(each[kept]) for each in means.values()])

        every, units = np.arange(count), sum(each.shape[1] for each in means.values())
        return {
            name: Scalar.of(of(every), "%", _stderr(of, count, 100 / units))
            for name, of in (("dead_share", dead), ("dormant_share", dormant))
        }

    def _ranks(self, features: Values | None) -> dict[str, Scalar]:
        if features is None:
            why = "no linear layer is called whose inputs are features of the samples"
            return {n: Scalar(None, "", reason=why) for n in ("effective_rank", "srank")}
        found = {}
        for name, function, step in (
            ("effective_rank", effective_rank, 0.0),
            ("srank", self._srank, 1.0),
        ):

            def of(kept: NDArray[np.int64], rank: Any = function) -> float | None:
                made: float | None = rank(np.linalg.svd(features[kept], compute_uv=False))
                return made

            value = of(np.arange(len(features)))
            if value is None:
                found[name] = Scalar(None, "", reason="the features are all zero")
            else:
                found[name] = Scalar.of(value, "", _stderr(of, len(features), step))
        return found

    def _dormant(self, means: Values) -> NDArray[np.bool_]:
        own = means.mean(0)
        found: NDArray[np.bool_] = own <= self.tau * own.mean()
        return found

    def _srank(self, values: Values) -> float | None:
        total = values.sum()
        if not total > 0:
            return None
        # Rounding of the sum must not ask for one more than all but the zeros.
        reached = np.cumsum(values) >= (1 - self.delta) * total * (1 - 1e-12)
        return float(np.argmax(reached) + 1)


def _stderr(
    function: Callable[[NDArray[np.int64]], float | None], count: int, step: float
) -> float | None:
    """Return the jackknife's error of a function of samples that moves in steps."""
    value = function(np.arange(count))
    return stepped(None if value is None else grouped_stderr(value, count, function), step)


def effective_rank(values: Values) -> float | None:
    """Return exp of the entropy of the shares of singular values; None where all are zero."""
    total = values.sum()
    if not total > 0:
        return None
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass
class _Looked:
    """What was seen of a batch: by activation, and the features.

    Attributes:
        means: The mean of |activation| over places, [N, units].
        most: The largest |activation| over places, likewise.
        features: [N, d]; None where there is no last linear layer.
    """

    means: dict[str, Tensor] = field(default_factory=dict)
    most: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


class _Watch(TorchFunctionMode):
    """Sees activation functions wherever the network's code calls them."""

    def __init__(self, network: nn.Module, samples: int) -> None:
        super().__init__()
        self.found = _Looked()
        self._names = {module: name for name, module in network.named_modules()}
        self._inside: list[nn.Module] = []
        self._axis, self._samples = 1, samples

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch's; take down what an activation returns."""
        out = func(*args, **(kwargs or {}))
        if func in _ACTIVATIONS and not any(map(_computes_its_own, self._inside)):
            self._take(self._inside[-1] if self._inside else None, out)
        return out

    @contextmanager
    def on(self) -> Iterator[_Looked]:
        """Watch calls of the network's modules and functions while the block lasts."""
        named = ((name, module) for module, name in self._names.items())
        with hooked(named, before=self._enter, after=self._leave), self:
            yield self.found

    def _enter(self, call: ModuleCall[str]) -> None:
        self._inside.append(call.module)

    def _leave(self, call: ModuleCall[str]) -> None:
        module, args = call.module, call.args
        if module in self._inside:
            while self._inside.pop() is not module:
                pass
        if isinstance(module, _ConvNd):
            self._axis = 1
        elif is_linear(module):
            self._axis = -1
            if isinstance(args[0], Tensor):
                self.found.features = _pooled(args[0].detach(), self._samples)
        elif _computes_its_own(module) and not any(map(_computes_its_own, self._inside)):
            self._take(module, call.out)

    def _take(self, module: nn.Module | None, out: Any) -> None:
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != self._samples:
            return
        axis = self._axis if out.ndim > 2 else 1
        flat = out.detach().abs().double().movedim(axis, -1)
        flat = flat.reshape(self._samples, -1, flat.shape[-1])
        name = self._names.get(module, "") if module is not None else ""
        name = label = name or "the network"
        calls = 1
        while label in self.found.means:
            calls += 1
            label = f"{name}#{calls}"
        self.found.means[label], self.found.most[label] = flat.mean(1), flat.amax(1)


def _computes_its_own(module: nn.Module) -> bool:
    kind = type(module)
    return not kind.__module__.startswith("torch.nn") and bool(_OWN.search(kind.__name__))


def _pooled(values: Tensor, samples: int) -> Tensor | None:
    """Return a layer's inputs as [N, d], over positions their mean; None where rows are others."""
    if values.ndim < 2 or len(values) != samples:
        return None
    return values.double().reshape(samples, -1, values.shape[-1]).mean(1)


def _look(lent: Lent, batch: Any) -> _Looked:
    watch = _Watch(lent.network, lent.task.size(batch))
    with watch.on() as found:
        lent.outputs(batch)
    return found


def _joined(lent: Lent, rows: list[Tensor]) -> Values:
    found: Values = lent.gather(rows).cpu().numpy()
    return found


def _share(units: list[NDArray[np.bool_]]) -> float:
    """Return the share of units that are true, over all layers, in percent."""
    return 100 * float(np.concatenate(units).mean())
