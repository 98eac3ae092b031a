from __future__ import annotations

import collections
import io
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import CorruptFile, Unsupported
from vestige.models.unpickle import machine
from vestige.models.unpickle.machine import Called, Expected, Name, PersistentId, read_pickle

NOTHING = Expected(frozenset(), frozenset())
SOME = Expected(
    frozenset({"builtins.complex", "__builtin__.complex", "builtins.set"}), frozenset({"collections.OrderedDict"})
)

_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
_KEYS = st.text(max_size=4) | st.integers() | st.none()
VALUES = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(_KEYS, inner, max_size=5) | st.lists(inner, max_size=5).map(tuple)
    ),
    max_leaves=20,
)


def read(content: bytes, expected: Expected = NOTHING) -> Any:
    return read_pickle(io.BytesIO(content), expected, "file").value


@given(VALUES, st.integers(2, 5))
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    if protocol == 2 and b"_codecs" in content:
        with pytest.raises(Unsupported, match=r"_codecs\.encode"):
            read(content)
    else:
        assert read(content) == value


def test_shared_and_cyclic_values_stay_so() -> None:
    shared: list[Any] = [1]
    cycle: list[Any] = [shared, shared]
    cycle.append(cycle)
    found = read(pickle.dumps(cycle))
    assert found[0] is found[1]
    assert found[2] is found
    assert sorted(read(pickle.dumps({3, 1}))) == [1, 3]
    assert sorted(read(pickle.dumps(frozenset({3, 1})))) == [1, 3]


def test_several_pickles_follow_one_another() -> None:
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert read_pickle(file, NOTHING, "file").value == 1
    assert read_pickle(file, NOTHING, "file").value == "two"
    assert file.read() == b"rest"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_calls_are_written_down_and_not_made(protocol: int) -> None:
    found = read(pickle.dumps(complex(1, 2), protocol), SOME)
    assert isinstance(found, Called)
    name = "__builtin__.complex" if protocol == 2 else "builtins.complex"
    assert (found.dotted, found.args, found.state) == (name, (1.0, 2.0), None)
    assert read(pickle.dumps(complex, protocol), SOME) == Name(name)
    ordered = collections.OrderedDict(a=1, b=[2])
    assert read(pickle.dumps(ordered, protocol), SOME) == {"a": 1, "b": [2]}
    assert type(read(pickle.dumps(ordered, protocol), SOME)) is dict


