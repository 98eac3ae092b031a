from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.errors import BadWeights, EmptySet, Unsupported
from vestige.models.latent import LatentGenerator
from vestige.progress import Progress
from vestige.rare.baselines.rejection import Rejection
from vestige.rare.found import measure
from vestige.rare.invert import Inversion, near_uncovered
from vestige.rare.objective import Controls, DivRareGen, Objective, RareSearch
from vestige.rare.oracle import PlantedMode
from vestige.rare.scene import References, Scene, anywhere, near
from vestige.rare.search import search, steps
from vestige.store import Store

SHORT = RareSearch(members=4, steps=30)


def middle(scene: Scene, count: int = 4, neighbours: int = 30) -> References:
    """References somewhere in the middle of the cloud."""
    latents = 0.5 * scene.generator.latents(np.arange(count), 5)
    return near(scene, latents, scene.bank(300, 0), neighbours=neighbours)


def spread(latents: torch.Tensor, scene: Scene) -> float:
    x = torch.from_numpy(scene.features(latents.flatten(0, 1))).view(*latents.shape[:2], -1)
    return float(torch.cdist(x, x).sum() / x.shape[0] / x.shape[1] / (x.shape[1] - 1))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_last_step_is_valid_rarer_and_wider_than_the_start(scene: Scene, seed: int) -> None:
    references = middle(scene)
    objective = RareSearch(members=8, steps=60)
    first, *_, last = steps(scene, references, objective, seed)
    result = search(scene, references, objective, seed=seed)
    measured = measure(scene, references, result.last)
    assert measured.accepted.mean() >= 0.95
    assert spread(last.latents, scene) >= 2 * spread(first.latents, scene)
    assert last.log_density.mean() < first.log_density.mean() - 0.5
    assert torch.equal(result.last.latents, last.latents)


def test_the_published_objective_leaves_at_the_last_step_but_keeps_its_best(scene: Scene) -> None:
    references = middle(scene)
    result = search(scene, references, DivRareGen(members=6, steps=100, rate=5e-2, similarity=0.5))
    last, best = (measure(scene, references, found) for found in (result.last, result.best))
    assert last.accepted.mean() < 0.5
    assert best.accepted[best.present].all()
    assert best.present.mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("objective", [SHORT, DivRareGen(members=4, steps=20)], ids=lambda o: type(o).__name__)
