from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vestige.erase.data import selective_amnesia
from vestige.erase.data.fisher import fisher_diagonal
from vestige.erase.data.selective_amnesia import SelectiveAmnesia, Surrogate, add_penalty, uniform_images
from vestige.erase.driver import derivatives, draw_batch, noise_loss
from vestige.erase.request import Request
from vestige.errors import InvalidInput, NothingChanged, Unsupported
from vestige.randomness import Stream, generator

SHORT = SelectiveAmnesia(steps=3, batch_size=5, fisher_images=4, fisher_times=2)


def whole_class(shop: Any) -> Request:
    data = shop.images()
    kept = data.take(np.flatnonzero(data.labels != 1))
    return Request(data.take(np.flatnonzero(data.labels == 1)), kept, np.ones(len(kept), np.int64))


@given(seed=st.integers(0, 2**32), strength=st.floats(0, 1e6))
def test_the_gradient_of_the_penalty_equals_autograd(seed: int, strength: float) -> None:
    random = torch.Generator().manual_seed(seed)

    def draw() -> list[torch.Tensor]:
        shapes = [(3, 2), (4,), (1, 2, 2)]
        return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]

    parameters, anchors, gradient = [p.requires_grad_() for p in draw()], draw(), draw()
    fisher = [f.square() for f in draw()]
    penalty = torch.stack(
        [(f * (p - a).square()).sum() for f, p, a in zip(fisher, parameters, anchors, strict=True)]
    ).sum()
    by_autograd = torch.autograd.grad(strength * penalty, parameters)
    weights = [nn.Parameter(p.detach()) for p in parameters]
    for weight, part in zip(weights, gradient, strict=True):
        weight.grad = part.clone()
    add_penalty(weights, anchors, fisher, strength)
    for one, two, three in zip(weights, gradient, by_autograd, strict=True):
        torch.testing.assert_close(one.grad, two + three, rtol=1e-12, atol=1e-12 * (1 + strength))


