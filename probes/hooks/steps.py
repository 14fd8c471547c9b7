"""Every training step of an optimizer, seen once, whatever steps inside it."""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainscope.probes.hooks.parts import Parts, among
from trainscope.probes.processes.shards import local_part
from trainscope.probes.subject.wrappers import StepArguments, after_closure

log = logging.getLogger(__name__)

LAST_OF_TWO = ("second_step", "descent_step")
"""What optimizers that look ahead (SAM) call the half that makes the step; the first only moves."""


class StepWatch:
    """Watches an optimizer and what is inside it, and tells when a training step is made.

    A training step is an outermost call in which an innermost optimizer steps, or the weights
    change. So SAM's two halves are one step, as are a base optimizer's inside Lookahead's and a
    base class's inside a subclass's; a wrapper's call that only accumulates gradients is none.

    Args:
        parts: What makes the steps.
        look: The gradient that makes a step is there; of several looks in a step the last counts.
        made: A step is over.
        dropped: A call is over that made none.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        look: Callable[[], None],
        made: Callable[[], None],
        dropped: Callable[[], None],
    ) -> None:
        self.parts, self.seen = parts, 0
        self._look, self._made, self._dropped = look, made, dropped
        self._calls: list[_Call] = []
        self._handles: list[RemovableHandle] = []
        self._restore: list[Callable[[], None]] = []
        self._looked = self._closed = False
        self._start = _sample(parts.parameters)
        for each in parts.all:
            inner = among(each, parts.innermost)
            hooked = getattr(type(each).step, "hooked", False)
            if hooked:
                before = functools.partial(self._before_hooked, each, inner)
                after = functools.partial(self._after_hooked, each)
                self._handles += [
                    each.register_step_pre_hook(_Callback(before)),
                    each.register_step_post_hook(_Callback(after)),
                ]
            # Without hooks its class never called torch's constructor. A step of the object's own,
            # as a scheduler puts there, may be its class's or not: what is seen twice counts once.
            if not hooked or "step" in vars(each):
                self._replace(each, "step", inner)
            for name in LAST_OF_TWO:
                if callable(getattr(each, name, None)):
                    self._replace(each, name, inner)

    def close(self) -> None:
        """Stop watching. Inside a step the handles stay, without effect, until the next call."""
        if not self._closed and self._missed():
            log.warning(
                "no step of %s was seen, though the network's weights changed while the hook was "
                "attached: its steps are made by a method other than step(), or by another "
                "optimizer; attach the hook to the one whose step() is called",
                type(self.parts.lead).__name__,
            )
        self._closed = True
        self._forget_the_dead()
        if self._calls:  # torch goes through its hooks at this moment
            return
        for handle in self._handles:
            handle.remove()
        for restore in self._restore:
            restore()
        self._handles, self._restore = [], []

    def _missed(self) -> bool:
        """Return whether weights changed and no step was seen."""
        now = _sample(self.parts.parameters)
        return not self.seen and any(
            a.shape != b.shape or not torch.equal(a, b)
            for a, b in zip(self._start, now, strict=False)
        )

    def forgive(self) -> None:
        """Take the weights as they are for those of the start: the caller changed them."""
        self._start = _sample(self.parts.parameters)

    def _before_hooked(
        self, owner: Optimizer, inner: bool, optimizer: Optimizer, *arguments: Any
    ) -> StepArguments | None:
        same = optimizer is owner  # a shallow copy shares its table of hooks
        return self._enter(owner, "step", arguments, inner) if same else None

    def _after_hooked(self, owner: Optimizer, optimizer: Optimizer, *_: object) -> None:
        if optimizer is owner:
            self._leave(owner, "step")

    def _replace(self, owner: Optimizer, name: str, inner: bool) -> None:
        """Watch a method that torch has no hooks for, on this one object."""
        original, had = getattr(owner, name), owner.__dict__.get(name)
        enter, leave = _untraced(self._enter), _untraced(self._leave)

        @functools.wraps(original)
        def watched(this: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if this is not owner:  # a copy of the optimizer took this along
                return getattr(type(this), name)(this, *args, **kwargs)
            if self._closed:
                return original(*args, **kwargs)
            changed = enter(owner, name, ((owner, *args), kwargs), inner)
            if changed is not None:
                args, kwargs = changed[0][1:], changed[1]
            result = original(*args, **kwargs)
            leave(owner, name)
            return result

        method = MethodType(watched, owner)  # as a bound method it is pickled by its name
        setattr(owner, name, method)

        def restore() -> None:
            if owner.__dict__.get(name) is method:  # else a scheduler has wrapped it meanwhile
                if had is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, had)

        self._restore.append(restore)

    def _enter(
        self,
        optimizer: Optimizer,
        name: str,
        arguments: StepArguments,
        inner: bool,
    ) -> StepArguments | None:
        if self._closed:
            return None
        self._forget_the_dead()
        if not self._calls:
            self._looked = False
        again = any(call.of(optimizer, name) for call in self._calls)  # a base class's own step
        version = None if inner else _version(self.parts.parameters)
        self._calls.append(_Call(weakref.ref(optimizer), name, _caller(), version))
        if again:
            return None

        def look() -> None:
            if not self._closed and (inner or not self._looked):
                self._looked |= inner
                self._look()

        watched = after_closure(arguments, look)
        if watched is None:  # without a closure the gradients are there already
            look()
        return watched

    def _leave(self, optimizer: Optimizer, name: str) -> None:
        while self._calls and not self._calls[-1].of(optimizer, name):
            self._calls.pop()  # an inner call that raised was never left
        if not self._calls:  # watched, or not any more, since the middle of it
            return
        call = self._calls[-1]
        made = call.made or call.version is None
        made = made or _version(self.parts.parameters) != call.version
        if len(self._calls) > 1:
            self._calls[-2].made |= made
        elif not self._closed:
            self.seen += made
            (self._made if made else self._dropped)()
        self._calls.pop()  # last: who closes the watch meanwhile does so inside a step

    def _forget_the_dead(self) -> None:
        """Drop the calls that an exception has ended, of which no hook tells."""
        while self._calls and not _runs(self._calls[-1].frame):
            self._calls.pop()


class _Callback:
    """A hook that torch calls and no compiler traces; its copies, in an optimizer's, do nothing.

    Args:
        function: What it calls.
    """

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self.function = None if function is None else _untraced(function)

    def __call__(self, optimizer: Optimizer, *arguments: Any) -> Any:
        return None if self.function is None else self.function(optimizer, *arguments)

    def __reduce__(self) -> tuple[type[_Callback], tuple[()]]:
        return type(self), ()


@dataclass(slots=True)
class _Call:
    optimizer: weakref.ref[Optimizer]
    name: str
    frame: FrameType
    version: int | None
    made: bool = False

    def of(self, optimizer: Optimizer, name: str) -> bool:
        return self.optimizer() is optimizer and self.name == name


def _version(parameters: list[Tensor]) -> int:
    """Return a number that grows when torch writes into a parameter."""
    return sum(p._version for p in parameters if not p.is_inference())


def _sample(parameters: list[Tensor]) -> list[Tensor]:
    """Return a few weights of the first and of the last tensors that are trained."""
    trained = [p for p in parameters if p.requires_grad]
    ends = trained if len(trained) < 5 else trained[:2] + trained[-2:]
    return [local_part(p.detach()).flatten()[:16].clone() for p in ends]


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that `torch.compile` leaves alone, as it would count a step only once."""
    hidden: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return hidden


_BETWEEN = {
    part.__code__ for part in (StepWatch._enter, StepWatch._before_hooked, _Callback.__call__)
}


def _caller() -> FrameType:
    """Return the frame of the call that is watched, beyond what is between here and there."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_code in _BETWEEN or "_dynamo" in frame.f_code.co_filename):
        frame = frame.f_back
    assert frame is not None
    return frame


def _runs(frame: FrameType) -> bool:
    """Return whether a call is still on the stack of this thread."""
    here: FrameType | None = sys._getframe(1)
    while here is not None:
        if here is frame:
            return True
        here = here.f_back
    return False
