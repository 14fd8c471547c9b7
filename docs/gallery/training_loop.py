"""Probes in your own loop: the largest stable learning rate before, at and after the action."""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import trainscope
from trainscope.probes import Curvature
from trainscope.probes.when import every

images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
loader = DataLoader(TensorDataset(images.float() / 8 - 1, labels), 64, shuffle=True)

torch.manual_seed(0)
network = nn.Sequential(
    nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 10)
)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
hook = trainscope.ProbeHook([Curvature(top=1, density_vectors=0)], when=every(20), data=loader)
hook.attach(network, optimizer)
for epoch in range(8):
    if epoch == 4:
        hook.before_action()
        for layer in (network[0], network[2]):
            prune.l1_unstructured(layer, "weight", 0.9)
        hook.after_action(network)
    for inputs, classes in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), classes).backward()
        optimizer.step()
hook.detach()

taken = [each for each in hook.taken if each.measurement.probe == "curvature"]
stable = [each.measurement.value("max_stable_lr") for each in taken]
plt.figure(figsize=(7.2, 4.4), layout="constrained")
plt.semilogy([each.step for each in taken], stable, "o-", label="largest stable LR, 2/λmax")
plt.axhline(0.1, color="0.4", linestyle=":", label="the LR of this loop")
plt.axvline(4 * len(loader), color="0.7", label="90 % of the weights pruned")
plt.xlabel("step")
plt.legend()
plt.savefig("training_loop.png")
