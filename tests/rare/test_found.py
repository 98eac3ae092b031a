from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.errors import EmptySet
from vestige.models.latent import Calls
from vestige.rare.found import Found, Measured, measure
from vestige.rare.scene import Scene, anywhere, near


def found_in(scene: Scene, present: np.ndarray, seed: int = 0) -> Found:
    r, members = present.shape
    latents = scene.generator.latents(np.arange(r * members), seed).view(r, members, -1)
    return Found("drawn", latents, present, Calls(r * members))


def test_numbers_are_those_of_their_definitions(scene: Scene) -> None:
    present = np.array([[True, True, False], [True, True, True]])
    references = near(scene, torch.zeros(2, 4), scene.bank(60, 0), neighbours=40)
    found = found_in(scene, present)
    measured = measure(scene, references, found)
    x = scene.features(found.latents.flatten(0, 1)).reshape(2, 3, -1)
    place = scene.manifold.locate(x.reshape(6, -1))
    log_p = scene.density.log_prob(torch.from_numpy(x.reshape(6, -1))).numpy().reshape(2, 3)
    np.testing.assert_allclose(measured.log_density[present], log_p[present])
    np.testing.assert_allclose(measured.ratio[present], place.ratio.reshape(2, 3)[present])
    np.testing.assert_array_equal(measured.inside, place.inside.reshape(2, 3) & present)
    np.testing.assert_allclose(measured.rarity[present], place.rarity.reshape(2, 3)[present])
    distance = np.linalg.norm(x - references.features[:, None], axis=2)
    np.testing.assert_allclose(measured.distance[present], distance[present])
    np.testing.assert_array_equal(measured.within[present], (distance <= references.reach[:, None])[present])
    gaps = [np.linalg.norm(x[0, 0] - x[0, 1])]
    assert measured.spread[0] == pytest.approx(gaps[0])
    three = [np.linalg.norm(x[1, a] - x[1, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert measured.spread[1] == pytest.approx(np.mean(three))
    assert not measured.accepted[0, 2]
    assert np.isnan(measured.log_density[0, 2])
    assert np.isnan(measured.distance[0, 2])
    torch.testing.assert_close(found.outputs(scene, references).numpy(), x[present])


def test_without_a_reference_there_is_no_distance(scene: Scene) -> None:
    measured = measure(scene, anywhere(scene, [0]), found_in(scene, np.ones((1, 4), np.bool_)))
    assert np.isnan(measured.distance).all()
    assert measured.within.all()


def test_nothing_found_is_an_error(scene: Scene) -> None:
    with pytest.raises(EmptySet, match="drawn found no sample"):
        measure(scene, anywhere(scene, [0]), found_in(scene, np.zeros((1, 4), np.bool_)))


def groups(holds: np.ndarray) -> Measured:
    blank = np.where(holds, 1.0, np.nan)
    return Measured(
        "", Calls(), blank, blank, blank, holds, blank, blank, blank, holds, blank[:, 0], np.ones_like(holds)
    )


def test_a_share_counts_groups_as_observations() -> None:
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.random((40, 1)) < 0.5, 10, axis=1)  # groups that agree: 40 observations, not 400
    split = rng.random((40, 10)) < 0.5
    wide, narrow = (groups(holds).share(holds) for holds in (whole, split))
    assert wide.n == narrow.n == 400
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    # 40 coin flips: half a width of about 0.16; 400: about 0.05
    assert 0.13 < (wide.high - wide.low) / 2 < 0.2
    assert 0.03 < (narrow.high - narrow.low) / 2 < 0.075
    assert wide.low < wide.value < wide.high


def test_unanimous_groups_are_no_proof() -> None:
    every = groups(np.ones((4, 8), np.bool_)).share(np.ones((4, 8), np.bool_))
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(0.025 ** (1 / 4))  # four observations
    alone = groups(np.ones((1, 8), np.bool_)).share(np.ones((1, 8), np.bool_))
    assert alone.low == pytest.approx(0.025)


def test_coverage_of_the_share() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        p = rng.beta(4, 1, size=(12, 1))  # mean 0.8, differing between groups
        holds = rng.random((12, 6)) < p
        covered += groups(holds).share(holds).covers(0.8)
    assert covered >= 0.92 * 300


def test_means_are_over_groups() -> None:
    measured = groups(np.array([[True, True], [True, False], [False, False]]))
    values = np.array([[1.0, 3.0], [6.0, np.nan], [np.nan, np.nan]])
    mean = measured.mean(values)
    assert mean is not None
    assert (mean.value, mean.n) == (4.0, 2)
    assert measured.mean(np.full((3, 2), np.nan)) is None
    spread = measured.mean(np.array([1.0, np.nan, 2.0]))
    assert spread is not None
    assert spread.value == 1.5
