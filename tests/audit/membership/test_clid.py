from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vestige.audit.membership.augmented_loss import AugmentedLoss
from vestige.audit.membership.clid import CLiD, TwoLosses, robust_scale
from vestige.audit.membership.rows import Sides
from vestige.audit.probe import Augmentation
from vestige.data.split import split
from vestige.errors import InvalidInput
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject


@pytest.fixture
def who(images):
    return split(images(1, 30, labels=True), images(2, 20, labels=True))


def subject(model):
    return Subject.of_denoiser("oracle", model, DDIM())


def test_scores_are_the_formula_worked_by_hand(who):
    # own losses 1 2 | 3 5, null losses 2 4 | 3 4: D = 1 2 0 -1, -own = -1 -2 -3 -5.
    inside, outside = np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[3.0, 3.0], [5.0, 4.0]])
    data = TwoLosses(Sides(np.array([0, 1]), np.array([0, 1]), 0), inside, outside)
    outcome = CLiD(weight=0.25).score(data, who)
    d = (np.array([1, 2, 0, -1]) - 0.5) / (1.25 - -0.25)  # quartiles by linear interpolation
    own = (np.array([-1, -2, -3, -5]) + 2.5) / (-1.75 - -3.5)
    wanted = 0.25 * d + 0.75 * own
    np.testing.assert_allclose(outcome.member_scores[:2], wanted[:2])
    np.testing.assert_allclose(outcome.other_scores[:2], wanted[2:])


def test_scaling_does_not_know_who_is_a_member(who):
    rng = np.random.default_rng(0)
    losses = rng.random((50, 2))
    sides = Sides(np.arange(30), np.arange(20), 0)
    one = CLiD().score(TwoLosses(sides, losses[:30], losses[30:]), who)
    mixed = np.concatenate([losses[30:], losses[:30]])
    two = CLiD().score(TwoLosses(sides, mixed[:30], mixed[30:]), who)
    np.testing.assert_allclose(np.r_[one.other_scores, one.member_scores], np.r_[two.member_scores, two.other_scores])


def test_robust_scale_is_centred_and_ignores_outliers():
    values = np.array([1.0, 2, 3, 4, 1e9])
    np.testing.assert_allclose(robust_scale(values)[:4], [-1, -0.5, 0, 0.5])
    assert robust_scale(np.ones(5)).tolist() == [0.0] * 5


def test_a_memorizer_with_labels_is_found_out(who, context, two_classes):
    model = two_classes(who.members)
    # The wrong label can bring a non-member nearer by chance; the loss alone cannot be mistaken.
    assert CLiD().run(subject(model), who, context).summary[0].value > 0.8
    assert CLiD(weight=0.0).run(subject(model), who, context).summary[0].value == 1
    assert model.evaluations == 50 * 8


def test_it_needs_a_null_condition_and_labels(who, two_classes):
    plain, told = EmpiricalDenoiser(who.members.floats()), two_classes(who.members)
    only = EmpiricalDenoiser(who.members.floats(), labels=torch.from_numpy(who.members.labels))
    for model in (plain, only):
        refusal = CLiD().refusal(subject(model), who)
        assert refusal is not None
        assert "--null-condition" in refusal.remedy
    bare = dataclasses.replace(who, others=dataclasses.replace(who.others, labels=None))
    refusal = CLiD().refusal(subject(told), bare)
    assert refusal is not None
    assert "labels" in refusal.remedy
    assert CLiD().refusal(subject(told), who) is None


@pytest.mark.parametrize("wrong", [{"weight": -0.1}, {"weight": 1.1}, {"draws": 0}])
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(InvalidInput):
        CLiD(**wrong)


def test_augmented_losses_are_means_over_forms(images, context):
    who = split(images(1, 6), images(2, 6))
    model = EmpiricalDenoiser(who.members.floats())
    both = AugmentedLoss(times=(0.3,)).run(subject(model), who, context)
    assert model.evaluations == 12 * 8
    plain = AugmentedLoss(times=(0.3,), flip=False).run(subject(model), who, context)
    assert model.evaluations == 12 * 8
    assert (both.member_scores <= plain.member_scores / 2 + 1e-12).all()
    assert AugmentedLoss(shifts=True).augmentations == tuple(Augmentation)
    AugmentedLoss(times=(0.3,), flip=False, shifts=True).run(subject(model), who, context)
    assert model.evaluations == 12 * 8 + 12 * 16


def test_a_model_trained_with_flips_is_found_out_by_flips(images, context):
    who = split(images(1, 60), images(2, 60))
    train = torch.cat([who.members.floats(), who.members.floats().flip(-1)])
    outcome = AugmentedLoss(draws=1).run(subject(EmpiricalDenoiser(train)), who, context)
    assert outcome.summary[0].value > 0.95
