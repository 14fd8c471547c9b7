"""A language model: perplexity after half of the weights went, and in the steps that follow."""

import argparse
import inspect

import torch
from torch import nn

import trainscope
from trainscope.probes import TrainabilityAccuracy
from trainscope.report import RetrainingDisplay


class Tiny(nn.Module):
    """A decoder of two blocks that reads characters."""

    def __init__(self, length=32, width=64):
        super().__init__()
        self.token, self.place = nn.Embedding(128, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 128, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, input_ids):
        hidden = self.token(input_ids) + self.place.weight[: input_ids.shape[1]]
        return self.head(self.blocks(hidden, mask=self.mask, is_causal=True))


text = inspect.getsource(argparse).encode("ascii", "ignore")  # any text of the standard library
windows = torch.tensor(list(text)[: 512 * 32]).reshape(512, 32)
train, test = windows[:384], windows[384:]

torch.manual_seed(0)
network = Tiny()
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
for _ in range(120):
    batch = train[torch.randint(384, (32,))]
    optimizer.zero_grad()
    logits = network(batch)[:, :-1]
    nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
    optimizer.step()

diagnosis = trainscope.diagnose(
    network,
    action=trainscope.Action("unstructured", ratio=0.5),
    data=([train], [test]),
    task="language-modelling",
    samples=16,
    probes=[TrainabilityAccuracy(lrs=(1e-1, 1e-2, 1e-3), steps=20)],
)
print(*diagnosis.verdict, sep="\n")
RetrainingDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("language_model.png")
