from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vestige.errors import BadWeights, InvalidInput
from vestige.features.module import ModuleFeatures
from vestige.features.preprocessing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 6, 6), dtype=np.uint8)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def wrapped(module: nn.Module, **more) -> ModuleFeatures:
    return ModuleFeatures(module, Preprocessing(), known_as="a network", **more)


def test_features_are_the_modules_output_whatever_the_batch():
    module = network()
    with torch.no_grad():
        expected = module(torch.from_numpy(PIXELS).float() / 255).double().numpy()
    for batch_size in (1, 4, 64):
        found = wrapped(module, batch_size=batch_size).features(PIXELS)
        assert found.dtype == np.float64
        assert np.allclose(found, expected, rtol=0, atol=1e-6)
    assert wrapped(module).features(PIXELS[:0]).shape == (0, 4)
    assert wrapped(module).name == "a network"


def test_digest_follows_weights_preprocessing_architecture_and_settings():
    base = wrapped(network()).digest
    assert wrapped(network(), batch_size=3).digest == base
    others = [
        wrapped(network(1)),
        ModuleFeatures(network(), Preprocessing(mean=(0.5,)), known_as="a network"),
        wrapped(nn.Sequential(*list(network())[:1], nn.GELU(), *list(network())[2:]).eval()),
        wrapped(network(), settings={"heads": 2}),
    ]
    assert len({base, *(other.digest for other in others)}) == 5


class Broken(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        if self.kind == "chance":
            return flat + torch.randn_like(flat)
        if self.kind == "company":
            return flat - flat.mean(0)
        if self.kind == "nan":
            return torch.where(flat > 0.9, torch.nan, flat)
        if self.kind == "sum":
            return flat.sum()
        return images if self.kind == "maps" else (flat,)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("chance", "run again"),
        ("company", "in other company"),
        ("nan", "NaN or infinity for 4 of 4 images, first for image 0"),
        ("maps", r"gives \[4, 3, 6, 6\]"),
        ("sum", r"gives \[\]"),
        ("tuple", "gives tuple"),
    ],
)
def test_networks_that_measure_nothing(kind, match):
    with pytest.raises(InvalidInput, match=match):
        wrapped(Broken(kind).eval()).features(PIXELS)


def test_training_mode_and_broken_weights():
    module = nn.Sequential(nn.Flatten(), nn.Dropout()).eval()
    module[1].train()
    with pytest.raises(InvalidInput, match=r"training mode \(1\)"):
        wrapped(module)
    damaged = network()
    damaged[0].weight.data[0] = torch.nan
    with pytest.raises(BadWeights, match=r"0\.weight"):
        wrapped(damaged)
