from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from vestige.audit.geometry.estimate import Curve, Reading
from vestige.audit.geometry.estimator import DataEstimator, Work
from vestige.audit.geometry.generated_neighbourhood import (
    GeneratedNeighbourhood,
    among_generations,
    around_generations,
)
from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum, Measure
from vestige.audit.geometry.reading import at_level
from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.models.adapters.gan import GanGenerator
from vestige.models.generator import DiffusionGenerator, SampleBank
from vestige.models.network import PixelRange
from vestige.models.oracle import gaussian_denoiser
from vestige.models.sampler import DDIM

WORK = Work(seed=2)
WIDE = PixelRange(-1000.0, 1000.0)
SHAPE = (1, 4, 4)


@dataclass(frozen=True)
class Nearest(DataEstimator):
    """Distance to the nearest row of the reference, which is 0 at an atom, and how many rows there were."""

    claim: ClassVar[str] = "none"
    source: ClassVar[str] = "none"

    def curve(self, queries, reference, *, same_index=False, work):
        distance = np.linalg.norm(queries[:, None].astype(float) - reference[None], axis=2)
        if same_index:
            np.fill_diagonal(distance, np.inf)
        return Curve(np.array([1.0, len(reference)]), np.sort(distance)[:, :2], np.zeros((len(queries), 2)), 16)

    def read(self, curve):
        return at_level(curve, np.zeros(len(curve.dimension), np.int64))


def wrap(function, latent, **settings):
    return GanGenerator(function, latent, identity="f", **settings)


def linear(scales, latent=5):
    weight = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(16, latent)))[0] * scales).float()
    return wrap(lambda z: (z @ weight.T * 500).view(-1, *SHAPE), latent, pixels=WIDE)


@pytest.mark.parametrize("measure", list(Measure))
def test_on_a_linear_generator_it_is_the_spectrum_at_every_step_and_has_no_error(measure):
    generator = linear([1.0, 0.8, 0.5, 0.02, 0.0])
    estimator = GeneratedNeighbourhood(measure, threshold=0.03)
    found = estimator.estimate(generator, [3, 8], work=WORK)
    exact = GeneratorSpectrum(measure, (0.03,), threshold=0.03).estimate(
        linear([1.0, 0.8, 0.5, 0.02, 0.0]), [3], work=WORK
    )
    # float32 images around 500, differences of which at a step of 0.01 are good to 1e-5
    np.testing.assert_allclose(found.curve.dimension, np.full((2, 6), exact.value[0]), rtol=1e-4)
    np.testing.assert_allclose(found.curve.error, 0, atol=1e-4)
    assert found.reading == (Reading.PLATEAU,) * 2
    assert found.curve.evaluations == generator.evaluations == 2 * 6 * 2 * 2 * 5
    assert found.curve.ambient == 16


def test_a_long_step_sees_what_a_short_one_does_not():
    """A circle of a thousandth in a second plane, run through a hundred times a unit: invisible to the Jacobian."""

    def function(z):
        fast = 0.3 * torch.sin(20 * z[:, :1])
        return torch.cat([z[:, :1], fast, torch.zeros(len(z), 14)], dim=1).view(-1, *SHAPE) * 100

    generator = wrap(function, 1, pixels=WIDE)
    curve = GeneratedNeighbourhood(Measure.RELATIVE, 0.1, steps=(0.001, 0.3), per_latent=64).curve(
        generator, [0], work=WORK
    )
    assert curve.dimension.tolist() == [[1, 2]]


def test_a_point_has_its_own_directions_whatever_its_company():
    generator = wrap(lambda z: torch.tanh(z @ torch.ones(3, 16) / 3).view(-1, *SHAPE), 3, classes=0)
    estimator = GeneratedNeighbourhood(Measure.PARTICIPATION)
    whole = estimator.curve(generator, [1, 2, 3], work=WORK)
    alone = estimator.curve(generator, [2], work=Work(seed=2, batch_size=2))
    np.testing.assert_allclose(alone.dimension[0], whole.dimension[1], rtol=1e-5)
    assert GeneratedNeighbourhood(repeats=1).curve(generator, [2], work=WORK).error == pytest.approx(
        np.nan, nan_ok=True
    )


