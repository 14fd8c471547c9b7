"""Calls of a network's modules, looked at by hooks that are taken off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from torch import nn

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class ModuleCall(Generic[Key]):
    """A call of a module.

    Attributes:
        key: What stands for the module: its name, say.
        module: It.
        args: What it is called with by place.
        kwargs: And by name.
        out: What it returned; None before it did, or where it raised.
    """

    key: Key
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any = None


Look = Callable[[ModuleCall[Key]], Any]


@contextmanager
def hooked(
    modules: Iterable[tuple[Key, nn.Module]],
    *,
    before: Look[Key] | None = None,
    after: Look[Key] | None = None,
    always: bool = False,
) -> Iterator[None]:
    """Look at every call of some modules while the block lasts.

    The hooks are gone after it, also those of a block, or of a module, that raises: TorchScript
    takes none.

    Args:
        modules: Each with its key.
        before: Called ahead of a call; may return other `(args, kwargs)`.
        after: Called behind it; may return another output.
        always: Call `after` behind calls that raise, too.
    """
    with ExitStack() as held:
        for key, module in modules:
            if before is not None:
                handle = module.register_forward_pre_hook(
                    partial(_ahead, key, before), with_kwargs=True
                )
                held.callback(handle.remove)
            if after is not None:
                handle = module.register_forward_hook(
                    partial(_behind, key, after), with_kwargs=True, always_call=always
                )
                held.callback(handle.remove)
        yield


def _ahead(
    key: Key, look: Look[Key], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return look(ModuleCall(key, module, args, kwargs))


def _behind(
    key: Key,
    look: Look[Key],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
) -> Any:
    return look(ModuleCall(key, module, args, kwargs, out))
