"""A grid of LR schedules, run and compared: the smaller learning rate only needs more epochs."""

from pathlib import Path

import trainscope
from trainscope.data import load
from trainscope.networks import save_checkpoint
from trainscope.report import LearningCurveDisplay
from trainscope.report.page.build import write_page
from trainscope.studies import Study, runs_of
from trainscope.training.pretrained import pretrained_network
from trainscope.training.settings import Settings

digits = load("digits", (1, 8, 8))
schedule = trainscope.parse_schedule("0:1e-2,1:1e-3", 2)
base = pretrained_network("digits_resnet", digits, schedule, Settings(seed=0))

save_checkpoint(Path("base.pt"), base)

study = Study(
    name="schedules",
    base="base.pt",
    action={"ratio": 0.9},
    recipes=["F3,1e-2", "F3,1e-3", "F3,1e-3(+3)"],
    store="study.db",
)
study.run()
runs = runs_of("study.db")
comparison = trainscope.compare(runs)
print(*comparison.verdict(), sep="\n")
write_page(comparison, Path("report.html"))
LearningCurveDisplay.from_runs(runs).plot().figure_.savefig("schedules.png")
