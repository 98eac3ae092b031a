"""Models with increments applied: in memory, and as a folder that can be taken apart again.

An applied folder is a diffusers folder whose ``vestige/`` sub-folder keeps the base's own
weights where an increment changed them, and the increments in order. Removing one starts
from those weights again; nothing is subtracted, so without increments the base's bits are back.

An increment that was trained on top of others belongs after them. That is asked once, when it is put
on (:func:`check_after`): an earlier one may be withdrawn later, and the later ones stay, since changes add.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vestige.digest import short
from vestige.erase.increment import Increment, add
from vestige.erase.manifest import in_order, provides
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, InvalidInput, NotFound, StorageFailed
from vestige.models.adapters.diffusers import DiffusersDenoiser, load_folder
from vestige.models.adapters.text_to_image import NOTE, TextToImage
from vestige.models.adapters.text_to_image_load import is_text_to_image, load_text_to_image
from vestige.models.denoiser import Denoiser
from vestige.store import write_bytes, write_text

SavedModel = DiffusersDenoiser | TextToImage
"""A model that is kept in a folder of diffusers."""

Model = TypeVar("Model", bound="Denoiser | TextToImage")

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


def applied(base: Model, increments: Sequence[tuple[Increment, float]]) -> Model:
    """A copy of the base with scaled increments added; the base is not touched.

    Whether they come after what they were trained on top of is asked by :func:`check_after`, not here.

    Raises
    ------
    DigestMismatch : an increment belongs to another base.
    """
    digest = base.digest
    for increment, _ in increments:
        increment.check_base(digest)
    module = copy.deepcopy(base.module)
    add(module, increments)
    return cast(Model, base.with_module(module))


def check_after(increments: Sequence[tuple[Increment, float]], *, onto: Sequence[tuple[Increment, float]] = ()) -> None:
    """Refuse increments that would not come after those they were trained on top of.

    These must stand before, in their order and at scale 1, by themselves or as parts of a composition; others may
    stand between them.

    Parameters
    ----------
    increments : to be applied, with their scales, in order.
    onto : what the model carries already, which is not asked again.

    Raises
    ------
    InvalidInput : one is missing, comes too late, or has another scale.
    """
    held = [digest for increment, scale in onto for digest in provides(increment.manifest, scale)]
    for increment, scale in increments:
        needs = increment.manifest.after
        if not in_order(needs, held):
            first = next(place for place in range(len(needs)) if not in_order(needs[: place + 1], held))
            raise InvalidInput(
                f"The increment '{increment.manifest.name}' was trained on top of "
                f"{_fault(needs[first], held, [*onto, *increments])}.",
                expected=f"before it, in this order and at scale 1: {', '.join(map(short, needs))}.",
                remedy="apply the increments in the order in which they were made, without a gap; "
                "or repeat the erasure on the model as it is.",
            )
        held += provides(increment.manifest, scale)


def _fault(digest: str, held: Sequence[str], known: Sequence[tuple[Increment, float]]) -> str:
    """A needed increment, by name where that is known, and what is wrong with its place."""
    for increment, scale in known:
        if digest == increment.digest:
            who = f"'{increment.manifest.name}' ({short(digest)})"
            if digest in held:
                return f"{who}, which comes in another order"
            return f"{who}, which comes after it" if scale == 1 else f"{who}, which has scale {scale:g}"
    return f"{short(digest)}, which " + ("comes in another order" if digest in held else "is missing")


def read_applied(folder: Path) -> Applied | None:
    """What was applied to the model in a folder; None for a plain model.

    Raises
    ------
    CorruptFile : the note is damaged.
    """
    path = folder / NOTE / _APPLIED
    if not path.is_file():
        return None
    try:
        return Applied.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptFile(
            f"{path} cannot be read.", expected="the note that apply wrote.", remedy="apply the increments again."
        ) from error


def load_saved(folder: Path, *, null_condition: int | None = None) -> SavedModel:
    """The model in a folder: a text-to-image pipeline if it has a tokenizer, a plain diffusion model if not.

    Raises
    ------
    NotFound, CorruptFile, BadWeights, Unsupported : see each message.
    """
    if is_text_to_image(folder):
        return load_text_to_image(folder)
    return load_folder(folder, null_condition=null_condition)


def open_base(folder: Path, *, null_condition: int | None = None) -> tuple[SavedModel, list[tuple[Increment, float]]]:
    """The base of a model folder, bit for bit, and the increments applied to it.

    Raises
    ------
    CorruptFile : what apply kept of the base cannot be read.
    DigestMismatch : the folder's weights are not its base's, or an increment is not the one that was applied.
    """
    model, note = load_saved(folder, null_condition=null_condition), read_applied(folder)
    if note is None:
        return model, []
    state = model.module.state_dict()
    with torch.no_grad():
        for name, value in _kept(folder / NOTE / _BASE, state).items():
            state[name].copy_(value)
    if model.digest != note.base:
        raise DigestMismatch(
            f"The base kept in {folder} is {short(model.digest)}.",
            expected=f"{short(note.base)}, as its note says.",
            remedy="take the base model from where it came from; this folder was changed.",
        )
    return model, [(_increment(folder / NOTE / layer.folder, layer), layer.scale) for layer in note.layers]


def _kept(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        kept = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        kept, reason = {}, str(error).splitlines()[0]
    else:
        reason = "its weights are not the model's"
        if all(name in state and state[name].shape == value.shape for name, value in kept.items()):
            return kept
    raise CorruptFile(
        f"The base's own weights in {path} cannot be used ({reason}).",
        expected="the file that apply wrote.",
        remedy="take the base model from where it came from and apply the increments again.",
    )


def _increment(folder: Path, layer: Layer) -> Increment:
    found = Increment.load(folder)
    if found.digest != layer.digest:
        raise DigestMismatch(
            f"The increment in {folder} is {short(found.digest)}.",
            expected=f"{short(layer.digest)}, which was applied as '{layer.name}'.",
            remedy="take the base model from where it came from and apply the increments again.",
        )
    return found


def write_applied(
    folder: Path, base: SavedModel, increments: Sequence[tuple[Increment, float]], *, overwrite: bool = False
) -> SavedModel:
    """Write base + increments as a diffusers folder, whole or not at all; returns the written model.

    Raises
    ------
    AlreadyExists : the folder exists and ``overwrite`` is false.
    DigestMismatch : an increment belongs to another base.
    StorageFailed : the folder cannot be written; what stood there before stays.
    """
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise AlreadyExists(
            f"{folder} is not empty.", expected="a new folder.", remedy="choose another --out, or pass --overwrite."
        )
    model = applied(base, increments)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            part = Path(scratch) / "model"
            model.save(part)
            if increments:
                _write_note(part / NOTE, base, increments)
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StorageFailed(
            f"Writing {folder} failed: {getattr(error, 'strerror', None) or error}.",
            expected="a writable folder with room for the model.",
            remedy="free some space or choose another --out.",
        ) from error
    return model


def _write_note(note: Path, base: SavedModel, increments: Sequence[tuple[Increment, float]]) -> None:
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
    """The increments but the one of that name or digest. Later ones stay, also those trained on top of it.

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
