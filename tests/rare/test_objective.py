from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi

from vestige.errors import InvalidInput
from vestige.rare.density.mahalanobis import Mahalanobis
from vestige.rare.objective import (
    Controls,
    DivRareGen,
    Edges,
    RareSearch,
    View,
    mean_distance,
    squared_spread,
    within_shell,
)

R, N, D = 2, 4, 3


@pytest.fixture(scope="module")
def density():
    return Mahalanobis().fit(np.random.default_rng(0).standard_normal((500, D)))


def view(seed: int = 0, reach: tuple[float, ...] = (1.0, 2.5), scale: float = 1.0) -> View:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(scale * rng.standard_normal((R, N, D))).requires_grad_()
    anchor = torch.zeros(R, 1, D).double()
    edges = Edges(
        ratio=torch.from_numpy(rng.uniform(0.5, 1.5, (R, N))),
        distance=(x - anchor).norm(dim=2),
        reach=torch.tensor(reach).double()[:, None],
        from_ball=torch.from_numpy(rng.standard_normal((R, N, D))),
        from_reference=(x - anchor).detach(),
    )
    return View(x, -x.square().sum(2), edges, torch.tensor([[1.0], [2.0]]).double())


def test_the_published_loss_by_its_formula(density) -> None:
    seen = view()
    terms = DivRareGen(similarity=3.0, diversity=0.7).terms(seen, density)
    x = seen.features.detach().numpy()
    for r, reach in enumerate((1.0, 2.5)):
        for i in range(N):
            similar = (max(np.linalg.norm(x[r, i]), reach) - reach) ** 2
            diverse = -sum(np.sum((x[r, i] - x[r, j]) ** 2) for j in range(N) if j != i)
            expected = -np.sum(x[r, i] ** 2) + 3 * similar + 0.7 * diverse
            assert float(terms.loss[r, i].detach()) == pytest.approx(expected)
            assert float(terms.rank[r, i]) == pytest.approx(expected)


def test_weights_do_not_depend_on_the_size_of_the_group(density) -> None:
    """The public code multiplies them by N: here the similarity of a sample is its own alone."""
    seen = view()
    full = DivRareGen(similarity=3.0, diversity=0.0).terms(seen, density).loss
    edges = dataclasses.replace(
        seen.edges, **{name: getattr(seen.edges, name)[:, :1] for name in ("ratio", "distance", "from_ball")}
    )
    alone = View(seen.features[:, :1], seen.log_density[:, :1], edges, seen.unit)
    torch.testing.assert_close(DivRareGen(similarity=3.0).terms(alone, density).loss, full[:, :1])


def test_without_a_reference_nothing_is_similar(density) -> None:
    seen = view(reach=(np.inf, np.inf))
    loss = DivRareGen(diversity=0.0).terms(seen, density).loss
    torch.testing.assert_close(loss, seen.log_density)
    (gradient,) = torch.autograd.grad(loss.sum(), seen.features)
    torch.testing.assert_close(gradient, -2 * seen.features)


def test_spreads_by_brute_force() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((R, N, D)) + 100).requires_grad_()
    gaps = (x[:, :, None] - x[:, None]).norm(dim=3)
    torch.testing.assert_close(squared_spread(x), gaps.square().sum(2))
    torch.testing.assert_close(mean_distance(x), gaps.sum(2) / (N - 1), rtol=1e-6, atol=1e-6)
    assert torch.equal(mean_distance(x[:, :1]), torch.zeros(R, 1).double())
    (one,) = torch.autograd.grad(squared_spread(x).sum(), x, retain_graph=True)
    (two,) = torch.autograd.grad(gaps.square().sum(), x)
    torch.testing.assert_close(one, two)


def test_the_mean_distance_gives_each_sample_its_own_gradient() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, N, D))).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_distance(x)[0, 0], x)
    gaps = x[0, 0] - x[0, 1:]
    expected = (gaps / gaps.norm(dim=1, keepdim=True)).sum(0) / (N - 1)
    torch.testing.assert_close(gradient[0, 0], expected)
    assert not gradient[0, 1:].any()


def test_copies_have_a_finite_gradient() -> None:
    x = torch.zeros(1, 3, 2).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(mean_distance(x).sum(), x)[0]).all()


def test_the_scale_free_loss_by_its_formula(density) -> None:
    seen = view()
    objective = RareSearch(controls=Controls(rarity=0.9, diversity=0.3), margin=0.2, push=4.0)
    terms = objective.terms(seen, density)
    tau, s = density.quantile(0.1), density.spread
    x = seen.features.detach()
    for r, (reach, unit) in enumerate(((1.0, 1.0), (2.5, 2.0))):
        for i in range(N):
            rare = max(float(seen.log_density[r, i].detach()) - tau, 0) / s
            apart = sum(float((x[r, i] - x[r, j]).norm()) for j in range(N) if j != i) / (N - 1)
            pull = 0.7 * rare - 0.3 * apart / unit
            edges = float(seen.edges.ratio[r, i]) - 1, float(x[r, i].norm()) / reach - 1
            push = sum(max(c + 0.2, 0) ** 2 for c in edges) / 0.2
            assert float(terms.loss[r, i].detach()) == pytest.approx(pull + 4 * push)
            assert float(terms.rank[r, i]) == pytest.approx(pull)


