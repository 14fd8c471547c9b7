"""Regression: half of the weights of a small network go; which learning rate is stable then?"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

import trainscope
from trainscope.report import DensityDisplay

inputs, target = (
    torch.tensor(part).float() for part in load_diabetes(return_X_y=True, scaled=True)
)
inputs, target = inputs / inputs.std(0), ((target - target.mean()) / target.std())[:, None]
train, test = (inputs[:350], target[:350]), (inputs[350:], target[350:])

torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
)
optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.mse_loss(network(train[0]), train[1]).backward()
    optimizer.step()

diagnosis = trainscope.diagnose(
    network,
    action=trainscope.Action("unstructured", ratio=0.5, scope="all"),
    data=([train], [test]),
    task="regression",
    probes=["curvature"],
)
print(*diagnosis.verdict, sep="\n")
DensityDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("regression.png")
