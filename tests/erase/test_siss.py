from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from vestige.erase.data.balance import gram
from vestige.erase.data.siss import SISS, Pairs, draw_pairs, importance, paired_losses
from vestige.erase.driver import derivatives
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, generator

SHORT = SISS(steps=3, batch_size=5)
MIXES = st.floats(0.01, 0.99)


@given(ratio=st.floats(-500, 500), mix=MIXES)
def test_the_weights_are_densities_over_the_mixture(ratio: float, mix: float) -> None:
    w_x, w_a = (float(w) for w in importance(torch.tensor(ratio, dtype=torch.float64), mix))
    assert (1 - mix) * w_x + mix * w_a == pytest.approx(1)
    assert 0 <= w_x <= 1 / (1 - mix) + 1e-9
    assert 0 <= w_a <= 1 / mix + 1e-9
    if abs(ratio) < 30:
        assert w_x == pytest.approx(1 / ((1 - mix) + mix * np.exp(ratio)))
        assert w_a == pytest.approx(1 / ((1 - mix) * np.exp(-ratio) + mix))


@pytest.mark.parametrize("mix", [0.1, 0.5, 0.8])
def test_weighted_expectations_under_the_mixture_are_those_of_either_side(mix: float) -> None:
    x, a, alpha, sigma = 0.7, -0.4, 0.8, 0.6
    q_x, q_a = norm(alpha * x, sigma), norm(alpha * a, sigma)

    def integrand(value: float, side: int) -> float:
        ratio = torch.tensor(q_a.logpdf(value) - q_x.logpdf(value))
        density = (1 - mix) * q_x.pdf(value) + mix * q_a.pdf(value)
        clean = (x, a)[side]
        error = np.tanh(value) - (value - alpha * clean) / sigma
        return density * float(importance(ratio, mix)[side]) * error**2

    for side, law in enumerate((q_x, q_a)):
        clean = (x, a)[side]
        direct = quad(lambda v, c=clean, q=law: q.pdf(v) * (np.tanh(v) - (v - alpha * c) / sigma) ** 2, -8, 8)[0]
        assert quad(integrand, -8, 8, args=(side,))[0] == pytest.approx(direct, rel=1e-8)


def sides(pairs: Pairs) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    return [(pairs.retain, pairs.retain_labels), (pairs.forget, pairs.forget_labels)]


def plain(base: Denoiser, pairs: Pairs, clean: torch.Tensor, labels: torch.Tensor | None) -> float:
    """The loss of one side by a pass of its own."""
    answer = base.noise(base.noised(clean, pairs.noise, pairs.t), pairs.t, labels)
    return float((answer - pairs.noise).square().mean())


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("mix", [0.3, 0.7])
def test_one_pass_estimates_both_losses_without_bias(shop: Any, classes: int, mix: float) -> None:
    base, request, rng = shop.denoiser(classes), shop.request(), np.random.default_rng(0)
    found, direct = [], []
    with torch.no_grad():
        for _ in range(120):
            pairs = draw_pairs(base, request, rng, 64, mix)
            # Late times, where the densities overlap and the weights are of both kinds.
            pairs = dataclasses.replace(pairs, t=0.9 + 0.1 * pairs.t)
            found.append(paired_losses(base, pairs, mix).mean(1).tolist())
            direct.append([plain(base, pairs, *side) for side in sides(pairs)])
    difference = np.array(found) - np.array(direct)
    error = difference.std(0, ddof=1) / len(difference) ** 0.5
    assert np.all(np.abs(difference.mean(0)) < 4 * error)
    assert np.all(error < 0.05)


def test_pairs_share_time_and_noise_and_follow_the_copies(shop: Any) -> None:
    base = shop.denoiser()
    request = dataclasses.replace(
        shop.request(), retain_copies=np.array([1, 3, *[0] * 7]), forget_copies=np.array([0, 1, 9])
    )
    pairs = draw_pairs(base, request, np.random.default_rng(0), 400, 0.5)
    assert pairs.retain.shape == pairs.forget.shape == pairs.noise.shape == (400, 1, 6, 6)
    for images, side, labels, expected in (
        (request.retain, pairs.retain, pairs.retain_labels, {0: 100, 1: 300}),
        (request.forget, pairs.forget, pairs.forget_labels, {1: 100, 2: 300}),
    ):
        row = torch.cdist(side.flatten(1), images.floats().flatten(1)).argmin(1)
        counts = np.bincount(row, minlength=len(images))
        assert labels is not None
        assert labels.tolist() == images.labels[row].tolist()
        assert {k: int(v) for k, v in enumerate(counts) if v}.keys() == expected.keys()
        for place, count in expected.items():
            assert counts[place] == pytest.approx(count, abs=40)


def test_a_step_is_the_retain_gradient_less_a_share(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Tensor] = []

    def clip(parameters: list[torch.nn.Parameter], bound: float) -> None:
        taken.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    base, request = shop.denoiser(), shop.request()
    method = dataclasses.replace(SHORT, steps=1, share=0.25)
    cost = method.erase(base, request, shop.context(tmp_path)).manifest.cost
    assert cost["forwards_per_step"] == 5

    rng, parameters = generator(0, Stream.ERASE, 0), list(base.module.parameters())
    retain, forget = paired_losses(base, draw_pairs(base, request, rng, 5, method.mix), method.mix).mean(1)
    g_r, g_f = derivatives(retain, parameters, keep_graph=True), derivatives(forget, parameters)
    products = gram(g_r, g_f)
    factor = 0.25 * (products.retain / products.forget) ** 0.5
    wanted = torch.cat([(a - factor * b).flatten() for a, b in zip(g_r, g_f, strict=True)])
    torch.testing.assert_close(taken[0], wanted)


@pytest.mark.parametrize("wrong", [{"mix": 0.0}, {"mix": 1.0}, {"share": 0.0}, {"share": float("inf")}])
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong)
