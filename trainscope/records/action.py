"""What a sparsifying action was asked to do, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainscope.records.measurement import Json
from trainscope.records.typed import listed, record_of, typed

CRITERIA = (
    *("l1", "l2", "random", "bn-scale", "fpgm", "taylor", "taylor2", "fisher", "obd", "obs"),
    *("sparsegpt", "wanda", "snip", "grasp", "synflow", "lamp", "erk"),
)
"""Criteria that every installation has, by the names that the command line takes."""
CRITERION_SAMPLES = 256
"""Training samples that a criterion is told of, where nobody asks for another number."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer's count of filters (structure `filter`) or weights (else), before and after."""

    name: str
    before: int
    after: int

    def to_json(self) -> Json:
        """Return the fields."""
        return {"name": self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class LayerLeft:
    """A weight that the action left alone: its share of the network's parameters, and why."""

    name: str
    share: float
    reason: str

    def to_json(self) -> Json:
        """Return the fields."""
        return {"name": self.name, "share": self.share, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class CriterionData:
    """The pinned samples that a criterion's statistics were collected from.

    Attributes:
        data: The data, as `--data` takes it.
        half: "train", or "test" where there is no training half.
        samples: How many.
        seed: Of the draw of samples, and of what a statistic draws.
        statistics: What was collected, like "gradient".
    """

    data: str
    half: str
    samples: int
    seed: int
    statistics: tuple[str, ...]

    def to_json(self) -> Json:
        """Return the fields."""
        return {
            "data": self.data,
            "half": self.half,
            "samples": self.samples,
            "seed": self.seed,
            "statistics": list(self.statistics),
        }

    def sentence(self) -> str:
        """Return it in a sentence."""
        whose = "training" if self.half == "train" else "test"
        return (
            f"the criterion's statistics ({', '.join(self.statistics)}) are of {self.samples} "
            f"{whose} samples of {self.data}, seed {self.seed}"
        )


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One sparsifying action, as done.

    Attributes:
        structure: "filter", "unstructured" or "N:M" as written, like "2:4".
        scope: "inner" or "all".
        criterion: The name of the criterion: "l1", "wanda", or one of somebody's; "chosen" where
            the filters that stay were named.
        ratio: The uniform ratio asked for; None where only per-layer ratios were given.
        ratios: Ratios by name pattern, as written.
        global_ranking: True where filters or weights were ranked across layers.
        meaning: What the ratio is a share of, in words.
        parameters: Parameters that remain: those present (filter) or not masked (else).
        flops: Multiply-adds of one sample that remain.
        speedup: Dense FLOPs / pruned FLOPs.
        layers: What was cut, layer by layer.
        seed: The seed of the criterion, where it draws.
        reached: The share that is gone in the end (filters, or weights at zero) of all that the
            ratio was asked of, those that could not be pruned among them; None in older records.
        left_alone: Every weight that was not pruned, with its share of the parameters and why.
        heads: The share of attention heads asked for; None where none was, and in older records.
        blocks: The share of residual blocks asked for, likewise.
        rounds: In how many rounds weights or filters went; 1 in older records.
        collected: The samples that the criterion was told of; None where it needs none.
    """

    structure: str
    scope: str
    criterion: str
    ratio: float | None
    parameters: int
    flops: int
    speedup: float
    layers: tuple[LayerChange, ...]
    meaning: str
    ratios: Mapping[str, float] = field(default_factory=dict)
    global_ranking: bool = False
    seed: int = 0
    reached: float | None = None
    left_alone: tuple[LayerLeft, ...] = ()
    heads: float | None = None
    blocks: float | None = None
    rounds: int = 1
    collected: CriterionData | None = None

    def to_json(self) -> Json:
        """Return the pinned form of `trainscope.diagnosis/1`."""
        parts: Json = {"heads": self.heads, "blocks": self.blocks}
        parts["rounds"] = self.rounds if self.rounds > 1 else None
        parts["collected"] = None if self.collected is None else self.collected.to_json()
        return {
            **{name: value for name, value in parts.items() if value is not None},
            "structure": self.structure,
            "scope": self.scope,
            "criterion": self.criterion,
            "ratio": self.ratio,
            "reached": self.reached,
            "ratios": dict(self.ratios),
            "global": self.global_ranking,
            "meaning": self.meaning,
            "parameters": self.parameters,
            "flops": self.flops,
            "speedup": self.speedup,
            "layers": [layer.to_json() for layer in self.layers],
            "left_alone": [layer.to_json() for layer in self.left_alone],
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, raw: Json) -> ActionRecord:
        """Return the ActionRecord that `to_json` wrote."""
        collected = raw.get("collected")
        return record_of(
            cls,
            {
                "meaning": "",
                "ratios": {},
                "seed": 0,
                "reached": None,
                "heads": None,
                "blocks": None,
                "rounds": 1,
                **raw,
            },
            collected=None if collected is None else typed(CriterionData, collected),
            layers=tuple(typed(LayerChange, layer) for layer in listed(raw["layers"], "layers")),
            left_alone=tuple(
                typed(LayerLeft, layer) for layer in listed(raw.get("left_alone", []), "left_alone")
            ),
            global_ranking=raw.get("global", False),
        )


def falls_short(action: ActionRecord) -> bool:
    """Say whether less is gone than the ratio asked for, by more than rounding explains."""
    both = action.ratio is not None and action.reached is not None
    return both and action.reached <= action.ratio - 0.005  # type: ignore[operator]


def speedup(action: ActionRecord) -> str:
    """Write the speedup, and for masks that it takes sparse kernels to have it."""
    text = f"{action.speedup:.2f}×"
    thinner = action.structure == "filter" or action.scope in ("cut", "layers removed")
    return text if thinner else f"{text} in theory, with sparse kernels"
