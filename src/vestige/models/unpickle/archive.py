"""Files of torch and pickle: what they say, and the tensors in them as arrays of numbers.

Three containers hold weights: a plain pickle in which every storage is a small file of its own (StyleGAN2-ADA), the
older format of ``torch.save`` and the newer one, a zip file. All three are read here without torch, by following
:mod:`~vestige.models.unpickle.machine` and by taking numbers from where they are said to lie, once it is certain
that they lie within the file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vestige.errors import CorruptFile, InvalidInput, NotFound, Unsupported
from vestige.models.unpickle.machine import Called, Expected, Name, PersistentId, damaged, printable, read_pickle

LARGEST = 4 << 30
"""Bytes of a file that is read."""

MOST_AXES = 8
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_KINDS = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
STORAGES = frozenset(f"torch.{name}Storage" for name in (*_KINDS, "BFloat16"))
REBUILD_TENSOR, REBUILD_PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
LOAD_STORAGE = "torch.storage._load_from_bytes"
TENSORS = STORAGES | {REBUILD_TENSOR, REBUILD_PARAMETER, LOAD_STORAGE}
"""Names that tensors need."""

_STORAGES_ONLY = Expected(STORAGES, frozenset())

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """A storage outside a pickle: numpy type of its numbers, key, and how many there are."""

    kind: str
    key: str
    count: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.count * np.dtype(self.kind).itemsize

    @staticmethod
    def read(node: PersistentId, what: str) -> Reference:
        """From the tuple that torch writes: "storage", type, key, device, count, and in the older format no view."""
        value: Any = node.value
        if (
            type(value) is not tuple
            or len(value) not in (5, 6)
            or not isinstance(value[1], Name)
            or type(value[2]) is not str
            or type(value[4]) is not int
            or value[4] < 0
            or (len(value) == 6 and value[5] is not None)
        ):
            raise damaged(what, "a reference that is no storage")
        return Reference(_kind(value[1], what), value[2], value[4])


@dataclass(frozen=True, eq=False)
class Archive:
    """What a file says.

    Parameters
    ----------
    value : its content, as :func:`~vestige.models.unpickle.machine.read_pickle` records it.
    what : its name, for messages.
    storages : numbers outside the pickle, by key.
    """

    value: Any
    what: str
    storages: dict[str, Array]

    def is_tensor(self, node: object) -> bool:
        """Whether a recorded value is a tensor or a parameter."""
        return isinstance(node, Called) and node.dotted in (REBUILD_TENSOR, REBUILD_PARAMETER)

    def tensor(self, node: object) -> Array:
        """The numbers of a recorded tensor, copied.

        Raises
        ------
        CorruptFile : it is no tensor, or reaches beyond its storage. Unsupported : its numbers are bfloat16.
        """
        if isinstance(node, Called) and node.dotted == REBUILD_PARAMETER and node.args:
            node = node.args[0]
        if not isinstance(node, Called) or node.dotted != REBUILD_TENSOR or len(node.args) not in (6, 7):
            raise damaged(self.what, "a tensor was expected")
        where, offset, size, stride = node.args[:4]
        if isinstance(where, PersistentId):
            storage = self.storages.get(Reference.read(where, self.what).key)
        elif isinstance(where, Called) and where.dotted == LOAD_STORAGE and len(where.args) == 1:
            storage = _storage_of_its_own(where.args[0], self.what)
        else:
            storage = None
        if storage is None:
            raise damaged(self.what, "a tensor without a storage")
        return _strided(storage, offset, size, stride, self.what)


def open_archive(path: str | Path, expected: Expected) -> Archive:
    """Read a ``.pkl`` of pickle or a ``.pt`` of torch, whatever its name, without executing anything.

    Raises
    ------
    NotFound : there is no such file. InvalidInput : it is larger than 4 GiB.
    Unsupported : it names a global that is not expected. CorruptFile : it is damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", expected="a .pkl or .pt file.", remedy="check the path.")
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InvalidInput(f"{path} has {size:,} bytes.", expected=f"at most {LARGEST:,}.", remedy="see the file.")
        content = path.read_bytes()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror}).", expected="a file.", remedy="see it.") from error
    wanted = Expected(expected.calls | STORAGES, expected.mappings)
    if content.startswith(b"PK\x03\x04"):
        return _zipped(content, wanted, path.name)
    said = read_pickle(io.BytesIO(content), wanted, path.name)
    if _is(said.value, _MAGIC):
        return _legacy(content, wanted, path.name)
    if said.references:
        raise damaged(path.name, "a reference to something outside a plain pickle")
    return Archive(said.value, path.name, {})


