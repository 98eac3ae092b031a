"""``clothes-stylegan2``: the small StyleGAN2 through which portraits are drawn unless another is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vestige.models.adapters.stylegan2.files import load_stylegan2
from vestige.models.adapters.stylegan2.network import StyleGan2

FOLDER = Path(__file__).parent / "clothes-stylegan2"
WEIGHTS, CARD = FOLDER / "generator.safetensors", FOLDER / "vestige.json"


class PortraitCard(BaseModel):
    """What is known about the shipped generator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    claim: str
    data: str
    """Where the training images come from, and their licence."""
    training: dict[str, Any]
    quality: dict[str, Any]
    """Fréchet distance to test images in the features that it names, with interval and n, beside training images'."""
    digest: str
    """Digest of the tensors of the file."""
    licence: str


def portrait_card() -> PortraitCard:
    """The card of the shipped generator."""
    return PortraitCard.model_validate_json(CARD.read_bytes())


def portrait_network() -> StyleGan2:
    """The shipped generator, in float32."""
    return load_stylegan2(WEIGHTS)
