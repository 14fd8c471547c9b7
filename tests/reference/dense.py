"""Dense float64 references, written as plainly as can be and sharing nothing with the probes."""

from __future__ import annotations

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel


class Dense:
    """Everything about a small network by brute force.

    `names` are the trainable parameters that the loss uses; `keep` is True at their surviving
    weights, as one flat vector.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        for module in network.modules():  # non-leaf weights of torch's pruning cannot be copied
            for name in [n for n, v in vars(module).items() if isinstance(v, Tensor)]:
                setattr(module, name, getattr(module, name).detach())
        self.network = copy.deepcopy(network).eval().double()
        self.inputs, self.labels = inputs.double(), labels
        named = dict(self.network.named_parameters())
        buffers = dict(self.network.named_buffers())
        loss = self.loss_of({}, slice(None))
        self.names = []
        for name, parameter in named.items():
            if parameter.requires_grad:
                used = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
                self.names += [name] if used[0] is not None else []
        masks = [buffers.get(name.removesuffix("_orig") + "_mask") for name in self.names]
        self.shapes = [named[name].shape for name in self.names]
        self.keep = torch.cat(
            [
                torch.ones(shape).bool().flatten() if mask is None else mask.bool().flatten()
                for mask, shape in zip(masks, self.shapes, strict=True)
            ]
        )
        self.point = torch.cat([named[name].detach().flatten() for name in self.names])

    def loss_of(self, weights: dict[str, Tensor], which: slice) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            logits = functional_call(self.network, weights, (self.inputs[which].clone(),))
        return F.cross_entropy(logits, self.labels[which])

    def loss_at(self, vector: Tensor, which: slice = slice(None)) -> Tensor:
        sizes = [shape.numel() for shape in self.shapes]
        pieces = zip(self.names, vector.split(sizes), self.shapes, strict=True)
        return self.loss_of({name: piece.view(shape) for name, piece, shape in pieces}, which)

    def logits_at(self, vector: Tensor) -> Tensor:
        sizes = [shape.numel() for shape in self.shapes]
        pieces = zip(self.names, vector.split(sizes), self.shapes, strict=True)
        weights = {name: piece.view(shape) for name, piece, shape in pieces}
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.network, weights, (self.inputs.clone(),))

    @cache  # noqa: B019
    def sample_gradients(self) -> Tensor:
        """Return [N, P], masked entries zero."""
        rows = []
        for i in range(len(self.inputs)):
            point = self.point.clone().requires_grad_()
            (row,) = torch.autograd.grad(self.loss_at(point, slice(i, i + 1)), point)
            rows.append(row * self.keep)
        return torch.stack(rows)

    @cache  # noqa: B019
    def hessian(self) -> Tensor:
        """Return the Hessian of the mean loss over surviving weights, [P', P']."""
        full = torch.autograd.functional.hessian(self.loss_at, self.point)
        return full[self.keep][:, self.keep]

    @cache  # noqa: B019
    def ggn(self) -> Tensor:
        """Return the generalised Gauss-Newton matrix over surviving weights, [P', P']."""
        jacobian = torch.autograd.functional.jacobian(self.logits_at, self.point)[..., self.keep]
        p = self.logits_at(self.point).softmax(1)
        middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        return torch.einsum("ncp,ncd,ndq->pq", jacobian, middle, jacobian) / len(self.inputs)

    @cache  # noqa: B019
    def input_jacobians(self) -> Tensor:
        """Return d logits / d input of each sample, [N, C, D]."""
        rows = []
        for x in self.inputs:

            def logits(value: Tensor) -> Tensor:
                with sdpa_kernel(SDPBackend.MATH):
                    return self.network(value.unsqueeze(0).clone())[0]

            rows.append(torch.autograd.functional.jacobian(logits, x).flatten(1))
        return torch.stack(rows)
