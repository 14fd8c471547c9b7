"""The largest stable LR of an optimizer, from what the curvature probe measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainscope.records.measurement import Measurement

SUMMED = "summed"
"""The note of a measurement whose loss is, as it is trained, a sum over the samples of a batch."""
NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True)
class StableLR:
    """A stability limit, or why there is none.

    Attributes:
        value: The LR; None where it was not measured for this optimizer.
        whose: The optimizer in words: "AdamW", "SGD with momentum 0.9", "plain gradient descent".
        rule: The threshold: "2/λmax", "38/λmax of the preconditioned Hessian".
        missing: Why there is no value; "" where there is one.
        error: Its standard error where it is an estimate; 0 where its own is no more than a
            tolerance of the numerics.
    """

    value: float | None
    whose: str
    rule: str
    missing: str = ""
    error: float = 0.0

    def below(self, lr: float) -> bool:
        """Tell whether the limit is below an LR, by more than two of its standard errors."""
        return self.value is not None and lr > self.value + 2 * self.error


def ema_factor(beta1: float) -> float:
    r"""Return f of Adam's limit f / lambda, lambda the preconditioned Hessian's top eigenvalue.

    .. math:: f = 2 (1 + \beta_1) / (1 - \beta_1)

    It is that of momentum as a running mean with the preconditioner held, 38 for 0.9. Source:
    Cohen et al. (2022), "Adaptive gradient methods at the edge of stability".
    """
    return 2 * (1 + beta1) / (1 - beta1)


def stable_lr(curvature: Measurement, settings: Mapping[str, Any]) -> StableLR:
    """Return the largest stable LR of an optimizer near the weights that were measured.

    Args:
        curvature: What the curvature probe found.
        settings: Of the optimizer, by name; without any, plain gradient descent's limit is told.
    """
    plain = curvature.get("max_stable_lr")
    optimizer = str(settings.get("optimizer") or "").lower()
    name = NAMES.get(optimizer, optimizer)
    if settings.get("lora_rank") is not None:
        return StableLR(
            None,
            f"{name} on LoRA",
            "",
            "LoRA trains low-rank factors and λmax is that of the weights themselves",
        )
    if optimizer in ("adam", "adamw"):
        return _adaptive(curvature, settings, name)
    if optimizer not in ("", "sgd"):
        return StableLR(None, name, "", f"no limit of {name} is known here")
    momentum = _number(settings.get("momentum")) or 0.0
    whose = f"SGD with momentum {momentum:g}" if momentum else "plain gradient descent"
    top = f"2(1 + {momentum:g})" if momentum else "2"
    value = None if plain is None else plain * (1 + momentum)
    if SUMMED not in curvature.notes:
        return StableLR(value, whose, f"{top}/λmax")
    batch = _number(settings.get("batch_size"))
    if not batch:
        missing = "the loss is a sum over a batch, so divide this limit by the samples of one"
        return StableLR(None, f"{whose} on that loss", "", missing)
    rule = f"{top}/(n λmax), as the loss adds up n = {batch:g} samples"
    return StableLR(None if value is None else value / batch, whose, rule)


def _adaptive(curvature: Measurement, settings: Mapping[str, Any], name: str) -> StableLR:
    betas = settings.get("betas")
    first = _number(betas[0]) if isinstance(betas, list | tuple) and betas else None
    beta1 = 0.9 if first is None else first
    rule = f"{ema_factor(beta1):.3g}/λmax of the preconditioned Hessian"
    top = curvature.get("preconditioned_eigenvalue")
    scalar = curvature.scalars.get("preconditioned_eigenvalue")
    if top is not None and top > 0:
        value = ema_factor(beta1) / top
        spread = 0.0 if scalar is None else (scalar.stderr or 0.0)
        return StableLR(value, name, rule, error=value * spread / top)
    why = "it was not asked for" if scalar is None else scalar.reason
    return StableLR(None, name, rule, why or "the largest eigenvalue is not positive")


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
