from __future__ import annotations

import numpy as np
import pytest
import torch

import vestige.audit.geometry.detectors as room
from vestige.audit.geometry.detectors.detector import Detector
from vestige.audit.geometry.detectors.guidance_alignment import GuidanceAlignment
from vestige.audit.geometry.detectors.guidance_norm import GuidanceNorm
from vestige.audit.geometry.detectors.guided_score_norm import GuidedScoreNorm
from vestige.audit.geometry.detectors.low_dimension import LowDimension
from vestige.audit.geometry.detectors.score_norm import ScoreNorm
from vestige.audit.geometry.detectors.sharpness import Of, Sharpness
from vestige.audit.geometry.estimator import Work
from vestige.discover import methods
from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.guidance import Guided
from vestige.models.oracle import gaussian_denoiser
from vestige.models.schedule import VariancePreserving
from vestige.randomness import Stream, normal

D = 4
SHAPE = (1, 2, 2)
WORK = Work(seed=3)
TOLD = torch.tensor([0.5, 0.3, 1e-4, 0.0], dtype=torch.float64)  # variances under condition 0
NULL = torch.tensor([0.9, 0.6, 0.4, 0.05], dtype=torch.float64)  # and without a condition
EVERY = [
    ScoreNorm(),
    GuidanceNorm(),
    GuidedScoreNorm(),
    Sharpness(time=0.5),
    Sharpness(time=0.5, of=Of.SCORE),
    GuidanceAlignment(),
]
EVERY += [LowDimension(), LowDimension(scale=1.0)]


def two_gaussians(told=TOLD, null=NULL):
    """Centred Gaussians with diagonal covariances: one under condition 0, another without a condition (1)."""
    zero = torch.zeros(SHAPE, dtype=torch.float64)
    given, without = (gaussian_denoiser(zero, torch.diag(v)) for v in (told, null))

    def function(x_t, t, condition):
        chosen = (condition == 0).view(-1, 1, 1, 1)
        return torch.where(chosen, given.mean(x_t, t), without.mean(x_t, t))

    settings = {"identity": "two", "classes": 1, "null_condition": 1}
    return FunctionDenoiser(function, VariancePreserving(), Prediction.CLEAN, SHAPE, **settings)


def points(n=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, *SHAPE)))


def level(time):
    alpha, sigma = VariancePreserving().alpha_sigma(torch.tensor(time, dtype=torch.float64))
    return float(alpha), float(sigma)


def curvature(variances, time):
    """``sigma^2 / (alpha^2 variance + sigma^2)``: what the noise estimate is of ``x_t / sigma``, axis by axis."""
    alpha, sigma = level(time)
    return (sigma**2 / (alpha**2 * variances + sigma**2)).numpy()


def close(found, wanted, step=1.0):
    # float64 answers of a few operations, and a difference of two divided by the step
    np.testing.assert_allclose(found, wanted, rtol=1e-11 / step, atol=1e-13)


def test_every_file_holds_detectors_that_are_found():
    assert set(methods(room, Detector)) == {type(d).__name__ for d in EVERY}
    for detector in EVERY:
        assert detector.claim
        assert detector.source
        assert detector.settings()["detector"] == type(detector).__name__


