"""Strict binary files: a magic word, a version, fields of fixed or stated length, and nothing after them.

Numbers are unsigned and big-endian unless said otherwise. A reader holds all bytes before it starts, checks every
length against what is left before it takes it, and never allocates by a number that it has read alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vestige.errors import CorruptFile
from vestige.fingerprint.proof.group import ORDER, POINT_BYTES, SCALAR_BYTES, Point, decode, encode

VERSION = 1
MAGIC_BYTES = 8
SIGNED_BYTES = 16


def corrupt(name: str, what: str) -> CorruptFile:
    """The error of a malformed file."""
    return CorruptFile(
        f"{name} {what}.", expected="the whole file as vestige wrote it.", remedy="ask for the file again."
    )


class Writer:
    """Bytes of one file."""

    def __init__(self, magic: bytes) -> None:
        self._parts = [magic, VERSION.to_bytes(2, "big")]

    def number(self, value: int, length: int = 4) -> None:
        """An unsigned number."""
        self._parts.append(value.to_bytes(length, "big"))

    def signed(self, value: int) -> None:
        """A signed number of 16 bytes."""
        self._parts.append(value.to_bytes(SIGNED_BYTES, "big", signed=True))

    def raw(self, data: bytes) -> None:
        """Bytes whose number the reader knows."""
        self._parts.append(data)

    def text(self, words: str) -> None:
        """A string behind its length in bytes."""
        data = words.encode("utf-8", "surrogatepass")
        self.number(len(data), 2)
        self.raw(data)

    def points(self, points: Sequence[Point]) -> None:
        """Points whose number the reader knows."""
        self._parts += [encode(point) for point in points]

    def scalars(self, scalars: Sequence[int]) -> None:
        """Scalars of [0, ORDER)."""
        self._parts += [scalar.to_bytes(SCALAR_BYTES, "big") for scalar in scalars]

    def whole(self) -> bytes:
        """Everything written."""
        return b"".join(self._parts)


class Reader:
    """Takes a file apart; every method raises CorruptFile where the bytes are not what they should be."""

    def __init__(self, data: bytes, magic: bytes, name: str) -> None:
        self._data, self._at, self._name = data, 0, name
        if self.raw(MAGIC_BYTES) != magic:
            raise corrupt(name, "is another kind of file")
        found = self.number(1, 0xFFFF, 2)
        if found != VERSION:
            raise corrupt(name, f"has version {found} and this vestige reads {VERSION}")

    def raw(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > len(self._data) - self._at:
            raise corrupt(self._name, "ends too early")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, least: int, most: int, length: int = 4) -> int:
        """An unsigned number of this range."""
        value = int.from_bytes(self.raw(length), "big")
        if not least <= value <= most:
            raise corrupt(self._name, f"states {value} where {least} to {most} is possible")
        return value

    def signed(self) -> int:
        """A signed number of 16 bytes."""
        return int.from_bytes(self.raw(SIGNED_BYTES), "big", signed=True)

    def text(self) -> str:
        """A string behind its length."""
        data = self.raw(self.number(0, 0xFFFF, 2))
        try:
            words = data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise corrupt(self._name, "holds text that is not UTF-8") from error
        if words.encode("utf-8", "surrogatepass") != data:
            raise corrupt(self._name, "holds text that is not UTF-8")
        return words

    def array(self, dtype: str, shape: tuple[int, int]) -> npt.NDArray[np.signedinteger]:
        """An array of integers."""
        kind = np.dtype(dtype)
        data = self.raw(shape[0] * shape[1] * kind.itemsize)
        return np.frombuffer(data, kind).reshape(shape)

    def points(self, count: int) -> tuple[Point, ...]:
        """``count`` points, each checked."""
        data = self.raw(count * POINT_BYTES)
        return tuple(decode(data[at : at + POINT_BYTES], self._name) for at in range(0, len(data), POINT_BYTES))

    def scalars(self, count: int) -> tuple[int, ...]:
        """``count`` scalars of [0, ORDER)."""
        data = self.raw(count * SCALAR_BYTES)
        found = tuple(int.from_bytes(data[at : at + SCALAR_BYTES], "big") for at in range(0, len(data), SCALAR_BYTES))
        if any(scalar >= ORDER for scalar in found):
            raise corrupt(self._name, "holds a scalar that is not reduced")
        return found

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise corrupt(self._name, f"goes on for {len(self._data) - self._at} bytes after its end")
