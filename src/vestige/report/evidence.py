"""The pictures of a run, kept apart from its record: pairs of generated and training images, and strips.

A record holds hashes and distances only, so it can be shared when the images must not be. The pictures live
beside it in ``evidence.npz``, a plain NumPy archive that is read with ``allow_pickle=False``.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.errors import CorruptFile, InvalidInput, NotFound, ShapeMismatch
from vestige.store import write_bytes

Pixels = npt.NDArray[np.uint8]

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Picture:
    """A generated image beside the training image that it matches.

    Parameters
    ----------
    generated, training : ``uint8 [h, w, c]`` of one shape, c = 1 (grey), 3 (RGB) or 4 (RGBA).
    label : a short name for the training image, shown under the pair.

    Raises
    ------
    InvalidInput : wrong type or number of dimensions. ShapeMismatch : the two shapes differ.
    """

    generated: Pixels
    training: Pixels
    label: str

    def __post_init__(self) -> None:
        _check(self.generated, 3, "Picture.generated")
        _check(self.training, 3, "Picture.training")
        if self.generated.shape != self.training.shape:
            raise ShapeMismatch(
                f"The generated image is {self.generated.shape}, the training image {self.training.shape}.",
                expected="two images of one shape [h, w, c].",
                remedy="pass the training image at the size at which the model was trained.",
            )


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of small images, such as the same seeds before or after an erasure.

    Strips of one section are drawn below each other with their columns aligned.

    Parameters
    ----------
    title : what the row shows. images : ``uint8 [n, h, w, c]``. caption : a sentence below the row.
    """

    title: str
    images: Pixels
    caption: str = ""

    def __post_init__(self) -> None:
        _check(self.images, 4, "Strip.images")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pictures by :attr:`vestige.record.Match.picture` and strips by section name."""

    pairs: Mapping[int, Picture] = field(default_factory=dict[int, Picture])
    strips: Mapping[str, Sequence[Strip]] = field(default_factory=dict[str, Sequence[Strip]])

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz``, replacing it whole (StorageFailed if it cannot be written)."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for index, pair in sorted(self.pairs.items()):
            arrays[f"pair/{index}/generated"] = pair.generated
            arrays[f"pair/{index}/training"] = pair.training
            arrays[f"pair/{index}/label"] = _text(pair.label)
        flat = [(section, strip) for section, strips in self.strips.items() for strip in strips]
        for index, (section, strip) in enumerate(flat):
            arrays[f"strip/{index}/images"] = strip.images
            for key, value in (("section", section), ("title", strip.title), ("caption", strip.caption)):
                arrays[f"strip/{index}/{key}"] = _text(value)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for key, array in arrays.items():
                # A ZipInfo without a date keeps the file the same from run to run.
                entry = zipfile.ZipInfo(f"{key}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read what :meth:`save` wrote.

        Raises
        ------
        NotFound : there is no such file. CorruptFile : it is not an evidence file; nothing in it is executed.
        """
        if not path.is_file():
            raise NotFound(
                f"There is no {path}.",
                expected="the evidence.npz that a run leaves beside report.json.",
                remedy="give the folder of a run that kept its pictures, or run it again.",
            )
        try:
            arrays = _read(path)
            return cls(pairs=_pairs(arrays), strips=_strips(arrays))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"has no entry {error}" if isinstance(error, KeyError) else str(error)
            raise _corrupt(path, reason) from error
        except (InvalidInput, ShapeMismatch) as error:
            raise _corrupt(path, error.found) from error


def _check(images: npt.NDArray[Any], dimensions: int, name: str) -> None:
    shape = "[h, w, c]" if dimensions == 3 else "[n, h, w, c]"
    # Annotations do not bind a caller, and a float image would be drawn black.
    if images.dtype != np.uint8 or images.ndim != dimensions or images.shape[-1] not in _CHANNELS or images.size == 0:
        raise InvalidInput(
            f"{name} is {images.dtype} {list(images.shape)}.",
            expected=f"uint8 {shape} with 1, 3 or 4 channels and at least one pixel.",
            remedy="map [-1, 1] to [0, 255], round, and move channels last.",
        )


def _text(value: str) -> npt.NDArray[Any]:
    return np.array(value, dtype=np.str_)


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise ValueError("holds a single array")
    with loaded:
        return {key: loaded[key] for key in loaded.files}


def _pixels(arrays: Mapping[str, npt.NDArray[Any]], key: str, dimensions: int) -> Pixels:
    # Checked here already, so that the message names the entry of the file.
    _check(arrays[key], dimensions, key)
    return arrays[key]


def _pairs(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[int, Picture]:
    indices = sorted({int(key.split("/")[1]) for key in arrays if key.startswith("pair/")})
    return {
        i: Picture(
            generated=_pixels(arrays, f"pair/{i}/generated", 3),
            training=_pixels(arrays, f"pair/{i}/training", 3),
            label=str(arrays[f"pair/{i}/label"]),
        )
        for i in indices
    }


def _strips(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[Strip]]:
    strips: dict[str, list[Strip]] = {}
    for i in sorted({int(key.split("/")[1]) for key in arrays if key.startswith("strip/")}):
        prefix = f"strip/{i}"
        strip = Strip(
            title=str(arrays[f"{prefix}/title"]),
            images=_pixels(arrays, f"{prefix}/images", 4),
            caption=str(arrays[f"{prefix}/caption"]),
        )
        strips.setdefault(str(arrays[f"{prefix}/section"]), []).append(strip)
    return strips


def _corrupt(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is not an evidence file: {reason}.",
        expected="a NumPy archive of pair/* and strip/* arrays as Evidence.save writes it.",
        remedy="run the command again to make the file anew.",
    )
