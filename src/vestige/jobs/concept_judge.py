"""Who says whether a picture shows a concept: the zoo's judge, or one made from the base's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vestige.erase.recover.concept.attack import Floats, Judge
from vestige.erase.recover.concept.paraphrase import without
from vestige.features.pixels import BlockMeans
from vestige.features.scene_judge import SceneJudge
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.models.adapters.text_to_image import Drawing, Pixels, TextToImage

_SHRINK = 0.1
"""Share of the mean variance that is added to every feature's own."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A judge of one concept, and how often it is right about pictures that it did not learn from.

    Parameters
    ----------
    judge : which pictures show the concept.
    hits : share of the base's pictures of the concept in which it sees it.
    false_hits : the same of pictures of the prompts without the concept.
    name : what it is.
    """

    judge: Judge
    hits: Interval
    false_hits: Interval
    name: str

    @property
    def sees(self) -> bool:
        """Whether it certainly tells the base's pictures with and without the concept apart."""
        return self.hits.low > self.false_hits.high


def judge_of(
    base: TextToImage,
    concept: str,
    prompts: Sequence[str],
    drawing: Drawing,
    seed: int,
    known: SceneJudge | None = None,
    pictures: int = 64,
) -> Judged:
    """The known judge where it has a word for the concept, and otherwise a linear one on block means.

    ``pictures`` are drawn by the base with and without the concept; a linear judge learns from the first half.
    """
    with_it = [prompts[i % len(prompts)] for i in range(pictures)]
    rows = range(1 << 40, (1 << 40) + pictures)
    shown = base.sample(with_it, rows, seed, drawing)
    others = base.sample([without(prompt, concept) for prompt in with_it], rows, seed, drawing)
    judge = None if known is None else _named(known, concept)
    name = f"the zoo's judge of '{concept}'"
    if judge is None:
        half = pictures // 2
        judge, name = linear_judge(shown[:half], others[:half]), "a linear judge on block means of the base's pictures"
        shown, others = shown[half:], others[half:]
    hits, wrong = int(judge(shown).sum()), int(judge(others).sum())
    return Judged(judge, clopper_pearson(hits, len(shown)), clopper_pearson(wrong, len(others)), name)


def linear_judge(shown: Pixels, others: Pixels) -> Judge:
    """Fisher's discriminant with a diagonal covariance on block means, its threshold half-way between both means."""
    features = BlockMeans()
    inside, outside = features.features(shown), features.features(others)
    spread = (inside.var(0) + outside.var(0)) / 2
    weights: Floats = (inside.mean(0) - outside.mean(0)) / (spread + _SHRINK * spread.mean() + 1e-12)
    threshold = float((inside.mean(0) + outside.mean(0)) @ weights / 2)
    return lambda pixels: np.asarray(features.features(pixels) @ weights > threshold)


def _named(judge: SceneJudge, concept: str) -> Judge | None:
    attribute = next((name for name, values in judge.attributes.items() if concept in values), None)
    if attribute is None:
        return None
    return lambda pixels: np.array([seen == concept for seen in judge.named(pixels, attribute)], dtype=bool)
