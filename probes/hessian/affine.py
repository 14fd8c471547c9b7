"""Is every logit affine in each single weight? Then the Hessian's trace is the GGN's, exactly.

H = GGN + sum_c (d loss / d z_c) * (second derivatives of the logit z_c). Where each z_c is, near
the weights, an affine function of each single weight with the others held, the diagonal of the
second term is zero, so tr H = tr GGN. That holds for piecewise-linear networks in eval mode in
which nothing multiplies two things that depend on the same weight: each weight is used once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from trainscope.probes.processes.exchange import edges
from trainscope.probes.subject.lent import Lent
from trainscope.task.batches import tensors

# Node names of the autograd graph, without "Backward" and the number after it.
_LINEAR_NAMES = """AccumulateGrad Abs AdaptiveAvgPool2D AdaptiveMaxPool2D Add Alias Amax AsStrided
    AvgPool2D AvgPool3D Cat Clamp ClampMax ClampMin Clone ConstantPadNd Contiguous CopySlices Expand
    Flip Gather Hardsigmoid Hardtanh Identity Im2Col Index IndexSelect LeakyRelu Max Maximum
    MaxPool2DWithIndices MaxPool3DWithIndices Mean Min Minimum MkldnnAdaptiveAvgPool2D Narrow Neg
    Permute PixelShuffle PixelUnshuffle ReflectionPad1D ReflectionPad2D Relu Repeat ReplicationPad2D
    Reshape ReshapeAlias Roll Rsub Select Slice Split SplitWithSizes Squeeze Stack Sub Sum T
    Threshold Tile ToCopy Transpose Unbind Unfold UnsafeSplit UnsafeView Unsqueeze
    UpsampleBilinear2D UpsampleNearest2D View ViewAs Where"""
_BILINEAR_NAMES = """Addbmm Addmm Addmv Baddbmm Bmm Convolution Dot Linear MkldnnConvolution
    MkldnnLinear Mm Mul Mv PreluKernel SlowConvDilated2D ThnnConv2D"""
_LINEAR = frozenset(_LINEAR_NAMES.split())  # linear, or piecewise linear, in what they are given
_BILINEAR = frozenset(_BILINEAR_NAMES.split())  # linear in each argument, the others held
_BIAS_FIRST = frozenset({"Addbmm", "Addmm", "Addmv", "Baddbmm"})
# Batch norm: bilinear in eval mode only.
_NORMS = frozenset({"BatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeBatchNorm"})


def not_affine(logits: Tensor) -> str | None:
    """Return why some logit may not be affine in each single weight, or None where all are.

    Args:
        logits: With its graph. Weights are the graph's leaves.
    """
    order = _parents_first(logits.grad_fn)
    leaves: dict[Any, int] = {}
    below: dict[Any, int] = {}  # the leaves that each node depends on, as a set of bits
    for node in order:
        if hasattr(node, "variable"):
            below[node] = 1 << leaves.setdefault(node, len(leaves))
            continue
        sets = [below[parent] for parent in edges(node) if parent is not None]
        name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
        if name in _NORMS and getattr(node, "_saved_training", False):
            return "batch norm uses the statistics of the batch"
        if name in _BILINEAR or name in _NORMS or (name == "Div" and _only_numerator(node)):
            factors = _factors(node, name, below)
            if any(a & b for i, a in enumerate(factors) for b in factors[i + 1 :]):
                return f"a weight is used more than once ({name} multiplies it with itself)"
        elif name not in _LINEAR:
            return f"the network is not piecewise linear ({name})"
        union = 0
        for leaf_set in sets:
            union |= leaf_set
        below[node] = union
    return None


def not_affine_anywhere(lent: Lent) -> str | None:
    """Return why some logit of some sample may not be affine, or None where all are.

    Samples may take other ways through a network than the first does: to other experts of a
    mixture, or through other branches of its code. Told in every process the same.
    """
    why = None
    for batch in lent.batches():
        why = why or not_affine(tensors(lent.outputs(batch))[0])
    found = lent.ranks.sum(torch.tensor([float(why is not None)], dtype=torch.float64))
    if why is None and bool(found.any()):
        return "the network is not piecewise linear for samples of another process"
    return why


def custom_functions(result: Tensor) -> list[str]:
    """Return the names of the `torch.autograd.Function`s in a result's graph."""
    found = [type(n) for n in _parents_first(result.grad_fn) if isinstance(n, BackwardCFunction)]
    return sorted({kind.__name__.removesuffix("Backward") for kind in found})


def _factors(node: Any, name: str, below: dict[Any, int]) -> list[int]:
    """Return the leaf sets of what a node multiplies, without what it only adds."""
    arguments = edges(node)
    if len(arguments) > 2:  # a bias comes first in Addmm and its like, last in the others
        arguments = arguments[1:] if name in _BIAS_FIRST else arguments[:2]
    return [below[parent] for parent in arguments if parent is not None]


def _only_numerator(node: Any) -> bool:
    """Tell whether only the first argument of a division depends on weights."""
    return all(parent is None for parent in edges(node)[1:])


def _parents_first(root: Any) -> list[Any]:
    """Return a graph's nodes, each after all that it depends on."""
    order: list[Any] = []
    seen = set()
    waiting = [(root, False)] if root is not None else []
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        waiting.append((node, True))
        waiting += [(parent, False) for parent in edges(node) if parent is not None]
    return order
