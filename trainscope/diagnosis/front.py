"""The front doors: the main flow, of which a person wants one part."""

from __future__ import annotations

import inspect
import re
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
    """Return a flow that keeps a part of its Outcome, with the same options and descriptions.

    Options that are refused are in no signature and no description.
    """

    def kept(*args: Options.args, **kwargs: Options.kwargs) -> Found:
        if any(kwargs.get(option) is not None for option in refused):
            raise ActionError(f"{name} takes one network as it is: use diagnose for an action")
        return take(flow(*args, **kwargs))

    described = inspect.cleandoc(flow.__doc__ or "").partition("\n\n")[2]
    if refused:  # what stands before the options speaks of them
        described = "".join(described.partition("Args:")[1:])
    for option in refused:
        described = re.sub(rf"^    {option}:.*\n(?:        .*\n)*", "", described, flags=re.M)
    kept.__doc__ = f"{does}\n\n{described}"
    kept.__name__ = kept.__qualname__ = name
    kept.__wrapped__ = flow  # type: ignore[attr-defined]  # where its hints are looked up
    returned = get_type_hints(take)["return"]
    hints = {name: hint for name, hint in flow.__annotations__.items() if name not in refused}
    kept.__annotations__ = {**hints, "return": returned}
    signature = inspect.signature(flow)
    taken = [each for each in signature.parameters.values() if each.name not in refused]
    kept.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=taken, return_annotation=returned
    )
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
