"""Segmentation: a class for every pixel, told by the mean IoU."""

import torch
from torch import nn

import trainscope
from trainscope.report import RetrainingDisplay

# Discs of two sizes on noise: background, small, large.
torch.manual_seed(0)
rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
centre, radius = 6 + 12 * torch.rand(192, 2, 1, 1), 2 + 5 * torch.rand(192, 1, 1)
inside = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 < radius**2
masks = inside * (1 + (radius > 4.5).long())
images = inside.float()[:, None] + 0.4 * torch.randn(192, 1, 24, 24)
train, test = (images[:128], masks[:128]), (images[128:], masks[128:])

network = nn.Sequential(
    *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU()),
    *(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 3, 1)),
)
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
for _ in range(40):
    for part in torch.randperm(128).split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(train[0][part]), train[1][part]).backward()
        optimizer.step()

diagnosis = trainscope.diagnose(
    network,
    ratio=0.7,
    data=([train], [test]),
    task="segmentation",
    samples=16,
    probes=["trainability_accuracy"],
    retrain_epochs=3,
)
print(*diagnosis.verdict, sep="\n")
RetrainingDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("segmentation.png")
