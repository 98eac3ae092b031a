from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.rare.density.preparation import Preparation


def skewed(rows: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 4)) @ rng.standard_normal((4, 4)) * [1, 100, 0.01, 1] + [5, 0, 1, -3]


def test_coordinates_are_white() -> None:
    rows = skewed()
    u = Preparation().whitening(rows)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(u.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(u.T @ u / len(u), np.eye(4), atol=1e-10)


def test_the_volume_is_that_of_the_map() -> None:
    whitening = Preparation().whitening(skewed())
    assert whitening.log_volume == pytest.approx(float(torch.linalg.slogdet(whitening.turn)[1]))
    assert whitening.explained == pytest.approx(1)


def test_leading_axes_are_kept() -> None:
    rows = skewed()
    whitening = Preparation(dimensions=2).whitening(rows)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    variance = np.sort(np.linalg.eigvalsh(scaled.T @ scaled / len(rows)))[::-1]
    assert whitening.dimensions == 2
    assert whitening.log_volume is None
    assert whitening.explained == pytest.approx(variance[:2].sum() / 4)
    whole = Preparation().whitening(rows)
    torch.testing.assert_close(whitening.turn.abs(), whole.turn[:, :2].abs())


def test_axes_without_variance_are_dropped() -> None:
    rows = skewed()
    twice = np.concatenate([rows, rows[:, :1] + rows[:, 1:2]], axis=1)
    whitening = Preparation(dimensions=None).whitening(twice)
    assert whitening.dimensions == 4
    assert whitening.log_volume is None
    assert np.abs(whitening(torch.from_numpy(twice)).numpy()).max() < 10


def test_constant_features() -> None:
    rows = np.concatenate([skewed(), np.full((300, 2), 0.1)], axis=1)
    with pytest.raises(InvalidInput, match=r"2 of 6 features are constant over 300 rows.*drop_constant"):
        Preparation().whitening(rows)
    dropped = Preparation(drop_constant=True).whitening(rows)
    torch.testing.assert_close(dropped.turn[:4], Preparation().whitening(rows[:, :4]).turn)
    assert not dropped.turn[4:].any()
    with pytest.raises(InvalidInput, match="check that the images differ"):
        Preparation(drop_constant=True).whitening(np.full((9, 3), 0.1))


@given(st.integers(4, 200), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_takes_every_row_once(rows: int, share: float, seed: int) -> None:
    preparation = Preparation(held_out=share)
    train, away = preparation.split(rows, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, away])), np.arange(rows))
    assert min(len(train), len(away)) >= 2
    assert abs(len(away) - share * rows) <= 2
    np.testing.assert_array_equal(preparation.split(rows, seed)[1], away)
