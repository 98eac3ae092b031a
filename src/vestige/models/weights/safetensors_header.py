"""Files of safetensors and their index, checked before anything in them is believed.

The format: eight bytes with the length of a JSON object, the object, and the tensors one after the other without
gaps (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Any, cast

from vestige.errors import NotFound, Unsupported
from vestige.models.weights.files import FileWeights, Stored, WeightFile, joined
from vestige.models.weights.formats import SAFETENSORS

_LONGEST_HEADER = 100_000_000
"""Bytes of a header or an index; the format's own limit."""

_MOST_AXES = 8
_MOST_ELEMENTS = 1 << 60


def read_safetensors(path: Path) -> FileWeights:
    """The tensors of one file; only its header is read.

    Raises
    ------
    NotFound : there is no file. CorruptFile : its header is no table of tensors that fill the file without gap or
        overlap. Unsupported : a tensor is stored in four or six bits or as complex numbers.
    """
    file = WeightFile.of(path)
    with file.open() as opened:
        length = int.from_bytes(opened.read(8), "little")
        if file.size < 8 or length > min(_LONGEST_HEADER, file.size - 8):
            raise file.corrupt(f"has {file.size} bytes and claims a header of {length}")
        header = _parse(opened.read(length), file)
    said = header.pop("__metadata__", {})
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in cast("dict[str, Any]", said).values()):
        raise file.corrupt("has metadata that are not a table of texts")
    begin = 8 + length
    tensors = {name: _place(name, value, file, begin) for name, value in header.items()}
    _without_gaps(tensors, file, begin)
    return FileWeights(tensors, MappingProxyType(cast("dict[str, Any]", said)))


def read_index(path: Path) -> FileWeights:
    """The tensors of all files that an index (``model.safetensors.index.json``) names, which lie beside it.

    A file is named by its plain name: a name with a folder, or one that leads out of the index's own folder, is
    refused. Links are followed, since the cache of the Hugging Face hub is made of them.

    Raises
    ------
    NotFound : the index or a file that it names is missing. CorruptFile : a file is damaged, a tensor is not in the
        file that the index says, or in two of them, or a name is not plain.
    """
    index = WeightFile.of(path)
    if index.size > _LONGEST_HEADER:
        raise index.corrupt(f"has {index.size} bytes, too many for an index")
    with index.open() as opened:
        content = _parse(opened.read(), index)
    where = content.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise index.corrupt("has no 'weight_map' that says which file holds which tensor")
    places = cast("dict[str, Any]", where)
    for name in places.values():
        _plain_name(name, index)
    weights = joined((_part(path.parent / name, index) for name in _distinct(places.values())), _said(content))
    for tensor, name in places.items():
        found = weights.tensors.get(tensor)
        if found is None or found.file.path.name != name:
            raise index.corrupt(f"says that {name} holds a tensor {tensor!r}, which it does not")
    return weights


def _distinct(names: Iterable[str]) -> list[str]:
    return sorted(set(names))


def _said(content: dict[str, Any]) -> MappingProxyType[str, Any]:
    said = content.get("metadata")
    return MappingProxyType(cast("dict[str, Any]", said) if isinstance(said, dict) else {})


def _part(path: Path, index: WeightFile) -> FileWeights:
    try:
        return read_safetensors(path)
    except NotFound as error:
        raise NotFound(
            f"{index.path.name} names {path.name}, which is not beside it.",
            expected="all parts of the model in one folder.",
            remedy="fetch the missing part.",
        ) from error


def _plain_name(name: object, index: WeightFile) -> None:
    plain = isinstance(name, str) and name.endswith(".safetensors") and "\0" not in name
    if not plain or PureWindowsPath(cast("str", name)).name != name:
        raise index.corrupt(f"names the file {str(name)[:200]!r}, which is no plain name of a safetensors file")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        name.encode()  # half a character is an error here, not later
        if name in table:
            raise ValueError(f"{name[:100]!r} is there twice")
        table[name] = value
    return table


def _parse(text: bytes, file: WeightFile) -> dict[str, Any]:
    try:
        content = json.loads(text.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise file.corrupt(f"holds no readable JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict) or not text.startswith(b"{"):
        raise file.corrupt("holds JSON that is not a table")
    return cast("dict[str, Any]", content)


def _place(name: str, value: object, file: WeightFile, begin: int) -> Stored:
    """Where a tensor lies, its extent checked against its shape and the file."""
    said = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    shape, offsets, format = _whole(said.get("shape")), _whole(said.get("data_offsets")), said.get("dtype")
    if shape is None or offsets is None or len(offsets) != 2 or not isinstance(format, str) or len(said) != 3:
        raise file.corrupt(f"does not say dtype, shape and data_offsets of {name[:200]!r} as numbers")
    if format not in SAFETENSORS:
        raise _unknown_format(name, format, file)
    if len(shape) > _MOST_AXES or prod(max(1, n) for n in shape) > _MOST_ELEMENTS:
        raise file.corrupt(f"claims a shape for {name[:200]!r} that no memory holds")
    stored = Stored(file, begin + offsets[0], shape, SAFETENSORS[format])
    if offsets[1] - offsets[0] != stored.size or stored.start + stored.size > file.size:
        raise file.corrupt(
            f"gives {name[:200]!r} bytes {offsets[0]} to {offsets[1]}, but {format} of shape {list(shape)} takes "
            f"{stored.size}, and {file.size - begin} are there"
        )
    return stored


def _unknown_format(name: str, format: str, file: WeightFile) -> Unsupported:
    return Unsupported(
        f"{file.path} gives {name[:200]!r} the format {format[:40]!r}.",
        expected=f"one of {', '.join(SAFETENSORS)}.",
        remedy="save the weights as bfloat16, float16 or float32.",
    )


def _whole(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0 on, or None."""
    if not isinstance(value, list):
        return None
    numbers = cast("list[object]", value)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        return None
    return tuple(cast("list[int]", numbers))


def _without_gaps(tensors: dict[str, Stored], file: WeightFile, begin: int) -> None:
    expected = begin
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if stored.start != expected:
            raise file.corrupt(f"leaves a gap before {name[:200]!r} or lets it overlap with another tensor")
        expected += stored.size
    if expected != file.size:
        raise file.corrupt(f"has {file.size - expected} bytes that belong to no tensor")
