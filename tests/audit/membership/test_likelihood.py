"""Likelihood ratios against scipy.stats.norm, and what calibration is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from vestige.audit.membership.likelihood import Mode, calibrated, each_in_turn, gaussian, scores
from vestige.metrics.roc import auc


def synthetic(models=16, images=400, gap=1.0, seed=0):
    """Log losses of models on images of very different difficulty; being inside lowers them by ``gap`` deviations."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 2, images)
    inside = rng.permuted(np.tile([True, False], (images, models // 2)), axis=1).T
    losses = difficulty + 0.1 * rng.normal(size=(models, images)) - 0.1 * gap * inside
    return losses, inside


@pytest.mark.parametrize("fix", [False, True])
def test_online_scores_are_log_ratios_of_normal_densities(fix):
    losses, inside = synthetic()
    target, shadows, known = losses[0], losses[1:], inside[1:]
    found = scores(target, shadows, known, Mode.ONLINE, fix_variance=fix, calibrate=False)
    pooled = {
        side: np.sqrt(
            sum(
                ((shadows[known[:, i] == side, i] - shadows[known[:, i] == side, i].mean()) ** 2).sum()
                for i in range(400)
            )
            / sum((known[:, i] == side).sum() - 1 for i in range(400))
        )
        for side in (True, False)
    }
    for i in (0, 17, 399):
        parts = {}
        for side in (True, False):
            values = shadows[known[:, i] == side, i]
            deviation = pooled[side] if fix else values.std(ddof=1)
            parts[side] = norm.logpdf(target[i], values.mean(), deviation * np.sqrt(1 + 1 / len(values)))
        assert found[i] == pytest.approx(parts[True] - parts[False])


def test_offline_scores_rank_as_one_sided_probabilities():
    losses, inside = synthetic()
    found = scores(losses[0], losses[1:], inside[1:], Mode.OFFLINE, fix_variance=False, calibrate=False)
    for i in (0, 3, 200):
        out = losses[1:][~inside[1:, i], i]
        p = norm.sf(losses[0, i], out.mean(), out.std(ddof=1) * np.sqrt(1 + 1 / len(out)))
        assert norm.cdf(found[i]) == pytest.approx(p)


def test_rows_without_enough_models_are_unknown():
    losses, inside = synthetic(models=4, images=3)
    inside[:, 0], inside[:, 1] = False, [True, False, False, False]
    online = scores(losses[0], losses, inside, Mode.ONLINE, fix_variance=True, calibrate=True)
    assert np.isnan(online).tolist() == [True, True, False]
    offline = scores(losses[0], losses, inside, Mode.OFFLINE, fix_variance=True, calibrate=True)
    assert not np.isnan(offline).any()
    assert gaussian(losses, inside, True).count.tolist() == [0, 1, 2]


@given(level=st.floats(-5, 5), slope=st.floats(0.3, 3), seed=st.integers(0, 2**16))
def test_calibration_undoes_a_change_of_scale(level, slope, seed):
    reference = np.random.default_rng(seed).normal(size=30)
    np.testing.assert_allclose(calibrated(level + slope * reference, reference), reference, atol=1e-6)


def test_calibration_is_robust_and_shifts_alone_where_shadows_know_nothing():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=101)
    target = 3 + 2 * reference
    target[:20] += 50  # a fifth of all images is out of line
    np.testing.assert_allclose(calibrated(target, reference)[20:], reference[20:], atol=1e-6)
    against = calibrated(-reference, reference)
    np.testing.assert_allclose(np.diff(against), np.diff(-reference))
    assert np.median(against - reference) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("mode", [Mode.ONLINE, Mode.OFFLINE])
def test_calibration_matters_where_the_target_is_of_another_kind(mode):
    # The target is larger: its losses spread half as far over images, and lie lower.
    losses, inside = synthetic(gap=2.0)
    target = 0.5 * losses[0] - 1 + 0.5 * 0.1 * np.random.default_rng(1).normal(size=400)
    areas = []
    for calibrate in (False, True):
        found = scores(target, losses[1:], inside[1:], mode, fix_variance=True, calibrate=calibrate)
        areas.append(auc(found[inside[0]], found[~inside[0]]).value)
    assert areas[0] < 0.65
    assert areas[1] > 0.8
    # Where the target is one of them, it costs next to nothing.
    same = [
        scores(losses[0], losses[1:], inside[1:], mode, fix_variance=True, calibrate=calibrate)
        for calibrate in (False, True)
    ]
    plain, adjusted = (auc(s[inside[0]], s[~inside[0]]).value for s in same)
    assert adjusted == pytest.approx(plain, abs=0.02)


def test_the_ratio_beats_the_loss_and_has_the_power_that_theory_gives():
    # Two normals two deviations apart: AUC Phi(2 / sqrt 2) = 0.921 with known means.
    losses, inside = synthetic(models=64, images=300, gap=2.0)
    turns = each_in_turn(losses, inside, Mode.ONLINE, fix_variance=True, calibrate=False)
    areas = [auc(values[truth], values[~truth]).value for values, truth in turns]
    assert len(areas) == 64
    assert np.mean(areas) == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.01)
    plain = [auc(-row[truth], -row[~truth]).value for row, truth in zip(losses, inside, strict=True)]
    assert np.mean(plain) < 0.55


@pytest.mark.parametrize("mode", [Mode.ONLINE, Mode.OFFLINE])
def test_shadows_that_keep_nothing_give_chance(mode):
    losses, inside = synthetic(gap=0.0)
    turns = each_in_turn(losses, inside, mode, fix_variance=False, calibrate=True)
    areas = [auc(values[truth], values[~truth]).value for values, truth in turns]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
