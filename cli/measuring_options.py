"""Options that say what is measured while a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainscope.cli.options import probe_names

if TYPE_CHECKING:
    from trainscope.data import Dataset
    from trainscope.probes.hooks import ProbeHook
    from trainscope.training.settings import Settings


@dataclass(frozen=True)
class MeasuringOptions:
    """What is measured while a network is trained.

    Attributes:
        norms: Keep the gradient's norm at every step.
        probes: Names with commas between them; None for none.
        probe_epochs: After which epochs, like "0,1,5".
        probe_every: Or every so many steps.
        samples: Pinned samples of the probes.
    """

    norms: bool
    probes: str | None
    probe_epochs: str | None
    probe_every: int | None
    samples: int

    @property
    def names(self) -> list[str]:
        """The probes.

        Raises:
            ProbeError: One of the names is empty.
        """
        return [] if self.probes is None else probe_names(self.probes)

    @property
    def epochs(self) -> list[int]:
        """After which epochs; empty where they do not say.

        Raises:
            ProbeError: They are no list of epochs.
        """
        return epochs_of(self.probe_epochs) if self.probe_epochs else []

    def hook(self, dataset: Dataset, settings: Settings) -> tuple[ProbeHook | None, dict[str, str]]:
        """Return what measures, and its description for the frozen settings.

        Raises:
            ProbeError: They describe nothing that can be.
        """
        from trainscope.errors import ProbeError
        from trainscope.probes.hooks.alongside import hook_on
        from trainscope.probes.when import at_epochs, every, every_epochs

        names = self.names
        when, words = every_epochs(1), "every epoch"
        if self.probe_epochs and self.probe_every:
            raise ProbeError("--probe-epochs and --probe-every both say when: give one of them")
        if epochs := self.epochs:
            when, words = at_epochs(*epochs), f"after epochs {','.join(map(str, epochs))}"
        elif self.probe_every:
            when, words = every(self.probe_every), f"every {self.probe_every} steps"
        return hook_on(
            dataset,
            settings,
            names,
            when=when,
            words=words,
            samples=self.samples,
            norms=self.norms,
        )


def epochs_of(text: str) -> list[int]:
    """Return the epochs of --probe-epochs.

    Raises:
        ProbeError: It is no list of them.
    """
    from trainscope.errors import ProbeError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ProbeError(f"--probe-epochs '{text}' is no list of epochs like 0,1,5")
    return [int(part) for part in parts]
