"""Lines as a user writes them, which `.ci/packages` type-checks against every install."""

import torch
from torch import nn
from torch.utils.data import DataLoader

import trainscope
from trainscope import Action, Diagnosis, LearningCurve, ProbeHook, Run, diagnose, measure
from trainscope.probes.when import every


def pruned_at(ratio: float, module: nn.Module, loader: DataLoader[torch.Tensor]) -> float | None:
    diagnosis: Diagnosis = diagnose(module, action=Action(ratio=ratio), data=loader)
    print("\n".join(diagnosis.verdict))
    after = diagnosis.probes["curvature"].after
    return None if after is None else after.value("max_stable_lr")


def watched(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with ProbeHook(["gradient"], when=every(100), sink="probes.jsonl").attach(module, optimizer):
        optimizer.step()


def epochs_to_add(small: str, large: str) -> float:
    watched, reference = LearningCurve.from_file(small), LearningCurve.from_run(Run.load(large))
    return trainscope.estimate(watched, target=90.0, reference=reference).extra_epochs.median


task: trainscope.Task = trainscope.task.FromLoss(nn.functional.mse_loss)
jacobian = measure(nn.Linear(2, 2), data=[], probes=[trainscope.probes.Jacobian(), "gradient"])
text: str = jacobian["jacobian"].probe + trainscope.__version__
