"""A recurrent tagger: a label for every position, and how soon it is learnt again."""

import torch
from torch import nn

import trainscope
from trainscope.report import RetrainingDisplay


class Tagger(nn.Module):
    """Says of every bracket how deep it is nested."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(2, 16), nn.Linear(48, 4)
        self.lstm = nn.LSTM(16, 48, num_layers=2, batch_first=True)

    def forward(self, brackets):
        return self.out(self.lstm(self.embed(brackets))[0])


torch.manual_seed(0)
brackets = torch.randint(2, (256, 20))
depth = (2 * brackets - 1).cumsum(1).clamp(0, 3)
train, test = (brackets[:192], depth[:192]), (brackets[192:], depth[192:])

network = Tagger()
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(40):
    optimizer.zero_grad()
    logits = network(train[0])
    nn.functional.cross_entropy(logits.flatten(0, 1), train[1].flatten()).backward()
    optimizer.step()

diagnosis = trainscope.diagnose(
    network,
    action=trainscope.Action("unstructured", ratio=0.7, scope="all"),
    data=([train], [test]),
    probes=["trainability_accuracy"],
    retrain_epochs=3,
)
print(*diagnosis.verdict, sep="\n")
RetrainingDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("tagger.png")
