"""An image classifier from a checkpoint file: what cutting 80 % of its filters did to it."""

import trainscope
from trainscope.data import load
from trainscope.report import SingularValuesDisplay
from trainscope.training.pretrained import pretrained_network
from trainscope.training.settings import Settings

# A file of your own stands here; this one is trained in seconds.
digits = load("digits", (1, 8, 8))
schedule = trainscope.parse_schedule("0:1e-2,1:1e-3", 2)
network = pretrained_network("digits_resnet", digits, schedule, Settings(seed=0))
trainscope.save_checkpoint("checkpoint.pt", network)

diagnosis = trainscope.diagnose(
    "checkpoint.pt", ratio=0.8, data="digits", samples=32, probes=["gradient", "jacobian"]
)
print(diagnosis.action.meaning)
print(*diagnosis.verdict, sep="\n")
SingularValuesDisplay.from_diagnosis(diagnosis).plot().figure_.savefig("checkpoint.png")
