from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vestige.errors import EmptySet, InvalidInput, Unsupported
from vestige.models.latent import LatentGenerator
from vestige.rare.invert import Inversion, near_images, near_uncovered, uncovered
from vestige.rare.manifold import Manifold
from vestige.rare.oracle import Linear, PlantedMode, known_density
from vestige.rare.scene import Scene
from vestige.rare.space import plain_space


@pytest.fixture(scope="module")
def linear() -> tuple[Linear, Scene]:
    rng = np.random.default_rng(0)
    oracle = Linear(torch.from_numpy(rng.standard_normal((3, 3)) + 2 * np.eye(3)), torch.ones(3).double())
    generator = oracle.generator()
    real = generator.made(generator.latents(np.arange(300), 9)).numpy()
    return oracle, Scene(generator, plain_space(), known_density(oracle.log_prob, real, identity="g"), Manifold(real))


def test_the_latent_of_an_output_is_found(linear: tuple[Linear, Scene]) -> None:
    _, scene = linear
    truth = scene.generator.latents(np.arange(5), 3)
    truth *= torch.tensor([1.5, 1, 2, 1.2, 1.7])[:, None] / truth.norm(dim=1, keepdim=True)  # well within the shell
    targets = scene.features(truth)
    found = Inversion(candidates=64, steps=200, rate=0.1).invert(scene, targets, 0)
    np.testing.assert_allclose(found.latents.numpy(), truth.numpy(), atol=0.02)
    assert (found.residual < 0.05).all()
    assert (found.start_residual > found.residual).all()
    np.testing.assert_allclose(
        found.residual, np.linalg.norm(scene.features(found.latents) - targets, axis=1), atol=1e-4
    )
    assert (found.calls.images, found.calls.gradients) == (64 + 5 * 4 * 201, 5 * 4 * 200)


def test_what_cannot_be_reached_is_left_as_a_residual(linear: tuple[Linear, Scene]) -> None:
    _, scene = linear
    far = scene.features(torch.full((1, 3), 50.0))
    found = Inversion(candidates=16, steps=60).invert(scene, far, 0)
    assert found.residual[0] > 10
    assert found.latents.norm() <= 4.04  # the shell's outer bound for three dimensions


def test_targets_do_not_depend_on_one_another(linear: tuple[Linear, Scene]) -> None:
    _, scene = linear
    targets, inversion = scene.manifold.rows[:3], Inversion(candidates=32, steps=20)
    scene.generator.batch_size = 5
    together = inversion.invert(scene, targets, 0)
    scene.generator.batch_size = 128
    alone = [inversion.invert(scene, targets[i : i + 1], 0) for i in range(3)]
    torch.testing.assert_close(together.latents, torch.cat([one.latents for one in alone]), rtol=1e-4, atol=1e-4)


def test_the_class_is_found_as_well() -> None:
    def network(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return z + 10 * labels[:, None]

    generator = LatentGenerator(network, (2,), identity="labelled", classes=3, pixels=None)
    rows = np.random.default_rng(0).standard_normal((90, 2)) + 10 * (np.arange(90) % 3)[:, None]
    scene = Scene(
        generator, plain_space(), known_density(lambda x: -x.square().sum(1), rows, identity="x"), Manifold(rows)
    )
    found = Inversion(candidates=30, steps=40).invert(scene, np.array([[20.5, 19.5], [0.3, 0.4]]), 0)
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0]
    references, again = near_images(
        scene, rows[:2], scene.bank(30, 0), neighbours=3, inversion=Inversion(candidates=30)
    )
    assert references.labels is not None
    assert references.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(references.features, rows[:2])
    assert torch.equal(references.latents, again.latents)


def test_uncovered_rows_by_brute_force(build_scene: Callable[..., Scene], planted: PlantedMode) -> None:
    scene = build_scene(rows=500, weight=0.01, seed=5)
    bank, real, radii = scene.bank(300, 0), scene.manifold.rows, scene.manifold.balls.radii
    rows = uncovered(scene, bank, 500)
    gap = np.linalg.norm(real[:, None] - bank, axis=2).min(1) - radii
    assert (gap[rows] > 0).all()
    assert rows[0] == gap.argmax()
    assert (np.diff(gap[rows]) <= 0).all()
    # every uncovered row is taken, or lies in the ball of one that was taken before it
    for row in np.flatnonzero(gap > 0):
        held = np.linalg.norm(real[rows] - real[row], axis=1) <= radii[rows]
        assert held[gap[rows] >= gap[row]].any()
    assert planted.is_rare(real[rows[:1]]).all()
    assert len(uncovered(scene, bank, 2)) == 2


def test_groups_around_uncovered_rows_stay_in_their_balls(build_scene: Callable[..., Scene]) -> None:
    scene = build_scene(rows=500, weight=0.01, seed=5)
    bank = scene.bank(300, 0)
    rows = uncovered(scene, bank, 4)
    references, found = near_uncovered(scene, bank, 4, inversion=Inversion(candidates=64, steps=60))
    # Those that the inversion brings well inside, and no others.
    able = found.residual <= 0.75 * scene.manifold.balls.radii[rows]
    assert able.any()
    np.testing.assert_array_equal(references.rows, rows[able])
    np.testing.assert_array_equal(references.reach, scene.manifold.balls.radii[references.rows])
    np.testing.assert_array_equal(references.features, scene.manifold.rows[references.rows])
    with pytest.raises(EmptySet, match="covers every real row"):
        near_uncovered(scene, scene.manifold.rows, 2)


def test_what_cannot_be_inverted_is_said(scene: Scene) -> None:
    blind = LatentGenerator(scene.generator.network, (4,), identity="b", pixels=None, differentiable=False)
    with pytest.raises(Unsupported, match="Inversion by gradient"):
        Inversion().invert(dataclasses.replace(scene, generator=blind), np.zeros((1, 4)), 0)
    with pytest.raises(InvalidInput, match="columns"):
        Inversion().invert(scene, np.zeros((1, 3)), 0)
    for wrong in ({"starts": 0}, {"starts": 9, "candidates": 8}, {"rate": 0.0}, {"steps": -1}, {"shell": 0.6}):
        with pytest.raises(InvalidInput):
            Inversion(**wrong)
