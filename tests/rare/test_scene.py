from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.models.latent import LatentGenerator
from vestige.rare.manifold import Manifold
from vestige.rare.oracle import known_density
from vestige.rare.scene import Scene, anywhere, near
from vestige.rare.space import plain_space


def test_the_bank_does_not_depend_on_batches(build_scene: Callable[..., Scene]) -> None:
    one, other = build_scene(), build_scene()
    other.generator.batch_size = 7
    np.testing.assert_allclose(one.bank(20, 3), other.bank(20, 3))
    np.testing.assert_array_equal(one.bank(20, 3)[:5], one.bank(5, 3))
    assert np.abs(one.bank(20, 3) - one.bank(20, 4)).min() > 0
    with pytest.raises(InvalidInput):
        one.bank(0, 3)


def test_reach_is_the_distance_to_the_kth_generation(scene: Scene) -> None:
    latents = 0.5 * scene.generator.latents(np.arange(3), 0)
    bank = scene.bank(200, 0)
    references = near(scene, latents, bank, neighbours=7)
    x = scene.features(latents)
    expected = np.sort(np.linalg.norm(x[:, None] - bank, axis=2), axis=1)[:, 6]
    np.testing.assert_allclose(references.reach, expected)
    np.testing.assert_array_equal(references.unit, references.reach)
    np.testing.assert_allclose(references.features, x)
    assert references.rows.tolist() == [0, 1, 2]
    part = references.some(slice(1, 3))
    assert (len(part), part.rows.tolist()) == (2, [1, 2])
    assert part.digest != references.digest == near(scene, latents, bank, neighbours=7).digest


def test_references_that_cannot_be_used_are_named(scene: Scene) -> None:
    bank, inside = scene.bank(50, 0), torch.zeros(1, 4)
    outside = torch.tensor([[0.0, 0, 0, 0], [0, 30, 0, 0]])
    with pytest.raises(InvalidInput, match=r"1 of 2 references lie outside the real manifold \(the first is number 1,"):
        near(scene, outside, bank, neighbours=10)
    with pytest.raises(EmptySet, match="No reference"):
        near(scene, outside[:0], bank)
    with pytest.raises(EmptySet, match="at least 100 rows"):
        near(scene, inside, bank)
    with pytest.raises(ShapeMismatch, match="Latents of shape"):
        near(scene, torch.zeros(1, 5), bank)
    with pytest.raises(InvalidInput, match="copies in the bank"):
        near(scene, inside, np.repeat(scene.features(inside), 9, axis=0), neighbours=3)
    with pytest.raises(InvalidInput, match="number of rows"):
        near(scene, inside, bank, neighbours=3, rows=[1, 2])


def test_without_a_reference_everything_is_in_reach(scene: Scene) -> None:
    references = anywhere(scene, [4, 9])
    assert references.free
    assert np.isinf(references.reach).all()
    rows = scene.manifold.rows
    gaps = np.linalg.norm(rows[:200, None] - rows[200:400], axis=2)
    np.testing.assert_allclose(references.unit, np.median(gaps), rtol=0.1)


def test_labels_go_with_their_references() -> None:
    def network(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return z + 10 * labels[:, None]

    generator = LatentGenerator(network, (2,), identity="labelled", classes=2, pixels=None)
    rows = np.random.default_rng(0).standard_normal((80, 2)) + 10 * (np.arange(80) % 2)[:, None]
    density = known_density(lambda x: -x.square().sum(1), rows, identity="any")
    scene = Scene(generator, plain_space(), density, Manifold(rows))
    assert scene.bank(30, 0)[::2].mean() < 3 < 7 < scene.bank(30, 0)[1::2].mean()
    assert scene.bank(30, 0, label=1).mean() > 7
    labels = torch.tensor([1, 0])
    references = near(scene, torch.zeros(2, 2), scene.bank(60, 0), neighbours=3, labels=labels)
    np.testing.assert_allclose(references.features, [[10, 10], [0, 0]])
    assert anywhere(scene, [0, 3]).some(slice(1, 2)).labels.tolist() == [1]


def test_widths_have_to_agree(scene: Scene) -> None:
    with pytest.raises(ShapeMismatch, match="generations 4, the density 4, the manifold 3"):
        Scene(scene.generator, scene.space, scene.density, Manifold(np.eye(9, 3) + np.arange(9)[:, None]))


def test_the_digest_follows_every_part(build_scene: Callable[..., Scene]) -> None:
    assert build_scene().digest == build_scene().digest
    assert len({build_scene().digest, build_scene(rows=900).digest, build_scene(weight=5e-3).digest}) == 3
