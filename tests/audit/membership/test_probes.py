"""Every answer is computed once, whoever asks for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.audit.errors import error_table
from vestige.audit.membership.augmented_loss import AugmentedLoss
from vestige.audit.membership.clid import CLiD
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.pia import PIA
from vestige.audit.membership.quantile_regression import QuantileRegression
from vestige.audit.membership.secmi import SecMI
from vestige.audit.membership.sima import SimA
from vestige.audit.probe import Augmentation, Chain, Clean, Condition, Implied, Noised, power_sums, snapped
from vestige.data.split import split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.schedule import DiscreteTable, VariancePreserving
from vestige.models.subject import Subject
from vestige.store import Store


def test_a_superset_pays_for_the_difference_only(images, context):
    data = images(0, 5)
    model = EmpiricalDenoiser(data.floats()[:3])
    small = error_table(model, data, (0.1,), 2, context, label="")
    assert model.evaluations == 10
    large = error_table(model, data, (0.3, 0.1), 3, context, label="")
    assert model.evaluations == 30  # 5 rows x 2 times x 3 draws
    np.testing.assert_array_equal(large[:, 1, :2], small[:, 0])
    error_table(model, data, (0.1, 0.3), 3, context, label="")
    error_table(model, data, (0.3,), 1, context, label="", condition=Condition.NULL)  # it knows no classes
    assert model.evaluations == 30
    error_table(model, data, (0.3,), 1, context, label="", augmentation=Augmentation.FLIP)
    assert model.evaluations == 35


def test_conditions_are_columns_of_their_own(images, context, two_classes):
    data = images(0, 6, labels=True)
    model = two_classes(data)
    own = error_table(model, data, (0.5,), 1, context, label="")
    null = error_table(model, data, (0.5,), 1, context, label="", condition=Condition.NULL)
    assert model.evaluations == 12
    plain = EmpiricalDenoiser(data.floats())
    np.testing.assert_allclose(null, error_table(plain, data, (0.5,), 1, context, label=""), rtol=1e-5)
    assert np.abs(own / null - 1).max() > 0.01
    # Without labels nothing but the null condition can be asked for: the same column under both names.
    bare = dataclasses.replace(data, labels=None)
    error_table(model, bare, (0.5,), 1, context, label="")
    assert model.evaluations == 18
    error_table(model, bare, (0.5,), 1, context, label="", condition=Condition.NULL)
    assert model.evaluations == 18


def test_the_first_answer_is_shared(images, context):
    data = images(0, 5)
    model = EmpiricalDenoiser(data.floats()[:3])
    recipes = [Implied(0.2, 0.001), Implied(0.2, 0.001, normalised=True), Clean(0.001), Chain(0.1, 3, 0.001)]
    together = power_sums(model, data, recipes, context, label="")
    assert model.evaluations == 5 * (1 + 1 + 1 + 4)
    assert [recipe.evaluations for recipe in recipes] == [2, 2, 1, 5]
    power_sums(model, data, recipes[::-1], context, label="")
    assert model.evaluations == 35
    alone = Context(Store(context.store.root / "alone"), batch_size=2)
    for place, recipe in enumerate(recipes):
        found = power_sums(model, data, [recipe], alone, label="")
        np.testing.assert_allclose(found[:, 0], together[:, place], rtol=1e-4)
    assert model.evaluations == 35 + 5 * (2 + 2 + 1 + 5)


def test_first_answers_are_dropped_between_blocks(images, context, monkeypatch):
    data = images(0, 300)
    model = EmpiricalDenoiser(data.floats()[:20])
    recipes = [Clean(0.1), Implied(0.2, 0.1)]
    whole = power_sums(model, data, recipes, context, label="")
    monkeypatch.setattr("vestige.audit.probe.KEPT_FLOATS", 16 * 128)
    parts = power_sums(model, data, recipes, Context(Store(context.store.root / "blocks")), label="")
    assert model.evaluations == 2 * 2 * 300
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_every_attack_reads_one_table(images, context, two_classes):
    who = split(images(0, 30, labels=True), images(1, 30, labels=True))
    model = two_classes(who.members)
    subject = Subject.of_denoiser("oracle", model, DDIM())
    spent = []
    for attack in (DenoisingLoss(), QuantileRegression(), CLiD(), AugmentedLoss(), PIA(), SimA(time=0.001), SecMI()):
        before = model.evaluations
        attack.run(subject, who, context)
        spent.append((model.evaluations - before) // 60)
    # CLiD adds the null condition, the augmented loss the flip; SimA at PIA's start is free.
    assert spent == [4, 0, 4, 4, 2, 0, 12]


def test_power_sums_are_those_of_the_residual(images, context):
    data = images(0, 4)
    model = EmpiricalDenoiser(data.floats()[:2])
    sums = power_sums(model, data, [Clean(0.3)], context, label="")
    noise = model.noise(data.floats(), torch.full((4,), 0.3)).numpy()
    np.testing.assert_allclose(sums[:, 0, 0], (noise**2).sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(sums[:, 0, 1], (noise**4).sum((1, 2, 3)), rtol=1e-5)


def test_augmentations_move_pixels():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    moved = {
        Augmentation.NONE: [[0, 1, 2], [3, 4, 5]],
        Augmentation.FLIP: [[2, 1, 0], [5, 4, 3]],
        Augmentation.UP: [[3, 4, 5], [3, 4, 5]],
        Augmentation.DOWN: [[0, 1, 2], [0, 1, 2]],
        Augmentation.LEFT: [[1, 2, 2], [4, 5, 5]],
        Augmentation.RIGHT: [[0, 0, 1], [3, 3, 4]],
    }
    assert set(moved) == set(Augmentation)
    for augmentation, wanted in moved.items():
        assert augmentation.apply(x)[0, 0].tolist() == wanted


def test_the_seed_belongs_to_noise_alone(images, tmp_path: Path):
    data = images(0, 3)
    model = EmpiricalDenoiser(data.floats())
    for seed in (0, 1):
        power_sums(model, data, [Noised(0.1), Clean(0.1)], Context(Store(tmp_path), seed=seed), label="")
    assert model.evaluations == 3 * (2 + 1)


def network(prediction: Prediction, schedule, function):
    return FunctionDenoiser(function, schedule, prediction, (1, 4, 4), identity="test")


def test_times_are_those_that_the_network_knows(images, context):
    asked = []

    def remember(x, t, condition=None):
        asked.append(float(t[0]))
        return x

    table = DiscreteTable(torch.linspace(0.99, 0.01, 10))
    model = network(Prediction.NOISE, table, remember)
    power_sums(model, images(0, 2), [Clean(0.001), Clean(0.1), Noised(0.12)], context, label="")
    assert len(asked) == 2  # steps 0.001 and 0.1 are the same first step
    assert snapped(model, 0.001) == pytest.approx(0.1)


def test_broken_answers_are_refused(images, context):
    model = network(Prediction.NOISE, VariancePreserving(), lambda x, t, condition=None: x * torch.nan)
    with pytest.raises(InvalidInput, match="NaN"):
        power_sums(model, images(0, 2), [Clean(0.1)], context, label="")
