"""Two logs: when will a small learning rate reach what a large one reached?"""

from pathlib import Path

import trainscope
from trainscope.report import ConvergenceDisplay

examples = Path(__file__).parents[1] / "examples"  # CSV files: epoch, lr, accuracy, loss
small = trainscope.LearningCurve.from_file(examples / "small.csv")
large = trainscope.LearningCurve.from_file(examples / "large.csv")

estimate = trainscope.estimate(small, target=90.0, reference=large)
print(estimate.explanation)
print("epoch", estimate.first_passage.median, "extra epochs", estimate.extra_epochs.median)
display = ConvergenceDisplay.from_estimate(estimate, small, large)
display.plot().figure_.savefig("log_to_estimate.png")
