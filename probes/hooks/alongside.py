"""The hook of a training that was described in plain words: which probes, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainscope.data import Dataset, pin
from trainscope.probes.hooks.hook import ProbeHook
from trainscope.probes.probe import Probe, find
from trainscope.probes.when import When, always
from trainscope.training.settings import Settings


def hook_on(
    dataset: Dataset,
    settings: Settings,
    names: Sequence[str],
    *,
    when: When,
    words: str,
    samples: int,
    norms: bool,
) -> tuple[ProbeHook | None, dict[str, str]]:
    """Return the hook that looks on at a training, and its description for the frozen settings.

    Args:
        dataset: What is trained on, of which samples are pinned.
        settings: Of the training, to whose optimizer the curvature is preconditioned.
        names: Of the probes.
        when: When they are due.
        words: The same in words.
        samples: Pinned samples.
        norms: Keep the gradient's norm at every step.

    Returns:
        None, and nothing to describe, where nothing is to be measured.

    Raises:
        ProbeError: A probe does not exist.
    """
    watched = {"gradient norms": "every step"} if norms else {}
    watched |= dict.fromkeys(names, f"{words}, {samples} samples")
    if not watched:
        return None, {}
    data = None
    if names:
        data = pin(dataset, samples, batch_size=settings.batch_size, seed=settings.seed)
    curvature: Callable[..., Probe] = find("curvature")
    probes = [curvature(settings=settings) if name == "curvature" else name for name in names]
    return ProbeHook(probes, when=when, data=data, norms=always if norms else None), watched
