"""Statistics of a Gaussian model are linear maps of the image, written down here with matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.membership.pia import PIA
from vestige.audit.membership.rows import Norm
from vestige.audit.membership.secmi import SecMI
from vestige.audit.membership.sima import SimA
from vestige.data.split import split
from vestige.errors import InvalidInput
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject

RTOL = 2e-4


class Maps:
    """Noise and mean of N(0, C) under x_t = a x + s eps, as matrices."""

    def __init__(self, covariance, schedule):
        self.covariance, self.schedule, self.one = covariance, schedule, np.eye(len(covariance))

    def levels(self, t):
        return (float(v) for v in self.schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64)))

    def noise(self, t):
        a, s = self.levels(t)
        return s * np.linalg.inv(a * a * self.covariance + s * s * self.one)

    def mean(self, t):
        a, s = self.levels(t)
        return a * self.covariance @ np.linalg.inv(a * a * self.covariance + s * s * self.one)

    def step(self, here, there):
        a, s = self.levels(there)
        return a * self.mean(here) + s * self.noise(here)


@pytest.fixture
def maps(gauss, covariance):
    return Maps(covariance, gauss.schedule)


@pytest.fixture
def who(images):
    return split(images(1, 7), images(2, 5))


def flat(side):
    return side.floats().flatten(1).double().numpy()


def agree(outcome, who, statistic):
    np.testing.assert_allclose(outcome.member_scores, -statistic(flat(who.members)), rtol=RTOL)
    np.testing.assert_allclose(outcome.other_scores, -statistic(flat(who.others)), rtol=RTOL)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("normalised", [False, True])
def test_pia(gauss, maps, who, context, norm, normalised):
    a, s = maps.levels(0.2)

    def statistic(x):
        e = x @ maps.noise(0.01).T
        if normalised:
            e = e * np.sqrt(2 / np.pi) / np.abs(e).mean(1, keepdims=True)
        residual = (a * x + s * e) @ maps.noise(0.2).T - e
        return (np.abs(residual) ** (2 if norm is Norm.L2 else 4)).mean(1)

    attack = PIA(time=0.2, start=0.01, norm=norm, normalised=normalised)
    agree(attack.run(Subject.of_denoiser("gauss", gauss, DDIM()), who, context), who, statistic)


@pytest.mark.parametrize("norm", Norm)
def test_sima(gauss, maps, who, context, norm):
    def statistic(x):
        return (np.abs(x @ maps.noise(0.3).T) ** (2 if norm is Norm.L2 else 4)).mean(1)

    agree(SimA(time=0.3, norm=norm).run(Subject.of_denoiser("g", gauss, DDIM()), who, context), who, statistic)


def test_secmi(gauss, maps, who, context):
    a, s = maps.levels(0.1)
    chain = maps.step(0.2, 0.3) @ maps.step(0.1, 0.2) @ (a * maps.one + s * maps.noise(0.02))
    change = (maps.one - maps.step(0.4, 0.3) @ maps.step(0.3, 0.4)) @ chain

    def statistic(x):
        return ((x @ change.T) ** 2).mean(1)

    attack = SecMI(time=0.3, steps=3, start=0.02)
    agree(attack.run(Subject.of_denoiser("g", gauss, DDIM()), who, context), who, statistic)
    assert gauss.evaluations == 12 * 5


@pytest.mark.parametrize("attack", [PIA(), PIA(normalised=True), SimA(), SecMI()])
def test_a_memorizer_is_found_out_completely(attack, images, context):
    who = split(images(1, 40), images(2, 40))
    model = EmpiricalDenoiser(who.members.floats())
    outcome = attack.run(Subject.of_denoiser("memorizer", model, DDIM()), who, context)
    assert outcome.summary[0].value > 0.95


@pytest.mark.parametrize("wrong", [{"time": 0.0}, {"time": 1.5}, {"rows": 1}])
@pytest.mark.parametrize("kind", [PIA, SimA, SecMI])
def test_senseless_settings_are_refused(kind, wrong):
    with pytest.raises(InvalidInput):
        kind(**wrong)


def test_a_chain_ends_before_time_one():
    with pytest.raises(InvalidInput, match="time"):
        SecMI(time=1.0)
    with pytest.raises(InvalidInput, match="steps"):
        SecMI(steps=0)
