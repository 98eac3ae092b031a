"""Surrogate conditional data extraction (SIDE; Chen et al. 2024, arXiv 2410.02467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.attack import Attack, Outcome
from vestige.audit.extraction.search import Finder, Floats, Index, Pixels
from vestige.audit.extraction.side_report import Arm, Steering, outcome_of
from vestige.audit.extraction.surrogate import (
    Conditions,
    FittedGaussian,
    NoisyClassifier,
    Steered,
    accuracy,
    commonest,
    fit,
    lloyd,
)
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.features.pixels import BlockMeans
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser
from vestige.models.generator import DiffusionGenerator
from vestige.models.subject import Subject
from vestige.nearest import nearest, rms
from vestige.record import NotDone

_HELD_OUT = 10
"""One generation in this many tests the classifier instead of training it."""
_TEST_TIME = 0.3


@dataclass(frozen=True)
class SIDE(Attack[Steering]):
    """Give an unconditional model conditions of its own making, and sample under them.

    Generations are clustered; a small classifier learns to tell the clusters from noised
    generations; sampling then follows ``s(x_t, t) + scale * grad log p_t(c | x_t)``, each
    cluster in turn. Copies are searched for as in generate-and-filter and counted beside two
    controls of the same number of images: plain sampling from the same starting noise, and the
    classifier's pull on a Gaussian with the generations' mean and covariance.

    Parameters
    ----------
    generations : images in each arm, and as many before them to learn the clusters from.
    clusters : surrogate conditions.
    scale : weight of the classifier's gradient; 0 is plain sampling.
    training_steps : of the classifier, 64 noised generations each.
    side : generations are clustered by the means of side x side pixel blocks.
    delta, neighbours, alpha : of the search for copies, as in generate-and-filter.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "recovers training images by sampling under surrogate conditions"
    source: ClassVar[str] = "Chen et al. 2024, arXiv 2410.02467; Dhariwal and Nichol 2021, arXiv 2105.05233"
    by_default: ClassVar[bool] = False

    generations: int = 500
    clusters: int = 20
    scale: float = 1.0
    training_steps: int = 300
    side: int = 6
    delta: float = 0.05
    neighbours: int = 50
    alpha: float = 0.5

    def __post_init__(self) -> None:
        sane = self.clusters >= 2 and self.training_steps >= 1 and self.side >= 1 and self.scale >= 0
        if self.generations < 2 * self.clusters or not 0 < self.delta < 1 or not sane:
            raise InvalidInput(
                f"generations={self.generations}, clusters={self.clusters}, scale={self.scale}, "
                f"training_steps={self.training_steps}, side={self.side}, delta={self.delta}.",
                expected="at least 2 clusters and 2 generations for each, a step, a block, scale >= 0, 0 < delta < 1.",
                remedy="change the option.",
            )

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and the model must be sampled from its denoiser."""
        missing = super().refusal(subject, split)
        if missing is not None or isinstance(subject.generator, DiffusionGenerator):
            return missing
        return NotDone(
            what=f"{type(self).__name__}: {self.claim}",
            reason=f"{subject.name} is not sampled step by step, so no classifier can steer it.",
            remedy="pass a diffusion model.",
        )

    def collect(self, subject: Subject, split: Split, context: Context) -> Steering:
        """Generate, learn the conditions, sample both arms and the control, search all; every step cached."""
        plain = subject.generator
        if not isinstance(plain, DiffusionGenerator):
            raise Unsupported("Not a diffusion model.", expected="step-by-step sampling.", remedy="pass one.")
        size = self.generations
        # The first rows are those that generate-and-filter samples, shared with it.
        both = self._sampled(plain, np.arange(2 * size), "generations", context, f"generating {2 * size:,} images")
        pool, rows = both[:size], np.arange(size, 2 * size)
        learned = self._conditions(plain, pool, context)

        def steered(model: Denoiser, asked: Index | None, name: str) -> tuple[DiffusionGenerator, Pixels]:
            joined = Steered(model, learned.classifier, self.scale, asked)
            drawn = DiffusionGenerator(joined, plain.sampler, plain.batch_size)
            return drawn, self._sampled(drawn, rows, "steered", context, f"generating {size:,} images ({name})")

        guided, pixels = steered(plain.denoiser, learned.asked, "guided")
        empty, echoes = steered(FittedGaussian(pool, plain.denoiser.schedule), None, "classifier alone")

        def arm(name: str, drawn: DiffusionGenerator, part: Pixels) -> Arm:
            return self._arm(name, drawn, part, split, context)

        def distance(images: ImageSet | None) -> Floats:
            flat = np.ascontiguousarray(pixels.reshape(size, -1))
            return np.empty(0) if images is None else rms(nearest(images.flat, flat).distance2[:, 0], flat.shape[1])

        return Steering(
            guided=arm("guided", guided, pixels),
            unguided=arm("unguided", plain, both[size:]),
            empty=arm("classifier alone", empty, echoes),
            before=arm("before", plain, pool),
            conditions=learned,
            member_distance=distance(split.members),
            other_distance=distance(split.others),
        )

    def _sampled(self, drawn: DiffusionGenerator, rows: Index, kind: str, context: Context, label: str) -> Pixels:
        key = {"generator": drawn.key(), "seed": context.seed}
        if rows[0]:
            key["first"] = int(rows[0])
        return context.store.column(kind, key).fill(
            len(rows),
            lambda part: drawn.sample(rows[part], context.seed),
            shard_rows=64,
            progress=context.progress,
            label=label,
        )

    def _conditions(self, plain: DiffusionGenerator, pool: Pixels, context: Context) -> Conditions:
        """Cluster the generations and train the classifier, once for a store."""
        schedule = plain.denoiser.schedule
        labels = lloyd(BlockMeans(self.side).features(pool), self.clusters, context.seed)
        tests = np.arange(len(pool)) % _HELD_OUT == _HELD_OUT - 1
        count = int(labels.max()) + 1
        key = {
            "generator": plain.key(),
            "seed": context.seed,
            "generations": self.generations,
            "clusters": self.clusters,
            "steps": self.training_steps,
            "side": self.side,
        }
        weights = context.store.column("surrogate", key).fill(
            1,
            lambda _: fit(pool[~tests], labels[~tests], count, schedule, self.training_steps, context.seed)[None],
            progress=context.progress,
            label=f"learning {count} clusters",
        )[0]
        classifier = NoisyClassifier(pool.shape[1], count).load_vector(weights)
        told = accuracy(classifier, pool[tests], labels[tests], schedule, _TEST_TIME)
        asked = commonest(plain.condition_of(np.arange(len(pool))), labels)
        return Conditions(classifier, asked, np.bincount(labels), told, int(tests.sum()))

    def _arm(self, name: str, drawn: DiffusionGenerator, pixels: Pixels, split: Split, context: Context) -> Arm:
        flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
        key = {"arm": name, "generator": drawn.key(), "seed": context.seed, "generations": self.generations}
        finder = Finder(self.neighbours, self.alpha)
        others = None
        if split.others is not None:
            others = finder.search(flat, split.others, None, key, context, "non-members")
        return Arm(name, pixels, finder.search(flat, split.members, split.cluster, key, context, "members"), others)

    def score(self, collected: Steering, split: Split) -> Outcome:
        """What each arm finds, what guidance adds, and by duplicate count."""
        return outcome_of(collected, split, self.delta, self.scale)
