"""What is to be run, as plain frozen JSON, named by its digest before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from trainscope.errors import StudyError, about
from trainscope.records import Json, Kind
from trainscope.sparsify import Action
from trainscope.studies.plain import KEY, from_plain, plain
from trainscope.studies.unknown import unknown
from trainscope.training.plans import PruningPlan, parse_plan
from trainscope.training.recipe import Recipe, parse_recipe
from trainscope.training.schedule import LRSchedule, parse_schedule, write_lr
from trainscope.training.settings import Settings
from trainscope.training.shapes import lengthen_first_stage, shaped, warm_up
from trainscope.training.stage import check_plan

FORMAT = "trainscope.runspec/1"
WEIGHTS = {
    "inherited": Kind.RETRAIN,
    "winning-ticket": Kind.WINNING_TICKET,
    "random": Kind.RANDOM_REINIT,
    "scratch-e": Kind.SCRATCH_E,
    "scratch-b": Kind.SCRATCH_B,
}
"""What a pruned network is trained from, and what kind of run that is."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseModel:
    """A base model in a file, named by the digest of its weights.

    Attributes:
        path: The checkpoint; None where a digest alone says which, of a run beside.
        digest: SHA-256 of the weights, as `Run.base` has it; None until `RunSpec.pinned` read it.
        arch: The architecture's name, where it is not recognised.
        model: Or its factory, "package.module:factory".
    """

    path: str | None = None
    digest: str | None = None
    arch: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        """Refuse what names no weights.

        Raises:
            StudyError: There is neither a path nor a digest, or the digest is none.
        """
        if self.path is None and self.digest is None:
            raise StudyError("a base model is a checkpoint, a digest or another run: give one")
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise StudyError(f"'{self.digest}' is no digest: SHA-256 has 64 hexadecimal digits")