def test_groups_do_not_depend_on_one_another(scene: Scene, objective: Objective) -> None:
    references = middle(scene)
    whole = search(scene, references, objective)
    for groups in (1, 3):
        parts = search(scene, references, objective, groups=groups)
        torch.testing.assert_close(parts.last.latents, whole.last.latents, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(parts.best.present, whole.best.present)
    swapped = dataclasses.replace(
        references,
        **{name: getattr(references, name)[::-1].copy() for name in ("features", "reach", "unit", "rows")},
        latents=references.latents.flip(0),
    )
    torch.testing.assert_close(
        search(scene, swapped, objective).last.latents.flip(0), whole.last.latents, rtol=1e-3, atol=1e-3
    )


def test_the_same_seed_is_the_same_search_and_another_is_not(scene: Scene) -> None:
    references = middle(scene, 2)
    one, two, three = (search(scene, references, SHORT, seed=seed).last.latents for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert (one - three).abs().min() > 0
    fewer = search(scene, references, dataclasses.replace(SHORT, members=1, controls=Controls(diversity=0.0)))
    more = search(scene, references, dataclasses.replace(SHORT, controls=Controls(diversity=0.0)))
    torch.testing.assert_close(fewer.last.latents[:, 0], more.last.latents[:, 0], rtol=1e-3, atol=1e-3)


def test_what_is_accepted_is_inside_exactly_and_the_best_is_the_lowest_of_it(scene: Scene) -> None:
    references = middle(scene, 2)
    objective = DivRareGen(members=5, steps=60, rate=5e-2, similarity=0.5)
    walk = list(steps(scene, references, objective, 0))
    lowest = torch.full((2, 5), torch.inf)
    expected = torch.zeros_like(walk[0].latents)
    for state in walk:
        x = scene.features(state.latents.flatten(0, 1))
        place = scene.manifold.locate(x)
        anchors = np.repeat(references.features, 5, axis=0)
        distance = np.linalg.norm(x - anchors, axis=1)
        np.testing.assert_allclose(state.distance.flatten(), distance, rtol=1e-4, atol=1e-5)
        sure = np.abs(place.ratio - 1) > 1e-5  # of points on the edge itself, float32 may think either way
        accepted = state.accepted.flatten().numpy()
        assert (place.inside & (distance <= references.reach.repeat(5) * (1 + 1e-6)))[accepted & sure].all()
        # The same loss by hand, for the accepted.
        grouped = torch.from_numpy(x).view(2, 5, -1)
        gaps = (grouped[:, :, None] - grouped[:, None]).square().sum((2, 3))
        beyond = (torch.from_numpy(distance).view(2, 5) - torch.from_numpy(references.reach)[:, None]).clamp_min(0)
        log_p = scene.density.log_prob(torch.from_numpy(x)).view(2, 5)
        loss = (log_p + 0.5 * beyond.square() - 0.002 * gaps).float()
        better = state.accepted & (loss < lowest - 1e-4)
        lowest = torch.where(state.accepted & (loss < lowest), loss, lowest)
        expected[better] = state.latents[better]
    assert torch.equal(walk[-1].found, torch.isfinite(lowest))
    close = (walk[-1].best - expected).flatten(2).abs().amax(2) < 0.2
    assert close[walk[-1].found].all()


def test_every_call_is_counted(scene: Scene) -> None:
    references = middle(scene, 3)
    before = scene.generator.calls
    result = search(scene, references, SHORT, groups=2)
    spent = scene.generator.calls.since(before)
    assert (spent.images, spent.gradients) == (3 * 4 * 31, 3 * 4 * 30)
    assert result.last.calls == result.best.calls == spent


def test_the_walk_may_be_left_at_any_step(scene: Scene) -> None:
    references = middle(scene, 2)
    for state in steps(scene, references, SHORT, 0):
        if state.step == 7:
            break
    assert (state.calls.images, state.calls.gradients) == (8 * 8, 8 * 7)


def test_strides_are_kept(scene: Scene) -> None:
    references = middle(scene, 2)
    objective = RareSearch(members=4, steps=20, stride=0.02, cool=0.0)
    walk = [torch.from_numpy(scene.features(s.latents.flatten(0, 1))) for s in steps(scene, references, objective, 0)]
    moved = torch.stack([(b - a).norm(dim=1) for a, b in pairwise(walk[1:])])
    limit = 0.02 * torch.from_numpy(references.unit).repeat_interleave(4)
    # The stretch of the last step stands for that of the next, which a smooth generator keeps.
    assert (moved <= 1.2 * limit).all()
    assert (moved > 0.5 * limit).float().mean() > 0.5


def test_latents_stay_where_the_prior_is(scene: Scene) -> None:
    references = anywhere(scene, range(2))
    for state in steps(scene, references, RareSearch(members=4, steps=40, shell=0.05), 0):
        norm = state.latents.norm(dim=2)
        assert norm.min() >= 0.84 - 1e-3  # 5 % of chi with 4 degrees of freedom
        assert norm.max() <= 3.08 + 1e-3


@pytest.mark.slow
def test_more_of_a_control_is_more_of_what_it_names(scene: Scene) -> None:
    def found(neighbours: int = 30, **controls: float):
        references = middle(scene, neighbours=neighbours)
        objective = RareSearch(members=6, steps=60, controls=Controls(**controls))
        return measure(scene, references, search(scene, references, objective).last)

    by_rarity = [found(rarity=c, diversity=0.1, neighbours=200).log_density.mean() for c in (0.0, 0.5, 0.98)]
    assert by_rarity[0] > by_rarity[1] > by_rarity[2]
    by_diversity = [found(diversity=c).spread.mean() for c in (0.0, 0.3, 0.9)]
    assert by_diversity[0] < by_diversity[1] < by_diversity[2]
    by_similarity = [
        found(neighbours=Controls(similarity=c).neighbours(300) or 0).distance.mean() for c in (0.5, 0.9, 0.99)
    ]
    assert by_similarity[0] > by_similarity[1] > by_similarity[2]


def test_rarity_stops_where_it_was_asked_to(scene: Scene) -> None:
    references = middle(scene, neighbours=200)

    def percentile(rarity: float) -> np.ndarray:
        objective = RareSearch(members=6, steps=80, controls=Controls(rarity=rarity, diversity=0.0))
        return measure(scene, references, search(scene, references, objective).last).percentile

    half = percentile(0.5)
    assert half.max() <= 0.52
    # Nothing pulls below; what leads there is momentum.
    assert half.mean() > percentile(0.95).mean() + 0.05


@pytest.mark.parametrize("seed", [0, 2])
def test_the_planted_mode_is_found_with_a_tenth_of_the_calls(
    planted: PlantedMode, build_scene: Callable[..., Scene], seed: int
) -> None:
    """Rejection needs 1 / weight = 10,000 calls a hit. Bank, inversion and every backward pass (as two) are counted."""
    scene = build_scene(seed=seed, weight=0.01)  # ten real rows in a thousand: enough to span balls of their own
    before = scene.generator.calls
    references, _ = near_uncovered(scene, scene.bank(500, 0), 3, inversion=Inversion(starts=2, steps=120))
    result = search(scene, references, RareSearch(members=16, steps=50))
    spent = scene.generator.calls.since(before).forward_equivalents
    measured = measure(scene, references, result.last)
    hits = planted.is_rare(scene.features(result.last.latents.flatten(0, 1))) & measured.accepted.flatten()
    assert hits.any()
    assert spent / hits.sum() < 0.1 / planted.weight


def test_rejection_pays_the_weight_of_the_mode() -> None:
    """The other side of the comparison, for a mode that can be waited for: one hit in 1 / weight calls."""
    mode = PlantedMode(dimension=2, weight=5e-3)
    generator = mode.generator()
    hits = mode.is_rare(generator.made(generator.latents(np.arange(8000), 0)).numpy()).sum()
    assert 20 <= hits <= 62  # 40, within about 3.4 standard deviations


def test_a_stored_search_is_not_repeated(scene: Scene, tmp_path: Path) -> None:
    references, store = middle(scene, 3), Store(tmp_path)
    fresh = search(scene, references, SHORT, groups=2)
    first = search(scene, references, SHORT, groups=2, store=store)
    before = scene.generator.calls
    again = search(scene, references, SHORT, groups=2, store=store)
    assert scene.generator.calls == before
    for one, other, plain in ((first.last, again.last, fresh.last), (first.best, again.best, fresh.best)):
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.latents, plain.latents)
        np.testing.assert_array_equal(one.present, other.present)
        assert one.calls == other.calls == plain.calls
    shard = next(path for path in tmp_path.rglob("000000002-*.npy"))
    shard.unlink()
    search(scene, references, SHORT, groups=2, store=store)
    assert scene.generator.calls.since(before).images == 4 * 31
    search(scene, references, SHORT, groups=2, store=store, seed=1)
    assert scene.generator.calls.since(before).images == (4 + 12) * 31


def test_progress_is_reported(scene: Scene) -> None:
    class Heard(Progress):
        total, done = 0, 0

        def start(self, label: str, total: int) -> int:
            self.total = total
            return 0

        def advance(self, task: int, amount: int, note: str) -> None:
            self.done += amount

        def finish(self, task: int) -> None:
            pass

    heard = Heard()
    search(scene, middle(scene, 3), SHORT, groups=2, progress=heard)
    assert heard.done == heard.total == 3 * 30


def test_what_cannot_be_searched_is_said(scene: Scene) -> None:
    network = scene.generator.network
    blind = LatentGenerator(network, (4,), identity="blind", pixels=None, differentiable=False)
    unseeing = dataclasses.replace(scene, generator=blind)
    with pytest.raises(Unsupported, match="CmaEs or Rejection"):
        search(unseeing, middle(scene, 1), SHORT)

    def failing(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z.norm(dim=1, keepdim=True) > 4.2, torch.nan, network(z))

    broken = LatentGenerator(failing, (4,), identity="broken", pixels=None)
    with pytest.raises(BadWeights, match="generator's answer holds NaN"):
        search(dataclasses.replace(scene, generator=broken), anywhere(scene, range(3)), RareSearch(members=9, steps=60))
    with pytest.raises(EmptySet):
        search(scene, middle(scene, 1).some(slice(0, 0)), SHORT)


def test_rejection_stands_beside_the_search_at_equal_calls(scene: Scene) -> None:
    references = middle(scene, 2)
    result = search(scene, references, SHORT)
    budget = result.last.calls.forward_equivalents // len(references)
    beside = Rejection().draw(scene, references, 4, budget)
    assert beside.calls.forward_equivalents == budget * 2
    assert measure(scene, references, beside).accepted[beside.present].all()
