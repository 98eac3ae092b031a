"""A reader of pickles that builds lists, dictionaries and records, and nothing else.

A pickle is a program for a small stack machine. Here its opcodes are decoded by :mod:`pickletools` and followed by
hand: where the program asks for a global, only its name is kept, and only if the caller expects that name; where it
asks to call one, the call is written down as a :class:`Called`. No name is looked up, so there is nothing to exploit.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, cast

from vestige.errors import CorruptFile, Unsupported

LONGEST = 2_000_000
"""Opcodes that a pickle may have; a StyleGAN2 has some ten thousand."""

DEEPEST = 200
"""Marks that may be open at a time."""

PROTOCOLS = range(2, 6)
"""Protocols of pickle that are read; 0 and 1 have no number."""

WIDEST = 256
"""Bits of an integer."""

_KEYS = (str, int, float, bool, bytes, type(None))
"""Types of dictionary keys: nothing whose hash could depend on, or descend into, the file's own structures."""

_SHOWN = 80


@dataclass(frozen=True)
class Name:
    """A global that the pickle refers to, by its dotted name."""

    dotted: str


@dataclass(frozen=True, eq=False)
class PersistentId:
    """Something that the pickle says lies outside it."""

    value: Any


@dataclass(eq=False)
class Called:
    """A call that the pickle asks for, and the state that it wants to give to the result. Neither happens."""

    dotted: str
    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Expected:
    """The globals that a pickle may name.

    Parameters
    ----------
    calls : dotted names that stay names and calls.
    mappings : dotted names of dictionary classes; they become plain dictionaries.
    """

    calls: frozenset[str]
    mappings: frozenset[str]


@dataclass(frozen=True, eq=False)
class Said:
    """What one pickle says: its value, and every reference to something outside it, in order."""

    value: Any
    references: tuple[PersistentId, ...]


class _Mark:
    """Where a run of items begins."""


_MARK: Final = _Mark()


def read_pickle(file: BytesIO, expected: Expected, what: str) -> Said:
    """What the next pickle of a file says; the file is left behind it.

    Parameters
    ----------
    file : in memory, so that a length that the pickle declares allocates nothing by itself.
    what : the file's name, for messages.

    The value is None, bool, int, float, str, bytes, list, tuple, dict, :class:`Name`, :class:`Called` or
    :class:`PersistentId`, nested. Sets become lists. Values may be shared and may contain themselves: follow them to
    a bounded depth.

    Raises
    ------
    Unsupported : it names a global that is not expected, or uses an opcode of which no weights have need.
    CorruptFile : it is cut short, damaged, or has more than 2,000,000 opcodes, 200 open marks or 256 bits a number.
    """
    machine = _Machine(expected, what)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
            if count >= LONGEST:
                raise damaged(what, f"more than {LONGEST:,} opcodes")
            if opcode.name == "STOP":
                return Said(machine.pop(), tuple(machine.references))
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, OverflowError, EOFError) as error:
        raise damaged(what, type(error).__name__) from error
    raise damaged(what, "no end")


def damaged(what: str, reason: str) -> CorruptFile:
    """The error for a file that cannot be followed."""
    return CorruptFile(
        f"{what} is damaged or is no such pickle ({reason}).",
        expected="a whole pickle as torch or pickle writes it, protocol 2 or newer.",
        remedy="download or copy it again.",
    )