@dataclass(frozen=True)
class RunSpec:
    """One run, whole, before it runs.

    Attributes:
        recipe: Of this training: `F60,1e-3`, `P60F60,1e-2` (the base is cut off after 60 epochs),
            `P30/F90,1e-2`, or the stages of a schedule, `0:1e-2,30:1e-3`, with `epochs`.
        data: As `--data` takes it; None takes what a checkpoint remembers.
        base: What is pruned: a checkpoint (path or `BaseModel`), or another RunSpec. One without a
            base of its own is a stem, trained once for all runs that share it. None trains
            `architecture` from random weights.
        architecture: The name of a network, or "package.module:factory", where there is no base.
        action: The sparsifying action; None trains the network as it is.
        weights: What the pruned network is trained from: "inherited", "winning-ticket", "random",
            or for a fair budget from scratch "scratch-e" (as many epochs as the pipeline) and
            "scratch-b" (as many FLOPs).
        epochs: The total of stages.
        shape: How a recipe becomes a schedule: one of `training.shapes.SHAPES`.
        min_lr: Where a cosine or a cycle ends.
        warmup: Epochs of a linear rise, put in front.
        settings: Everything else about the training; its seed is not used.
        task: What the network is asked to do, as `--task` takes it.
        probes: Measured on the base model and on the pruned network before the first step.
        probe_epochs: After which epochs of this training they are measured too.
        norms: Keep the gradient's norm at every step.
        samples: Pinned samples of the probes.
        seed: Of this training; that of the base, and of a criterion that draws, are their own.
        plan: The pruning schedule, as `training.plans.parse_plan` reads it, like `gradual:30`, or
            one as an object: its epochs come before those of the recipe. None prunes at once.
    """

    recipe: str
    data: str | None = "digits"
    base: RunSpec | BaseModel | str | None = None
    architecture: str | None = None
    action: Action | None = None
    weights: str = "inherited"
    epochs: int | None = None
    shape: str = "halving"
    min_lr: float | None = None
    warmup: int = 0
    settings: Settings = field(default_factory=Settings)
    task: str | None = None
    probes: tuple[str, ...] = ()
    probe_epochs: tuple[int, ...] = ()
    norms: bool = False
    samples: int = 256
    seed: int = 0
    plan: str | PruningPlan | None = None

    def __post_init__(self) -> None:
        """Check what needs no network, and put the seed in its one place.

        Raises:
            TrainscopeError: The spec is of no run.
        """
        if isinstance(self.base, str):
            named = self.base.removeprefix("sha256:")
            model = BaseModel(digest=named) if _DIGEST.fullmatch(named) else BaseModel(self.base)
            object.__setattr__(self, "base", model)
        if self.settings.seed:
            object.__setattr__(self, "settings", replace(self.settings, seed=0))
        object.__setattr__(self, "probes", tuple(self.probes))
        object.__setattr__(self, "probe_epochs", tuple(self.probe_epochs))
        if (self.base is None) == (self.architecture is None):
            raise StudyError("a run starts from a base or from an architecture: give one of them")
        if self.weights not in WEIGHTS:
            said = unknown(self.weights, list(WEIGHTS), "kind of weights")
            raise StudyError(said, field=("weights",))
        if self.action is None and self.weights != "inherited":
            raise StudyError(
                f"weights '{self.weights}' are those of a pruned network: add an action",
                field=("weights",),
            )
        if self.action is not None and self.base is None:
            raise StudyError("an action needs a base to prune: give the pretraining as the base")
        with about("plan"):
            self._check_plan()
        if not 0 <= self.seed < 2**63 - 1:
            said = f"the seed {self.seed} is not from 0 to {2**63 - 2}"
            raise StudyError(said, field=("seed",))
        if self.samples < 2:
            said = f"{self.samples} samples are too few for probes: give 2 or more"
            raise StudyError(said, field=("samples",))
        if self.weights.startswith("scratch") and self.read is None:
            raise StudyError(
                f"the epochs of '{self.weights}' follow from a recipe like P60F60,1e-1, not from "
                f"the stages '{self.recipe}'",
                field=("recipe",),
            )
        if self.probe_epochs and not self.probes:
            said = "probe_epochs say when probes are due: name the probes too"
            raise StudyError(said, field=("probe_epochs",))
        self._check_schedule()

    def _check_plan(self) -> None:
        """Check the pruning schedule, and write it in the one way that it has."""
        over = None if self.plan is None else parse_plan(str(self.plan))
        object.__setattr__(self, "plan", None if over is None else str(over))
        if over is None:
            return
        if self.action is None:
            raise StudyError(f"the plan {over.name} is a schedule of pruning: add an action")
        if self.weights.startswith("scratch"):
            raise StudyError(
                f"weights '{self.weights}' are trained in a pruned shape, and the plan {over.name} "
                "trains those of the base: leave one of them out"
            )
        check_plan(over, self.action, self.settings)

    def _check_schedule(self) -> None:
        read, pretraining = self.read, self.base if isinstance(self.base, RunSpec) else None
        if read is not None and read.pretrain is not None:
            if pretraining is None or pretraining.base is not None:
                alone = self.recipe[self.recipe.index("F") :]
                raise StudyError(
                    f"recipe '{self.recipe}' cuts off a pretraining, and the base is none: give a "
                    f"base with an architecture, or the recipe {alone}",
                    field=("recipe",),
                )
            if not read.squeezed and read.pretrain > pretraining.schedule.total:
                raise StudyError(
                    f"recipe '{self.recipe}' prunes after epoch {read.pretrain}, and the base is "
                    f"trained for {pretraining.schedule.total}",
                    field=("recipe",),
                )
        last = self.schedule.total
        if any(not 0 <= epoch <= last for epoch in self.probe_epochs):
            said = f"probe_epochs are from 0 to {last}, the epochs of '{self.recipe}'"
            raise StudyError(said, field=("probe_epochs",))

    @cached_property
    def read(self) -> Recipe | None:
        """The recipe, None where stages are written."""
        if not re.match(r"\s*[PF]\d", self.recipe):
            return None
        with about("recipe"):
            return parse_recipe(self.recipe)

    @cached_property
    def schedule(self) -> LRSchedule:
        """The LR schedule of this training; that of scratch training is of another length.

        Raises:
            ScheduleError: The recipe is none.
        """
        if self.read is None:
            if self.epochs is None:
                what = f"the schedule '{self.recipe}' needs its total: give epochs"
                if ":" not in self.recipe:
                    what = (
                        f"'{self.recipe}' is no recipe: write one like P60F60,1e-3 or F60,1e-3, or "
                        "stages like 0:1e-2,30:1e-3 with epochs"
                    )
                raise StudyError(what, field=("recipe",))
            with about("recipe"):
                made_of = parse_schedule(self.recipe, self.epochs)
        else:
            if self.epochs is not None:
                said = f"recipe '{self.recipe}' says its epochs itself: leave epochs out"
                raise StudyError(said, field=("epochs",))
            made_of = self.shaped(self.read.lr, self.read.retrain)
            made_of = lengthen_first_stage(made_of, self.read.extra)
        if not self.warmup:
            return made_of
        with about("warmup"):
            return warm_up(made_of, self.warmup)

    def shaped(self, lr: float, epochs: int) -> LRSchedule:
        """Return a schedule of this spec's shape."""
        before = self.base.schedule if isinstance(self.base, RunSpec) else None
        return shaped(self.shape, self.min_lr, before)(lr, epochs)

    @cached_property
    def over(self) -> PruningPlan | None:
        """The pruning schedule, None where the action happens at once."""
        return None if self.plan is None else parse_plan(str(self.plan))

    @cached_property
    def stage(self) -> RunSpec:
        """The spec that names the pruning stage: what decides it, and nothing of what follows."""
        assert self.over is not None
        head = ""
        if self.read is not None and self.read.pretrain is not None:
            head = f"P{self.read.pretrain}{'/' * self.read.squeezed}"
        lr = max(self.schedule.rates()) if self.over.lr is None else self.over.lr
        rewinds = self.weights == "winning-ticket"
        return replace(
            self,
            recipe=f"{head}F{self.over.epochs},{write_lr(lr)}",
            epochs=None,
            shape="constant",
            min_lr=None,
            warmup=0,
            weights=self.weights if rewinds else "inherited",
            probes=(),
            probe_epochs=(),
            norms=False,
            samples=256,
        )

    @property
    def kind(self) -> Kind:
        """What kind of run it is."""
        return Kind.TRAIN if self.base is None else WEIGHTS[self.weights]

    @property
    def factory(self) -> str | None:
        """The user's own function that builds the network, "package.module:factory"."""
        if isinstance(self.base, RunSpec):
            return self.base.factory
        if self.base is not None:
            return self.base.model  # type: ignore[union-attr]  # a text became BaseModel
        return self.architecture if ":" in str(self.architecture) else None

    @property
    def trained_with(self) -> Settings:
        """The settings with the seed."""
        return replace(self.settings, seed=self.seed)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides what comes out: two specs that mean one run have one digest.

        Raises:
            StudyError: The weights of a checkpoint were not read yet: see `pinned`.
        """
        text = json.dumps(self._identity, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> str:
        """The first digits of the digest, which name the folder of the run."""
        return self.digest[:KEY]

    def pinned(self, digests: Mapping[BaseModel, str]) -> RunSpec:
        """Return the spec with the digest of its base model's weights.

        Args:
            digests: Of the files, by what names them.
        """
        base = self.base
        if isinstance(base, RunSpec):
            return replace(self, base=base.pinned(digests)) if base.files() else self
        if isinstance(base, BaseModel) and base.digest is None:
            return replace(self, base=replace(base, digest=digests[base]))
        return self

    def files(self) -> list[BaseModel]:
        """Return the checkpoints whose weights have no digest yet."""
        if isinstance(self.base, RunSpec):
            return self.base.files()
        unread = isinstance(self.base, BaseModel) and self.base.digest is None
        return [self.base] if unread else []  # type: ignore[list-item]

    @cached_property
    def _identity(self) -> Json:
        identity = self.as_dict()
        stages = ",".join(f"{s.start}:{write_lr(s.lr)}" for s in self.schedule.stages)
        identity |= {"recipe": stages, "epochs": self.schedule.total}
        for name in ("shape", "min_lr", "warmup"):
            identity.pop(name, None)
        if self.read is not None and self.read.pretrain is not None:
            identity |= {"pretrain": self.read.pretrain, "squeezed": self.read.squeezed}
        if isinstance(self.base, BaseModel):
            if self.base.digest is None:
                raise StudyError(f"the weights of {self.base.path} were not read yet: pin the spec")
            identity["base"] = {"digest": self.base.digest}
        elif isinstance(self.base, RunSpec):
            identity["base"] = self.base._identity
            if identity.get("pretrain") == self.base.schedule.total and not identity["squeezed"]:
                del identity["pretrain"], identity["squeezed"]  # pruned at the end, as without a P
        return identity

    def as_dict(self) -> Json:
        """Return the spec as a JSON object, without what is at its default."""
        return dict(self._plain)

    @cached_property
    def _plain(self) -> Json:
        raw = {"format": FORMAT, **plain(self, without=("base", "action"))}
        if self.action is not None:
            raw["action"] = plain(self.action)
        if isinstance(self.base, RunSpec):
            raw["base"] = self.base.as_dict()
        elif isinstance(self.base, BaseModel):
            raw["base"] = plain(self.base)
        return raw

    @classmethod
    def from_dict(cls, raw: Json) -> RunSpec:
        """Return the spec that `as_dict` wrote.

        Raises:
            TrainscopeError: It is no spec of this version.
        """
        if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
            raise StudyError(f"this is no RunSpec that this version reads: it is not '{FORMAT}'")
        values: dict[str, Any] = {name: part for name, part in raw.items() if name != "format"}
        base = values.get("base")
        if isinstance(base, Mapping):
            nested = "format" in base
            values["base"] = (
                cls.from_dict(dict(base)) if nested else from_plain(BaseModel, base, "base")
            )
        return from_plain(cls, values, "run")