def _is(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _legacy(content: bytes, expected: Expected, what: str) -> Archive:
    """The older format of torch: five pickles one after another, then every storage as its count and its bytes."""
    file = io.BytesIO(content)
    magic, version, about, said, listed = (read_pickle(file, expected, what) for _ in range(5))
    if not _is(magic.value, _MAGIC) or not _is(version.value, _PROTOCOL):
        raise damaged(what, "an unknown version of torch.save")
    if not isinstance(about.value, dict) or cast("dict[str, Any]", about.value).get("little_endian") is not True:
        raise damaged(what, "numbers that are not little-endian")
    if not isinstance(listed.value, list):
        raise damaged(what, "no list of storages")
    known = {found.key: found for found in (Reference.read(node, what) for node in said.references)}
    storages: dict[str, Array] = {}
    for key in cast("list[Any]", listed.value):
        head = file.read(8)
        if type(key) is not str or key not in known or len(head) < 8:
            raise damaged(what, "a list of other storages than those in use")
        if int.from_bytes(head, "little", signed=True) != known[key].count:
            raise damaged(what, "a storage of another length than declared")
        storages[key] = _numbers(content, file.tell(), known[key], what)
        file.seek(known[key].size, io.SEEK_CUR)
    return Archive(said.value, what, storages)


def _zipped(content: bytes, expected: Expected, what: str) -> Archive:
    """The newer format of torch: a zip file, not compressed, of a pickle and one entry a storage."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = {entry.filename.partition("/")[2]: entry for entry in packed.infolist()}
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise damaged(what, "compressed entries, which torch does not write")
            if sum(entry.file_size for entry in packed.infolist()) > len(content):
                raise damaged(what, "entries that overlap")
            if "data.pkl" not in entries:
                raise damaged(what, "no data.pkl")
            if "byteorder" in entries and packed.read(entries["byteorder"]) != b"little":
                raise damaged(what, "numbers that are not little-endian")
            said = read_pickle(io.BytesIO(packed.read(entries["data.pkl"])), expected, what)
            storages: dict[str, Array] = {}
            for found in (Reference.read(node, what) for node in said.references):
                entry = entries.get(f"data/{found.key}")
                if entry is None or entry.file_size != found.size:
                    raise damaged(what, "a storage that is absent or of another length than declared")
                if found.key not in storages:
                    storages[found.key] = _numbers(packed.read(entry), 0, found, what)
    except (zipfile.BadZipFile, zlib.error, struct.error, *_OF_ZIPFILE) as error:
        raise damaged(what, f"not a whole zip file: {type(error).__name__}") from error
    return Archive(said.value, what, storages)


_OF_ZIPFILE = (EOFError, ValueError, IndexError, KeyError, OSError, RuntimeError)
"""What else zipfile raises: RuntimeError for encrypted entries and, as NotImplementedError, for unknown ones."""


def _storage_of_its_own(content: object, what: str) -> Array | None:
    """The storage that a plain pickle holds as the bytes of a file in torch's older format."""
    if not isinstance(content, bytes):
        raise damaged(what, "a storage that is not made of bytes")
    archive = _legacy(content, _STORAGES_ONLY, what)
    if not isinstance(archive.value, PersistentId):
        raise damaged(what, "a storage that is none")
    return archive.storages.get(Reference.read(archive.value, what).key)


def _kind(name: Name, what: str) -> str:
    title = name.dotted.removeprefix("torch.").removesuffix("Storage")
    if title in _KINDS:
        return _KINDS[title]
    raise Unsupported(
        f"{what} holds numbers of type {printable(name.dotted)}.",
        expected=", ".join(_KINDS) + ".",
        remedy="convert them to float32 in the program that made the file.",
    )


def _numbers(content: bytes, start: int, found: Reference, what: str) -> Array:
    """A view of the bytes as the storage's numbers."""
    if start + found.size > len(content):
        raise damaged(what, "a storage that ends beyond the file")
    return np.frombuffer(content, found.kind, found.count, start) if found.count else np.empty(0, found.kind)


def _strided(storage: Array, offset: object, size: object, stride: object, what: str) -> Array:
    """The numbers of a tensor in its storage, copied; each of them lies within it."""
    sizes, strides = _axes(size, what), _axes(stride, what)
    if type(offset) is not int or offset < 0 or len(sizes) != len(strides):
        raise damaged(what, "a tensor whose sizes do not fit together")
    if 0 in sizes:
        return np.empty(sizes, storage.dtype)
    last = offset + sum((count - 1) * step for count, step in zip(sizes, strides, strict=True))
    # More numbers than the storage has would be repetitions, with which a small file could fill any memory.
    if last >= len(storage) or math.prod(sizes) > len(storage):
        raise damaged(what, "a tensor that reaches beyond its storage")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], sizes, steps).copy()


def _axes(value: object, what: str) -> tuple[int, ...]:
    axes = cast("tuple[Any, ...]", value)
    if (
        type(value) is not tuple
        or len(axes) > MOST_AXES
        or not all(type(axis) is int and 0 <= axis <= LARGEST for axis in axes)
    ):
        raise damaged(what, "a tensor whose sizes are none")
    return axes