class Reference(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return ("storage", obj.__class__.__name__) if isinstance(obj, complex) else None


def test_references_are_listed_in_order() -> None:
    file = io.BytesIO()
    Reference(file, 4).dump([complex(1), complex(2)])
    said = read_pickle(io.BytesIO(file.getvalue()), NOTHING, "file")
    assert all(isinstance(item, PersistentId) for item in said.value)
    assert [item.value for item in said.references] == [("storage", "complex")] * 2


class Evil:
    """Executes a command where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [1, {"a": (x,)}], lambda x: (x, x)], ids=["", "deep", "twice"])
def test_nothing_is_executed(protocol: int, wrap: Any, tmp_path: Path) -> None:
    import os

    mark = tmp_path / "executed"
    for call, name in (
        ((os.system, (f"touch {mark}",)), r"(posix|nt)\.system"),
        ((eval, (f"open({str(mark)!r}, 'w')",)), r"(builtins|__builtin__)\.eval"),
        ((getattr, (os, "system")), r"(builtins|__builtin__)\.getattr"),
    ):
        try:
            content = pickle.dumps(wrap(Evil(*call)), protocol)
        except TypeError:  # a module cannot be pickled, so this one is written by hand
            content = b"\x80\x04cbuiltins\ngetattr\n(cos\nsystem\nX\x01\x00\x00\x00ptR."
        with pytest.raises(Unsupported, match=name) as error:
            read(content, SOME)
        assert "nothing of the file was executed" in error.value.found
        assert not mark.exists()
    pickle.loads(pickle.dumps(wrap(Evil(os.system, (f"touch {mark}",))), protocol))  # the attack itself works
    assert mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0bcomplex.real\x93.",
        b"\x80\x04\x8c\x00\x8c\x10builtins.complex\x93.",
        b"\x80\x04\x8c\x08builtins\x8c\x09complex\x1b[\x93.",
    ],
)
def test_names_are_compared_whole(content: bytes) -> None:
    with pytest.raises(Unsupported, match="is refused") as error:
        read(content, SOME)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "opcode"),
    [
        (b"(S'ls'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cbuiltins\ncomplex\no.", "OBJ"),
        (b"\x82\x01.", "EXT1"),
        (b"cbuiltins\ncomplex\n)}\x92.", "NEWOBJ_EX"),
        (b"Ppid\n.", "PERSID"),
        (b"I1\n.", "INT"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "BYTEARRAY8"),
    ],
)
def test_opcodes_that_no_weights_need_are_refused(content: bytes, opcode: str) -> None:
    with pytest.raises(Unsupported, match=f"opcode {opcode},"):
        read(b"\x80\x04" + content, SOME)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"(.",
        b"((.",
        b"\x80\x04N",
        b"\xff.",
        b"t.",
        b"N0N0.",
        b"0.",
        b"h\x00.",
        b"(\x94.",
        b"(q\x00.",
        b"(2.",
        b"(K\x01K\x02R.",
        b"K\x01)R.",
        b"cbuiltins\ncomplex\nK\x01R.",
        b"cbuiltins\ncomplex\n)RNR.",
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"K\x01}b.",
        b"cbuiltins\ncomplex\n)R}b}b.",
        b"K\x01K\x02a.",
        b"](K\x01u.",
        b"}(K\x01u.",
        b"}]K\x01s.",
        b"}K\x01\x85K\x01s.",
        b"}cbuiltins\ncomplex\n)RK\x01s.",
        b"NN\x93.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"B\xff\xff\xff\x7fa.",
        b"X\xff\xff\xff\xff.",
        b"X\x01\x00\x00\x00\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"\x80\x07N.",
        b"G\x00.",
        b"\x8a\x22" + b"\x01" * 34 + b".",
    ],
)
def test_senseless_programs_are_refused(content: bytes) -> None:
    with pytest.raises((CorruptFile, Unsupported)):
        read(content, SOME)


def test_long_and_deep_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorruptFile, match="open marks"):
        read(b"(" * (machine.DEEPEST + 1))
    assert read(b"(" * machine.DEEPEST + b"N" + b"t" * machine.DEEPEST + b".") is not None
    monkeypatch.setattr(machine, "LONGEST", 100)
    assert read(b"N0" * 49 + b"N.") is None
    with pytest.raises(CorruptFile, match="more than 100 opcodes"):
        read(b"N0" * 50 + b"N.")


def test_a_value_may_be_nested_deeper_than_pythons_stack_reaches() -> None:
    depth = 5000
    found, levels = read(b"]" * depth + b"a" * (depth - 1) + b"."), 0
    while found:
        found, levels = found[0], levels + 1
    assert levels == depth - 1
    # The hash of such a tuple would descend into it.
    with pytest.raises(CorruptFile, match="keys are not plain"):
        read(b"})" + b"\x85" * depth + b"Ns.")


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_typed_error(content: bytes) -> None:
    for start in (b"", b"\x80\x04"):
        try:
            read(start + content, SOME)
        except (CorruptFile, Unsupported):
            continue


_RICH = pickle.dumps(
    {"a": [1, 2.5, "text", b"bytes", (None, True)], "b": collections.OrderedDict(x=complex(1, 2)), "c": 2**70}, 4
)


@given(st.lists(st.tuples(st.integers(0, len(_RICH) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_pickles_give_a_value_or_a_typed_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(_RICH)
    for place, value in changes:
        content[place] = value
    try:
        read(bytes(content), SOME)
    except (CorruptFile, Unsupported):
        return


def test_no_beginning_of_a_pickle_is_taken_for_a_whole_one() -> None:
    for length in range(len(_RICH)):
        with pytest.raises(CorruptFile):
            read(_RICH[:length], SOME)


def test_numbers_keep_every_bit() -> None:
    assert math.isnan(read(pickle.dumps(float("nan"))))
    assert read(b"G" + struct.pack(">d", 0.1) + b".") == 0.1
