from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.audit.membership.canary_exposure import CONTROLS, CanaryExposure, chance_exposure, exposure
from vestige.data.canaries import with_canaries
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput, NeedsAccess
from vestige.execute import Context
from vestige.models.denoiser import Denoiser
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate
from vestige.store import Store

ATTACK = CanaryExposure(per_count=30, copies=(1, 4), candidates=255, draws=1)


def base(labels: np.ndarray | None = None) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6), dtype=np.uint8)
    return ImageSet(pixels, labels)


def subject(denoiser: Denoiser) -> Subject:
    return Subject.of_denoiser("oracle", denoiser, DDIM(steps=2))


def trained(labels: np.ndarray | None = None) -> tuple[Split, ImageSet]:
    train = with_canaries(base(labels), (1, 4), per_count=30)
    return split(train), train


def line(summary: tuple[Estimate, ...], name: str) -> Estimate:
    return next(part for part in summary if part.name == name)


losses = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]) | st.floats(0, 1), min_size=1, max_size=20)


@given(losses, losses)
def test_exposure_is_the_rank_in_bits(own: list[float], fresh: list[float]) -> None:
    for loss, bits in zip(own, exposure(own, fresh), strict=True):
        rank = 1 + sum(other <= loss for other in fresh)
        assert bits == pytest.approx(np.log2((len(fresh) + 1) / rank))
        assert 0 <= bits <= np.log2(len(fresh) + 1)


@pytest.mark.parametrize("candidates", [1, 2, 15, 1000])
def test_the_expectation_without_memory_is_the_mean_over_ranks(candidates: int) -> None:
    # A canary like any other is equally likely to take any of the r + 1 places.
    every = exposure(np.arange(candidates + 1) - 0.5, np.arange(candidates))
    assert chance_exposure(candidates) == pytest.approx(every.mean())
    assert chance_exposure(10**7) == pytest.approx(np.log2(np.e), abs=1e-5)


def test_a_perfect_memorizer_gives_full_exposure(tmp_path: Path) -> None:
    who, train = trained()
    model = EmpiricalDenoiser(train.floats())
    outcome = ATTACK.run(subject(model), who, Context(Store(tmp_path)))
    for copies in (1, 4):
        found = line(outcome.summary, f"canary/exposure@copies={copies}")
        assert (found.value, found.n) == (pytest.approx(8), 30)
    control = line(outcome.summary, "canary/exposure_control")
    assert control.n == CONTROLS
    assert control.low is not None
    assert control.high is not None
    assert control.low <= chance_exposure(255) <= control.high
    assert "as they must" in outcome.section.text[1]
    assert np.isnan(outcome.member_scores[:20]).all()
    np.testing.assert_allclose(outcome.member_scores[20:], 8)
    assert [row[:2] + row[-1:] for row in outcome.section.tables[0].rows] == [[1, 30, 30], [4, 30, 30]]
    assert model.evaluations == 60 + 255 + CONTROLS
    assert len(outcome.section.text) == 2


def test_a_model_without_memory_gives_chance(tmp_path: Path) -> None:
    who, _ = trained()
    blind = gaussian_denoiser(torch.zeros(1, 6, 6), torch.eye(36) / 3)
    outcome = ATTACK.run(subject(blind), who, Context(Store(tmp_path)))
    for part in outcome.summary:
        assert part.low is not None
        assert part.high is not None
        assert part.low - 0.2 <= chance_exposure(255) <= part.high + 0.2, part.name


def test_canaries_that_are_absent_are_counted(tmp_path: Path) -> None:
    who, train = trained()
    attack = CanaryExposure(per_count=40, copies=(1, 4), candidates=50, draws=1)
    outcome = attack.run(subject(EmpiricalDenoiser(train.floats())), who, Context(Store(tmp_path)))
    assert outcome.section.text[-1] == "Of 80 canaries that these settings name, 20 are absent."


def test_a_conditional_model_is_asked_with_dealt_labels(tmp_path: Path) -> None:
    who, train = trained(np.arange(20) % 2)
    assert train.labels is not None
    model = EmpiricalDenoiser(train.floats(), labels=torch.from_numpy(train.labels))
    outcome = ATTACK.run(subject(model), who, Context(Store(tmp_path)))
    assert line(outcome.summary, "canary/exposure@copies=1").value == pytest.approx(8)
    unlabelled = ATTACK.refusal(subject(model), split(ImageSet(train.pixels)))
    assert unlabelled is not None
    assert "no labels" in unlabelled.reason


def test_training_data_without_canaries_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model = subject(EmpiricalDenoiser(base().floats()))
    refusal = ATTACK.refusal(model, split(base()))
    assert refusal is not None
    assert "with_canaries" in refusal.remedy
    with pytest.raises(NeedsAccess, match="no canary of seed 0"):
        ATTACK.run(model, split(base()), Context(Store(tmp_path)))
    who, train = trained()
    assert CanaryExposure(seed=1).refusal(subject(EmpiricalDenoiser(train.floats())), who) is not None


@pytest.mark.parametrize("wrong", [{"per_count": 0}, {"copies": ()}, {"candidates": 0}, {"draws": 0}, {"seed": -1}])
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        CanaryExposure(**wrong)
