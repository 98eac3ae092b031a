"""The generator that ships: the same vector has the same portrait on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vestige.digest import digest_tensors
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.portrait.distance import looks_apart
from vestige.fingerprint.portrait.painter import Painter
from vestige.fingerprint.portrait.public import gaussian
from vestige.models.adapters.stylegan2.files import read_stylegan2
from vestige.zoo.portrait import WEIGHTS, portrait_card

KEPT = Path(__file__).parent / "shipped.png"
"""Portraits of four vectors, side by side, drawn when the weights were put on the shelf."""


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter()


def vectors() -> np.ndarray:
    return gaussian(7, 4, 510, 9)


def test_the_card_is_that_of_the_weights() -> None:
    card, weights = portrait_card(), read_stylegan2(WEIGHTS)
    assert card.digest == digest_tensors(weights.tensors)
    assert card.licence == "Apache-2.0"
    assert "Fashion-MNIST" in card.data
    assert card.training["images"] == card.training["steps"] * card.training["batch"]
    assert card.quality["frechet"]["low"] <= card.quality["frechet"]["value"] <= card.quality["frechet"]["high"]
    assert WEIGHTS.stat().st_size < 2_000_000


def test_pixels_are_those_that_were_kept(painter: Painter) -> None:
    drawn = painter.pixels(vectors())
    kept = np.moveaxis(np.asarray(Image.open(KEPT)).reshape(32, 4, 32, 3), (1, 3), (0, 1))
    assert np.abs(drawn.astype(int) - kept.astype(int)).max() <= 1
    codes = [VectorCode.of(row).kin for row in vectors()]
    assert len(set(codes)) == 4


def test_relatives_look_alike_and_strangers_do_not(painter: Painter) -> None:
    base, other, noise = vectors()[:3]
    near, nearer = (base + scale * noise for scale in (0.3, 0.1))
    found = looks_apart(painter.pixels(np.stack([base])), painter.pixels(np.stack([nearer, near, other])))[0]
    assert found[0] < found[1] < found[2]
