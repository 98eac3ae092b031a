from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from vestige.models.schedule import (
    Cosine,
    DiscreteTable,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
)

CONTINUOUS = [VariancePreserving(), VariancePreserving(0.3, 9.0), Cosine(), VarianceExploding(), RectifiedFlow()]
times = st.floats(0, 1)


def table(steps: int = 1000) -> DiscreteTable:
    return DiscreteTable(DDPMScheduler(num_train_timesteps=steps).alphas_cumprod.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [
        (VariancePreserving(), (1, 0), (math.exp(-5.025), math.sqrt(-math.expm1(-10.05)))),
        (Cosine(), (1, 0), (0, 1)),
        (VarianceExploding(), (1, 0), (1, 50)),
        (RectifiedFlow(), (1, 0), (0, 1)),
        (table(), (1, 0), (math.sqrt(4.035e-5), math.sqrt(1 - 4.035e-5))),
    ],
)
def test_ends(schedule, start, end, dtype):
    alpha, sigma = schedule.alpha_sigma(torch.tensor([0.0, 1.0], dtype=dtype))
    assert alpha.dtype == sigma.dtype == dtype
    assert (alpha[0], sigma[0]) == start
    assert float(alpha[1]) == pytest.approx(end[0], rel=1e-3, abs=0)
    assert float(sigma[1]) == pytest.approx(end[1], rel=1e-6)


@given(times)
def test_variance_preserving_schedules_stay_on_the_unit_circle(t):
    for schedule in (*CONTINUOUS[:3], table()):
        alpha, sigma = schedule.alpha_sigma(torch.tensor([t], dtype=torch.float64))
        assert float(alpha.square() + sigma.square()) == pytest.approx(1, abs=1e-12)
        assert float(alpha) >= 0 <= float(sigma)


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0])
def test_variance_preserving_is_the_exponential_of_the_integrated_beta(t):
    integral = quad(lambda s: 0.3 + s * (9.0 - 0.3), 0, t)[0]
    alpha, _ = VariancePreserving(0.3, 9.0).alpha_sigma(torch.tensor(t, dtype=torch.float64))
    assert float(alpha) ** 2 == pytest.approx(math.exp(-integral), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_table_gives_back_every_trained_step(steps, dtype):
    schedule = table(steps)
    t = torch.tensor([schedule.time(i) for i in range(steps)], dtype=dtype)
    alpha, sigma = schedule.alpha_sigma(t)
    expected = DDPMScheduler(num_train_timesteps=steps).alphas_cumprod.double()
    assert (schedule.index(t) == torch.arange(steps)).all()
    assert torch.equal(alpha, expected.sqrt().to(dtype))
    assert torch.equal(sigma, (1 - expected).sqrt().to(dtype))


@given(times, st.integers(1, 40))
def test_nearest_grid_is_the_nearest_trained_time_and_idempotent(t, steps):
    schedule = table(steps)
    near = schedule.nearest_grid(torch.tensor([t], dtype=torch.float64))
    grid = [schedule.time(i) for i in range(steps)]
    assert abs(float(near) - t) == pytest.approx(min(abs(g - t) for g in grid), abs=1e-15)
    assert float(near) in grid
    assert torch.equal(schedule.nearest_grid(near), near)
    for continuous in CONTINUOUS:
        assert float(continuous.nearest_grid(torch.tensor([t], dtype=torch.float64))) == t


@settings(max_examples=10)
@given(st.floats(math.log(0.02), math.log(10)))
def test_time_of_ratio_inverts_continuous_schedules(log_ratio):
    for schedule in CONTINUOUS:
        t = torch.tensor(schedule.time_of_ratio(math.exp(log_ratio)), dtype=torch.float64)
        alpha, sigma = schedule.alpha_sigma(t)
        assert float(sigma / alpha) == pytest.approx(math.exp(log_ratio), rel=1e-9)


def test_time_of_ratio_finds_every_trained_step():
    schedule = table(15)
    for i in range(15):
        alpha, sigma = schedule.alpha_sigma(torch.tensor([schedule.time(i)], dtype=torch.float64))
        found = schedule.time_of_ratio(float(sigma / alpha) * (1 - 1e-12))
        assert int(schedule.index(torch.tensor([found], dtype=torch.float64))) == i


def test_keys_tell_schedules_apart():
    others = [VariancePreserving(0.1, 19.0), VarianceExploding(0.02), table(), table(999)]
    keys = [str(schedule.key()) for schedule in (*CONTINUOUS, *others)]
    assert len(set(keys)) == len(keys)
    assert table().key() == table().key()