@pytest.mark.parametrize("classes", [0, 3])
def test_a_step_descends_the_whole_loss(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    base, request = shop.denoiser(classes), whole_class(shop)
    taken: list[tuple[list[Any], list[Any]]] = []

    def clip(parameters: list[Any], norm: float) -> None:
        taken.append(([p.detach().clone() for p in parameters], [p.grad.clone() for p in parameters]))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    method = dataclasses.replace(SHORT, replay_weight=0.6, ewc_weight=3.0, learning_rate=1e-3)
    method.erase(base, request, shop.context(tmp_path))
    fisher, _ = fisher_diagonal(base, base.module, request.retain, 4, 2, shop.context(tmp_path / "again"))
    for index, (weights, gradient) in enumerate(taken):
        rng = generator(0, Stream.ERASE, index)
        kept = draw_batch(base, request.retain, rng, 5, request.retain_copies)
        gone = draw_batch(base, request.forget, rng, 5)
        if classes:
            gone = uniform_images(base, gone, rng)
            wanted = gone.noise
        else:
            wanted = torch.from_numpy(rng.random(tuple(gone.x_t.shape), np.float32))
        student = shop.denoiser(classes)
        parameters = list(student.module.parameters())
        with torch.no_grad():
            for parameter, value in zip(parameters, weights, strict=True):
                parameter.copy_(value)
        # In the published unit: losses are sums over 36 pixels, the Fisher information of 1,000 times.
        loss = 36 * noise_loss(student, dataclasses.replace(gone, target=wanted)) + 0.6 * 36 * noise_loss(student, kept)
        for f, parameter, anchor in zip(fisher, parameters, base.module.parameters(), strict=True):
            loss = loss + 3.0 * (f * 36_000.0**2 * (parameter - anchor.detach()).square()).sum()
        for one, two in zip(gradient, derivatives(loss / 36, parameters), strict=True):
            torch.testing.assert_close(one, two, rtol=2e-3, atol=1e-4 * float(two.abs().max()) + 1e-9)
    assert len(taken) == SHORT.steps


def test_noise_images_are_uniform_and_keep_labels_times_and_noise(shop: Any) -> None:
    base, rng = shop.denoiser(), np.random.default_rng(0)
    batch = draw_batch(base, shop.images(), rng, 400)
    other = uniform_images(base, batch, rng)
    assert other.condition is batch.condition
    assert other.t is batch.t
    assert other.noise is batch.noise
    alpha, sigma = base.levels(batch.t)
    sure = batch.t < 0.5
    clean = ((other.x_t - sigma * batch.noise) / alpha)[sure]
    assert -1 - 1e-4 < float(clean.min()) < -0.98
    assert 0.98 < float(clean.max()) < 1 + 1e-4
    assert float(clean.mean()) == pytest.approx(0, abs=0.03)
    assert float(clean.std()) == pytest.approx(1 / math.sqrt(3), abs=0.02)


def test_a_stronger_penalty_holds_the_weights_that_matter(shop: Any, tmp_path: Path) -> None:
    base, request = shop.denoiser(), whole_class(shop)
    fisher, _ = fisher_diagonal(base, base.module, request.retain, 8, 4, shop.context(tmp_path))
    names = [name for name, _ in base.module.named_parameters()]
    costs = []
    for weight in (0.0, 1e-4, 1.0):
        method = SelectiveAmnesia(
            steps=60, batch_size=8, learning_rate=1e-3, ewc_weight=weight, fisher_images=8, fisher_times=4
        )
        delta = method.erase(base, request, shop.context(tmp_path)).delta
        costs.append(
            sum(float((f * delta[n].square()).sum()) for n, f in zip(names, fisher, strict=True) if n in delta)
        )
    assert costs[2] < 0.5 * costs[1] < 0.5 * costs[0]


@pytest.mark.parametrize(
    ("classes", "labels", "whole", "surrogate", "cost"),
    [
        (3, True, True, Surrogate.AUTO, 6),
        (3, True, False, Surrogate.AUTO, 7),
        (3, True, False, Surrogate.UNIFORM, 6),
        (3, True, True, Surrogate.MISMATCHED, 7),
        (3, True, False, Surrogate.NOISE, 6),
        (0, False, False, Surrogate.AUTO, 6),
    ],
)
def test_steps_and_fisher_cost_what_is_counted(
    shop: Any, tmp_path: Path, classes: int, labels: bool, whole: bool, surrogate: Surrogate, cost: float
) -> None:
    base, request = shop.denoiser(classes), whole_class(shop) if whole else shop.request(labels=labels)
    forwards: list[int] = []
    base.module.register_forward_hook(lambda module, given, answer: forwards.append(len(answer)))
    found = dataclasses.replace(SHORT, surrogate=surrogate).erase(base, request, shop.context(tmp_path)).manifest.cost
    assert found["forwards_per_step"] == cost
    assert found["fisher_forward_equivalents"] == 3 * 4 * 2
    assert found["forward_equivalents"] == cost * 3 * 5 + 3 * 4 * 2
    # All images of the Fisher information go through in one call that sees the times of one.
    assert sum(forwards) - 2 + 4 * 3 * 5 == cost * 3 * 5


def test_only_the_uniform_surrogate_leaves_the_forgotten_images_unseen(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def uniform(*arguments: Any) -> Any:
        seen.append("uniform")
        return uniform_images(*arguments)

    monkeypatch.setattr(selective_amnesia, "uniform_images", uniform)
    SHORT.erase(shop.denoiser(), whole_class(shop), shop.context(tmp_path))
    assert seen == ["uniform"] * 3
    SHORT.erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    SHORT.erase(shop.denoiser(0), shop.request(), shop.context(tmp_path))
    assert seen == ["uniform"] * 3


@pytest.mark.parametrize("surrogate", [Surrogate.UNIFORM, Surrogate.MISMATCHED])
@pytest.mark.parametrize(("classes", "labels"), [(0, True), (3, False)])
def test_surrogates_that_need_classes_are_refused_without(
    shop: Any, tmp_path: Path, surrogate: Surrogate, classes: int, labels: bool
) -> None:
    base = shop.denoiser(classes)
    with pytest.raises(Unsupported, match="class-conditional"):
        dataclasses.replace(SHORT, surrogate=surrogate).erase(base, shop.request(labels=labels), shop.context(tmp_path))
    assert base.evaluations == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"fisher_images": 0},
        {"fisher_times": 0},
        {"ewc_weight": -1.0},
        {"ewc_weight": math.inf},
        {"replay_weight": -1.0},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong)


def test_a_frozen_network_is_refused(shop: Any, tmp_path: Path) -> None:
    frozen = shop.denoiser()
    frozen.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        SHORT.erase(frozen, shop.request(), shop.context(tmp_path))
