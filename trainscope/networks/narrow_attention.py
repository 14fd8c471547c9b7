"""torch's attention layer with fewer heads than its width has room for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads together are narrower than what it reads and writes.

    torch's own class derives a head's size from its width, so it cannot lose a head. Parameters
    keep their names and order of rows; arguments and results are those of torch's class.
    """

    @classmethod
    def of(cls, layer: nn.MultiheadAttention) -> NarrowAttention:
        """Return a layer that computes what another does, with that one's own tensors.

        Args:
            layer: Not changed; its tensors are shared with the result.
        """
        made = cls.__new__(cls)
        made.__dict__.update(layer.__dict__)
        for table in ("_parameters", "_buffers", "_modules"):
            made.__dict__[table] = dict(getattr(layer, table))
        # Layers around it look here before they bypass its forward pass by a fused operator.
        made._qkv_same_embed_dim = False
        return made

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `nn.MultiheadAttention.forward` returns for the heads that are left."""
        batched = query.dim() == 3
        inputs = [query, key, value]
        if not batched:
            inputs = [each.unsqueeze(0) for each in inputs]
        elif not self.batch_first:
            inputs = [each.transpose(0, 1) for each in inputs]
        q, k, v = self._projected(inputs)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        q, k, v = (self._by_head(each) for each in (q, k, v))
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, self.dropout, self.training)
            mixed = weights @ v
        else:
            rate = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, mask, rate)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _projected(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return queries, keys and values [samples, tokens, width of all heads]."""
        packed = self._parameters["in_proj_weight"]
        weights: list[Tensor]
        if packed is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = list(packed.chunk(3))
        biases: Any = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(*each) for each in zip(inputs, weights, biases, strict=True))
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], dim=1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return [q, k, v]

    def _by_head(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None
    ) -> Tensor | None:
        """Return both masks as one that is added to the scores."""
        found = None
        extra = k.shape[1] - (0 if mask is None else mask.shape[-1])
        if mask is not None:
            found = F.pad(_added(mask, q), (0, extra))
            if found.dim() == 3:
                found = found.view(len(q), -1, *found.shape[1:])
        if padding is not None:
            padding = padding.unsqueeze(0) if padding.dim() == 1 else padding
            hidden = F.pad(_added(padding, q), (0, k.shape[1] - padding.shape[-1]))
            hidden = hidden[:, None, None]
            found = hidden if found is None else found + hidden
        return found


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask that is added to scores: minus infinity where a boolean one is True."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
