"""What taking filters out must equal: the dense network with those filters held at zero."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def zeroed(network, removed):
    """A copy whose outputs `removed` (by layer) are zero, batch norms' scale and shift too."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, indices in removed.items():
            module = network.get_submodule(name)
            transposed = getattr(module, "transposed", False) or type(module).__name__ == "Conv1D"
            (module.weight.transpose(0, 1) if transposed else module.weight)[list(indices)] = 0
            if getattr(module, "bias", None) is not None:
                module.bias[list(indices)] = 0
    return network


def lived_in(network, seed=0):
    """The network in float64 and eval mode, with weights and statistics that are all different."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(
                    torch.randn(parameter.shape, generator=generator).double(), alpha=0.1
                )
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


class PlainNet(nn.Module):
    """Three convolutions, flattened: no residual."""

    def __init__(self, norm=True):
        super().__init__()
        layers = []
        for wide, narrow in ((3, 8), (8, 12), (12, 10)):
            layers.append(nn.Conv2d(wide, narrow, 3, padding=1))
            layers.append(nn.BatchNorm2d(narrow) if norm else nn.Identity())
            layers.append(nn.ReLU())
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2))
        self.fc1 = nn.Linear(40, 16)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, inputs):
        features = self.features(inputs)
        return self.fc2(torch.relu(self.fc1(features.view(features.size(0), -1))))
