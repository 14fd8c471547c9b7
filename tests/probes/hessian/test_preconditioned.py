"""The curvature that Adam sees, against torch's own Adam and a dense float64 Hessian."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from reference.dense import Dense
from torch import Tensor, nn

from trainscope.data import ProbeData, TensorSplit
from trainscope.networks.masks import masks_of, set_masks
from trainscope.probes.curvature import Curvature
from trainscope.records import Measurement, Status
from trainscope.records.stability import ema_factor, stable_lr
from trainscope.task import Regression
from trainscope.training.loop import training_batches
from trainscope.training.settings import LoRA, Settings

BATCHES = 12
SETTINGS = Settings(optimizer="adamw", batch_size=8, eps=1e-6, betas=(0.8, 0.95))


def network(*, masked: bool = False) -> nn.Module:
    """Return a small network in float64."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    if masked:
        set_masks(made, {"1.weight": torch.rand(5, 6) > 0.5, "3.weight": torch.rand(3, 5) > 0.3})
    return made.eval()


def data(**changed) -> ProbeData:
    """Return 16 pinned samples and a training half of 60."""
    torch.manual_seed(1)
    inputs, labels = torch.rand(60, 1, 2, 3), torch.randint(3, (60,))
    split = TensorSplit(inputs, labels, (0.5,), (0.3,))
    pinned = split.batch(torch.arange(16))
    return ProbeData("few", *pinned, **{"train": split, "test": split, "batch_size": 5, **changed})


def measured(net: nn.Module, given: ProbeData, settings: Settings = SETTINGS, **options):
    """Return the curvature with the warm-up of an optimizer."""
    options = {"density_vectors": 0, "warmup": BATCHES, "tolerance": 1e-12, **options}
    return Curvature(top=1, settings=settings, **options).measure(net, given)


def warmed(net: nn.Module, given: ProbeData, settings: Settings) -> list[Tensor]:
    """Return v of torch's own optimizer after a warm-up at LR 0, bias-corrected."""
    net = copy.deepcopy(net)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    weights = list(net.parameters())
    decay = settings.weight_decay
    made = kind(weights, lr=0.0, betas=settings.betas, eps=settings.eps, weight_decay=decay)
    for _, (inputs, labels) in training_batches(given.train, settings, 0, BATCHES):
        made.zero_grad()
        nn.functional.cross_entropy(net(inputs.double()), labels).backward()
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(weights, settings.clip)
        made.step()
    correction = 1 - settings.betas[1] ** BATCHES
    return [made.state[weight]["exp_avg_sq"] / correction for weight in weights]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, clip=0.2),
        replace(SETTINGS, optimizer="adam", weight_decay=0.1),
    ],
    ids=["adamw", "clipped", "adam with L2"],
)
def test_it_is_the_dense_eigenvalue_under_torchs_own_second_moment(masked, settings):
    net, given = network(masked=masked), data()
    dense = Dense(net, given.inputs, given.labels)
    v = torch.cat([each.flatten() for each in warmed(net, given, settings)])[dense.keep]
    root = v.sqrt() + settings.eps
    hessian = dense.hessian()
    if settings.optimizer == "adam":
        hessian = hessian + settings.weight_decay * torch.eye(len(hessian)).double()
    expected = torch.linalg.eigvalsh(hessian / (root[:, None] * root).sqrt())[-1]
    found = measured(net, given, settings)
    assert found.status is Status.OK, found.reason
    assert found.value("preconditioned_eigenvalue") == pytest.approx(float(expected), rel=1e-10)
    assert found.value("max_stable_lr_adam") == pytest.approx(18 / float(expected), rel=1e-10)
    assert "12 gradients of 8 samples of the training half" in found.notes["adam"]
    assert masked == bool(masks_of(net))


def test_without_an_adaptive_optimizer_nothing_is_added():
    for settings in (None, Settings()):
        found = measured(network(), data(), settings)
        assert "preconditioned_eigenvalue" not in found.scalars
    lora = measured(network(), data(), replace(SETTINGS, lora=LoRA(2)))
    assert lora.value("max_stable_lr_adam") is None
    assert "LoRA" in lora.scalars["max_stable_lr_adam"].reason


def test_without_a_training_half_the_pinned_samples_are_drawn():
    found = measured(network(), data(train=None, test=None))
    assert found.value("max_stable_lr_adam") > 0
    assert "of the pinned samples" in found.notes["adam"]


def test_weights_that_no_gradient_reaches_are_no_directions():
    net, given = network(), data()
    with torch.no_grad():
        net[3].weight[:, 0] = 0  # the gradient of what feeds this unit is zero
    found = measured(net, given)
    assert "7 weights that no gradient reached are left out" in found.notes["adam"]
    assert found.value("preconditioned_eigenvalue") < 1e4