def test_a_generator_that_does_not_move_is_an_atom():
    for measure in Measure:
        found = GeneratedNeighbourhood(measure).estimate(
            wrap(lambda z: torch.full((len(z), *SHAPE), 0.3), 4), [0], work=WORK
        )
        assert found.value.tolist() == [0]


def test_the_class_of_a_row_is_kept():
    def function(z, labels):
        return torch.where((labels == 1).view(-1, 1), z, torch.zeros_like(z)).view(-1, *SHAPE)

    generator = wrap(function, 16, classes=2, pixels=WIDE)
    found = GeneratedNeighbourhood(Measure.RELATIVE, 0.1).estimate(generator, [0, 1], work=WORK)
    assert found.value.tolist() == [0, 16]


def test_images_are_set_among_generations():
    generator = wrap(lambda z: torch.tanh(z).view(-1, *SHAPE), 16)
    made = generator.sample(np.arange(30), WORK.seed)
    queries = np.stack([made[4], 255 - made[4]])
    before = generator.evaluations
    found = among_generations(Nearest(), generator, queries, 30, work=WORK)
    wanted = np.linalg.norm(queries[1].ravel().astype(float) - made.reshape(30, 16), axis=1).min()
    assert found.value == pytest.approx([0, wanted])
    assert found.curve.scale[1] == 30
    assert found.curve.evaluations == generator.evaluations - before == 30


def test_a_generation_is_left_out_of_its_own_neighbourhood():
    generator = wrap(lambda z: torch.tanh(z).view(-1, *SHAPE), 16)
    rows = [4, 50]
    found = around_generations(Nearest(), generator, rows, 20, work=WORK)
    every = [4, 50, *[i for i in range(20) if i != 4][:18]]
    made = generator.sample(np.array(every), WORK.seed).reshape(20, 16).astype(float)
    wanted = [np.sort(np.linalg.norm(made - made[i], axis=1))[1] for i in range(2)]
    assert found.value == pytest.approx(wanted)
    assert found.curve.evaluations == 20


def test_diffusion_models_and_banks_are_generators_too():
    denoiser = gaussian_denoiser(torch.zeros(SHAPE), torch.eye(16) * 0.1)
    found = around_generations(Nearest(), DiffusionGenerator(denoiser, DDIM(3)), [0], 4, work=WORK)
    assert found.curve.evaluations == denoiser.evaluations > 0
    bank = SampleBank(np.arange(80, dtype=np.uint8).reshape(5, *SHAPE))
    assert around_generations(Nearest(), bank, [0], 5, work=WORK).value == pytest.approx([64.0])
    with pytest.raises(InvalidInput, match="rows below 5"):
        among_generations(Nearest(), bank, bank.pixels, 6, work=WORK)


def test_what_does_not_fit_is_refused():
    generator = linear([1.0] * 5)
    with pytest.raises(ShapeMismatch, match=r"\(1, 4, 4\)"):
        among_generations(Nearest(), generator, np.zeros((1, 1, 5, 4), np.uint8), 3, work=WORK)
    for rows in ([1, 1], [1, 2, 3, 4]):
        with pytest.raises(InvalidInput, match="among 3 generations"):
            around_generations(Nearest(), generator, rows, 3, work=WORK)
    with pytest.raises(Unsupported, match="budget"):
        GeneratedNeighbourhood().curve(generator, [0], work=Work(budget=1000))
    for settings in ({"steps": (0.1, 0.1)}, {"per_latent": 1}, {"repeats": 0}, {"threshold": 1.0}):
        with pytest.raises(InvalidInput, match="Steps"):
            GeneratedNeighbourhood(**settings)
