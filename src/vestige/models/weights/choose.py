"""From whatever a user has to the reader for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy.typing as npt

from vestige.errors import InvalidInput, NotFound, Unsupported
from vestige.models.weights.files import FileWeights
from vestige.models.weights.gguf_header import read_gguf
from vestige.models.weights.memory import MemoryWeights
from vestige.models.weights.safetensors_header import read_index, read_safetensors
from vestige.models.weights.source import WeightSource

if TYPE_CHECKING:
    from torch import Tensor, nn

    Weights: TypeAlias = str | Path | nn.Module | Mapping[str, Tensor | npt.NDArray[Any]]

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_REMEDY = (
    "where you trust it, load it yourself and save it as safetensors "
    "(model.save_pretrained(folder) in transformers, or safetensors.torch.save_file)."
)


def open_weights(weights: Weights) -> WeightSource:
    """Named tensors of a model, whatever holds it.

    Parameters
    ----------
    weights : a ``.safetensors`` file, an index (``.safetensors.index.json``), a ``.gguf`` file or one of its parts, a
        folder with one of these (``model.safetensors``, else its index, else the only one), a module, or a state dict.

    Raises
    ------
    NotFound : there is no such path, or nothing to read in it. CorruptFile : a file is damaged.
    Unsupported : the weights are only there in a form that might execute code on reading, or in an unknown format.
    InvalidInput : a folder holds several models.
    """
    if isinstance(weights, (str, Path)):
        return _open_path(Path(weights))
    tensors = weights if isinstance(weights, Mapping) else cast("Mapping[str, Tensor]", weights.state_dict())
    return MemoryWeights(tensors)


def _open_path(path: Path) -> FileWeights:
    if path.is_dir():
        return _open_path(_in_folder(path))
    if path.name.endswith(".safetensors.index.json"):
        return read_index(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix == ".gguf":
        return read_gguf(path)
    if not path.exists():
        raise NotFound(
            f"There is no file or folder {path}.",
            expected="a model that is on this machine.",
            remedy="check the path; a model of the Hugging Face hub has to be fetched first.",
        )
    raise Unsupported(
        f"{path} is neither safetensors nor GGUF, and reading it might execute code."
        if path.suffix in _PICKLED
        else f"{path} is neither safetensors nor GGUF.",
        expected="a .safetensors file, its index, a .gguf file, or a folder with one of them.",
        remedy=_REMEDY,
    )


def _in_folder(folder: Path) -> Path:
    for name in (WHOLE, INDEX):
        if (folder / name).exists():
            return folder / name
    files = sorted(folder.glob("*.safetensors.index.json")) or sorted(folder.glob("*.safetensors"))
    files = files or [
        path for path in sorted(folder.glob("*.gguf")) if "-of-" not in path.name or "-00001-of-" in path.name
    ]
    if len(files) == 1:
        return files[0]
    if files:
        raise InvalidInput(
            f"{folder} holds several models: {', '.join(path.name for path in files[:6])}.",
            expected="one.",
            remedy="name the file.",
        )
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise Unsupported(
            f"{folder} holds weights only as {pickled[0]}, and reading that might execute code.",
            expected="safetensors or GGUF.",
            remedy=_REMEDY,
        )
    raise NotFound(
        f"There are no weights in {folder}.", expected=f"{WHOLE}, {INDEX} or a .gguf file.", remedy="check the path."
    )