def printable(text: str) -> str:
    """A name out of a file, short and without control characters."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


class _Machine:
    """The stack, its marks and the memo."""

    def __init__(self, expected: Expected, what: str) -> None:
        self.expected, self.what = expected, what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.references: list[PersistentId] = []
        self.marks = 0

    def step(self, name: str, argument: Any) -> None:
        """Follow one opcode."""
        if name in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > WIDEST:
                raise damaged(self.what, f"an integer of more than {WIDEST} bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name == "PROTO":
            if argument not in PROTOCOLS:
                raise damaged(self.what, f"protocol {argument}")
        elif name != "FRAME":
            raise Unsupported(
                f"{self.what} uses the pickle opcode {name}, which is refused.",
                expected="the opcodes in which Python and torch write dictionaries and tensors.",
                remedy="where you trust the file, save its weights as safetensors in the program that made it.",
            )

    def pop(self) -> Any:
        """The topmost item."""
        value = self.stack.pop()
        if value is _MARK:
            raise damaged(self.what, "a mark where a value belongs")
        return value

    def top(self) -> Any:
        """The topmost item, left where it is."""
        if self.stack[-1] is _MARK:
            raise damaged(self.what, "a mark where a value belongs")
        return self.stack[-1]

    def popped(self) -> list[Any]:
        """The items above the last mark, which goes with them."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise damaged(self.what, "no mark")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        self.marks -= 1
        return items

    def mark(self, _: Any) -> None:
        self.marks += 1
        if self.marks > DEEPEST:
            raise damaged(self.what, f"more than {DEEPEST} open marks")
        self.stack.append(_MARK)

    def discard(self, _: Any) -> None:
        if self.stack.pop() is _MARK:
            self.marks -= 1

    def repeat(self, _: Any) -> None:
        self.stack.append(self.top())

    def put(self, place: int) -> None:
        self.memo[place] = self.top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, place: int) -> None:
        if place not in self.memo:
            raise damaged(self.what, "a reference to nothing")
        self.stack.append(self.memo[place])

    def some_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise damaged(self.what, "items for something that is no list")
        cast("list[Any]", target).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise damaged(self.what, "entries for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise damaged(self.what, "a dictionary whose keys are not plain")
            target[key] = value

    def name(self, dotted: str) -> None:
        if dotted not in self.expected.calls and dotted not in self.expected.mappings:
            raise Unsupported(
                f"{self.what} names {printable(dotted)}, which is refused; nothing of the file was executed.",
                expected="only what weights are made of: "
                + ", ".join(sorted({*self.expected.calls, *self.expected.mappings}))
                + ".",
                remedy="do not load it in another program unless you trust who made it; "
                "if you do, save its weights as safetensors there.",
            )
        self.stack.append(Name(dotted))

    def global_(self, argument: str) -> None:
        self.name(argument.replace(" ", ".", 1))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise damaged(self.what, "a global whose name is no text")
        self.name(f"{module}.{name}")

    def call(self, _: Any) -> None:
        args, callee = self.pop(), self.pop()
        if not isinstance(callee, Name) or not isinstance(args, tuple):
            raise damaged(self.what, "a call of something that has no name")
        given = cast("tuple[Any, ...]", args)
        if callee.dotted not in self.expected.mappings:
            self.stack.append(Called(callee.dotted, given))
        elif not given:
            self.stack.append({})
        else:
            raise damaged(self.what, "a dictionary made from arguments")

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Called) and target.state is None:
            target.state = state
        elif not isinstance(target, dict):
            # Attributes of a dictionary are dropped: plain dictionaries have none.
            raise damaged(self.what, "a state for something that has none")

    def persistent(self, _: Any) -> None:
        self.references.append(PersistentId(self.pop()))
        self.stack.append(self.references[-1])


_LITERALS: Final[Collection[str]] = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "SHORT_BINBYTES BINBYTES BINBYTES8".split()
)
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": lambda: (),
    "EMPTY_LIST": lambda: [],
    "EMPTY_DICT": lambda: {},
    "EMPTY_SET": lambda: [],
}
_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "POP_MARK": lambda machine, _: machine.popped().clear(),
    "DUP": _Machine.repeat,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE1": lambda machine, _: machine.some_tuple(1),
    "TUPLE2": lambda machine, _: machine.some_tuple(2),
    "TUPLE3": lambda machine, _: machine.some_tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.popped())),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.popped()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.popped()),
    "ADDITEMS": lambda machine, _: machine.append(machine.popped()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.popped()),
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