@pytest.mark.parametrize("time", [0.05, 0.5, 1.0])
def test_norms_and_sharpness_of_gaussians_are_exact(time):
    x, told, (alpha, sigma) = points(), torch.zeros(3, dtype=torch.int64), level(time)
    flat, c, u = x.flatten(1).numpy() * alpha / sigma, curvature(TOLD, time), curvature(NULL, time)
    settings = {"time": time, "draws": 0}

    def score(detector):
        return detector.score(two_gaussians(), x, range(3), told, work=WORK)

    close(score(ScoreNorm(**settings)), np.linalg.norm(flat * c, axis=1))
    close(score(GuidanceNorm(**settings)), np.linalg.norm(flat * (c - u), axis=1))
    close(score(GuidedScoreNorm(**settings, scale=4.0)), np.linalg.norm(flat * (u + 4 * (c - u)), axis=1))
    a, b = flat * (c - u), flat * u
    close(score(GuidanceAlignment(**settings)), (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    for step in (0.01, 1.0):  # the score is linear: no step is too long
        close(score(Sharpness(**settings, of=Of.SCORE, step=step)), (flat**2 * c**4).sum(1), step)
        close(score(Sharpness(**settings, step=step)), (flat**2 * (c - u) ** 4).sum(1), step)


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_dimension_has_the_complete_trace(scale):
    """Jacobians are diagonal, and a probe of signs then gives the trace exactly."""
    time, x = 0.1, points() / 5
    c, u, ratio = curvature(TOLD, time), curvature(NULL, time), level(time)[1] / level(time)[0]
    guided = u + scale * (c - u)  # of y, what the guided mean takes away
    wanted = (1 - guided).sum() + (np.square(x.flatten(1).numpy() * guided).sum(1)) / ratio**2
    told = torch.zeros(3, dtype=torch.int64)
    detector = LowDimension(time=time, draws=1, scale=scale)
    close(detector.score(two_gaussians(), x, range(3), told, work=WORK), -wanted)


def test_the_dimension_of_a_rotated_gaussian_is_within_its_error():
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    covariance = torch.from_numpy(rotation @ np.diag(TOLD.numpy()) @ rotation.T)
    model = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance)
    found = LowDimension(draws=100, scale=1.0).measure(model, torch.zeros(1, *SHAPE).double(), [5], work=WORK)
    wanted = (1 - curvature(TOLD, 0.1)).sum()
    assert 0 < found.error[0] < 0.2
    assert abs(found.value[0] + wanted) < 4 * found.error[0]


def test_the_guidance_norm_is_the_gap_of_sharpness():
    """``E_{x ~ p_t(x|c)} |s_c - s|^2 = sum (h - h_c)^2 / |h_c|``, h the eigenvalues of the Hessians (2412.04140)."""
    time, n = 0.4, 4000
    alpha, sigma = level(time)
    x = points(n, seed=2) * TOLD.sqrt().view(SHAPE)
    found = GuidanceNorm(time=time, draws=1).score(two_gaussians(), x, range(n), torch.zeros(n).long(), work=WORK)
    square = np.square(found / sigma)
    h, h_c = -1 / (alpha**2 * NULL + sigma**2).numpy(), -1 / (alpha**2 * TOLD + sigma**2).numpy()
    wanted = (np.square(h - h_c) / np.abs(h_c)).sum()
    assert abs(square.mean() - wanted) < 4 * square.std(ddof=1) / np.sqrt(n)


@pytest.mark.parametrize("detector", EVERY, ids=lambda d: f"{type(d).__name__}-{d.evaluations_per_draw}")
def test_a_point_is_scored_alike_in_any_company_and_its_cost_is_known(detector):
    x, told, model = points(5), torch.zeros(5, dtype=torch.int64), two_gaussians()
    whole = detector.measure(model, x, range(10, 15), told, work=WORK)
    assert whole.evaluations == 5 * detector.evaluations_per_point == model.evaluations
    some = detector.measure(model, x[[3, 1]], [13, 11], told[:2], work=Work(seed=3, batch_size=1))
    close(some.value, whole.value[[3, 1]], 0.01)
    close(some.error, whole.error[[3, 1]], 0.01)
    assert whole.value.dtype == np.float64
    assert bool((whole.error >= 0).all())
    again = detector.measure(model, x, range(10, 15), told, work=Work(seed=4))
    moved = not isinstance(detector, LowDimension)  # diagonal Jacobians: every probe tells the same
    assert np.allclose(again.value, whole.value, rtol=1e-9) is not moved


def test_values_are_means_over_the_draws_of_a_row():
    x, model, detector = points(2), two_gaussians(), ScoreNorm(time=0.3, draws=3)
    found = detector.measure(model, x, [8, 9], work=WORK)
    t = torch.full((2,), 0.3, dtype=torch.float64)
    each = np.stack(
        [
            detector.value(model, x, torch.from_numpy(normal(3, Stream.GEOMETRY, [8, 9], SHAPE, k)).double(), t).numpy()
            for k in range(3)
        ]
    )
    close(found.value, each.mean(0))
    close(found.error, each.std(0, ddof=1) / np.sqrt(3))
    assert np.isnan(ScoreNorm(draws=1).measure(model, x, [8, 9], work=WORK).error).all()
    assert not ScoreNorm(draws=0).measure(model, x, [8, 9], work=WORK).error.any()


def test_the_guided_score_is_that_of_the_guided_model():
    x, told, t = points(), torch.zeros(3, dtype=torch.int64), torch.full((3,), 0.5, dtype=torch.float64)
    noise = points(seed=7)
    found = GuidedScoreNorm(scale=3.0).value(two_gaussians(), x, noise, t, told)
    model = Guided(two_gaussians(), 3.0)
    close(found.numpy(), model.noise(model.noised(x, noise, t), t, told).flatten(1).norm(dim=1).numpy())


def test_what_is_missing_is_named():
    x, told = points(), torch.zeros(3, dtype=torch.int64)
    plain = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), torch.eye(D))
    for detector in (GuidanceNorm(), GuidedScoreNorm(), Sharpness(), GuidanceAlignment(), LowDimension()):
        with pytest.raises(Unsupported, match="null condition"):
            detector.score(plain, x, range(3), told, work=WORK)
        with pytest.raises(InvalidInput, match="without a condition"):
            detector.score(two_gaussians(), x, range(3), work=WORK)
    for settings in ({"time": 0.0}, {"time": 1.1}, {"draws": -1}):
        with pytest.raises(InvalidInput, match="ScoreNorm at time"):
            ScoreNorm(**settings)
    with pytest.raises(InvalidInput, match="step"):
        Sharpness(step=0.0)
    with pytest.raises(InvalidInput, match="probe"):
        LowDimension(draws=0)
    with pytest.raises(InvalidInput, match="3 points have 2 rows"):
        ScoreNorm().score(plain, x, range(2), work=WORK)
    with pytest.raises(ShapeMismatch, match=r"\(1, 2, 2\)"):
        ScoreNorm().score(plain, x[:, :, :1], range(3), work=WORK)
