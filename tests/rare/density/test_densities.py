"""The contract of densities, over every one that discovery finds, and the truth about each."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity as SklearnKernels

import vestige.rare.density
from vestige.discover import methods
from vestige.errors import EmptySet, InvalidInput, MissingExtra
from vestige.rare.density.density import Density, Sample
from vestige.rare.density.flow import Flow
from vestige.rare.density.gaussians import Gaussians, precision_roots
from vestige.rare.density.kernel import KernelDensity
from vestige.rare.density.maf import MAF
from vestige.rare.density.mahalanobis import Mahalanobis
from vestige.rare.density.mixture import Covariance, GaussianMixture
from vestige.rare.density.neighbours import NearestNeighbours
from vestige.rare.density.nsf import NSF
from vestige.rare.density.preparation import Preparation
from vestige.rare.density.real_nvp import RealNVP
from vestige.rare.oracle import Linear

SMALL = {"epochs": 2, "width": 8, "components": 3}
EVERY = methods(vestige.rare.density, Density)


def small(kind: type[Density]) -> Density:
    return replace(kind(), **{name: value for name, value in SMALL.items() if name in kind.__dataclass_fields__})


def clouds(rows: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three well separated clouds in three dimensions, of unlike scales, with their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=rows)
    centres = np.array([[0, 0, 0], [4, 0, 1], [0, 5, -1.0]])
    return (centres[labels] + rng.standard_normal((rows, 3))) * [1, 10, 0.1] + 3, labels


@pytest.fixture(scope="module", params=sorted(EVERY))
def fitted(request: pytest.FixtureRequest):
    return small(EVERY[request.param]).fit(*clouds(), seed=1)


def test_every_kind_is_found() -> None:
    assert set(EVERY) == {
        "GaussianMixture",
        "KernelDensity",
        "MAF",
        "Mahalanobis",
        "NSF",
        "NearestNeighbours",
        "RealNVP",
    }


def test_the_gradient_is_that_of_finite_differences(fitted) -> None:
    x = torch.from_numpy(clouds(6, 5)[0]).requires_grad_()
    (gradient,) = torch.autograd.grad(fitted.log_prob(x).sum(), x)
    for j, h in enumerate((1e-4, 1e-3, 1e-5)):
        step = torch.zeros(3, dtype=torch.float64)
        step[j] = h
        with torch.no_grad():
            slope = (fitted.log_prob(x + step) - fitted.log_prob(x - step)) / (2 * h)
        torch.testing.assert_close(gradient[:, j], slope, rtol=2e-3, atol=2e-3 / h * 1e-3)
    assert gradient.abs().sum() > 0


def test_a_row_does_not_depend_on_its_batch(fitted) -> None:
    x = torch.from_numpy(clouds(7, 5)[0])
    alone = torch.cat([fitted.log_prob(row[None]) for row in x])
    torch.testing.assert_close(fitted.log_prob(x), alone, rtol=1e-9, atol=1e-9)


def test_single_precision_serves_the_search(fitted) -> None:
    x = torch.from_numpy(clouds(7, 5)[0])
    moved = copy.deepcopy(fitted).to(torch.float32).log_prob(x.float())
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved.double(), fitted.log_prob(x), rtol=1e-3, atol=1e-3)


def test_the_fit_follows_from_rows_and_seed_alone(fitted) -> None:
    density = small(EVERY[type_name(fitted)])
    torch.manual_seed(7)
    assert density.fit(*clouds(), seed=1).digest == fitted.digest
    assert density.fit(*clouds(seed=3), seed=1).digest != fitted.digest


def type_name(fitted) -> str:
    return str(fitted.settings["name"])


def test_percentiles_are_those_of_held_out_rows(fitted) -> None:
    split = Preparation().split(240, 1)[1]
    values = fitted.log_prob(torch.from_numpy(clouds()[0][split])).detach()
    np.testing.assert_allclose(values, fitted.held_out_values, rtol=1e-9)
    assert fitted.held_out.n == len(split) == 48
    assert fitted.held_out.value == pytest.approx(float(values.mean()))
    assert fitted.spread == pytest.approx(float(values.std()))
    order = np.argsort(values.numpy())
    np.testing.assert_allclose(fitted.percentile(values[torch.from_numpy(order.copy())]), np.arange(48) / 48)
    assert fitted.quantile(0.0) == pytest.approx(float(values.min()))
    assert fitted.quantile(0.5) == pytest.approx(float(np.median(values.numpy())))


def test_outliers_are_rarer_than_every_real_row(fitted) -> None:
    far = torch.tensor([[200.0, -900, 9]], dtype=torch.float64)
    assert fitted.percentile(fitted.log_prob(far)).tolist() == [0]


@pytest.mark.parametrize("name", sorted(EVERY))
def test_bad_features_are_refused(name: str) -> None:
    density, rows = small(EVERY[name]), clouds(40)[0]
    with pytest.raises(InvalidInput, match="1 of 3 features are constant over 32 rows"):
        density.fit(rows * [1, 0, 1] + 0.1)
    with pytest.raises(InvalidInput, match="NaN"):
        density.fit(np.where(rows > 3, np.nan, rows))
    with pytest.raises(EmptySet):
        density.fit(rows[:3])
    with pytest.raises(InvalidInput, match="number of labels"):
        density.fit(rows, np.zeros(39, np.int64))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Mahalanobis(ridge=-1),
        lambda: GaussianMixture(components=0),
        lambda: GaussianMixture(ridge=0),
        lambda: NearestNeighbours(neighbours=0),
        lambda: KernelDensity(bandwidths=()),
        lambda: KernelDensity(bandwidths=(0.1, 0.0)),
        lambda: MAF(rate=0),
        lambda: RealNVP(epochs=0),
        lambda: Preparation(dimensions=0),
        lambda: Preparation(held_out=1),
        lambda: Preparation(noise=-1),
    ],
)
def test_senseless_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput):
        wrong()


def sample(rows: int, seed: int = 0, d: int = 3) -> Sample:
    return Sample(np.random.default_rng(seed).standard_normal((rows, d)))


def test_a_gaussian_is_fitted_exactly() -> None:
    rng = np.random.default_rng(0)
    oracle = Linear(torch.from_numpy(rng.standard_normal((3, 3))), torch.from_numpy(rng.standard_normal(3)))
    generator = oracle.generator()
    x = generator.made(generator.latents(np.arange(3000), 0))
    plain = Preparation(noise=0)
    fitted = Mahalanobis(ridge=0).fit(x.numpy(), preparation=plain)
    train = x.numpy()[plain.split(len(x), 0)[0]]
    expected = multivariate_normal(train.mean(0), np.cov(train.T, bias=True)).logpdf(x[:50].numpy())
    assert fitted.log_volume is not None
    ours = fitted.log_prob(x[:50]).numpy() + fitted.log_volume
    np.testing.assert_allclose(ours, expected, rtol=1e-8)
    # and the truth, up to the error of 2,400 rows
    assert np.abs(ours - oracle.log_prob(x[:50]).numpy()).mean() < 0.1


def test_mahalanobis_by_class() -> None:
    rows, labels = clouds(200)
    model = Mahalanobis(by_class=True, ridge=0).learn(Sample(rows, labels), Sample(rows, labels), 0)
    means = np.stack([rows[labels == y].mean(0) for y in range(3)])
    about = rows - means[labels]
    parts = [
        math.log((labels == y).mean()) + multivariate_normal(means[y], about.T @ about / 200).logpdf(rows)
        for y in range(3)
    ]
    np.testing.assert_allclose(model(torch.from_numpy(rows)).numpy(), logsumexp(parts, axis=0), rtol=1e-8)
    with pytest.raises(InvalidInput, match="conditional"):
        Mahalanobis(by_class=True).fit(rows)


@pytest.mark.parametrize("kind", Covariance)
def test_a_mixture_of_given_parameters_is_that_of_scikit_learn(kind: Covariance) -> None:
    rows = clouds()[0]
    theirs = SklearnMixture(3, covariance_type="full" if kind is Covariance.FULL else "diag", random_state=0).fit(rows)
    if kind is Covariance.FULL:
        roots = precision_roots(theirs.covariances_)
        np.testing.assert_allclose(roots @ roots.transpose(0, 2, 1), np.linalg.inv(theirs.covariances_), rtol=1e-6)
    else:
        roots = theirs.covariances_**-0.5
    ours = Gaussians(theirs.weights_, theirs.means_, roots, ())
    np.testing.assert_allclose(ours(torch.from_numpy(rows)).numpy(), theirs.score_samples(rows), rtol=1e-8)


@pytest.mark.parametrize("kind", Covariance)
def test_the_mixture_fits_as_well_as_that_of_scikit_learn(kind: Covariance) -> None:
    preparation = Preparation(noise=0)
    rows = clouds(600)[0]
    train, away = preparation.split(600, 0)
    fitted = GaussianMixture(components=3, covariance=kind, ridge=1e-6).fit(rows, preparation=preparation)
    shape = "full" if kind is Covariance.FULL else "diag"
    theirs = SklearnMixture(3, covariance_type=shape, random_state=0, tol=1e-6, max_iter=1000)
    assert fitted.log_volume is not None
    ours = fitted.held_out.value + fitted.log_volume
    if kind is Covariance.FULL:  # a diagonal one is another model after the axes are turned
        assert ours == pytest.approx(theirs.fit(rows[train]).score(rows[away]), abs=0.05)
    assert ours > theirs.fit(rows[train]).score(rows[away]) - 0.1
    assert fitted.train_mean > Mahalanobis().fit(rows, preparation=preparation).train_mean + 0.3


def test_the_mixture_stops_before_it_overfits() -> None:
    train, away = sample(60), sample(2000, 1)
    model = GaussianMixture(components=8, ridge=1e-4).learn(train, away, 0)
    longer = GaussianMixture(components=8, ridge=1e-4).learn(train, train, 0)

    def score(fitted) -> float:
        return float(fitted(torch.from_numpy(away.rows)).mean())

    assert score(model) > score(longer) + 0.05


def test_few_rows_for_a_full_covariance_are_a_warning() -> None:
    assert Mahalanobis().learn(sample(60), sample(9), 0).warnings == ()
    (words,) = Mahalanobis().learn(sample(59), sample(9), 0).warnings
    assert words.startswith("59 training rows for each of 1 full covariance(s) of 3 dimensions; below 60")
    assert GaussianMixture(components=2).learn(sample(119), sample(9), 0).warnings
    assert not GaussianMixture(components=2).learn(sample(120), sample(9), 0).warnings
    assert not GaussianMixture(components=9, covariance=Covariance.DIAGONAL).learn(sample(30), sample(9), 0).warnings
    with pytest.raises(EmptySet, match="5 components"):
        GaussianMixture(components=5).learn(sample(4), sample(9), 0)


def test_nearest_neighbours_by_brute_force() -> None:
    train, asked = sample(50), sample(20, 1)
    model = NearestNeighbours(neighbours=4).learn(train, asked, 0)
    gap = np.sort(np.linalg.norm(asked.rows[:, None] - train.rows, axis=2), axis=1)[:, 3]
    expected = np.log(4) - np.log(50) - np.log(4 / 3 * np.pi * gap**3)
    np.testing.assert_allclose(model(torch.from_numpy(asked.rows)).numpy(), expected, rtol=1e-10)
    copies = Sample(np.repeat(train.rows[:1], 5, axis=0))
    assert torch.isfinite(NearestNeighbours(neighbours=4).learn(copies, asked, 0)(torch.from_numpy(copies.rows))).all()
    with pytest.raises(EmptySet):
        NearestNeighbours(neighbours=60).learn(train, asked, 0)


def test_kernels_are_those_of_scikit_learn_at_the_best_width() -> None:
    train, away = sample(300), sample(200, 1)
    widths = (0.1, 0.3, 0.5, 0.8, 2.0)
    model = KernelDensity(bandwidths=widths).learn(train, away, 0)
    scores = [SklearnKernels(bandwidth=h).fit(train.rows).score(away.rows) for h in widths]
    best = SklearnKernels(bandwidth=widths[int(np.argmax(scores))]).fit(train.rows)
    np.testing.assert_allclose(model(torch.from_numpy(away.rows)).numpy(), best.score_samples(away.rows), rtol=1e-8)
    assert model.warnings == ()
    (words,) = KernelDensity(bandwidths=(1.5, 2.0)).learn(train, away, 0).warnings
    assert "1.5" in words


@pytest.mark.parametrize(
    "flow", [MAF(transforms=1, width=8), NSF(transforms=1, width=8), RealNVP(transforms=2, width=8)]
)
def test_a_flow_integrates_to_one(flow: Flow) -> None:
    model = replace(flow, epochs=2).learn(sample(200, d=2), sample(50, 1, d=2), 0).double()
    axis = torch.linspace(-9, 9, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = model(grid).exp().view(241, 241)
    assert float(torch.trapezoid(torch.trapezoid(density, axis), axis)) == pytest.approx(1, abs=0.005)


def test_a_flow_learns_what_a_gaussian_cannot() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.standard_normal(800), np.zeros(800)], 1)
    rows[:, 1] = rows[:, 0] ** 2 + 0.2 * rng.standard_normal(800)
    flow = MAF(transforms=2, width=16, epochs=20, rate=1e-2, noise=0.0)
    truth = -0.5 * (1 + 1) - np.log(2 * np.pi * 0.2)
    fitted, flat = flow.fit(rows), Mahalanobis().fit(rows)
    assert fitted.log_volume is not None
    assert flat.log_volume is not None
    assert fitted.held_out.value + fitted.log_volume > flat.held_out.value + flat.log_volume + 0.6
    assert fitted.held_out.value + fitted.log_volume < truth + 0.2


def test_a_conditional_flow_knows_the_class() -> None:
    rows, labels = clouds(400)
    fitted = MAF(transforms=1, width=16, epochs=15, batch_size=32, rate=1e-2, conditional=True).fit(rows, labels)
    x, told = torch.from_numpy(rows[:60]), torch.from_numpy(labels[:60])
    right, wrong = fitted.log_prob(x, told), fitted.log_prob(x, (told + 1) % 3)
    assert float((right - wrong).mean()) > 3
    with pytest.raises(InvalidInput, match="without labels"):
        fitted.log_prob(x)
    with pytest.raises(InvalidInput, match="conditional"):
        MAF(conditional=True).fit(rows)


def test_training_stops_and_keeps_the_best_epoch() -> None:
    train, away = sample(30), sample(200, 1)

    def scored(epochs: int, by: Sample) -> float:
        flow = MAF(transforms=1, width=32, epochs=epochs, rate=5e-2, noise=0.0, patience=99)
        return float(flow.learn(train, by, 0)(torch.from_numpy(away.rows).float()).detach().mean())

    assert scored(40, by=away) == scored(60, by=away) > scored(60, by=train) + 0.05


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import vestige.dependencies

    monkeypatch.setattr(vestige.dependencies, "find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "zuko", raising=False)
    with pytest.raises(MissingExtra, match=r"vestige\[flow\]"):
        MAF().fit(clouds(40)[0])


def test_one_dimension_is_too_few_for_coupling() -> None:
    with pytest.raises(InvalidInput, match="one dimension"):
        RealNVP().fit(clouds(40)[0][:, :1])
