"""Reading a user's images: a folder, an ``.npz`` or a Hugging Face dataset on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vestige.data.images import ImageSet
from vestige.dependencies import need
from vestige.errors import CorruptFile, EmptySet, InvalidInput, NotFound, ShapeMismatch

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_IMAGE_KEYS = ("images", "pixels", "samples", "arr_0", "x")
_LABEL_KEYS = ("labels", "label", "y", "arr_1")


def load_images(path: Path, *, skip_corrupt: bool = False) -> tuple[ImageSet, tuple[str, ...]]:
    """Images at ``path`` and the names of files that were skipped.

    A folder is read recursively in name order; when every image lies in a sub-folder, the
    sub-folders are the classes, numbered in name order. An ``.npz`` holds ``images``
    [n, h, w], [n, h, w, c] or [n, c, h, w] as uint8, or floats in [0, 1] or [-1, 1], and
    perhaps ``labels``. A folder with ``dataset_info.json`` is a Hugging Face dataset
    (extra ``datasets``). Grey images stay grey; a palette or alpha channel becomes RGB.

    Raises
    ------
    NotFound, EmptySet : nothing there.
    CorruptFile : an image cannot be decoded; the message names it, ``skip_corrupt`` passes over it.
    InvalidInput : an array or image is of a kind that cannot be read as 8-bit pixels, or labels are no numbers.
    ShapeMismatch : images differ in size or colour.
    """
    if not path.exists():
        raise NotFound(
            f"{path} does not exist.", expected="a folder of images or an .npz file.", remedy="check the path."
        )
    if path.is_file():
        if path.suffix != ".npz":
            raise InvalidInput(
                f"{path} is a single file of type {path.suffix or 'unknown'}.",
                expected="a folder of images or an .npz file.",
                remedy="pass the folder that holds the images.",
            )
        return _from_npz(path), ()
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return _from_datasets(path), ()
    return _from_folder(path, skip_corrupt)


def _from_folder(folder: Path, skip_corrupt: bool) -> tuple[ImageSet, tuple[str, ...]]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    images: list[npt.NDArray[np.uint8]] = []
    kept: list[Path] = []
    skipped: list[str] = []
    for file in files:
        try:
            images.append(_decode(file))
            kept.append(file)
        except InvalidInput:
            raise
        except Exception as error:  # decoders raise whatever a broken file leads them to
            if not skip_corrupt:
                raise CorruptFile(
                    f"{file} cannot be decoded as an image ({str(error).splitlines()[0] if str(error) else 'broken'}).",
                    expected="an intact image file.",
                    remedy="repair or remove it, or pass --skip-corrupt to leave such files out (they are named).",
                ) from error
            skipped.append(str(file))
    if not images:
        raise EmptySet(
            f"{folder} holds no readable image.",
            expected=f"files ending in {', '.join(sorted(SUFFIXES))}.",
            remedy="check the path.",
        )
    _check_alike(images, kept)
    relative = [p.relative_to(folder) for p in kept]
    labels = None
    if all(len(p.parts) > 1 for p in relative):
        classes = {name: i for i, name in enumerate(sorted({p.parts[0] for p in relative}))}
        labels = np.array([classes[p.parts[0]] for p in relative], dtype=np.int64)
    return ImageSet(np.stack(images), labels, str(folder), tuple(map(str, relative))), tuple(skipped)


def _decode(file: Path) -> npt.NDArray[np.uint8]:
    with Image.open(file) as image:
        return _array_of(image, str(file))


def _check_alike(images: list[npt.NDArray[np.uint8]], files: list[Path]) -> None:
    for image, file in zip(images, files, strict=True):
        if image.shape != images[0].shape:
            raise ShapeMismatch(
                f"{file} has (channels, height, width) {image.shape}, but {files[0]} has {images[0].shape}.",
                expected="images of one size and colour mode.",
                remedy="bring them to the size the model was trained on.",
            )


def _from_npz(path: Path) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive may raise anything: BadZipFile, zlib.error, EOFError, …
        raise CorruptFile(
            f"{path} cannot be read as .npz ({error}).",
            expected="plain arrays written by numpy.savez.",
            remedy="write the file again; pickled objects are never loaded.",
        ) from error
    key = next((k for k in _IMAGE_KEYS if k in arrays), None)
    if key is None:
        raise InvalidInput(
            f"{path} holds {', '.join(arrays) or 'nothing'}.",
            expected="an array called `images` and perhaps `labels`.",
            remedy="save it with numpy.savez(path, images=..., labels=...).",
        )
    label_key = next((k for k in _LABEL_KEYS if k in arrays), None)
    labels = None if label_key is None else _as_labels(arrays[label_key], f"{path}:{label_key}")
    return ImageSet(as_uint8(arrays[key], f"{path}:{key}"), labels, str(path)).required("to read")


def _as_labels(array: npt.NDArray[Any], source: str) -> npt.NDArray[np.int64]:
    whole = np.issubdtype(array.dtype, np.integer) or (
        np.issubdtype(array.dtype, np.floating) and bool((np.mod(array, 1) == 0).all())
    )
    if whole and array.ndim > 0 and array.size == len(array):
        return array.astype(np.int64).reshape(-1)
    raise InvalidInput(
        f"{source} holds {array.dtype} of shape {array.shape}.",
        expected="one whole number an image.",
        remedy="number the classes from 0.",
    )


def as_uint8(array: npt.NDArray[Any], source: str) -> npt.NDArray[np.uint8]:
    """Bring an image array to uint8 [n, c, h, w]; floats must lie in [0, 1] or [-1, 1].

    Raises
    ------
    InvalidInput : wrong number of dimensions, or values outside every known range.
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = np.moveaxis(array, -1, 1)
    if array.ndim != 4:
        raise InvalidInput(
            f"{source} has shape {array.shape}.",
            expected="[n, h, w], [n, h, w, c] or [n, c, h, w].",
            remedy="reshape it.",
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    numbers = array.size > 0 and np.issubdtype(array.dtype, np.number) and np.isrealobj(array)
    low, high = (float(array.min()), float(array.max())) if numbers else (0.0, 0.0)
    if not np.issubdtype(array.dtype, np.floating) or not -1 <= low <= high <= 1:
        raise InvalidInput(
            f"{source} holds {array.dtype}{f' between {low:g} and {high:g}' if numbers else ''}.",
            expected="uint8, or floats in [0, 1] or [-1, 1].",
            remedy="scale it.",
        )
    unit = array if low >= 0 else (array + 1) / 2
    return np.round(unit * 255).astype(np.uint8)


def _from_datasets(path: Path) -> ImageSet:
    datasets = need("datasets", "datasets")
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # missing or damaged files show in many ways
        raise CorruptFile(
            f"{path} cannot be read as a dataset ({error}).",
            expected="a folder written by datasets' save_to_disk, with at least one row.",
            remedy="save it again.",
        ) from error
    if hasattr(table, "keys"):
        table = table["train"] if "train" in table else table[next(iter(table.keys()))]
    columns = table.column_names
    image_key = next((k for k in ("image", "img", "images") if k in columns), None)
    if image_key is None:
        raise InvalidInput(
            f"{path} has the columns {', '.join(columns)}.",
            expected="a column called image.",
            remedy="rename it with dataset.rename_column.",
        )
    label_key = next((k for k in ("label", "labels") if k in columns), None)
    rows = list(table[image_key])
    odd = next((row for row in rows if not isinstance(row, Image.Image)), None)
    if odd is not None:
        raise InvalidInput(
            f"{path}'s column {image_key} holds {type(odd).__name__}.",
            expected="images.",
            remedy=f"cast it with dataset.cast_column({image_key!r}, datasets.Image()).",
        )
    images = [_array_of(row, f"{path}[{i}]") for i, row in enumerate(rows)]
    if not images:
        raise EmptySet(f"{path} holds no image.", expected="at least one.", remedy="check the dataset.")
    _check_alike(images, [Path(f"{path}[{i}]") for i in range(len(images))])
    labels = None if label_key is None else _as_labels(np.asarray(table[label_key]), f"{path}:{label_key}")
    return ImageSet(np.stack(images), labels, str(path))


def _array_of(image: Image.Image, source: str) -> npt.NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        # Pillow would turn everything above 255 into white.
        raise InvalidInput(
            f"{source} has more than 8 bits a pixel (mode {image.mode}).",
            expected="8 bits a channel.",
            remedy="scale it to 8 bits as was done for training, or pass an .npz of floats in [0, 1].",
        )
    array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
