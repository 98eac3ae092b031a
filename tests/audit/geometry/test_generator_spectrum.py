from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.estimate import Curve, Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum, Measure, singular_values
from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.dcgan import Dcgan
from vestige.models.adapters.gan import GanGenerator
from vestige.models.network import PixelRange
from vestige.randomness import Stream, normal

WORK = Work(seed=2)
WIDE = PixelRange(-1000.0, 1000.0)
SHAPE = (1, 4, 4)


def wrap(function, latent, **settings):
    return GanGenerator(function, latent, identity="f", **settings)


def linear(values, latent, seed=0):
    """``z -> W z`` with the given singular values, in units of root-mean-square pixels of [0, 1] as ours are."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(16, latent)))[0]
    right = np.linalg.qr(rng.normal(size=(latent, latent)))[0]
    weight = torch.from_numpy(left * np.pad(values, (0, latent - len(values))) @ right.T).float()
    unit = 2000.0 * 4.0  # of pixels that span 2000, sixteen of them
    return wrap(lambda z: (z @ (weight * unit).T).view(-1, *SHAPE), latent, pixels=WIDE)


def dcgan(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        form = Dcgan(latent=6, classes=classes, shape=(1, 8, 8), width=8, critic_width=4, embedding=3)
        return wrap(form.generator(), 6, classes=classes)


def brute(generator, row):
    """Singular values of the Jacobian in double precision, by reverse mode."""
    z = torch.from_numpy(normal(WORK.seed, Stream.SAMPLE, [row], (generator.latent,))).double()[0]
    told = generator.condition_of(np.array([row]))
    labels = [] if told is None else [torch.from_numpy(told)]
    network = generator.network.double()
    jacobian = torch.autograd.functional.jacobian(lambda z: network(z[None], *labels).flatten(), z)
    network.float()
    return torch.linalg.svdvals(jacobian).numpy() / 2 / np.sqrt(jacobian.shape[0])


def test_a_linear_map_has_its_own_singular_values():
    generator = linear([0.04, 0.02, 0.01, 0.002], 6)
    found = singular_values(generator, [0, 5], work=WORK)
    # float32 entries, and a Gram matrix whose root resolves 1e-16 of the square of the largest
    np.testing.assert_allclose(found[:, :4], [[0.04, 0.02, 0.01, 0.002]] * 2, rtol=1e-5)
    assert (found[:, 4:] < 1e-8).all()
    assert generator.evaluations == 1 + 2 * (1 + 6)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_network_has_the_singular_values_of_its_jacobian(classes):
    generator = dcgan(classes)
    found = singular_values(generator, [4, 2], work=WORK)
    for row, values in zip((4, 2), found, strict=True):
        np.testing.assert_allclose(values, brute(generator, row), rtol=1e-4)
    assert generator.evaluations == 1 + 2 * (1 + 6)
    np.testing.assert_allclose(singular_values(generator, [2], work=WORK), found[1:], rtol=1e-5)


def test_a_small_budget_costs_time_and_not_accuracy():
    generator = dcgan()
    whole = singular_values(generator, [1], work=WORK)
    chunked = singular_values(generator, [1], work=Work(seed=2, budget=2 * 6 * 64 * 4))
    assert generator.evaluations == 1 + 7 + 1 + 6 + 6  # one tangent at a time, each with the image again
    # J^T J in float32, whose root loses half the digits: to 1e-7 of the largest squared
    squared = singular_values(generator, [1], work=Work(seed=2, budget=1))
    assert generator.evaluations == 8 + 13 + 1 + 2 * 12
    np.testing.assert_allclose(chunked, whole, rtol=1e-5)
    np.testing.assert_allclose(np.square(squared), np.square(whole), atol=1e-5 * whole.max() ** 2)


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [
        (Measure.RELATIVE, [4, 3, 2, 1]),
        (Measure.ENERGY, [3, 3, 2, 2]),
        (Measure.PIXELS, [4, 3, 2, 1]),
        (Measure.PARTICIPATION, [(0.16 + 0.04 + 0.01 + 0.0004) ** 2 / (0.0256 + 0.0016 + 0.0001 + 0.00000016)]),
    ],
)
def test_measures_count_as_they_say(measure, wanted):
    thresholds = (0.001, 0.006, 0.015, 0.03)
    if measure is Measure.ENERGY:  # shares left beyond the first, second, third: 0.24, 0.049, 0.0019
        thresholds = (0.01, 0.04, 0.06, 0.2)
    if measure is Measure.RELATIVE:
        thresholds = (0.04, 0.2, 0.3, 0.6)
    estimator = GeneratorSpectrum(measure, thresholds, threshold=thresholds[2])
    found = estimator.estimate(linear([0.04, 0.02, 0.01, 0.002], 6), [3], work=WORK)
    assert found.curve.dimension[0] == pytest.approx(wanted)
    assert not found.curve.error.any()
    assert (found.curve.ambient, found.curve.evaluations, found.reading) == (16, 8, (Reading.GIVEN,))
    assert found.value[0] == pytest.approx(wanted[0] if measure is Measure.PARTICIPATION else wanted[2])


def test_the_latent_bounds_every_measure():
    values = np.ones((1, 5))
    for measure in Measure:
        assert measure.dimension(values, np.array([0.01])).item() == pytest.approx(5)
    assert Measure.ENERGY.dimension(values, np.array([0.2])).item() == 4  # a fifth may be left out


def test_a_gap_is_read_where_it_is_widest_and_only_if_it_is_wide():
    grid = (0.001, 0.01, 0.1, 0.5)
    estimator = GeneratorSpectrum(Measure.RELATIVE, grid, threshold=None)
    found = estimator.estimate(linear([0.04, 0.03, 0.025], 6), [0], work=WORK)
    assert (found.value[0], found.error[0], found.reading, found.level[0]) == (3, 0, (Reading.PLATEAU,), 1)
    counts = np.array([[6.0, 5.0, 4.0, 3.0], [6.0, 6.0, 2.0, 2.0], [3.0, 2.0, 2.0, 2.0]])
    read = estimator.read(Curve(np.array(grid), counts, np.zeros_like(counts), 16))
    assert read.reading == (Reading.NONE, Reading.PLATEAU, Reading.PLATEAU)
    assert np.isnan(read.value[0])
    assert read.value[1:].tolist() == [6, 2]
    assert read.level.tolist() == [-1, 0, 2]


@pytest.mark.parametrize("function", [lambda z: torch.zeros(len(z), *SHAPE), lambda z: z.sign().view(-1, *SHAPE)])
def test_a_generator_that_snaps_to_fixed_images_has_dimension_0(function):
    for measure in Measure:
        found = GeneratorSpectrum(measure).estimate(wrap(function, 16), [0, 1], work=WORK)
        assert found.value.tolist() == [0, 0]


@pytest.mark.parametrize(
    "function",
    [
        lambda z: torch.tanh(z.detach()).view(-1, *SHAPE),
        lambda z: torch.from_numpy(np.tanh(z.numpy())).view(-1, *SHAPE),
    ],
)
def test_a_generator_without_derivative_is_refused_with_advice(function):
    with pytest.raises(Unsupported, match="GeneratedNeighbourhood"):
        singular_values(wrap(function, 16), [0], work=WORK)


def test_settings_are_checked():
    for settings in ({"thresholds": ()}, {"thresholds": (0.1, 0.01)}, {"threshold": 0.2}, {"gap": 1.0}):
        with pytest.raises(InvalidInput, match="Thresholds"):
            GeneratorSpectrum(**settings)
    assert GeneratorSpectrum().settings()["estimator"] == "GeneratorSpectrum"
    generator = dcgan()
    generator.network.train()
    with pytest.raises(InvalidInput, match="training mode"):
        singular_values(generator, [0], work=WORK)