def test_nothing_is_gained_below_the_wanted_rarity(density) -> None:
    seen = view(scale=9.0)  # all far in the tail
    terms = RareSearch(controls=Controls(diversity=0.0), push=1e-9).terms(seen, density)
    assert not terms.rank.any()


@pytest.mark.parametrize("beyond", [-1.0, -0.1, -0.05, 0.0, 0.5])
def test_the_guard_takes_what_leads_over_an_edge_and_nothing_else(beyond: float) -> None:
    objective = RareSearch(margin=0.1)
    normal = torch.tensor([[[2.0, 0, 0]]]).double()
    far = torch.full((1, 1), 0.1).double()
    edges = Edges(far, (1 + beyond) * torch.ones(1, 1).double(), torch.ones(1, 1).double(), normal, normal)
    share = min(max(1 + beyond / 0.1, 0), 1)
    for pull in ([1.0, 3, 0], [-1.0, 3, 0], [0.0, 0, 2]):
        x = torch.ones(1, 1, 3).double().requires_grad_()
        guarded = objective.guarded(x, edges)
        assert torch.equal(guarded, x)
        # the descent of -pull.x goes along pull
        (gradient,) = torch.autograd.grad(-(guarded * torch.tensor(pull).double()).sum(), x)
        left = np.array(pull)
        left[0] -= share * max(left[0], 0)
        np.testing.assert_allclose(-gradient[0, 0].numpy(), left, atol=1e-12)


def test_the_published_objective_has_no_guard_and_no_stride() -> None:
    seen = view()
    assert DivRareGen().guarded(seen.features, seen.edges) is seen.features
    assert DivRareGen().stride_at(0) == np.inf
    z = torch.full((2, 3), 40.0)
    assert DivRareGen().confined(z) is z


def test_schedules() -> None:
    paper = DivRareGen(rate=1.0, step_every=50, step_factor=0.9)
    assert [paper.rate_at(t) for t in (0, 49, 50, 149, 150)] == pytest.approx([1, 1, 0.9, 0.81, 0.729])
    ours = RareSearch(rate=1.0, steps=100, cool=0.2, stride=0.4)
    assert [ours.rate_at(t) for t in (0, 80, 90, 100)] == pytest.approx([1, 1, 0.55, 0.1])
    assert ours.stride_at(90) == pytest.approx(0.22)
    assert RareSearch(cool=0.0).rate_at(199) == RareSearch().rate


@settings(max_examples=30)
@given(st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_the_shell_holds_what_the_prior_holds(size: int, scale: float, seed: int) -> None:
    z = scale * torch.from_numpy(np.random.default_rng(seed).standard_normal((5, size)))
    kept = within_shell(z, 0.01)
    low, high = chi.ppf([0.01, 0.99], size)
    norm = kept.norm(dim=1).numpy()
    assert (norm >= low * (1 - 1e-9)).all()
    assert (norm <= high * (1 + 1e-9)).all()
    torch.testing.assert_close(kept / kept.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True))
    inside = (z.norm(dim=1) > low) & (z.norm(dim=1) < high)
    torch.testing.assert_close(kept[inside], z[inside])


def test_controls_are_shares_of_what_there_is() -> None:
    assert Controls(similarity=0.99).neighbours(10_000) == 100
    assert Controls(similarity=1.0).neighbours(10_000) == 1
    assert Controls(similarity=0.0).neighbours(10_000) is None
    assert RareSearch(controls=Controls(diversity=0.25)).weights == (0.75, 0.25)
    assert RareSearch(controls=Controls(rarity=0, diversity=0.25)).weights == (0.0, 0.25)
    for wrong in ({"rarity": -0.1}, {"diversity": 1.1}, {"similarity": float("nan")}):
        with pytest.raises(InvalidInput):
            Controls(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DivRareGen(members=0),
        lambda: DivRareGen(rate=0),
        lambda: DivRareGen(similarity=-1),
        lambda: DivRareGen(step_factor=1.5),
        lambda: RareSearch(steps=0),
        lambda: RareSearch(start=-1),
        lambda: RareSearch(margin=0),
        lambda: RareSearch(push=0),
        lambda: RareSearch(stride=0),
        lambda: RareSearch(shell=0.5),
        lambda: RareSearch(cool=2),
    ],
)
def test_senseless_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput):
        wrong()
