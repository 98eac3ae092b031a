from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.audit.membership.denoising_loss import DenoisingLoss, Losses, choose
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate


def images(seed: int, count: int, labels: bool = False) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8), np.arange(count) % 2 if labels else None)


@pytest.fixture(scope="module")
def who() -> Split:
    train = images(0, 6)
    return split(train.take([0, 1, 2, 2, 2, 2, 3, 4, 5]), images(1, 5))


def line(summary: tuple[Estimate, ...], name: str) -> Estimate:
    return next(part for part in summary if part.name == name)


def test_area_counts_pairs_in_which_the_member_has_the_lower_loss(who: Split) -> None:
    # Members 0, 2, 5 with losses 1, 2, 5 against others 1, 4 with losses 3, 4: 4 of 6 pairs.
    losses = Losses(np.array([0, 2, 5]), np.array([1, 4]), np.array([1.0, 2.0, 5.0]), np.array([3.0, 4.0]), seed=0)
    outcome = DenoisingLoss().score(losses, who)
    assert line(outcome.summary, "membership/auc").value == pytest.approx(4 / 6)
    # At most 1 % of two non-members is none of them: members above both, two of three.
    assert line(outcome.summary, "membership/tpr@fpr=0.01").value == pytest.approx(2 / 3)
    assert "too few" in line(outcome.summary, "membership/tpr@fpr=0.01").note
    np.testing.assert_array_equal(outcome.member_scores, [-1, np.nan, -2, np.nan, np.nan, -5])
    np.testing.assert_array_equal(outcome.other_scores, [np.nan, -3, np.nan, np.nan, -4])
    by_count = {row[0]: row[1:3] for row in outcome.section.tables[0].rows}
    assert by_count == {"1": [2, 0.5], "4-15": [1, 1.0]}


def test_the_control_is_at_chance_when_the_attack_is_not(who: Split) -> None:
    rng = np.random.default_rng(0)
    many, others = split(images(2, 60)), images(3, 60)
    wide = Split(many.members, many.exact, many.copies, many.cluster, others)
    rows = np.arange(60)
    outcome = DenoisingLoss().score(Losses(rows, rows, rng.random(60), 2 + rng.random(60), seed=0), wide)
    assert line(outcome.summary, "membership/auc").value == 1
    control = line(outcome.summary, "membership/auc_control")
    assert control.low is not None
    assert control.high is not None
    assert control.low < 0.5 < control.high


@given(
    total=st.integers(1, 60),
    most=st.integers(2, 60),
    seed=st.integers(0, 2**32),
    kept=st.sets(st.integers(0, 59), max_size=20),
)
def test_chosen_rows_are_few_sorted_distinct_and_hold_those_to_keep(
    total: int, most: int, seed: int, kept: set[int]
) -> None:
    keep = np.array(sorted(row for row in kept if row < total), dtype=np.int64)
    rows = choose(total, most, seed, keep)
    assert len(rows) == min(total, most)
    assert (np.diff(rows) > 0).all()
    assert ((rows >= 0) & (rows < total)).all()
    assert np.isin(keep[:most], rows).all()
    np.testing.assert_array_equal(rows, choose(total, most, seed, keep))


def test_unlabelled_images_cannot_be_put_to_a_conditional_model() -> None:
    plain, labelled = split(images(0, 6), images(1, 6)), split(images(0, 6, True), images(1, 6, True))
    model = EmpiricalDenoiser(images(0, 6).floats(), labels=torch.arange(6) % 2)
    subject = Subject.of_denoiser("oracle", model, DDIM())
    refusal = DenoisingLoss().refusal(subject, plain)
    assert refusal is not None
    assert "sub-folder" in refusal.remedy
    assert DenoisingLoss().refusal(subject, labelled) is None


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"rows": 1}, {"times": ()}, {"times": (0.0,)}, {"times": (1.5,)}])
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        DenoisingLoss(**wrong)
