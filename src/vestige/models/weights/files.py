"""Tensors that lie somewhere in files, mapped into memory a window at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from vestige.errors import CorruptFile, NotFound
from vestige.models.weights.formats import Bytes, Format
from vestige.models.weights.source import (
    Entry,
    FloatArray,
    IndexArray,
    WeightSource,
    checked_rows,
    finite,
    no_such_tensor,
)

_WINDOW = 1 << 20
"""Numbers decoded at a time: 4 MiB of float32."""


@dataclass(frozen=True)
class WeightFile:
    """A regular file, and what tells whether it is still the one whose header was read."""

    path: Path
    size: int
    changed: int

    @staticmethod
    def of(path: Path) -> WeightFile:
        """The file at ``path``, through links. Raises NotFound or CorruptFile."""
        try:
            status = path.stat()
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise NotFound(
                f"There is no file {path} that can be read.",
                expected="a file of weights.",
                remedy="check the path; a part of the model may not have been fetched.",
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFile(
                f"{path} is not a regular file.",
                expected="a file of weights, not a folder or a device.",
                remedy="check the path.",
            )
        return WeightFile(path, status.st_size, status.st_mtime_ns)

    @contextmanager
    def open(self) -> Generator[BufferedReader, None, None]:
        """The open file, if it is still the same. Raises NotFound or CorruptFile."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise NotFound(
                f"{self.path} cannot be opened ({error.strerror}).",
                expected="the file that was there before.",
                remedy="put it back, or open the model again.",
            ) from error
        with file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (self.size, self.changed):
                raise self.corrupt("has changed since its header was read")
            yield file

    def corrupt(self, fault: str) -> CorruptFile:
        """The error that says what is wrong with this file."""
        return CorruptFile(
            f"{self.path} {fault}.",
            expected="a whole file of weights, as it was saved.",
            remedy="fetch or save it again, and open the model again.",
        )


@dataclass(frozen=True)
class Stored:
    """Where a tensor of ``shape`` lies in a file: from byte ``start`` on, in ``format``."""

    file: WeightFile
    start: int
    shape: tuple[int, ...]
    format: Format

    @property
    def elements(self) -> int:
        """Number of its numbers."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Number of its bytes."""
        return self.elements // self.format.elements * self.format.size


@dataclass(frozen=True, eq=False)
class FileWeights(WeightSource):
    """Tensors of one or several files, from :func:`open_weights`.

    Every file is opened, checked to be unchanged, mapped and closed again within each call.
    """

    tensors: Mapping[str, Stored]
    said: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self.tensors))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of GGUF the header's values, of safetensors those under ``__metadata__``."""
        return self.said

    def entry(self, name: str) -> Entry:
        """Shape, format and size of a tensor. Raises NotFound."""
        stored = self._stored(name)
        return Entry(stored.shape, stored.format.name, stored.size)

    def read(self, name: str, rows: IndexArray | None = None) -> FloatArray:
        """A tensor as float32, or rows of it; see :class:`WeightSource`."""
        stored = self._stored(name)
        if rows is None:
            return self._read_all(name, stored)
        rows = checked_rows(name, stored.shape, rows)
        if not rows.size or not stored.elements:
            return np.empty((len(rows), *stored.shape[1:]), np.float32)
        if stored.elements // stored.shape[0] % stored.format.elements:  # rows end within a block
            return self._read_all(name, stored)[rows]
        return self._read_rows(name, stored, rows)

    def stored(self, name: str) -> Iterator[bytes]:
        """The stored bytes of a tensor, in pieces; see :class:`WeightSource`."""
        stored = self._stored(name)
        with stored.file.open() as file:
            for start in range(0, stored.size, _WINDOW):
                yield _map(file, stored, start, min(stored.size, start + _WINDOW)).tobytes()

    def _stored(self, name: str) -> Stored:
        stored = self.tensors.get(name)
        if stored is None:
            raise no_such_tensor(name, _places(self.tensors.values()))
        return stored

    def _read_all(self, name: str, stored: Stored) -> FloatArray:
        out = np.empty(stored.elements, np.float32)
        with stored.file.open() as file:
            _fill(out, file, stored, 0, name)
        return out.reshape(stored.shape)

    def _read_rows(self, name: str, stored: Stored, rows: IndexArray) -> FloatArray:
        shape = stored.shape[1:]
        width, size = prod(shape), stored.size // stored.shape[0]
        out = np.empty((len(rows), width), np.float32)
        order = np.argsort(rows, kind="stable")
        with stored.file.open() as file:
            if width >= _WINDOW:
                for row, place in zip(rows, out, strict=True):
                    _fill(place, file, stored, int(row) * size, name)
                return out.reshape(len(rows), *shape)
            for begin, end in _close_together(rows[order], _WINDOW // width):
                taken = rows[order[begin:end]]
                first, last = int(taken[0]), int(taken[-1])
                raw = _map(file, stored, first * size, (last + 1) * size).reshape(-1, size)
                part = np.empty((end - begin) * width, np.float32)
                _decode(raw[taken - first].reshape(-1), stored, part, name)
                out[order[begin:end]] = part.reshape(-1, width)
        return out.reshape(len(rows), *shape)


def joined(parts: Iterable[FileWeights], said: Mapping[str, Any]) -> FileWeights:
    """All tensors of several files under one name each. Raises CorruptFile where two share a name."""
    tensors: dict[str, Stored] = {}
    for part in parts:
        for name, stored in part.tensors.items():
            if name in tensors:
                raise stored.file.corrupt(f"holds a tensor {name!r} that {tensors[name].file.path.name} holds as well")
            tensors[name] = stored
    return FileWeights(tensors, said)


def _close_together(ascending: IndexArray, reach: int) -> Iterator[tuple[int, int]]:
    """Cut sorted rows into runs of at most ``reach`` that lie less than ``reach`` apart."""
    begin = 0
    while begin < len(ascending):
        end = min(int(np.searchsorted(ascending, ascending[begin] + reach)), begin + reach)
        yield begin, end
        begin = end


def _places(tensors: Iterable[Stored]) -> str:
    return ", ".join(sorted({stored.file.path.name for stored in tensors})) or "files without tensors"


def _fill(out: FloatArray, file: BufferedReader, stored: Stored, start: int, name: str) -> None:
    """Decode what lies from byte ``start`` of a tensor on into ``out``, a window at a time."""
    elements, size = stored.format.elements, stored.format.size
    step = _WINDOW // elements * elements
    for place in range(0, out.size, step):
        part = out[place : place + step]
        begin = start + place // elements * size
        _decode(_map(file, stored, begin, begin + part.size // elements * size), stored, part, name)


def _map(file: BufferedReader, stored: Stored, start: int, end: int) -> Bytes:
    """Bytes ``start`` to ``end`` of a tensor; the mapping goes when the array does."""
    try:
        return np.asarray(np.memmap(file, np.uint8, "r", stored.start + start, (end - start,)))
    except (OSError, ValueError) as error:
        raise stored.file.corrupt(f"cannot be mapped into memory ({error})") from error


def _decode(raw: Bytes, stored: Stored, out: FloatArray, name: str) -> None:
    with np.errstate(all="ignore"):  # what overflows is found next
        out[:] = stored.format.decode(raw)
    finite(out, name, stored.file.path.name)
