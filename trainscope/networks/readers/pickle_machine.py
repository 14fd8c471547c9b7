"""A pickle, carried out opcode by opcode, without running anything that it names.

Python's and torch's unpicklers trust a file with more than code: the hash of a tuple of tuples, a
codec, a memo number or a class's attributes can each take all time or memory. Here a pickle makes
plain values, tensors that are views of its file, and stand-ins for every class and function. Each
opcode costs a bounded time, and whatever copies is charged to a budget that the file's size sets.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from typing import IO, Any

from trainscope.errors import CheckpointError
from trainscope.networks.readers.inert import Inert, Named
from trainscope.networks.readers.numpy_values import STAND_INS, Array, Dtype
from trainscope.networks.readers.pickled_values import FROM_TYPE, PLAIN, SIZED, Table, checked_key
from trainscope.networks.readers.tensors import TENSOR_MAKERS, Storage

MOST_OPCODES = 2_000_000
"""The optimizer of a network of a thousand layers takes some hundred thousand."""

MOST_TENSORS = 200_000

_LEAST = 1_000_000

_PUSHED = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"}
)
_ROOTS = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Machine:
    """The state of one pickle being read.

    Args:
        stream: At the pickle's start; left behind its end.
        size: The bytes of the file, which bound what is copied.
        storage: Returns the storage of a persistent id.

    Attributes:
        names: Every class and function named so far, in order, by "module.name".
    """

    def __init__(
        self, stream: IO[bytes], size: int, storage: Callable[[tuple[Any, ...]], Storage]
    ) -> None:
        self._stream, self._storage = stream, storage
        self._left = 16 * size + _LEAST
        self._tensors = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.names: dict[str, Named] = {}

    def run(self) -> object:
        """Return what the pickle makes.

        Raises:
            CheckpointError: It asks for more than a file of its size may.
            Exception: Of any kind, where it is damaged.
        """
        steps = {name: getattr(self, f"_{name.lower()}", None) for name in _names_of_opcodes()}
        for count, (opcode, arg, _) in enumerate(pickletools.genops(self._stream)):
            if count > MOST_OPCODES:
                raise CheckpointError(
                    f"the file pickles more than {MOST_OPCODES:,} things; no network has so many"
                )
            if opcode.name in _PUSHED:
                self._stack.append(arg)
                continue
            step = steps[opcode.name]
            if step is None:
                raise ValueError(f"the opcode {opcode.name} is not taken")
            step(arg)
        return self._stack.pop()

    def _charge(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise CheckpointError(
                "the file copies its objects over and over; it was not written by torch.save"
            )

    # What only moves things.

    def _proto(self, arg: int) -> None:
        if arg > 5:
            raise ValueError("an unknown protocol")

    def _frame(self, _: object) -> None:
        pass

    def _stop(self, _: object) -> None:
        pass

    def _mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _above_mark(self) -> list[Any]:
        above, self._stack = self._stack, self._below.pop()
        return above

    def _pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._above_mark()

    def _pop_mark(self, _: object) -> None:
        self._above_mark()

    def _dup(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, arg: Any) -> None:
        self._memo[int(arg)] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, arg: Any) -> None:
        self._stack.append(self._memo[int(arg)])

    _binget = _long_binget = _get

    # What makes plain values.

    def _none(self, _: object) -> None:
        self._stack.append(None)

    def _newtrue(self, _: object) -> None:
        self._stack.append(True)

    def _newfalse(self, _: object) -> None:
        self._stack.append(False)

    def _empty_tuple(self, _: object) -> None:
        self._stack.append(())

    def _tuple1(self, _: object) -> None:
        self._last_as_tuple(1)

    def _tuple2(self, _: object) -> None:
        self._last_as_tuple(2)

    def _tuple3(self, _: object) -> None:
        self._last_as_tuple(3)

    def _last_as_tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("the stack is empty")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _tuple(self, _: object) -> None:
        above = self._above_mark()
        self._stack.append(tuple(above))

    def _empty_list(self, _: object) -> None:
        self._stack.append([])

    def _list(self, _: object) -> None:
        above = self._above_mark()
        self._stack.append(above)

    def _empty_dict(self, _: object) -> None:
        self._stack.append({})

    def _dict(self, _: object) -> None:
        above = self._above_mark()
        self._stack.append(self._filled({}, above))

    def _empty_set(self, _: object) -> None:
        self._stack.append(set())

    def _frozenset(self, _: object) -> None:
        above = self._above_mark()
        self._stack.append(frozenset(map(checked_key, above)))

    def _additems(self, _: object) -> None:
        above = self._above_mark()
        if not isinstance(self._stack[-1], set):
            raise ValueError("items for what is no set")
        self._stack[-1].update(map(checked_key, above))

    def _append(self, _: object) -> None:
        value = self._stack.pop()
        self._extend([value])

    def _appends(self, _: object) -> None:
        above = self._above_mark()
        self._extend(above)

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Inert):
            for value in values:
                target.items[len(target.items)] = value
        else:
            raise ValueError("items for what is no list")

    def _setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._into(self._stack[-1], [key, value])

    def _setitems(self, _: object) -> None:
        above = self._above_mark()
        self._into(self._stack[-1], above)

    def _into(self, target: object, row: list[Any]) -> None:
        if not isinstance(target, dict | Inert):
            raise ValueError("items for what is no dictionary")
        self._filled(target.items if isinstance(target, Inert) else target, row)

    @staticmethod
    def _filled(target: dict[Any, Any], row: list[Any]) -> dict[Any, Any]:
        for key, value in zip(row[::2], row[1::2], strict=True):
            target[checked_key(key)] = value
        return target

    # What names classes and functions.

    def _global(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._stack.append(self._named(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._named(module, name))

    def _named(self, module: object, name: object) -> Named:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no word")
        full = f"{_ROOTS.get(module, module)}.{name}"
        self._charge(len(full))
        return self.names.setdefault(full, Named(full))

    def _reduce(self, _: object) -> None:
        given, maker = self._stack.pop(), self._stack.pop()
        self._stack.append(self._made(maker, given))

    _newobj = _reduce

    def _newobj_ex(self, _: object) -> None:
        self._stack.pop()  # arguments by name, of which nothing here is made
        self._reduce(None)

    def _inst(self, arg: str) -> None:
        given = tuple(self._above_mark())
        self._global(arg)
        self._stack.append(self._made(self._stack.pop(), given))

    def _obj(self, _: object) -> None:
        maker, *given = self._above_mark()
        self._stack.append(self._made(maker, tuple(given)))

    def _made(self, maker: object, given: object) -> object:
        if not isinstance(maker, Named) or not isinstance(given, tuple):
            raise ValueError("a call of what is no function")
        if maker.name in FROM_TYPE:  # func, class, arguments of func, attributes
            return self._made(given[0], given[2])
        if maker.name in TENSOR_MAKERS:
            self._tensors += 1
            if self._tensors > MOST_TENSORS:
                raise CheckpointError(
                    f"the file has more than {MOST_TENSORS:,} tensors; no network has so many"
                )
            return TENSOR_MAKERS[maker.name](*given)
        if maker.name in STAND_INS:
            return STAND_INS[maker.name](*given)
        make = PLAIN.get(maker.name)
        if make is None:
            return Inert(maker.name, given)
        self._charge(sum(len(each) for each in given if isinstance(each, SIZED)))
        return make(*given)

    def _build(self, _: object) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Inert):
            if isinstance(state, tuple):
                self._charge(sum(len(each) for each in state if isinstance(each, dict)))
            target.set(state)
        elif isinstance(target, Dtype):
            target.__setstate__(state)
        elif isinstance(target, Array):
            target.keep(state)
        elif not isinstance(target, Table):  # attributes beside their items are not kept
            raise ValueError("attributes for what has none")

    def _persid(self, _: object) -> None:
        raise ValueError("a storage is no word")

    def _binpersid(self, _: object) -> None:
        pid = self._stack.pop()
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise ValueError("an unknown persistent id")
        if pid[0] == "module":  # older files put a class's source beside it, which is not read
            self._stack.append(pid[1])
        elif pid[0] == "storage" and len(pid) >= 5:
            self._stack.append(self._storage(pid))
        else:
            raise ValueError("an unknown persistent id")


def _names_of_opcodes() -> Iterable[str]:
    return (opcode.name for opcode in pickletools.opcodes)
