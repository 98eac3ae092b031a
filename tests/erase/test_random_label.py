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
from torch import Tensor

from vestige.data.images import ImageSet
from vestige.erase.data import sides
from vestige.erase.data.random_label import RandomLabel
from vestige.erase.data.teacher import Target, Teacher, other_labels
from vestige.erase.driver import derivatives, draw_batch, noise_loss
from vestige.errors import InvalidInput, NothingChanged, Unsupported

SHORT = RandomLabel(steps=3, batch_size=5)


@given(
    seed=st.integers(0, 2**32),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    classes=st.sets(st.integers(0, 6), min_size=2),
)
def test_the_other_label_is_another_one_of_those_allowed(seed: int, labels: list[int], classes: set[int]) -> None:
    found = other_labels(np.array(labels), np.array(sorted(classes)), np.random.default_rng(seed))
    assert all(other in classes and other != own for own, other in zip(labels, found.tolist(), strict=True))


def test_every_other_label_is_equally_likely() -> None:
    found = other_labels(np.repeat([0, 3, 4], 3000), np.array([0, 2, 4]), np.random.default_rng(0)).reshape(3, -1)
    for row, among in zip(found, ([2, 4], [0, 2, 4], [0, 2]), strict=True):
        values, counts = np.unique(row, return_counts=True)
        assert values.tolist() == among
        assert counts == pytest.approx(3000 / len(among), rel=0.1)


def test_a_class_that_is_forgotten_altogether_lends_no_answers(shop: Any) -> None:
    data = shop.images()
    request = dataclasses.replace(
        shop.request(),
        forget=data.take(np.flatnonzero(data.labels == 1)),
        retain=data.take(np.flatnonzero(data.labels != 1)),
    )
    teacher = Teacher.of(Target.AUTO, shop.denoiser(), request)
    assert teacher.classes is not None
    assert teacher.classes.tolist() == [0, 2]


def test_the_teacher_is_the_frozen_base_under_another_class(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, request, asked = shop.denoiser(), shop.request(), []

    def noise(x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        answer = type(base).noise(base, x_t, t, condition)
        asked.append((condition, answer))
        return answer

    monkeypatch.setattr(base, "noise", noise)
    rng = np.random.default_rng(0)
    batch = draw_batch(base, request.forget, rng, 64)
    teacher = Teacher.of(Target.MISMATCHED, base, request)
    wanted = teacher.wanted(teacher.prepared(batch, rng))
    assert torch.equal(wanted, asked[0][1])
    pairs = set(zip(batch.condition.tolist(), asked[0][0].tolist(), strict=True))
    assert pairs == {(own, other) for own in range(3) for other in range(3) if own != other}


@pytest.mark.parametrize(("classes", "labels"), [(0, True), (3, False), (0, False)])
def test_without_labels_the_target_is_uniform_noise(shop: Any, classes: int, labels: bool) -> None:
    base, request = shop.denoiser(classes), shop.request(labels=labels)
    teacher = Teacher.of(Target.AUTO, base, request)
    assert teacher.classes is None
    rng = np.random.default_rng(0)
    batch = draw_batch(base, request.forget, rng, 500)
    wanted = teacher.wanted(teacher.prepared(batch, rng))
    assert wanted.shape == batch.x_t.shape
    assert 0 <= float(wanted.min()) < 0.01
    assert 0.99 < float(wanted.max()) < 1
    assert float(wanted.mean()) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(Unsupported, match="--set target=noise"):
        Teacher.of(Target.MISMATCHED, base, request)


def test_a_class_alone_has_no_other(shop: Any) -> None:
    request = shop.request()
    same = dataclasses.replace(
        request,
        forget=ImageSet(request.forget.pixels, np.zeros(3, np.int64)),
        retain=ImageSet(request.retain.pixels, np.zeros(9, np.int64)),
    )
    assert Teacher.of(Target.AUTO, shop.denoiser(), same).classes is None
    with pytest.raises(Unsupported, match="another class"):
        dataclasses.replace(SHORT, target=Target.MISMATCHED).erase(shop.denoiser(), same, shop.context(Path("unused")))


def test_a_step_descends_the_sum_of_both_losses(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, request, taken = shop.denoiser(), shop.request(), []
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda parameters, norm: taken.append([p.grad.clone() for p in parameters])
    )
    dataclasses.replace(SHORT, steps=1, retain_weight=0.7).erase(base, request, shop.context(tmp_path))
    from vestige.randomness import Stream, generator

    rng = generator(0, Stream.ERASE, 0)
    kept = draw_batch(base, request.retain, rng, 5, request.retain_copies)
    gone = draw_batch(base, request.forget, rng, 5)
    teacher = Teacher.of(Target.AUTO, base, request)
    wanted = teacher.wanted(teacher.prepared(gone, rng)).detach()
    parameters = list(base.module.parameters())
    forget = derivatives(noise_loss(base, dataclasses.replace(gone, target=wanted)), parameters)
    retain = derivatives(noise_loss(base, kept), parameters)
    torch.testing.assert_close(taken[0], [f + 0.7 * r for f, r in zip(forget, retain, strict=True)])


@pytest.mark.parametrize(
    ("classes", "target", "cost"), [(3, Target.AUTO, 7), (3, Target.NOISE, 6), (0, Target.AUTO, 6)]
)
def test_a_step_costs_what_is_counted(shop: Any, tmp_path: Path, classes: int, target: Target, cost: float) -> None:
    base = shop.denoiser(classes)
    forwards: list[int] = []
    base.module.register_forward_hook(lambda module, given, answer: forwards.append(len(answer)))
    made = dataclasses.replace(SHORT, target=target).erase(base, shop.request(), shop.context(tmp_path))
    assert made.manifest.cost["forwards_per_step"] == cost
    assert sum(forwards) / SHORT.steps / SHORT.batch_size + 4 == cost
    assert made.manifest.cost["forward_equivalents"] == cost * SHORT.steps * SHORT.batch_size


def test_copies_weigh_both_sides(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def draw(base: Any, images: Any, rng: Any, size: int, weights: Any = None) -> Any:
        calls.append(None if weights is None else weights.tolist())
        return draw_batch(base, images, rng, size, weights)

    monkeypatch.setattr(sides, "draw_batch", draw)
    request = dataclasses.replace(shop.request(), forget_copies=np.array([1, 4, 9]))
    dataclasses.replace(SHORT, steps=1).erase(shop.denoiser(), request, shop.context(tmp_path))
    assert calls == [list(range(1, 10)), [1, 2, 3]]


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"retain_weight": -1.0}, {"retain_weight": math.nan}],
)
def test_senseless_settings_are_refused(shop: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))


def test_a_frozen_network_is_refused(shop: Any, tmp_path: Path) -> None:
    frozen = shop.denoiser()
    frozen.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        SHORT.erase(frozen, shop.request(), shop.context(tmp_path))
