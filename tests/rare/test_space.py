from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vestige.data.images import to_float
from vestige.errors import BadWeights, InvalidInput
from vestige.features.pixels import BlockMeans
from vestige.rare.space import Space, block_space, digit_space, module_space, plain_space
from vestige.zoo.shelf import ZooModel


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), dtype=np.uint8)


def test_the_features_are_those_of_the_extractor_and_have_its_digest(pixels: np.ndarray) -> None:
    classifier = ZooModel("digits-gan").classifier()
    for space, extractor in ((digit_space(classifier), classifier), (block_space(BlockMeans(4)), BlockMeans(4))):
        np.testing.assert_allclose(space.of(pixels), extractor.features(pixels), rtol=1e-5, atol=1e-5)
        assert (space.digest, space.name) == (extractor.digest, extractor.name)


def test_features_can_be_differentiated_and_do_not_depend_on_the_batch(pixels: np.ndarray) -> None:
    space = Space(block_space().embed, "blocks", "", batch_size=3)
    images = to_float(pixels).requires_grad_()
    features = space(images)
    assert torch.autograd.grad(features.sum(), images)[0].abs().sum() > 0
    np.testing.assert_allclose(space.of(pixels), features.detach().numpy(), rtol=1e-6)


def test_plain_vectors() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_array_equal(plain_space().of(rows), rows)
    assert plain_space().of(rows[:0]).size == 0


def test_a_module_is_known_by_its_weights() -> None:
    def of(weight: float) -> Space:
        module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout())
        nn.init.constant_(module[1].weight, weight)
        nn.init.constant_(module[1].bias, 0)
        return module_space(module, "linear", identity="linear-4-2")

    assert of(1.0).digest == of(1.0).digest != of(2.0).digest
    torch.testing.assert_close(of(1.0)(torch.ones(1, 1, 2, 2)), torch.full((1, 2), 4.0))


def test_what_gives_no_features_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one vector an output"):
        Space(lambda x: x, "", "")(torch.ones(2, 1, 2, 2))
    with pytest.raises(BadWeights, match="feature is NaN"):
        Space(lambda x: x.flatten(1) / 0, "", "")(torch.ones(2, 1, 2, 2))
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    space = module_space(module, "linear", identity="linear")
    module.train()
    with pytest.raises(InvalidInput, match="training mode"):
        space(torch.ones(2, 1, 2, 2))
