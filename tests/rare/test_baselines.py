"""The contract of baselines, over every one that discovery finds, and the truth about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm

import vestige.rare.baselines
from vestige.discover import methods
from vestige.errors import EmptySet, InvalidInput, MissingExtra
from vestige.models.latent import LatentGenerator
from vestige.rare.baselines.baseline import Baseline, normals, spread_out
from vestige.rare.baselines.cma_es import CmaEs
from vestige.rare.baselines.polarity import Polarity
from vestige.rare.baselines.prior import Random
from vestige.rare.baselines.rejection import Rejection, Selection
from vestige.rare.baselines.scaling import LatentScaling
from vestige.rare.baselines.truncation import Truncation
from vestige.rare.draws import Draw
from vestige.rare.found import measure
from vestige.rare.manifold import Manifold
from vestige.rare.objective import Controls, DivRareGen, RareSearch
from vestige.rare.oracle import Linear, known_density
from vestige.rare.scene import References, Scene, anywhere, near
from vestige.rare.space import plain_space

EVERY = methods(vestige.rare.baselines, Baseline)
BUDGET = 120


def middle(scene: Scene, count: int = 2, neighbours: int = 100) -> References:
    latents = 0.5 * scene.generator.latents(np.arange(count), 5)
    return near(scene, latents, scene.bank(300, 0), neighbours=neighbours)


def test_every_one_is_found() -> None:
    assert set(EVERY) == {"CmaEs", "LatentScaling", "Polarity", "Random", "Rejection", "Truncation"}


@pytest.fixture(params=sorted(EVERY))
def baseline(request: pytest.FixtureRequest) -> Baseline:
    return EVERY[request.param]()


def test_the_contract(baseline: Baseline, scene: Scene) -> None:
    references = middle(scene)
    before = scene.generator.calls
    found = baseline.draw(scene, references, 3, BUDGET, seed=1)
    spent = scene.generator.calls.since(before)
    assert found.latents.shape == (2, 3, 4)
    assert found.present.any()
    assert found.method == type(baseline).__name__
    assert found.calls.images == max(spent.images, found.present.sum()) <= 2 * BUDGET
    assert found.calls.gradients == spent.gradients == 0
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - nobody else's draws may change
    again = baseline.draw(scene, references, 3, BUDGET, seed=1)
    assert torch.equal(again.latents, found.latents)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    other = baseline.draw(scene, references, 3, BUDGET, seed=2)
    assert not torch.equal(other.latents, found.latents)
    second = baseline.draw(scene, references.some(slice(1, 2)), 3, BUDGET, seed=1)
    assert torch.equal(second.latents[0], found.latents[1])
    assert measure(scene, references, found).present.sum() == found.present.sum()


def test_a_generator_without_a_gradient_will_do(baseline: Baseline, scene: Scene) -> None:
    blind = LatentGenerator(scene.generator.network, (4,), identity="blind", pixels=None, differentiable=False)
    unseeing = dataclasses.replace(scene, generator=blind)
    found = baseline.draw(unseeing, anywhere(unseeing, [0]), 2, BUDGET)
    assert found.present.any()


def test_senseless_requests_are_refused(baseline: Baseline, scene: Scene) -> None:
    references = middle(scene, 1)
    with pytest.raises(InvalidInput, match="members"):
        baseline.draw(scene, references, 0, BUDGET)
    with pytest.raises(InvalidInput, match="budget"):
        baseline.draw(scene, references, 5, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LatentScaling(factor=0),
        lambda: Truncation(threshold=0),
        lambda: Rejection(rarity=2),
        lambda: Rejection(scales=()),
        lambda: Rejection(scales=(1.5,)),
        lambda: Polarity(singular=0),
        lambda: Polarity(step=0),
        lambda: CmaEs(start=0),
        lambda: CmaEs(population=1),
    ],
)
def test_senseless_settings_are_refused(wrong: Callable[[], Baseline]) -> None:
    with pytest.raises(InvalidInput):
        wrong()


def test_random_scaled_and_truncated_latents_come_from_the_same_draws(scene: Scene) -> None:
    references = anywhere(scene, range(3))
    plain, scaled, within, beyond = (
        method.draw(scene, references, 400, 400).latents.flatten().double().numpy()
        for method in (Random(), LatentScaling(factor=2.0), Truncation(0.8), Truncation(0.8, inverse=True))
    )
    np.testing.assert_allclose(scaled, 2 * plain, rtol=1e-6)
    assert np.abs(within).max() <= 0.8 <= np.abs(beyond).min() + 1e-6
    for moved in (within, beyond):
        np.testing.assert_array_equal(np.sign(moved), np.sign(plain))
        order = np.argsort(np.abs(plain))
        assert (np.diff(np.abs(moved)[order]) >= -1e-6).all()
    # the normal distribution, given where it lies
    for moved, low, high in ((np.abs(within), 0.0, 0.8), (np.abs(beyond), 0.8, np.inf)):
        at = 0.5 * (low + min(high, 1.6))
        expected = (norm.cdf(at) - norm.cdf(low)) / (norm.cdf(high) - norm.cdf(low))
        assert abs((moved <= at).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(moved))


def test_rejection_by_brute_force(scene: Scene) -> None:
    references = middle(scene, 1)
    for selection in Selection:
        method = Rejection(selection=selection, rarity=0.2)
        proposals = method.proposals(scene, references, 200, 4)
        assert torch.equal(method.proposals(scene, references, 50, 4), proposals[:50])
        x = scene.features(proposals)
        allowed = scene.manifold.locate(x).inside
        allowed &= np.linalg.norm(x - references.features[0], axis=1) <= references.reach[0]
        log_p = scene.density.log_prob(torch.from_numpy(x)).numpy()
        kept = method.draw(scene, references, 5, 200, seed=4).latents[0]
        if selection is Selection.RAREST:
            expected = np.flatnonzero(allowed)[np.argsort(log_p[allowed])[:5]]
        else:
            rare = np.flatnonzero(allowed & (log_p <= scene.density.quantile(0.8)))
            assert len(rare) > 5
            expected = [rare[np.argmin(log_p[rare])]]
            while len(expected) < 5:
                gaps = np.linalg.norm(x[rare][:, None] - x[expected], axis=2).min(1)
                expected.append(rare[np.argmax(gaps)])
        torch.testing.assert_close(kept, proposals[torch.as_tensor(np.array(expected))])


def test_rejection_keeps_the_rarest_where_few_are_rare_and_says_when_there_are_none(scene: Scene) -> None:
    references = middle(scene, 1)
    rarest = Rejection(selection=Selection.RAREST).draw(scene, references, 5, 100)
    assert torch.equal(Rejection(rarity=1.0).draw(scene, references, 5, 100).latents, rarest.latents)
    nowhere = dataclasses.replace(references, reach=np.array([1e-9]))
    empty = Rejection().draw(scene, nowhere, 5, 100)
    assert not empty.present.any()
    with pytest.raises(EmptySet, match="Rejection found no sample"):
        measure(scene, nowhere, empty)


def test_proposals_have_the_norm_of_the_prior(scene: Scene) -> None:
    reference = dataclasses.replace(middle(scene, 1), latents=scene.generator.latents(np.array([8]), 1))
    near_it = Rejection(scales=(0.5,)).proposals(scene, reference, 4000, 0)
    mean, spread = near_it.mean(0), near_it.std(0)
    torch.testing.assert_close(mean, 0.75**0.5 * reference.latents[0], atol=0.04, rtol=0)
    torch.testing.assert_close(spread, torch.full((4,), 0.5), atol=0.03, rtol=0)
    prior = Rejection(prior=True).proposals(scene, reference, 50, 0)
    assert torch.equal(prior, normals(scene, reference, 50, 0, Draw.REJECTION))


def test_spread_out_takes_the_farthest_first() -> None:
    line = np.array([[0.0], [1.0], [10.0], [4.0]])
    assert spread_out(line, 0, 4).tolist() == [0, 2, 3, 1]
    assert spread_out(line, 1, 2).tolist() == [1, 2]
    assert sorted(spread_out(np.zeros((3, 2)), 0, 9).tolist()) == [0, 1, 2]


def test_the_volume_of_polarity_is_the_determinant() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((3, 5))
    oracle = Linear(torch.from_numpy(matrix), torch.zeros(3).double())
    generator = oracle.generator()
    real = generator.made(generator.latents(np.arange(60), 9)).numpy()
    scene = Scene(generator, plain_space(), known_density(oracle.log_prob, real, identity="g"), Manifold(real))
    z = generator.latents(np.arange(4), 0)
    values = np.linalg.svd(matrix, compute_uv=False)
    for pixels in (False, True):
        found = Polarity(singular=None, pixels=pixels).log_volume(scene, z, None)
        np.testing.assert_allclose(found, np.log(values).sum(), rtol=1e-4)
        leading = Polarity(singular=2, pixels=pixels).log_volume(scene, z, None)
        np.testing.assert_allclose(leading, np.log(values[:2]).sum(), rtol=1e-4)


def test_polarity_sees_where_the_generator_stretches(scene: Scene) -> None:
    """Just before the planted mode the first output runs through the gap in no time."""
    volume = Polarity().log_volume(scene, torch.tensor([[0.0, 0, 0, 0], [3.71, 0, 0, 0]]), None)
    assert volume[1] > volume[0] + 0.5
    with pytest.raises(InvalidInput, match="pays for 2 candidates of 8 calls"):
        Polarity().draw(scene, anywhere(scene, [0]), 3, 16)


def test_polarity_weights_are_powers_of_the_volume() -> None:
    """A generator that stretches one half of its latents ten times as much as the other."""

    def network(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 0, 10 * z, z).double()

    generator = LatentGenerator(network, (1,), identity="kink", pixels=None)
    real = np.linspace(-3, 30, 60)[:, None]
    scene = Scene(generator, plain_space(), known_density(lambda x: -x[:, 0], real, identity="k"), Manifold(real))
    for rho in (0.5, -0.5):
        drawn = Polarity(rho=rho, replace=True, step=1e-3).draw(scene, anywhere(scene, [0]), 1500, 3000).latents
        share = float((drawn > 0).float().mean())
        expected = 10**rho / (1 + 10**rho)
        assert abs(share - expected) < 0.06  # 1,500 draws from 1,500 candidates


def test_evolution_lowers_the_rank_without_a_gradient(scene: Scene) -> None:
    references = middle(scene, 1)
    objective = RareSearch(controls=Controls(diversity=0.2))
    some, many = (
        measure(scene, references, CmaEs(objective).draw(scene, references, 3, budget)) for budget in (48, 480)
    )
    assert many.accepted[many.present].all()
    assert many.present.all()
    assert many.log_density.mean() < some.log_density[some.present].mean() - 0.3
    published = CmaEs(DivRareGen()).draw(scene, references, 2, 120)
    assert measure(scene, references, published).accepted[published.present].all()


def test_evolution_spreads_its_members(scene: Scene) -> None:
    references = middle(scene, 1)
    narrow, wide = (
        measure(scene, references, CmaEs(RareSearch(controls=Controls(diversity=d))).draw(scene, references, 3, 360))
        for d in (0.0, 0.95)
    )
    assert wide.spread[0] > 1.2 * narrow.spread[0]


def test_evolution_leaves_out_what_it_did_not_find(scene: Scene) -> None:
    nowhere = dataclasses.replace(middle(scene, 1), reach=np.array([1e-9]))
    found = CmaEs().draw(scene, nowhere, 2, 40)
    assert not found.present.any()


def test_a_missing_library_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import vestige.dependencies

    monkeypatch.setattr(vestige.dependencies, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "cma", raising=False)
    with pytest.raises(MissingExtra, match=r"vestige\[evolution\]"):
        CmaEs().draw(scene, anywhere(scene, [0]), 2, 40)
