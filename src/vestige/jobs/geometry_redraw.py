"""What refusing generations of low dimension removes, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.estimator import ModelEstimator
from vestige.audit.geometry.redraw import Drawn, Redraw, redraw
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.features.extractor import FeatureExtractor
from vestige.jobs.geometry_look import asked_denoiser
from vestige.jobs.geometry_measure import model_curve, read
from vestige.jobs.geometry_points import SEARCH, find_copies
from vestige.jobs.geometry_question import Question
from vestige.jobs.quality import frechet, scene
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.models.generator import DiffusionGenerator, Generator
from vestige.models.guidance import Guided
from vestige.models.subject import Subject
from vestige.record import Cell, Estimate, Section, Table

Pixels = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Redrawn:
    """Summary lines and section of the report."""

    summary: tuple[Estimate, ...]
    section: Section


@dataclass(frozen=True, eq=False)
class Effect:
    """The generations without and with refusal.

    ``before``, ``after`` say which are copies; ``evaluations`` the network evaluations of one draw, of one measurement;
    ``quality`` the Fréchet distances, None where there are too few images.
    """

    drawn: Drawn
    before: Flags
    after: Flags
    evaluations: tuple[float, float]
    quality: tuple[Interval | None, Interval | None]
    judge: str
    threshold: float

    @property
    def extra(self) -> float:
        """Cost with refusal over the cost without, in network evaluations: every draw is measured as well."""
        draws = float(self.drawn.drawn.sum())
        sample, look = self.evaluations
        return draws * (sample + look) / (len(self.before) * sample) if sample else math.inf


def redraw_generations(
    settings: Redraw,
    subject: Subject,
    question: Question,
    threshold: float,
    who: Split,
    features: FeatureExtractor,
    context: Context,
) -> Redrawn:
    """Draw ``question.points.count`` generations, refuse those whose dimension is below ``threshold``, and compare."""
    looked, estimator, denoiser = [0.0], question.estimator, asked_denoiser(subject, question)
    if not isinstance(estimator, ModelEstimator):
        raise Unsupported("A GAN is not drawn again.", expected="a diffusion model.", remedy="leave --redraw away.")

    def images_of(rows: Index) -> Pixels:
        key = {"generator": subject.generator.key(), "seed": context.seed, "rows": rows.tolist()}
        return context.store.column("generations", key).fill(
            len(rows),
            lambda part: subject.generator.sample(rows[part], context.seed),
            shard_rows=64,
            progress=context.progress,
            label=f"drawing {len(rows):,} images",
        )

    def dimension(pixels: Pixels, rows: Index) -> Doubles:
        images = ImageSet(pixels, subject.generator.condition_of(rows), "generations")
        curve, cost = model_curve(
            denoiser, estimator, images, question.condition, context, f"measuring {len(rows):,} draws"
        )
        looked[0] = max(looked[0], cost)
        return read(estimator, curve, question.scale).value

    drawn = redraw(images_of, dimension, threshold, question.points.count, classes=subject.classes, settings=settings)
    sides = [ImageSet(pixels, None, "generations") for pixels in (drawn.before, drawn.pixels)]
    copied = [find_copies(side, who, context) for side in sides]
    scenes = [scene(side.pixels, who, features, context.seed) for side in sides]
    distances = [frechet(found.generated, found.reference, context.seed) for found in scenes]
    effect = Effect(
        drawn,
        copied[0].copies(SEARCH.delta),
        copied[1].copies(SEARCH.delta),
        (_cost_of_a_draw(subject.generator), looked[0]),
        (distances[0], distances[1]),
        scenes[0].judge,
        threshold,
    )
    return Redrawn(tuple(_summary(effect)), _section(effect, settings))


def _cost_of_a_draw(generator: Generator) -> float:
    if not isinstance(generator, DiffusionGenerator):
        return 1.0
    return float(generator.sampler.evaluations() * (2 if isinstance(generator.denoiser, Guided) else 1))


def _summary(effect: Effect) -> list[Estimate]:
    count = len(effect.before)
    unit = f"squared units of {effect.judge}"
    lines = [
        estimate("redraw/copies_before", clopper_pearson(int(effect.before.sum()), count), "share of generations"),
        estimate("redraw/copies_after", clopper_pearson(int(effect.after.sum()), count), "share of generations"),
        estimate(
            "redraw/refused",
            clopper_pearson(len(effect.drawn.refused), count),
            "share of generations",
            "every draw was too low",
        ),
        Estimate(
            name="redraw/cost",
            value=effect.extra if math.isfinite(effect.extra) else None,
            n=count,
            unit="times the network evaluations without it",
            note=f"{effect.drawn.extra:,} further draws, and a measurement of each",
        ),
    ]
    for name, distance in zip(("before", "after"), effect.quality, strict=True):
        if distance is not None:
            lines.append(estimate(f"redraw/frechet_{name}", distance, unit))
    return lines


def _section(effect: Effect, settings: Redraw) -> Section:
    drawn, count = effect.drawn, len(effect.before)
    flagged = drawn.drawn > 1
    kept = np.ones(count, np.bool_)
    kept[drawn.refused] = False
    given = effect.after & kept
    before, after = int(effect.before.sum()), int(given.sum())
    words = [
        f"{int(flagged.sum()):,} of {count:,} generations have a dimension below {effect.threshold:.3g}, which is low "
        f"for non-members, and were drawn again, at most {settings.rounds} times.",
        f"{before:,} generations were copies of training images; {after:,} are among those that would be given out. "
        f"{len(drawn.refused):,} places had no draw above the threshold and would stay empty.",
        f"{int((effect.before & flagged).sum()):,} of {int(flagged.sum()):,} that were flagged are copies, against "
        f"{before:,} of {count:,} in all: refusing as many at random would remove that share instead.",
    ]
    if effect.quality[0] is not None and effect.quality[1] is not None:
        words.append(
            f"The Fréchet distance is {effect.quality[0].value:.4g} before and {effect.quality[1].value:.4g} after "
            "(every place filled)."
        )
    sample, look = effect.evaluations
    rows: list[list[Cell]] = [
        ["generations", count, count - len(drawn.refused)],
        ["copies of training images", before, after],
        ["draws", count, int(drawn.drawn.sum())],
        ["network evaluations", round(count * sample), round(float(drawn.drawn.sum()) * (sample + look))],
        ["Fréchet distance", *(None if found is None else round(found.value, 4) for found in effect.quality)],
    ]
    table = Table(
        name="redraw",
        title="Generations without and with refusal",
        columns=["", "without", "with"],
        rows=rows,
        caption=f"A draw takes {sample:g} network evaluations, a measurement {look:g}.",
    )
    return Section(name="redraw", title="Drawing again where the dimension is low", text=words, tables=[table])
