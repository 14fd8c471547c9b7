"""The front doors: the main flow, of which a person wants one part."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_type_hints

from trainscope.diagnosis.flow import Outcome, examine
from trainscope.errors import ActionError
from trainscope.records import Diagnosis, Measurements

Options = ParamSpec("Options")
Found = TypeVar("Found")


def _keeping(
    take: Callable[[Outcome], Found],
    flow: Callable[Options, Outcome],
    name: str,
    does: str,
    *,
    refused: tuple[str, ...] = (),
) -> Callable[Options, Found]:
    """Return a flow that keeps a part of its Outcome, with the same options and descriptions."""

    def kept(*args: Options.args, **kwargs: Options.kwargs) -> Found:
        if any(kwargs.get(option) is not None for option in refused):
            raise ActionError(f"{name} takes one network as it is: use diagnose for an action")
        return take(flow(*args, **kwargs))

    described = inspect.cleandoc(flow.__doc__ or "").partition("\n\n")[2]
    kept.__doc__ = f"{does}\n\n{described}"
    kept.__name__ = kept.__qualname__ = name
    kept.__wrapped__ = flow  # type: ignore[attr-defined]  # where its hints are looked up
    returned = get_type_hints(take)["return"]
    kept.__annotations__ = {**flow.__annotations__, "return": returned}
    signature = inspect.signature(flow)
    kept.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
    return kept


def _diagnosis(outcome: Outcome) -> Diagnosis:
    return outcome.diagnosis


def _alone(outcome: Outcome) -> Measurements:
    return Measurements((n, columns.before) for n, columns in outcome.diagnosis.probes.items())


diagnose = _keeping(
    _diagnosis,
    examine,
    "diagnose",
    """Measure a network before and after a sparsifying action, and return the Diagnosis.

>>> diagnose("checkpoint.pt", ratio=0.9).to_json()  # doctest: +SKIP
>>> diagnose(module, ratio=0.9, data=(train_loader, test_loader))  # doctest: +SKIP
>>> diagnose(dense, after=pruned, data=loader)  # doctest: +SKIP""",
)
measure = _keeping(
    _alone,
    examine,
    "measure",
    """Measure a network before any action, and return the Measurement of each probe by its name.

>>> measure(module, data=loader, probes=["gradient"])["gradient"]  # doctest: +SKIP""",
    refused=("ratio", "action", "after"),
)
