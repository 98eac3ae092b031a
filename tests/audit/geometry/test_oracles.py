"""Every estimator against sets whose local dimension is known, at points where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ive

from vestige.audit.geometry.dsm import DSM, Form
from vestige.audit.geometry.estimate import Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.lhsd import LHSD
from vestige.audit.geometry.lidl import LIDL
from vestige.audit.geometry.normal_bundle import NormalBundle
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser

WORK = Work(seed=11)
FINE = (0.01, 0.0158, 0.0251, 0.0398)
ESTIMATORS = {
    "FLIPD": FLIPD(),
    "FLIPD, random": FLIPD(exact=0),
    "DSM": DSM(draws=32),
    "DSM, Stein": DSM(draws=32, form=Form.STEIN),
    "LHSD": LHSD(probes=8),
    "LIDL": LIDL(),
    "NormalBundle": NormalBundle(),
}


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)[:, None, None, :]


def flipd(model, where, ratios):
    return FLIPD(ratios=ratios).curve(model, where, range(len(where)), work=WORK).dimension


@pytest.mark.parametrize("inner", [2, 3, 8, 17])
def test_spheres_at_every_noise_level(closed_forms, inner):
    ambient = inner + 3
    where = points([1.0] + [0.0] * (ambient - 1))
    found = flipd(closed_forms.Sphere(inner, ambient), where, (0.05, 0.1, 0.2))[0]
    kappa, nu = 1 / np.square([0.05, 0.1, 0.2]), inner / 2 - 1
    np.testing.assert_allclose(found, 2 * kappa * (1 - ive(nu + 1, kappa) / ive(nu, kappa)), rtol=1e-6)


def test_the_circle_with_an_atom_at_every_noise_level(closed_forms):
    # Mode, antipode, atom; from quadrature of the density, independently.
    found = flipd(closed_forms.VonMisesAndAtom(), points([1, 0], [-1, 0], [0, 0]), (0.05, 0.1, 0.5))
    known = [[0.9956, 0.983, 0.896], [1.0057, 1.023, 3.444], [0, 0, 1.405]]
    np.testing.assert_allclose(found, known, atol=6e-4)


def test_segment_and_disc_at_every_noise_level(closed_forms):
    segment = flipd(closed_forms.Segment(), points([0.5, 0], [0, 0], [0.1, 0]), (0.01, 0.05, 0.1))
    np.testing.assert_allclose(segment, [[1, 1, 1], [1, 1, 1], [1.0, 0.8895, 0.7124]], atol=6e-4)
    disc = flipd(closed_forms.Disc(), points([0, 0], [0.9, 0], [1, 0]), (0.01, 0.05, 0.1))
    np.testing.assert_allclose(disc, [[2, 2, 2], [2, 1.882, 1.676], [1.996, 1.980, 1.958]], atol=1e-3)


def test_the_perfect_memorizer_at_every_noise_level():
    angles = np.random.default_rng(0).vonmises(0, 2, 100)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    distance = np.linalg.norm(circle[:, None] - circle[None], axis=2) + 9 * np.eye(100)
    memorizer = EmpiricalDenoiser(torch.from_numpy(circle)[:, None, None, :])
    ratios = (0.01, 0.05, 0.1, 0.2)
    lone = int(distance.min(1).argmax())
    where = torch.from_numpy(circle[lone][None])[:, None, None, :]
    found = flipd(memorizer, where, ratios)[0]
    # FLIPD of atoms is twice the mean of |y - x|^2 / 2 r^2 under their posterior, here summed directly.
    square = np.square(np.linalg.norm(circle - circle[lone], axis=1))[:, None] / (2 * np.square(ratios))
    share = np.exp(-square)
    np.testing.assert_allclose(found, (2 * share * square).sum(0) / share.sum(0), atol=1e-9)
    assert found[0] < 1e-9


CASES = {
    "plane of 4 in 12": (lambda f: gaussian_denoiser(torch.zeros(1, 1, 12), f.spectrum(12, 4)[1]), [0.0] * 12, 4),
    "all of 6": (lambda f: gaussian_denoiser(torch.zeros(1, 1, 6), f.spectrum(6, 6)[1]), [0.0] * 6, 6),
    "sphere of 2 in 6": (lambda f: f.Sphere(3, 6), [0.6, 0.0, 0.8, 0, 0, 0], 2),
    "sphere of 7 in 10": (lambda f: f.Sphere(8, 10), [0.6, 0.0, 0.8] + [0.0] * 7, 7),
    "circle, mode": (lambda f: f.VonMisesAndAtom(), [1.0, 0.0], 1),
    "circle, antipode": (lambda f: f.VonMisesAndAtom(), [-1.0, 0.0], 1),
    "atom in the circle": (lambda f: f.VonMisesAndAtom(), [0.0, 0.0], 0),
    "segment": (lambda f: f.Segment(), [0.5, 0.0], 1),
    "disc": (lambda f: f.Disc(5), [0.1, 0.0, 0, 0, 0], 2),
    "memorized": (lambda f: EmpiricalDenoiser(points(*np.eye(5).tolist())), [1.0, 0, 0, 0, 0], 0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", CASES)
def test_the_dimension_is_read(closed_forms, name, case):
    build, where, dimension = CASES[case]
    found = ESTIMATORS[name].estimate(build(closed_forms), points(where), (3,), work=WORK)
    assert found.reading[0] is Reading.PLATEAU, found.curve.dimension
    # Its own error at 3 sd, and 0.1 sqrt(D) within which a plateau may slope at all.
    allowed = 3 * found.error[0] + 0.05 * np.sqrt(len(where))
    assert abs(found.value[0] - dimension) <= allowed, (found.value, found.error, found.curve.dimension)
    if dimension == 0:
        assert round(found.value[0], 1) == 0
