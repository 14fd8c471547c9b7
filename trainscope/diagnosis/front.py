"""The front doors: functions that take the options of a request, and give a part of the outcome."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import ParamSpec, TypeVar, get_type_hints

from trainscope.diagnosis.flow import Outcome, run
from trainscope.diagnosis.request import ActionRequest, DiagnoseRequest, MeasureRequest
from trainscope.errors import ActionError
from trainscope.records import Diagnosis, Measurements

ACTION_OPTIONS = frozenset(each.name for each in fields(ActionRequest))
Options = ParamSpec("Options")
Request = TypeVar("Request", bound=MeasureRequest)
Answer = TypeVar("Answer")


def _taking(
    request: Callable[Options, Request],
) -> Callable[[Callable[[Request], Answer]], Callable[Options, Answer]]:
    """Return a decorator: the function takes the fields of a request in the place of the request.

    Its signature is that of the request, and its docstring has the request's descriptions.
    """
    signature, hints, texts = (
        inspect.signature(request),
        get_type_hints(request),
        _descriptions(request),
    )

    def decorate(answer: Callable[[Request], Answer]) -> Callable[Options, Answer]:
        @wraps(answer)
        def front(*args: Options.args, **kwargs: Options.kwargs) -> Answer:
            _check_call(answer.__name__, signature, args, kwargs)
            return answer(request(*args, **kwargs))

        returned = get_type_hints(answer)["return"]
        front.__signature__ = signature.replace(  # type: ignore[attr-defined]
            return_annotation=returned
        )
        front.__annotations__ = {name: hints[name] for name in signature.parameters}
        front.__annotations__["return"] = returned
        described = "".join(texts[name] for name in signature.parameters)
        before, raises, after = inspect.cleandoc(answer.__doc__ or "").partition("Raises:")
        front.__doc__ = f"{before}Args:\n{described}\n{raises}{after}"
        return front

    return decorate


def _check_call(
    name: str, signature: inspect.Signature, args: tuple[object, ...], options: dict[str, object]
) -> None:
    """Refuse options that a function does not take, by its own name; an action of None is none.

    Raises:
        ActionError: They describe an action.
        TypeError: They are others.
    """
    for option in ACTION_OPTIONS - signature.parameters.keys():
        if options.pop(option, None) is not None:
            raise ActionError(f"{name} takes one network as it is: use diagnose for an action")
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None


def _descriptions(request: object) -> dict[str, str]:
    """Return the lines of a dataclass's docstrings that describe each field, by its name."""
    texts: dict[str, str] = {}
    for kind in inspect.getmro(request):  # type: ignore[arg-type]  # it is a class
        section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
        for line in section.splitlines():
            if not line.startswith(" " * 8):  # the first line of a field
                name = line.strip().partition(":")[0]
                texts[name] = ""
            texts[name] += f"{line}\n"
    return texts


@_taking(DiagnoseRequest)
def examine(request: DiagnoseRequest) -> Outcome:
    """Open a network and measure it; after an action, measure again and say what that did.

    The action is trainscope's own (`ratio` or `action`) or somebody else's (`after`); without any
    of them the network is measured as it stands.

    Raises:
        TrainscopeError: The checkpoint, the data, the action or an option is at fault.
    """
    return run(request)


@_taking(DiagnoseRequest)
def diagnose(request: DiagnoseRequest) -> Diagnosis:
    """Measure a network before and after a sparsifying action, and return the Diagnosis.

    >>> diagnose("checkpoint.pt", ratio=0.9).to_json()  # doctest: +SKIP
    >>> diagnose(module, ratio=0.9, data=(train_loader, test_loader))  # doctest: +SKIP
    >>> diagnose(dense, after=pruned, data=loader)  # doctest: +SKIP

    The action is trainscope's own (`ratio` or `action`) or somebody else's (`after`); without any
    of them the network is measured as it stands.

    Raises:
        TrainscopeError: The checkpoint, the data, the action or an option is at fault.
    """
    return run(request).diagnosis


@_taking(MeasureRequest)
def measure(request: MeasureRequest) -> Measurements:
    """Measure a network before any action, and return the Measurement of each probe by its name.

    >>> measure(module, data=loader, probes=["gradient"])["gradient"]  # doctest: +SKIP

    Raises:
        TrainscopeError: The checkpoint, the data or an option is at fault.
    """
    diagnosis = run(request).diagnosis
    found = Measurements((name, columns.before) for name, columns in diagnosis.probes.items())
    found.notes = diagnosis.notes
    return found
