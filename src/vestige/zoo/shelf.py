"""What the zoo holds: weights, cards, training data and judges, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from vestige.data.images import ImageSet
from vestige.errors import NotFound
from vestige.features.digit_classifier import DigitClassifier
from vestige.zoo.digits import digits

_FOLDER = Path(__file__).parent / "digits"
MODELS = ("digits-ddpm", "digits-ddpm-retrained", "digits-ddpm-without-0", "digits-gan")
_WITHOUT_PLANTED = ("digits-ddpm-retrained",)
_WITHOUT_CLASS = {"digits-ddpm-without-0": 0}
_REFERENCES = {"digits-ddpm": ("digits-ddpm-retrained", "digits-ddpm-without-0")}


class Card(BaseModel):
    """What is known about a shipped model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    claim: str
    data: str
    split: str
    planted: dict[str, list[str]]
    """Row ids of the planted members, by the number of their copies."""
    null_condition: int | None = None
    """The label that means "no condition"; none for a GAN."""
    training: dict[str, Any]
    digest: str
    """What an audit calls the model: ``DiffusersDenoiser.digest``, or that of a GAN's two networks."""
    licence: str


@dataclass(frozen=True)
class ZooModel:
    """One shipped model."""

    name: str

    @property
    def folder(self) -> Path:
        """Its folder: a diffusers pipeline, or a GAN as `load_gan` reads it."""
        return _FOLDER / self.name

    @property
    def card(self) -> Card:
        """Its card."""
        return Card.model_validate_json((self.folder / "vestige.json").read_bytes())

    @property
    def saw_planted(self) -> bool:
        """Whether the planted images and their copies are among its training rows."""
        return self.name not in _WITHOUT_PLANTED

    @property
    def reference(self) -> ZooModel | None:
        """The same recipe retrained without the planted images, where the zoo has one."""
        return ZooModel("digits-ddpm-retrained") if self.name == "digits-ddpm" else None

    def retrained_on(self, retained: Iterable[str]) -> ZooModel | None:
        """The same recipe retrained on exactly the images with these row ids, where the zoo has it."""
        wanted = set(retained)
        models = map(ZooModel, _REFERENCES.get(self.name, ()))
        return next((model for model in models if set(model.training_data().ids) == wanted), None)

    def training_data(self) -> ImageSet:
        """Its training rows, every planted copy included."""
        data = digits()
        seen = data.member & (self.saw_planted | (data.copies == 0))
        rows = np.flatnonzero(seen & (data.labels != _WITHOUT_CLASS.get(self.name, -1)))
        repeated = np.repeat(rows, np.maximum(data.copies[rows], 1))
        return ImageSet(data.pixels[repeated, None], data.labels[repeated], f"{self.name}:train")

    def held_out(self) -> ImageSet:
        """The half of the digits that no model saw."""
        data = digits()
        rows = np.flatnonzero(~data.member)
        return ImageSet(data.pixels[rows, None], data.labels[rows], f"{self.name}:held-out")

    def classifier(self) -> DigitClassifier:
        """The judge of its samples."""
        return DigitClassifier(_FOLDER / "classifier.safetensors")


def zoo_model(name: str) -> ZooModel:
    """A shipped model by name.

    Raises
    ------
    NotFound : the zoo has no such model.
    """
    if name not in MODELS:
        raise NotFound(
            f"The zoo has no model called '{name}'.",
            expected=f"one of {', '.join(MODELS)}.",
            remedy="run `vestige ls` to see them.",
        )
    return ZooModel(name)
