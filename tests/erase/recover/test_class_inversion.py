"""One condition for a whole class, on a model whose classes are bright and dark images."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vestige.data.images import ImageSet
from vestige.erase.recover.class_inversion import ClassInversion
from vestige.erase.recover.recovery import Target
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.features.extractor import Classifier
from vestige.store import Store

ATTACK = ClassInversion(steps=60, batch_size=8, samples=24, rate=0.1)


class Brightness(Classifier):
    """Class 0 is bright, class 1 dark."""

    def features(self, pixels):
        return pixels.reshape(len(pixels), -1).mean(1, keepdims=True, dtype=np.float64)

    def probabilities(self, pixels):
        bright = 1 / (1 + np.exp(-(self.features(pixels) - 127.5) / 10))
        return np.concatenate([bright, 1 - bright], axis=1)

    @property
    def digest(self):
        return "brightness"

    @property
    def name(self):
        return "brightness"


def pictures(count: int, seed: int, *, bright: bool) -> ImageSet:
    middle = 200 if bright else 55
    values = np.random.default_rng(seed).normal(middle, 15, (count, 1, 6, 6)).clip(0, 255)
    return ImageSet(values.astype(np.uint8), np.full(count, 0 if bright else 1))


@pytest.fixture(scope="module")
def case(learn: Any) -> Target:
    """The base knows both classes; the erased model's label 0 was made to stand for class 1, nothing else was done."""
    bright, dark = pictures(16, 0, bright=True), pictures(16, 1, bright=False)
    both = ImageSet(np.concatenate([bright.pixels, dark.pixels]), np.repeat([0, 1], 16))
    base, reference = learn(both, steps=400), learn(dark, seed=3, steps=400)
    module = copy.deepcopy(base.module)
    with torch.no_grad():
        module.embed.weight[0] = module.embed.weight[1]
    return Target(base.with_module(module), base, bright, None, reference, 0, Brightness())


def context(folder: Path) -> Context:
    return Context(Store(folder), 0)


def test_a_class_whose_label_alone_was_changed_is_drawn_again(case: Target, tmp_path: Path) -> None:
    outcome = ATTACK.attack(case, context(tmp_path))
    assert outcome.tells, outcome.words
    assert outcome.advantage.value > 0.5
    short = dataclasses.replace(ATTACK, steps=1).attack(case, context(tmp_path))
    assert short.advantage.value < 0.2  # the label itself no longer draws it


def test_a_model_that_never_saw_the_class_gives_nothing(case: Target, learn: Any, tmp_path: Path) -> None:
    dark = pictures(16, 1, bright=False)
    for erased in (case.reference, learn(dark, seed=4, steps=400)):
        assert erased is not None
        outcome = ATTACK.attack(dataclasses.replace(case, erased=erased), context(tmp_path))
        assert not outcome.tells, outcome.words


def test_the_budget_is_what_the_models_counted(case: Target, tmp_path: Path) -> None:
    before = [model.evaluations for model in case.models.values()]
    outcome = ATTACK.attack(case, context(tmp_path))
    counted = sum(m.evaluations for m in case.models.values()) - sum(before)
    backward = 2 * ATTACK.steps * ATTACK.batch_size * len(before)
    assert counted + backward == outcome.budget


def test_what_is_missing_is_said(case: Target) -> None:
    assert ATTACK.refusal(case) is None
    for change, words in (
        ({"forgotten_class": None}, "no class was forgotten"),
        ({"judge": None}, "no classifier"),
        ({"reference": None}, "never saw the class"),
    ):
        refusal = ATTACK.refusal(dataclasses.replace(case, **change))
        assert refusal is not None
        assert words in refusal.reason
    with pytest.raises(InvalidInput):
        ClassInversion(steps=0)
