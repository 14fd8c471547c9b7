"""Which parameters of a network are weights, of what kind of layer, and along which axes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from trainscope.networks.linear import experts_turned, holds_experts, is_turned
from trainscope.networks.masks import mask_parameters

CONVOLUTION, LINEAR, ATTENTION = "convolution", "linear layer", "attention projection"
RECURRENT, BILINEAR, EXPERTS = "recurrent weight", "bilinear layer", "mixture of experts"
EMBEDDING, OTHER, ADAPTER = "embedding", "parameter", "adapter"
MULTIPLIED = (CONVOLUTION, LINEAR, ATTENTION, RECURRENT, BILINEAR, EXPERTS)
"""Kinds that are known to be factors of products with what a layer is given."""

_KINDS: tuple[tuple[type[nn.Module], tuple[str, ...], str], ...] = (
    (_ConvNd, ("weight", "weight_orig"), CONVOLUTION),
    (nn.Linear, ("weight", "weight_orig"), LINEAR),
    (nn.Bilinear, ("weight", "weight_orig"), BILINEAR),
    (nn.Embedding, ("weight", "weight_orig"), EMBEDDING),
    (nn.EmbeddingBag, ("weight", "weight_orig"), EMBEDDING),
    (nn.RNNBase, ("weight_ih_", "weight_hh_", "weight_hr_"), RECURRENT),
    (nn.RNNCellBase, ("weight_ih", "weight_hh"), RECURRENT),
    (nn.MultiheadAttention, ("in_proj_", "q_proj_", "k_proj_", "v_proj_"), ATTENTION),
)
"""Types of layers, how the names of their weights begin, and what such a weight is called."""

_ADAPTERS = ("lora_A", "lora_B", "lora_embedding_", "hada_w", "lokr_w", "vera_", "oft_", "boft_")
"""How the names of peft's adapters begin."""

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Weight:
    """One weight tensor of a network.

    Attributes:
        name: The parameter's name, as `named_parameters` has it.
        layer: The name of the module that it belongs to.
        label: What it is called in a record: the layer where that has one weight, else `name`.
        kind: One of `MULTIPLIED`, or EMBEDDING, or ADAPTER (what peft puts beside a layer), or
            OTHER: a parameter of a module that is none of torch's layers, or one of which a layer's
            weight is computed.
        module: The module that it belongs to.
        tensor: Its values, detached.
    """

    name: str
    layer: str
    label: str
    kind: str
    module: nn.Module
    tensor: Tensor


def weights_in(network: nn.Module) -> list[Weight]:
    """Return every weight of a network, in the order of its modules.

    Biases, the scales of norms and vectors of any kind are no weights. A weight that several layers
    share comes once, as that of a layer that multiplies by it if there is one.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    none = mask_parameters(network)
    found: dict[int, Weight] = {}
    for layer, module in network.named_modules():
        if isinstance(module, _NORMS):
            continue
        kinds = {
            leaf: ADAPTER if is_adapter(layer) else _kind(module, leaf, parameter)
            for leaf, parameter in module._parameters.items()
            if parameter is not None
            and id(parameter) not in none
            and _is_weight(leaf, parameter, _kind(module, leaf, parameter))
        }
        owner = layer.split(".parametrizations.")[0]
        for leaf, kind in kinds.items():
            parameter = module._parameters[leaf]
            assert parameter is not None
            known, name = found.get(id(parameter)), names[id(parameter)]
            if known is None or (known.kind not in MULTIPLIED and kind in MULTIPLIED):
                label = owner if len(kinds) == 1 and owner and kind != OTHER else name
                weight = Weight(name, owner, label, kind, module, parameter.detach())
                found[id(parameter)] = weight
    return list(found.values())


def is_adapter(layer: str) -> bool:
    """Tell a layer that peft puts beside one of the network's, by its name."""
    return any(part.startswith(_ADAPTERS) for part in layer.split("."))


def weight_leaf(module: nn.Module) -> str:
    """Return the name, in a layer, of the parameter that its weight is, or is computed of."""
    return "weight" if "weight" in module._parameters else "weight_orig"


def outputs_first(module: nn.Module, values: Tensor) -> Tensor:
    """Return the weight of a module, or anything of its shape, as [outputs, weights of one]."""
    if isinstance(module, _ConvNd) and module.transposed:
        inputs, outputs, *kernel = values.shape
        groups = module.groups
        parts = values.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
        return parts.reshape(groups * outputs, -1)
    if is_turned(module):
        return values.T
    if _is_experts(module, values):
        turned = experts_turned(module)
        return (values.transpose(1, 2) if turned else values).flatten(0, 1)
    return values.flatten(1)


def inputs_last(module: nn.Module, values: Tensor) -> Tensor:
    """Return the weight of a module, or anything of its shape, with the inputs on the last axis.

    The last axis holds the weights of consecutive inputs for one output at one kernel position: of
    a grouped convolution, the inputs of the output's own group.
    """
    if isinstance(module, _ConvNd) and module.transposed:
        inputs, outputs, *kernel = values.shape
        groups = module.groups
        return values.reshape(groups, inputs // groups, outputs, *kernel).movedim(1, -1)
    if is_turned(module):
        return values.T
    if _is_experts(module, values):
        return values.transpose(1, 2) if experts_turned(module) else values
    return values.movedim(1, -1)


def as_stored(module: nn.Module, values: Tensor, like: Tensor) -> Tensor:
    """Undo `inputs_last`: return values in the shape in which the module stores its weight."""
    if is_turned(module):
        return values.T.contiguous()
    if _is_experts(module, like):
        return (values.transpose(1, 2) if experts_turned(module) else values).contiguous()
    return values.movedim(-1, 1).reshape(like.shape).contiguous()


def _is_experts(module: nn.Module, values: Tensor) -> bool:
    return not isinstance(module, _ConvNd | nn.Bilinear) and holds_experts(module, values)


def _kind(module: nn.Module, leaf: str, parameter: Tensor) -> str:
    for kind_of, starts, kind in _KINDS:
        exact = starts[0] == "weight"
        if isinstance(module, kind_of) and (leaf in starts if exact else leaf.startswith(starts)):
            return kind
    if is_turned(module) and leaf in ("weight", "weight_orig"):
        return LINEAR
    return EXPERTS if holds_experts(module, parameter) and "bias" not in leaf else OTHER


def _is_weight(leaf: str, parameter: Tensor, kind: str) -> bool:
    if not parameter.is_floating_point() or parameter.ndim < 2:
        return False
    if leaf == "bias" or leaf.startswith("bias_"):
        return False
    # A vector may carry axes of length one: a scale for each channel, a class token.
    return kind != OTHER or parameter.numel() > max(parameter.shape)
