from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vestige.audit.attack import Outcome
from vestige.audit.extraction.search import Search
from vestige.audit.extraction.side import SIDE
from vestige.audit.extraction.side_report import Arm, Steering, outcome_of
from vestige.audit.extraction.surrogate import Conditions, NoisyClassifier
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.generator import DiffusionGenerator
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate
from vestige.store import Store

ATTACK = SIDE(generations=40, clusters=4, training_steps=20)


def images(seed: int, count: int = 20, labels: np.ndarray | None = None) -> ImageSet:
    return ImageSet(np.random.default_rng(seed).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8), labels)


def subject(model: EmpiricalDenoiser, batch_size: int = 16) -> Subject:
    return Subject.of_denoiser("oracle", model, DDIM(steps=4), batch_size=batch_size)


def line(outcome: Outcome, name: str) -> Estimate:
    return next(part for part in outcome.summary if part.name == name)


@pytest.fixture
def who() -> Split:
    return split(images(0), images(1))


def test_arms_have_one_size_and_every_evaluation_is_counted(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(who.members.floats())
    collected = ATTACK.collect(subject(model), who, Context(Store(tmp_path)))
    arms = (collected.guided, collected.unguided, collected.empty, collected.before)
    assert [len(arm.pixels) for arm in arms] == [40] * 4
    # Before, unguided and guided; the Gaussian costs the model nothing.
    assert model.evaluations == 3 * 40 * 4
    plain = subject(model).generator
    np.testing.assert_array_equal(collected.unguided.pixels, plain.sample(np.arange(40, 80), 0))
    np.testing.assert_array_equal(collected.before.pixels, plain.sample(np.arange(40), 0))
    outcome = ATTACK.score(collected, who)
    assert (line(outcome, "side/images").value or 0) > 10
    # Twenty images span what the Gaussian knows, so a few may come out of it, but not most.
    assert (line(outcome, "side/classifier_only_images").value or 0) < (line(outcome, "side/images").value or 0) / 2
    assert all(match.picture is None for match in outcome.section.matches)
    assert len(outcome.section.matches) == len(outcome.extracted)


def test_no_guidance_is_plain_sampling(who: Split, tmp_path: Path) -> None:
    model = subject(EmpiricalDenoiser(who.members.floats()))
    attack = SIDE(generations=40, clusters=4, training_steps=1, scale=0.0)
    collected = attack.collect(model, who, Context(Store(tmp_path)))
    np.testing.assert_array_equal(collected.guided.pixels, collected.unguided.pixels)
    outcome = attack.score(collected, who)
    assert line(outcome, "side/gain").value is None
    assert "does not help" in outcome.section.text[1]


def test_the_batch_size_changes_nothing(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(images(5).floats())
    runs = [ATTACK.collect(subject(model, size), who, Context(Store(tmp_path / str(size)))) for size in (3, 64)]
    np.testing.assert_array_equal(runs[0].guided.pixels, runs[1].guided.pixels)
    np.testing.assert_array_equal(runs[0].empty.pixels, runs[1].empty.pixels)


def test_a_conditional_model_is_asked_for_the_class_of_the_cluster(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(who.members.floats(), labels=torch.arange(20) % 2)
    generator = subject(model).generator
    assert isinstance(generator, DiffusionGenerator)
    collected = ATTACK.collect(subject(model), who, Context(Store(tmp_path)))
    asked = collected.conditions.asked
    assert asked is not None
    assert set(asked.tolist()) <= {0, 1}
    for arm in (collected.guided, collected.unguided):
        assert len(np.unique(arm.members.index)) > 5


def arm(name: str, found: list[int], false: list[int]) -> Arm:
    """Nine images that copy the given rows, and for the rest none."""

    def search(rows: list[int]) -> Search:
        index, ratio = np.zeros(9, np.int64), np.full(9, 1.5)
        index[: len(rows)], ratio[: len(rows)] = rows, 0.2
        return Search(index, np.full(9, 0.01), ratio)

    return Arm(name, np.zeros((9, 1, 6, 6), np.uint8), search(found), search(false))


def judged(guided: list[int], unguided: list[int], empty: list[int], who: Split) -> Outcome:
    conditions = Conditions(NoisyClassifier(1, 2), None, np.array([4, 5]), 3, 4)
    arms = (
        arm("guided", guided, [0]),
        arm("unguided", unguided, []),
        arm("classifier alone", empty, []),
        arm("before", [19], []),
    )
    return outcome_of(Steering(*arms, conditions, np.zeros(20), np.zeros(20)), who, 0.05, 1.0)


def test_guidance_is_judged_by_what_one_arm_finds_alone(who: Split) -> None:
    better = judged([1, 2, 3, 4, 5, 6, 7, 8], [1], [], who)
    gain = line(better, "side/gain")
    assert (gain.value, gain.n) == (1, 7)
    assert "Guidance helps" in better.section.text[1]
    assert "comes out of the model" in better.section.text[-1]
    assert "recover 9 and 2 of 20" in better.section.text[2]
    precision = line(better, "side/precision")
    assert (precision.value, precision.n) == (pytest.approx(8 / 9), 9)
    assert better.extracted.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "Guidance hurts" in judged([1], [1, 2, 3, 4, 5, 6, 7, 8], [], who).section.text[1]
    unclear = judged([1, 2, 3], [1, 4], [2, 3], who)
    assert line(unclear, "side/gain").value == pytest.approx(2 / 3)
    assert "not shown to help" in unclear.section.text[1]
    assert "recovers 2: that many matches need no model" in unclear.section.text[-1]
    assert [row[3] for row in unclear.section.tables[0].rows] == [3, 2, 2]
    assert unclear.section.tables[1].rows == [["1", 20, 3, 2, 2]]


def test_near_duplicates_count_once() -> None:
    pixels = images(0).pixels
    who = split(ImageSet(np.concatenate([pixels, pixels[:3] ^ 1])), images(1))
    gain = line(judged([0, 20], [5], [], who), "side/gain")
    assert (gain.value, gain.n) == (0.5, 2)


@pytest.mark.parametrize("wrong", [{"clusters": 1}, {"generations": 39}, {"scale": -1.0}, {"delta": 0.0}, {"side": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SIDE(**wrong)
