"""The header of a GGUF file, checked before anything in it is believed.

The format: magic, version, counts, named values, and the place of every tensor; then the tensors, aligned
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Versions 2 and 3 in little-endian order.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from vestige.errors import CorruptFile, NotFound, Unsupported
from vestige.models.weights.files import FileWeights, Stored, WeightFile, joined
from vestige.models.weights.formats import GGUF

_MAGIC = b"GGUF"
_TEXT, _LIST = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")
_MOST_AXES = 4
_MOST_ELEMENTS = 1 << 60
_LONGEST_NAME = 1 << 16
_MOST_PARTS = 1000
_ALIGNMENT = 32

ALIGNMENT_KEY, PARTS_KEY, PART_KEY = "general.alignment", "split.count", "split.no"


@dataclass(frozen=True)
class Values(Mapping[str, Any]):
    """Named values of a header. Scalars are kept; a list is read from the file, as a tuple, when it is asked for.

    A text that is not UTF-8 keeps its odd bytes as ``\\xNN``.
    """

    file: WeightFile
    places: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        value = self.places[name]
        if not isinstance(value, _ListPlace):
            return value
        with _mapped(self.file) as cursor:
            cursor.at = value.start
            return cursor.list_of(value.kind, value.count)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class _ListPlace:
    kind: int
    count: int
    start: int


def read_gguf(path: Path) -> FileWeights:
    """The tensors of a GGUF file, and of its other parts where ``path`` is one part of several.

    Parts are called ``NAME-00001-of-00003.gguf`` and lie in one folder; the values are those of the first.

    Raises
    ------
    NotFound : the file or another part of it is missing. CorruptFile : a header is damaged.
    Unsupported : version 1, big-endian order, or an unknown quantisation.
    """
    first = _read_part(path)
    count = first.metadata.get(PARTS_KEY, 1)
    if count == 1:
        return first
    parts = [_read_part(other) for other in _other_parts(path, count)]
    for number, part in enumerate(parts):
        if part.metadata.get(PARTS_KEY) != count or part.metadata.get(PART_KEY) != number:
            raise CorruptFile(
                f"Part {number + 1} of {path.name} says that it is another.",
                expected=f"{count} parts of one model, each with its own number.",
                remedy="fetch all parts again.",
            )
    return joined(parts, parts[0].metadata)


def _other_parts(path: Path, count: object) -> list[Path]:
    match = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name)
    if not (isinstance(count, int) and 1 <= count <= _MOST_PARTS) or match is None or int(match[2]) != count:
        raise NotFound(
            f"{path.name} says that it is a part of {count!r}.",
            expected=f"parts named NAME-00001-of-NNNNN.gguf in one folder, at most {_MOST_PARTS}.",
            remedy="give the parts their original names, or merge them with llama-gguf-split.",
        )
    return [path.with_name(f"{match[1]}-{number + 1:05d}-of-{count:05d}.gguf") for number in range(count)]


def _read_part(path: Path) -> FileWeights:
    file = WeightFile.of(path)
    with _mapped(file) as cursor:
        tensor_count, value_count = _counts(cursor)
        values: dict[str, Any] = {}
        for _ in range(value_count):
            name = cursor.name()
            if name in values:
                raise file.corrupt(f"gives the value {name!r} twice")
            values[name] = cursor.value()
        places: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(tensor_count):
            name = cursor.name()
            if name in places:
                raise file.corrupt(f"names the tensor {name!r} twice")
            places[name] = cursor.place(name)
        header_end = cursor.at
    alignment = values.get(ALIGNMENT_KEY, _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise file.corrupt(f"aligns its tensors to {alignment!r}, not to a power of two")
    begin = -(-header_end // alignment) * alignment
    tensors = {name: _stored(file, name, *place, begin, alignment) for name, place in places.items()}
    _without_overlap(tensors, file)
    return FileWeights(tensors, Values(file, values))


def _counts(cursor: _Cursor) -> tuple[int, int]:
    file = cursor.file
    if bytes(cursor.take(4)) != _MAGIC:
        raise file.corrupt("does not begin with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        swapped = version in (2 << 24, 3 << 24)
        raise Unsupported(
            f"{file.path} is a GGUF file of {'big-endian order' if swapped else f'version {version}'}.",
            expected="version 2 or 3 in little-endian order.",
            remedy="convert the model again with a current llama.cpp.",
        )
    return cursor.number("Q"), cursor.number("Q")


def _stored(
    file: WeightFile, name: str, shape: tuple[int, ...], kind: int, offset: int, begin: int, alignment: int
) -> Stored:
    format = GGUF.get(kind)
    if format is None:
        raise Unsupported(
            f"{file.path} stores {name!r} in the format number {kind}.",
            expected=f"one of {', '.join(sorted({each.name for each in GGUF.values()}))}.",
            remedy="take the model in another quantisation, such as Q8_0.",
        )
    if prod(max(1, n) for n in shape) > _MOST_ELEMENTS or (shape[-1] if shape else 1) % format.elements:
        raise file.corrupt(f"claims a shape {list(shape)} for {name!r} that {format.name} cannot have")
    stored = Stored(file, begin + offset, shape, format)
    if offset % alignment or stored.start + stored.size > file.size:
        raise file.corrupt(
            f"puts the {stored.size} bytes of {name!r} at {stored.start}, beyond its {file.size} bytes or unaligned"
        )
    return stored


def _without_overlap(tensors: dict[str, Stored], file: WeightFile) -> None:
    end = 0
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if stored.start < end:
            raise file.corrupt(f"lets {name!r} overlap with another tensor")
        end = stored.start + stored.size


class _mapped:
    """The file as a cursor, for the length of a ``with``."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file

    def __enter__(self) -> _Cursor:
        if not self._file.size:
            raise self._file.corrupt("is empty")
        with self._file.open() as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return _Cursor(self._file, self._map)

    def __exit__(self, *_: object) -> None:
        self._map.close()


