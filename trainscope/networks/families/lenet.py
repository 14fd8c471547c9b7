"""LeNet-5 for MNIST and its like, in its usual modern form."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """Two 5x5 convolutions with max-pooling, then three linear layers, all with ReLU.

    Takes [N, 1, 28, 28], gives logits [N, num_classes]. 6 and 16 filters, 120 and 84 units. After
    LeCun et al., "Gradient-based learning applied to document recognition" (1998), with ReLU and
    max-pooling in the place of the original's tanh and trained subsampling.

    Args:
        num_classes: Width of the logits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits
