"""The dimension of generations from their neighbours: images of nearby latents, or the nearest among many others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import DataEstimator, Work
from vestige.audit.geometry.generator_spectrum import Measure
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.gan import GanGenerator
from vestige.models.generator import DiffusionGenerator, Generator, Pixels
from vestige.models.network import device_of, finite, still_settled
from vestige.randomness import Stream, normal
from vestige.randomness import generator as random_generator


@dataclass(frozen=True)
class GeneratedNeighbourhood:
    """Principal components of the images ``G(z + eta xi)`` around a generation G(z) of a GAN or decoder.

    Forward only, so it needs no derivative and sees what a step of finite length sees. The directions xi are standard
    normal, made exactly uncorrelated and of mean 0 and variance 1 within a repeat: for a linear generator the
    components are those of :class:`~vestige.audit.geometry.generator_spectrum.GeneratorSpectrum` at every step, with
    no error. The curve runs over steps, with the same directions at each; its errors are those of the mean over
    repeats. The dimension of the latent bounds the answer as long as the step is short.

    Parameters
    ----------
    measure, threshold : which components count: standard deviations a unit step are the singular values.
    steps : eta, ascending, in standard deviations of the latent.
    per_latent : images a repeat and step, in multiples of the latent's dimension, at least 2.
    repeats : independent sets of directions.
    rule : how the dimension is read off the curve.
    """

    claim: ClassVar[str] = "Around a memorized generation the images of nearby latents vary in few directions."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113: local PCA on generations; Fukunaga and Olsen 1971"
    access: ClassVar[Access] = Access.WEIGHTS

    measure: Measure = Measure.PIXELS
    threshold: float = 0.01
    steps: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    per_latent: int = 2
    repeats: int = 2
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_rule(self.rule)
        rising = bool(self.steps) and all(a < b for a, b in pairwise(self.steps))
        if not rising or self.steps[0] <= 0 or self.per_latent < 2 or self.repeats < 1 or not 0 < self.threshold < 1:
            raise InvalidInput(
                f"Steps {self.steps}, {self.per_latent} images a latent dimension, {self.repeats} repeats, "
                f"threshold {self.threshold:g}.",
                expected="ascending steps above 0, at least 2 images, at least 1 repeat, a threshold between 0 and 1.",
                remedy="change the setting.",
            )

    def curve(self, generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Curve:
        """Counts over steps at the generations of the rows [n] of ``work.seed``.

        Raises
        ------
        Unsupported : the images of one repeat do not fit into ``work.budget``.
        BadWeights : an image is not finite. InvalidInput : the module was put back into training mode.
        """
        still_settled(generator.network, "generator")
        ambient, draws = math.prod(generator.shape), self.per_latent * generator.latent
        if 16 * ambient * draws > work.budget:
            raise Unsupported(
                f"{draws} images of {ambient} pixels take {16 * ambient * draws:,} bytes.",
                expected=f"at most the budget of {work.budget:,}.",
                remedy="raise the budget, lower per_latent, or use GeneratorSpectrum, which works in blocks.",
            )
        before = generator.evaluations
        found = np.empty((len(rows), len(self.steps), self.repeats))
        for place, row in enumerate(rows):
            latent, label = _origin(generator, int(row), work.seed)
            for repeat in range(self.repeats):
                xi = _directions(work.seed, int(row), repeat, draws, generator.latent)
                for level, step in enumerate(self.steps):
                    images = _images(generator, latent + step * xi, label, work.batch_size)
                    values = _deviations(images) / (step * math.sqrt(ambient))
                    found[place, level, repeat] = self.measure.dimension(values[None], np.array([self.threshold]))[0, 0]
        return Curve(np.array(self.steps), *mean_and_error(found), ambient, generator.evaluations - before)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)

    def estimate(self, generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Dimension:
        """:meth:`curve`, read."""
        return self.read(self.curve(generator, rows, work=work))

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"estimator": "GeneratedNeighbourhood", **own}


def among_generations(
    estimator: DataEstimator, generator: Generator, queries: Pixels, generations: int, *, work: Work
) -> Dimension:
    """Dimension at images uint8 [q, c, h, w] from their neighbours among the first generations of ``work.seed``.

    For any generator, GAN or diffusion model, and any images, training images among them: what the estimator says of
    data it says here of what the model makes. An image that the generator repeats exactly lies on an atom. The
    evaluations of the curve are those that generating took.

    Raises
    ------
    ShapeMismatch : the images are not of the generator's shape. InvalidInput : it does not have as many generations.
    """
    if tuple(queries.shape[1:]) != generator.shape:
        raise ShapeMismatch(
            f"The images have shape {tuple(queries.shape[1:])}.",
            expected=f"{generator.shape}, as the generations.",
            remedy="resize the images, or choose the model that was trained on them.",
        )
    reference, asked = _generated(generator, np.arange(generations), work.seed)
    found = estimator.estimate(_flat(queries), _flat(reference), work=work)
    return _with_evaluations(found, asked)


def around_generations(
    estimator: DataEstimator, generator: Generator, rows: Sequence[int], generations: int, *, work: Work
) -> Dimension:
    """The same at generations themselves, the rows [n] of ``work.seed``, each left out of its own neighbourhood.

    The neighbours are ``generations`` rows in all: the rows asked about, and the first of the others.

    Raises
    ------
    InvalidInput : a row comes twice, or the generator does not have as many generations.
    """
    own = np.asarray(rows, np.int64)
    if len(np.unique(own)) != len(own) or len(own) > generations:
        raise InvalidInput(
            f"{len(own)} rows, {len(np.unique(own))} of them different, among {generations} generations.",
            expected="every row once, and at least as many generations.",
            remedy="name each row once, or raise the number of generations.",
        )
    others = np.setdiff1d(np.arange(generations), own)[: generations - len(own)]
    reference, asked = _generated(generator, np.concatenate([own, others]), work.seed)
    flat = _flat(reference)
    return _with_evaluations(estimator.estimate(flat[: len(own)], flat, same_index=True, work=work), asked)


def _generated(generator: Generator, rows: npt.NDArray[np.int64], seed: int) -> tuple[Pixels, int]:
    if generator.limit is not None and len(rows) and int(rows.max()) >= generator.limit:
        raise InvalidInput(
            f"Generation {int(rows.max())} was asked for.",
            expected=f"rows below {generator.limit}, all that there are.",
            remedy="ask for fewer generations.",
        )
    before = _counted(generator)
    return generator.sample(rows, seed), _counted(generator) - before


def _counted(generator: Generator) -> int:
    inner = generator.denoiser.evaluations if isinstance(generator, DiffusionGenerator) else 0
    return generator.evaluations + inner


def _with_evaluations(found: Dimension, asked: int) -> Dimension:
    curve = dataclasses.replace(found.curve, evaluations=found.curve.evaluations + asked)
    return dataclasses.replace(found, curve=curve)


def _flat(images: Pixels) -> Pixels:
    return images.reshape(len(images), -1)


def _origin(generator: GanGenerator, row: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Latent [1, latent] and label [1] of a row, as it is sampled."""
    chosen = np.array([row])
    latent = normal(seed, Stream.SAMPLE, chosen, (generator.latent,))
    labels = generator.condition_of(chosen)
    told = None if labels is None else torch.from_numpy(labels).to(device_of(generator.network))
    return torch.from_numpy(latent), told


def _directions(seed: int, row: int, repeat: int, draws: int, latent: int) -> Tensor:
    """Directions [draws, latent] of mean 0 and covariance 1 exactly, up to rounding."""
    drawn = random_generator(seed, Stream.GEOMETRY, row, repeat).standard_normal((draws, latent))
    basis, triangle = np.linalg.qr(drawn - drawn.mean(0))
    # The signs make the factor unique, and so the directions evenly distributed.
    return torch.from_numpy(basis * np.sign(np.diag(triangle)) * math.sqrt(draws)).float()


@torch.no_grad()
def _images(generator: GanGenerator, latents: Tensor, label: Tensor | None, size: int) -> Tensor:
    """Images [m, pixels], pixels in [0, 1], in the network's own precision and not rounded to grey values."""
    found: list[Tensor] = []
    for part in latents.to(device_of(generator.network)).split(size):
        told = [] if label is None else [label.expand(len(part))]
        found.append(generator.network(part, *told).flatten(1))
        generator.evaluations += len(part)
    images = torch.cat(found)
    finite(images, "generator's answer")
    return (images - generator.pixels.low) / (generator.pixels.high - generator.pixels.low)


def _deviations(images: Tensor) -> Doubles:
    """Standard deviations along the principal components of images [m, pixels], descending [m]."""
    centred = images.double()  # before the mean, which equal images then have exactly
    centred -= centred.mean(0)
    gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    return np.sqrt(np.linalg.eigvalsh(gram.cpu().numpy())[::-1].clip(min=0) / len(images))
