"""Local PCA: eigenvalues as numpy gives them, every rule as scikit-dimension has it, errors by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.local_pca import LocalPCA, Rule, spectra
from vestige.audit.geometry.manifolds import ball, gaussian, sphere
from vestige.errors import InvalidInput

WORK = Work()


@pytest.mark.parametrize("d", [3, 12, 30, 80])
def test_eigenvalues_are_those_of_the_covariance(d):
    near = np.random.default_rng(0).standard_normal((4, 40, d)) * np.linspace(0.1, 1, d) + 5
    for k, values in zip((6, 20, 40), spectra(near, np.array([6, 20, 40])), strict=True):
        for one, points in zip(values, near, strict=True):
            rank = min(k - 1, d)
            expected = np.linalg.eigvalsh(np.cov(points[:k].T))[::-1][:rank]
            np.testing.assert_allclose(one[:rank], expected, rtol=1e-8)
            assert (one[rank:] == 0).all()


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [(Rule.THRESHOLD, "FO"), (Rule.PARTICIPATION, "participation_ratio"), (Rule.GAP, "maxgap")],
)
def test_it_is_what_scikit_dimension_says(rule, theirs):
    skdim = pytest.importorskip("skdim")
    rng = np.random.default_rng(1)
    for points in (
        sphere(120, 3, 6, rng).points + 0.01 * rng.standard_normal((120, 6)),
        gaussian(120, 5, 30, rng).points + 0.01 * rng.standard_normal((120, 30)),
    ):
        expected = skdim.id.lPCA(ver=theirs).fit_transform_pw(points, n_neighbors=25)
        found = LocalPCA((25,), rule).curve(points, points, same_index=True, work=WORK).dimension[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("ambient", [5, 60])
def test_planes_are_exact(ambient):
    points = gaussian(400, 3, ambient, np.random.default_rng(2)).points
    for rule in (Rule.THRESHOLD, Rule.GAP):
        curve = LocalPCA((20, 50), rule).curve(points[:30], points[30:], work=WORK)
        assert (curve.dimension == 3).mean() > 0.95
    assert (LocalPCA((50,), Rule.GAP).curve(points[:30], points[30:], work=WORK).dimension == 3).all()
    ratio = LocalPCA((20, 50), Rule.PARTICIPATION).curve(points[:30], points[30:], work=WORK).dimension
    assert (ratio <= 3 + 1e-9).all()
    assert ratio[:, 1].mean() > 2.7


@pytest.mark.parametrize("rule", [Rule.THRESHOLD, Rule.PARTICIPATION])
def test_the_standard_error_by_simulation(rule):
    """Normal neighbourhoods whose last eigenvalues lie at the threshold, where the count is in doubt."""
    k, scale = 200, np.sqrt(np.array([1, 0.8, 0.6, 0.055, 0.05, 0.045]))
    near = np.random.default_rng(3).standard_normal((1500, k, 6)) * scale
    (values,) = spectra(near, np.array([k]))
    dimension, error = LocalPCA((k,), rule).of(values, k)
    # eigenvalues this close repel each other, which the asymptotic law leaves out
    assert np.std(dimension) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.25)


def test_a_doubtful_gap_has_an_error_and_a_clear_one_has_none():
    clear = np.array([[1, 0.9, 0.8, 1e-6, 1e-6, 1e-6], [1, 1, 0, 0, 0, 0]])
    dimension, error = LocalPCA((50,), Rule.GAP).of(clear, 50)
    assert dimension.tolist() == [3, 2]
    assert (error < 1e-3).all()
    doubtful = np.array([[1, 0.5, 0.26, 0.125, 0.06]])
    assert LocalPCA((50,), Rule.GAP).of(doubtful, 50)[1][0] > 0.5


def test_images_wider_than_the_neighbourhood():
    rng = np.random.default_rng(4)
    images = np.clip(128 + 30 * ball(300, 2, 768, rng).points * 20, 0, 255).astype(np.uint8)
    curve = LocalPCA((30, 60)).curve(images[:20], images[20:], work=WORK)
    assert (curve.dimension == 2).mean() > 0.9


def test_a_share_out_of_range_is_refused():
    for threshold in (0.0, 1.0, np.nan):
        with pytest.raises(InvalidInput):
            LocalPCA(threshold=threshold)
