from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor, Ridge

from vestige.audit.membership.image_statistics import (
    Described,
    apply_fit,
    describe,
    fold_numbers,
    quantile_fit,
    ridge_fit,
)
from vestige.audit.membership.quantile_regression import DescribedLosses, QuantileRegression
from vestige.audit.membership.rows import Sides
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.roc import auc

ROWS = 400


def pinball(errors, level):
    return np.maximum(level * errors, (level - 1) * errors).mean()


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("penalty", [0.0, 0.02])
def test_quantile_fit_is_that_of_scikit_learn(level, penalty):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    y = x @ [1.0, -2.0, 0.0, 0.5] + rng.standard_t(3, 90)
    fit = quantile_fit(x, y, level, penalty)
    peer = QuantileRegressor(quantile=level, alpha=penalty, solver="highs").fit(x, y)
    cost = [
        pinball(y - apply_fit(w, x), level) + penalty * np.abs(w[1:]).sum()
        for w in (fit, np.r_[peer.intercept_, peer.coef_])
    ]
    assert cost[0] == pytest.approx(cost[1], rel=1e-8)
    np.testing.assert_allclose(fit, np.r_[peer.intercept_, peer.coef_], atol=1e-6)


def test_ridge_fit_is_that_of_scikit_learn_at_the_penalty_with_the_least_generalized_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) * [1, 2, 3, 0.1, 1]
    y = x @ [1.0, 0, -1, 5, 0] + 2 * rng.normal(size=60)
    errors, fits = [], []
    for penalty in 60 * 10.0 ** np.arange(-4, 4):
        peer = Ridge(penalty).fit(x, y)
        centred = x - x.mean(0)
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(5), centred.T)
        errors.append(((y - peer.predict(x)) ** 2).sum() / (1 - (1 + np.trace(hat)) / 60) ** 2)
        fits.append(np.r_[peer.intercept_, peer.coef_])
    np.testing.assert_allclose(ridge_fit(x, y), fits[int(np.argmin(errors))], rtol=1e-8)


def collected(seed=0, gap=0.0, members=ROWS):
    """Losses that follow the first statistic closely; members lie lower by ``gap`` deviations of the rest."""
    rng = np.random.default_rng(seed)
    statistics, thumbnails = rng.normal(size=(members + ROWS, 3)), rng.normal(size=(members + ROWS, 5))
    losses = 2 * statistics[:, 0] + 0.1 * rng.normal(size=members + ROWS)
    losses[:members] -= 0.1 * gap
    sides = Sides(np.arange(members), np.arange(ROWS), seed)
    return DescribedLosses(sides, losses[:members], losses[members:], Described(statistics, thumbnails))


@pytest.fixture(scope="module")
def who():
    rng = np.random.default_rng(0)
    parts = (ImageSet(rng.integers(0, 256, (ROWS, 1, 4, 4), dtype=np.uint8)) for _ in range(2))
    return split(*parts)


def line(outcome, name):
    return next(part for part in outcome.summary if part.name == name)


def test_the_threshold_accuses_the_share_alpha_of_non_members(who):
    outcome = QuantileRegression(alpha=0.1).score(collected(), who)
    accused = line(outcome, "quantile/accused@alpha=0.1")
    assert accused.low < 0.1 < accused.high
    assert accused.n == ROWS
    assert line(outcome, "quantile/found@alpha=0.1").value == pytest.approx(0.1, abs=0.06)


def test_what_looks_explain_is_taken_out(who):
    data = collected(gap=2.0)
    outcome = QuantileRegression().score(data, who)
    assert auc(-data.inside, -data.outside).value < 0.6
    assert line(outcome, "quantile/auc").value == pytest.approx(0.921, abs=0.03)  # Phi(2 / sqrt 2)
    assert line(outcome, "quantile/found@alpha=0.05").value == pytest.approx(0.64, abs=0.1)  # Phi(2 - 1.645)


def test_no_row_enters_the_fit_that_scores_it(who):
    data, attack = collected(), QuantileRegression()
    before = attack.score(data, who)
    assert before.other_scores[7] < 0  # above its quantile; below it, the row would drag every fit that it enters
    dropped = data.outside.copy()
    dropped[7] -= 100
    after = attack.score(dataclasses.replace(data, outside=dropped), who)
    assert after.other_scores[7] == pytest.approx(before.other_scores[7] + 100, abs=1e-9)
    assert not np.array_equal(after.other_scores, before.other_scores)
    # A member enters no fit at all.
    lowered = data.inside.copy()
    lowered[3] -= 100
    moved = attack.score(dataclasses.replace(data, inside=lowered), who)
    np.testing.assert_array_equal(moved.other_scores, before.other_scores)
    np.testing.assert_array_equal(np.delete(moved.member_scores, 3), np.delete(before.member_scores, 3))


def test_columns_see_the_training_rows_alone_and_are_few():
    data = collected().described
    train = np.arange(len(data)) < 50
    columns = data.design(train)
    assert columns.shape == (len(data), 5)
    np.testing.assert_allclose(columns[train].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(columns[train].std(0), 1)
    other = Described(np.where(train[:, None], data.statistics, 9.0), np.where(train[:, None], data.thumbnails, 9.0))
    np.testing.assert_allclose(other.design(train)[train], columns[train])


def test_descriptions_tell_smooth_from_rough_and_survive_flat_images():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    smooth = np.broadcast_to(np.arange(8, dtype=np.uint8) * 30, (1, 3, 8, 8))
    flat, tiny = np.full((1, 3, 8, 8), 7, np.uint8), np.zeros((2, 1, 1, 1), np.uint8)
    found = describe(ImageSet(np.concatenate([rough, smooth, flat])))
    assert np.isfinite(found.statistics).all()
    assert found.statistics[0, 0] > found.statistics[1, 0] >= found.statistics[2, 0]
    assert np.isfinite(describe(ImageSet(tiny)).statistics).all()


def test_folds_are_even_and_seeded():
    numbers = fold_numbers(23, 5, 0, 0)
    assert sorted(np.bincount(numbers).tolist()) == [4, 4, 5, 5, 5]
    assert not np.array_equal(numbers, fold_numbers(23, 5, 1, 0))
    assert not np.array_equal(numbers, fold_numbers(23, 5, 0, 1))
    with pytest.raises(EmptySet):
        fold_numbers(3, 5, 0, 0)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"folds": 1}, {"penalty": -1.0}, {"draws": 0}])
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(InvalidInput):
        QuantileRegression(**wrong)
