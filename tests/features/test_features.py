from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vestige.errors import ShapeMismatch
from vestige.features.digit_classifier import DigitClassifier, DigitNetwork
from vestige.features.pixels import BlockMeans


def pictures(n: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 18), (2, 7, 11)])
def test_block_means_are_the_means_of_blocks(shape):
    pixels, side = pictures(3, shape), 3
    found = BlockMeans(side).features(pixels)
    channels, height, width = shape
    expected = np.empty((3, channels, side, side))
    for i in range(side):
        for j in range(side):
            # A block covers every pixel that it touches, so blocks overlap where the side does not divide.
            top, bottom = i * height // side, -(-(i + 1) * height // side)
            left, right = j * width // side, -(-(j + 1) * width // side)
            expected[:, :, i, j] = pixels[:, :, top:bottom, left:right].mean((2, 3)) / 255
    assert found.dtype == np.float64
    assert np.allclose(found, expected.reshape(3, -1), rtol=0, atol=1e-6)
    assert BlockMeans(side).features(pixels[:0]).shape == (0, channels * side**2)


def test_digest_and_name_of_block_means_follow_the_side():
    assert BlockMeans(3).digest != BlockMeans(4).digest
    assert BlockMeans(3).digest == BlockMeans(3).digest
    assert BlockMeans(3).name == "means of 3x3 pixel blocks"


@pytest.fixture
def classifier(tmp_path) -> DigitClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(DigitNetwork().state_dict(), tmp_path / "weights.safetensors")
    return DigitClassifier(tmp_path / "weights.safetensors")


def test_digit_classifier_gives_features_and_their_softmax(classifier):
    pixels = pictures(5, (1, 28, 28))
    features, probabilities = classifier.features(pixels), classifier.probabilities(pixels)
    assert features.shape == (5, 64)
    head = classifier.network.head
    logits = features @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(probabilities, odds / odds.sum(1, keepdims=True), rtol=0, atol=1e-6)
    # Black is -1 and white 1, as in training.
    extremes = np.stack([np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 255, np.uint8)])
    with torch.no_grad():
        raw = classifier.network.embed(torch.stack([-torch.ones(1, 28, 28), torch.ones(1, 28, 28)]))
    assert np.allclose(classifier.features(extremes), raw.numpy(), rtol=0, atol=1e-6)


def test_digit_classifier_does_not_depend_on_batches(classifier):
    pixels = pictures(600, (1, 28, 28))  # more than one internal batch
    together = classifier.features(pixels)
    assert np.allclose(together[[0, 511, 512, 599]], classifier.features(pixels[[0, 511, 512, 599]]), atol=1e-6)
    assert classifier.features(pixels[:0]).shape == (0, 64)
    assert classifier.probabilities(pixels[:0]).shape == (0, 10)


def test_digit_classifier_refuses_other_images_and_is_named_by_its_weights(classifier):
    with pytest.raises(ShapeMismatch, match=r"\(3, 28, 28\).*BlockMeans"):
        classifier.features(pictures(1, (3, 28, 28)))
    digest = classifier.digest
    classifier.network.head.bias.data += 1
    assert classifier.digest != digest
