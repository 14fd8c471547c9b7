"""Two files, dense and pruned by another tool: what was done, and which layers it hit."""

import torch
from torch import nn
from torch.nn.utils import prune
from torchvision.models import squeezenet1_1

import trainscope
from trainscope.report import GradientDisplay

# Two files of your own stand here.
torch.manual_seed(0)
dense = squeezenet1_1(num_classes=10)
torch.save(dense.state_dict(), "dense.pt")
for module in dense.modules():
    if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
        prune.l1_unstructured(module, "weight", 0.8)
torch.save(dense.state_dict(), "pruned.pt")  # with the masks of torch.nn.utils.prune

diagnosis = trainscope.diagnose(
    "dense.pt", after="pruned.pt", data="random:3x32x32", samples=8, probes=["gradient"]
)
print(diagnosis.action.meaning)
print(*diagnosis.verdict, sep="\n")
GradientDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("two_files.png")