def test_the_standard_error_is_the_spread_over_warm_ups():
    net, values, errors = network(), [], []
    settings = replace(SETTINGS, betas=(0.9, 0.999))
    for seed in range(12):
        found = measured(net, data(seed=seed), settings, tolerance=1e-3, trace_vectors=2)
        scalar = found.scalars["preconditioned_eigenvalue"]
        values.append(scalar.value)
        errors.append(scalar.stderr)
    spread = float(torch.tensor(values).std())
    assert 0.5 < sum(errors) / len(errors) / spread < 2


def test_a_warm_up_that_cannot_be_done_is_a_reason_and_the_rest_stands():
    given = data()
    broken = replace(given.train, inputs=given.train.inputs * float("nan"))
    found = measured(network(), data(train=broken))
    assert found.value("max_stable_lr") > 0
    assert found.value("max_stable_lr_adam") is None
    assert "NaN" in found.scalars["max_stable_lr_adam"].reason


def quadratic(beta1: float, share: float, steps: int = 300) -> tuple[float, float]:
    """Return the largest and the last distance from the minimum, in units of the first.

    Adam's preconditioner is held by a beta2 of all but 1, so far as gradients stay small.

    Args:
        beta1: Of Adam.
        share: The LR, as a share of the limit that the probe measures.
        steps: To take.
    """
    torch.manual_seed(0)
    net = nn.Linear(4, 1, bias=False).double()
    inputs = torch.randn(40, 4) * torch.tensor([3.0, 1.0, 0.5, 0.2])
    settings = Settings(optimizer="adamw", batch_size=8, betas=(beta1, 0.999), weight_decay=0.0)
    given = ProbeData("line", inputs, torch.randn(40, 1), task=Regression())
    found = measured(net, given, settings)
    lr = share * found.value("max_stable_lr_adam")
    # v is of these gradients alone, so it is worked out again from what the eigenvalue says.
    x, y = inputs.double(), given.labels.double()
    generator, v = given.generator(), torch.zeros(1, 4).double()
    for number in range(BATCHES):
        chosen = torch.randint(40, (8,), generator=generator)
        (gradient,) = torch.autograd.grad(((net(x[chosen]) - y[chosen]) ** 2).mean(), net.weight)
        v += 0.999 ** (BATCHES - 1 - number) * gradient**2
    v *= (1 - 0.999) / (1 - 0.999**BATCHES)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(beta1, 1 - 1e-9), weight_decay=0)
    optimizer.state[net.weight] = {
        "step": torch.tensor(1e12),
        "exp_avg": torch.zeros_like(v),
        "exp_avg_sq": v,
    }
    best = torch.linalg.lstsq(x, y).solution.T
    with torch.no_grad():
        net.weight.copy_(best + 1e-3 * torch.randn(1, 4))
    distances = []
    for _ in range(steps):
        distances.append(float((net.weight - best).detach().norm()))
        optimizer.zero_grad()
        ((net(x) - y) ** 2).mean().backward()
        optimizer.step()
    return max(distances) / distances[0], distances[-1] / distances[0]


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
def test_adam_with_its_preconditioner_held_is_stable_up_to_the_limit(beta1):
    largest, last = quadratic(beta1, 0.97)
    assert largest < 20
    assert last < 0.1
    largest, _ = quadratic(beta1, 1.03)
    assert largest > 1e4


def test_the_factor_of_the_limit():
    assert ema_factor(0.9) == pytest.approx(38)
    assert ema_factor(0.0) == 2


def curvature(**scalars: float) -> Measurement:
    from diagnoses import measurement

    return measurement("curvature", scalars)


def test_each_optimizer_has_its_own_limit():
    found = curvature(max_stable_lr=0.1, preconditioned_eigenvalue=100.0)
    assert stable_lr(found, {}).value == 0.1
    momentum = stable_lr(found, {"optimizer": "SGD", "momentum": "0.9"})
    assert momentum.value == pytest.approx(0.19)
    assert momentum.rule == "2(1 + 0.9)/λmax"
    adamw = stable_lr(found, {"optimizer": "adamw", "betas": [0.5, 0.9]})
    assert adamw.value == pytest.approx(6 / 100)
    assert adamw.error == pytest.approx(adamw.value / 10)
    assert not adamw.below(0.071)
    assert adamw.below(0.073)
    assert stable_lr(found, {"optimizer": "adamw", "lora_rank": 4}).value is None
    assert "no limit of lion" in stable_lr(found, {"optimizer": "lion"}).missing
    assert "not asked for" in stable_lr(curvature(max_stable_lr=1.0), {"optimizer": "adam"}).missing
