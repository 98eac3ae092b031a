from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.features.preprocessing import Preprocessing


def pictures(n: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_nothing_but_scaling_by_default():
    pixels = pictures(2, (3, 4, 5))
    assert torch.equal(Preprocessing()(pixels), torch.from_numpy(pixels).float() / 255)
    signed = Preprocessing(mean=(0.5,), std=(0.5,))(pixels)
    assert torch.allclose(signed, torch.from_numpy(pixels).float() / 127.5 - 1, atol=1e-6)


def test_resizing_is_that_of_pillow_and_crops_are_central():
    pixels = pictures(3, (3, 10, 14))
    found = Preprocessing(shortest_edge=20, resample=Image.Resampling.BILINEAR, crop=(16, 18))(pixels)
    for image, result in zip(pixels, found, strict=True):
        resized = np.asarray(Image.fromarray(np.moveaxis(image, 0, -1)).resize((28, 20), Image.Resampling.BILINEAR))
        assert np.array_equal(np.moveaxis((result.numpy() * 255).round().astype(np.uint8), 0, -1), resized[2:18, 5:23])
    assert Preprocessing(size=(8, 6))(pixels).shape == (3, 3, 8, 6)
    assert Preprocessing(size=(8, 6))(pixels[:0]).shape == (0, 3, 8, 6)


def test_grey_becomes_rgb_where_asked():
    grey = pictures(2, (1, 6, 6))
    found = Preprocessing(rgb=True, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))(grey)
    for channel, (mean, std) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4))):
        assert torch.allclose(found[:, channel], (torch.from_numpy(grey[:, 0]).float() / 255 - mean) / std, atol=1e-6)
    with pytest.raises(ShapeMismatch, match="4 channels"):
        Preprocessing(rgb=True)(pictures(1, (4, 6, 6)))
    with pytest.raises(ShapeMismatch, match="1 channels"):
        Preprocessing(mean=(0.1, 0.2, 0.3))(grey)
    with pytest.raises(ShapeMismatch, match="6x6 pixels"):
        Preprocessing(crop=(7, 6))(grey)


@pytest.mark.parametrize(
    "wrong", [{"size": (2, 2), "shortest_edge": 3}, {"size": (0, 2)}, {"std": (0.0,)}, {"mean": ()}, {"crop": (-1, 2)}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(InvalidInput, match="Preprocessing"):
        Preprocessing(**wrong)


CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 20},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "do_convert_rgb": True,
}


def test_configuration_of_an_image_processor():
    found = Preprocessing.from_config(CLIP, "x")
    assert found == Preprocessing(
        shortest_edge=20, crop=(16, 16), rgb=True, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
    )
    old = {**CLIP, "size": 20, "crop_size": 16}
    assert Preprocessing.from_config(old, "x") == found
    vit = {"do_resize": True, "size": 24, "resample": 2, "do_normalize": True, "image_mean": [0.5] * 3}
    square = Preprocessing.from_config({**vit, "image_std": [0.5] * 3}, "x")
    assert (square.size, square.crop, square.resample) == ((24, 24), None, Image.Resampling.BILINEAR)
    assert square.settings()["resample"] == "bilinear"


def test_rescaling_by_another_factor():
    pixels = pictures(2, (3, 16, 16))
    half = Preprocessing.from_config({**CLIP, "do_resize": False, "rescale_factor": 1 / 127.5}, "x")(pixels)
    mean, std = (np.array(CLIP[f"image_{k}"])[:, None, None] for k in ("mean", "std"))
    assert np.allclose(half.numpy(), (pixels / 127.5 - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"do_pad": True}, Unsupported, "do_pad = True"),
        ({"size": {"longest_edge": 20}}, InvalidInput, "a size of"),
        ({"image_mean": None}, InvalidInput, "TypeError"),
        ({"resample": 99}, InvalidInput, "99"),
    ],
)
def test_configurations_that_cannot_be_followed(change, error, match):
    with pytest.raises(error, match=match):
        Preprocessing.from_config({**CLIP, **change}, "x")
