"""What every place that holds weights can do: name its tensors and read one, or some rows of one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_json
from vestige.errors import BadWeights, InvalidInput, NotFound

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor before it is read.

    ``dtype`` is the name of its format, such as ``F32``, ``BF16`` or ``Q4_1``; ``size`` counts its stored bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int


class WeightSource(ABC):
    """Named tensors that are read when they are asked for and kept by nobody.

    No file stays open between two calls, and no more memory is taken than the answer and a window of a few megabytes.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """What the files say beside their tensors: plain values, and tuples of them."""

    @abstractmethod
    def entry(self, name: str) -> Entry:
        """Shape, format and size of a tensor. Raises NotFound."""

    @abstractmethod
    def read(self, name: str, rows: IndexArray | None = None) -> FloatArray:
        """A tensor as float32, or these rows of it, in the order asked for and with repetitions.

        Parameters
        ----------
        name : one of ``names``.
        rows : indices [k] along the first axis, each in [0, n); the answer is [k, ...]. The rest is not read.

        Raises
        ------
        NotFound : there is no such tensor, or its file is gone. BadWeights : it holds NaN or infinity.
        InvalidInput : a row lies outside. CorruptFile : its file has changed since it was opened.
        Unsupported : its format cannot be turned into numbers. MissingExtra : that needs the package gguf.
        """

    @abstractmethod
    def stored(self, name: str) -> Iterator[bytes]:
        """The stored bytes of a tensor, in pieces. Raises NotFound and CorruptFile."""

    def tensor_digest(self, name: str) -> str:
        """SHA-256 of the stored bytes of a tensor. Raises NotFound and CorruptFile."""
        sha = hashlib.sha256()
        for piece in self.stored(name):
            sha.update(piece)
        return sha.hexdigest()

    @property
    def digest(self) -> str:
        """Identifies names, formats, shapes and bytes of all tensors, however they are spread over files.

        Every byte is read, each time it is asked for. Raises CorruptFile.
        """
        entries = ((name, self.entry(name)) for name in self.names)
        return digest_json([[name, e.dtype, list(e.shape), self.tensor_digest(name)] for name, e in entries])


def checked_rows(name: str, shape: tuple[int, ...], rows: IndexArray) -> IndexArray:
    """``rows`` as int64 [k], each within the first axis of ``shape``. Raises InvalidInput."""
    given: npt.NDArray[Any] = np.asarray(rows)
    if given.ndim != 1 or not (given.dtype.kind in "iu" or given.size == 0):
        raise InvalidInput(
            f"Rows of {name} were asked for by an array of {given.dtype} with shape {given.shape}.",
            expected="a list of whole numbers.",
            remedy="give the indices of the rows.",
        )
    if not shape:
        raise InvalidInput(f"{name} is a single number.", expected="a tensor with rows.", remedy="read it whole.")
    count = shape[0]
    if given.size and (int(given.min()) < 0 or int(given.max()) >= count):
        raise InvalidInput(
            f"Rows {int(given.min())} to {int(given.max())} of {name} were asked for.",
            expected=f"rows from 0 to {count - 1}, of which it has {count}.",
            remedy="ask for rows that it has.",
        )
    return given.astype(np.int64, copy=False)


def no_such_tensor(name: str, where: str) -> NotFound:
    """The error for a name that a source does not have."""
    return NotFound(
        f"There is no tensor {name!r} in {where}.",
        expected="a name that it has.",
        remedy="look at its names; the weights may be of another architecture.",
    )


def finite(numbers: FloatArray, name: str, where: str) -> None:
    """Raise BadWeights if a number is NaN or infinite as float32."""
    if not np.isfinite(numbers).all():
        raise BadWeights(
            f"The tensor {name!r} of {where} holds NaN or infinity.",
            expected="weights that are finite as 32-bit floats.",
            remedy="fetch or save the file again; if training diverged, take an earlier checkpoint.",
        )