@dataclass
class _Cursor:
    """Reads a header value by value; every length is compared with the file before it is used."""

    file: WeightFile
    data: mmap.mmap
    at: int = 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        begin = self._pass(length)
        return self.data[begin : begin + length]

    def number(self, code: str) -> Any:
        """The next number of this struct code."""
        return struct.unpack_from("<" + code, self.data, self._pass(struct.calcsize("<" + code)))[0]

    def name(self) -> str:
        """The next text, as a name."""
        length = self.number("Q")
        if length > _LONGEST_NAME:
            raise self.file.corrupt(f"has a name of {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise self.file.corrupt("has a name that is not UTF-8") from error

    def value(self) -> Any:
        """The next named value; of a list only its place."""
        kind = self.number("I")
        if kind != _LIST:
            return self._scalar(kind)
        kind, count = self.number("I"), self.number("Q")
        place = _ListPlace(kind, count, self.at)
        if kind == _TEXT:
            self._pass_texts(count)
        else:
            self._pass(count * struct.calcsize("<" + self._code(kind)))
        return place

    def list_of(self, kind: int, count: int) -> tuple[Any, ...]:
        """The next ``count`` values of one kind, where :meth:`value` has passed before."""
        if kind == _TEXT:
            return tuple(self._scalar(_TEXT) for _ in range(count))
        code = self._code(kind)
        return struct.unpack_from(f"<{count}{code}", self.data, self._pass(count * struct.calcsize("<" + code)))

    def place(self, name: str) -> tuple[tuple[int, ...], int, int]:
        """Shape, format and offset of the next tensor."""
        axes = self.number("I")
        if axes > _MOST_AXES:
            raise self.file.corrupt(f"gives {name!r} {axes} axes, more than {_MOST_AXES}")
        shape = tuple(self.number("Q") for _ in range(axes))
        return shape[::-1], self.number("I"), self.number("Q")

    def _scalar(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.take(self.number("Q")).decode(errors="backslashreplace")
        return self.number(self._code(kind))

    def _code(self, kind: int) -> str:
        code = _SCALARS.get(kind)
        if code is None:
            raise self.file.corrupt(f"has a value of the unknown kind {kind}")
        return code

    def _pass_texts(self, count: int) -> None:
        """Go on by ``count`` texts; vocabularies have hundreds of thousands."""
        at, last, data, length = self.at, self.file.size - 8, self.data, _LENGTH.unpack_from
        for _ in range(count):
            if at > last:
                raise self._too_short(at + 8)
            at += 8 + length(data, at)[0]
        self._pass(at - self.at)

    def _pass(self, length: int) -> int:
        """Go on by ``length`` bytes and say where they begin."""
        begin = self.at
        if length > self.file.size - begin:
            raise self._too_short(begin + length)
        self.at = begin + length
        return begin

    def _too_short(self, needed: int) -> CorruptFile:
        return self.file.corrupt(f"ends within its header, which claims {needed} bytes of {self.file.size}")
