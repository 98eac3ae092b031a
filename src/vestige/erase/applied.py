"""Models with increments applied: in memory, and as a folder that can be taken apart again.

An applied folder is a diffusers folder whose ``vestige/`` sub-folder keeps the base's own
weights where an increment changed them, and the increments in order. Removing one starts
from those weights again; nothing is subtracted, so without increments the base's bits are back.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load, save

from vestige.digest import short
from vestige.erase.increment import Increment, add
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, NotFound
from vestige.models.adapters.diffusers import DiffusersDenoiser, load_folder
from vestige.models.denoiser import Denoiser
from vestige.store import write_bytes, write_text

_NOTE = "vestige"
_APPLIED, _BASE = "applied.json", "base.safetensors"


class Layer(BaseModel):
    """One increment of an applied folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    folder: str
    digest: str
    scale: float


class Applied(BaseModel):
    """What was applied to which base, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    layers: list[Layer]


def applied(base: Denoiser, increments: Sequence[tuple[Increment, float]]) -> Denoiser:
    """A copy of the base with scaled increments added in order; the base is not touched.

    Raises
    ------
    DigestMismatch : an increment belongs to another base.
    """
    digest = base.digest
    for increment, _ in increments:
        increment.check_base(digest)
    module = copy.deepcopy(base.module)
    add(module, increments)
    return base.with_module(module)


def read_applied(folder: Path) -> Applied | None:
    """What was applied to the model in a folder; None for a plain model.

    Raises
    ------
    CorruptFile : the note is damaged.
    """
    path = folder / _NOTE / _APPLIED
    if not path.is_file():
        return None
    try:
        return Applied.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptFile(
            f"{path} cannot be read.", expected="the note that apply wrote.", remedy="apply the increments again."
        ) from error


def open_base(folder: Path) -> tuple[DiffusersDenoiser, list[tuple[Increment, float]]]:
    """The base of a model folder, bit for bit, and the increments applied to it.

    Raises
    ------
    DigestMismatch : the folder's weights are not its base's.
    """
    model, note = load_folder(folder), read_applied(folder)
    if note is None:
        return model, []
    state = model.module.state_dict()
    with torch.no_grad():
        for name, value in load((folder / _NOTE / _BASE).read_bytes()).items():
            state[name].copy_(value)
    if model.digest != note.base:
        raise DigestMismatch(
            f"The base kept in {folder} is {short(model.digest)}.",
            expected=f"{short(note.base)}, as its note says.",
            remedy="take the base model from where it came from; this folder was changed.",
        )
    return model, [(Increment.load(folder / _NOTE / layer.folder), layer.scale) for layer in note.layers]


def write_applied(
    folder: Path, base: DiffusersDenoiser, increments: Sequence[tuple[Increment, float]], *, overwrite: bool = False
) -> DiffusersDenoiser:
    """Write base + increments as a diffusers folder, whole or not at all; returns the written model.

    Raises
    ------
    AlreadyExists : the folder exists and ``overwrite`` is false.
    DigestMismatch : an increment belongs to another base.
    """
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise AlreadyExists(
            f"{folder} is not empty.", expected="a new folder.", remedy="choose another --out, or pass --overwrite."
        )
    model = applied(base, increments)
    if not isinstance(model, DiffusersDenoiser):
        raise TypeError("a diffusers model stays one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        part = Path(scratch) / "model"
        model.save(part)
        if increments:
            _write_note(part / _NOTE, base, increments)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    return model


def _write_note(note: Path, base: DiffusersDenoiser, increments: Sequence[tuple[Increment, float]]) -> None:
    state = base.module.state_dict()
    touched = sorted({name for increment, _ in increments for name in increment.delta})
    write_bytes(note / _BASE, save({name: state[name].contiguous() for name in touched}))
    layers: list[Layer] = []
    for place, (increment, scale) in enumerate(increments):
        name = f"increment-{place:03d}"
        increment.save(note / name)
        layers.append(Layer(name=increment.manifest.name, folder=name, digest=increment.digest, scale=scale))
    write_text(note / _APPLIED, json.dumps(Applied(base=base.digest, layers=layers).model_dump(), indent=2) + "\n")


def without(increments: Sequence[tuple[Increment, float]], name: str) -> list[tuple[Increment, float]]:
    """The increments but the one of that name or digest.

    Raises
    ------
    NotFound : none is called so.
    """
    rest = [(i, s) for i, s in increments if name not in (i.manifest.name, i.digest, short(i.digest))]
    if len(rest) == len(increments):
        have = ", ".join(i.manifest.name for i, _ in increments) or "none"
        raise NotFound(
            f"No applied increment is called '{name}'.",
            expected=f"one of: {have}.",
            remedy="run `vestige increments list FOLDER` to see them.",
        )
    return rest
