"""A module and loaders of your own: how fast it learns again, at two learning rates."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainscope
from trainscope.probes import TrainabilityAccuracy
from trainscope.report import RetrainingDisplay

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)
samples = TensorDataset(images, torch.tensor(labels))
train, test = torch.utils.data.random_split(
    samples, [1400, 397], generator=torch.Generator().manual_seed(0)
)
loaders = DataLoader(train, 64, shuffle=True), DataLoader(test, 256)

torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()),
    *(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)),
)
optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
for _ in range(5):
    for inputs, classes in loaders[0]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), classes).backward()
        optimizer.step()

diagnosis = trainscope.diagnose(
    network,
    ratio=0.7,
    data=loaders,
    probes=[TrainabilityAccuracy(lrs=(1e-2, 1e-3), epochs=4)],
)
print(*diagnosis.verdict, sep="\n")
RetrainingDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("own_module.png")
