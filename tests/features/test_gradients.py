from __future__ import annotations

import numpy as np
import pytest

from vestige.errors import InvalidInput
from vestige.features.gradients import EdgeOrientations


def stripes(angle: float, size: int = 16) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    wave = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)))
    return np.round(127.5 + 100 * wave).astype(np.uint8)[None, None]


@pytest.mark.parametrize("bin_", range(6))
def test_stripes_vote_for_their_direction(bin_: int) -> None:
    found = EdgeOrientations(side=1).features(stripes(np.pi * bin_ / 6))[0]
    assert found.argmax() == bin_
    assert found[bin_] > 2 * np.delete(found, [bin_, (bin_ + 1) % 6, bin_ - 1]).max()


def test_brightness_and_sign_do_not_matter_but_place_does() -> None:
    edges, images = EdgeOrientations(), np.random.default_rng(0).integers(40, 120, (3, 3, 13, 17), dtype=np.uint8)
    found = edges.features(images)
    assert found.shape == (3, 96)
    assert (found >= 0).all()
    assert (found <= 1).all()
    np.testing.assert_allclose(edges.features(images + 50), found, atol=1e-12)
    np.testing.assert_allclose(edges.features(255 - images), found, atol=1e-12)
    assert np.abs(edges.features(images[..., ::-1].copy()) - found).max() > 0.1
    np.testing.assert_array_equal(edges.features(images[1:2]), found[1:2])
    assert edges.features(images[:0]).shape == (0, 96)


def test_equals_a_loop() -> None:
    edges, image = EdgeOrientations(side=2, bins=4), np.random.default_rng(1).integers(0, 256, (1, 2, 6, 5), np.uint8)
    x, expected = image[0] / 255, np.zeros((2, 2, 4))
    down, right = np.stack([np.gradient(c)[0] for c in x]), np.stack([np.gradient(c)[1] for c in x])
    for i in range(6):
        for j in range(5):
            c = int(np.hypot(down[:, i, j], right[:, i, j]).argmax())
            a, b = float(down[c, i, j]), float(right[c, i, j])
            place = (np.arctan2(a, b) / np.pi) % 1 * 4
            low = int(place)
            for bin_, weight in ((low, 1 - place + low), (low + 1, place - low)):
                expected[i * 2 // 6, j * 2 // 5, bin_ % 4] += weight * np.hypot(a, b)
    norm = np.sqrt((expected**2).sum(2, keepdims=True) + (0.02 * 30 / 4) ** 2)
    np.testing.assert_allclose(edges.features(image)[0], np.sqrt(expected / norm).ravel(), atol=1e-12)


def test_flat_images_have_none_and_settings_are_told_apart() -> None:
    assert not EdgeOrientations().features(np.full((2, 1, 8, 8), 90, np.uint8)).any()
    digests = {e.digest for e in (EdgeOrientations(), EdgeOrientations(side=3), EdgeOrientations(bins=5))}
    assert len(digests) == 3
    with pytest.raises(InvalidInput, match="3x3 pixels"):
        EdgeOrientations().features(np.zeros((1, 1, 3, 3), np.uint8))
    with pytest.raises(InvalidInput, match="side=0"):
        EdgeOrientations(side=0)
