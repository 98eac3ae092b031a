from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vestige.data.canaries import canaries, dealt, with_canaries
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import EmptySet, InvalidInput


def base(count: int = 6, labels: np.ndarray | None = None) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 5, 4), dtype=np.uint8)
    return ImageSet(pixels, labels, "base")


def test_a_canary_belongs_to_its_number_and_seed() -> None:
    five = canaries(5, (3, 4, 4), 7)
    np.testing.assert_array_equal(five.pixels[2:], canaries(3, (3, 4, 4), 7, first=2).pixels)
    assert five.names[4] == "canary-4"
    assert len({*five.ids, *canaries(5, (3, 4, 4), 8).ids, *canaries(5, (3, 4, 4), 7, first=5).ids}) == 15


def test_pixels_are_uniform_and_independent() -> None:
    pixels = canaries(400, (1, 8, 8), 0).pixels.reshape(400, -1)
    assert stats.chisquare(np.bincount(pixels.ravel(), minlength=256)).pvalue > 1e-3
    correlation = np.corrcoef(pixels.T)[np.triu_indices(64, 1)]
    assert abs(correlation).max() < 0.25


def test_copies_are_inserted_behind_the_data() -> None:
    labels = np.array([3, 3, 5, 5, 9, 9])
    train = with_canaries(base(labels=labels), (1, 3), per_count=2, seed=4)
    assert len(train) == 6 + 2 * 1 + 2 * 3
    np.testing.assert_array_equal(train.pixels[:6], base().pixels)
    expected = canaries(4, (1, 5, 4), 4)
    assert train.ids[6:] == tuple(expected.ids[i] for i in (0, 1, 2, 2, 2, 3, 3, 3))
    assert train.labels is not None
    assert train.labels[6:].tolist() == [3, 5, 9, 9, 9, 3, 3, 3]
    who = split(train)
    assert who.exact[-4:].tolist() == [1, 1, 3, 3]
    assert with_canaries(base(), (2,), per_count=1).labels is None


def test_labels_are_dealt_in_turn() -> None:
    assert dealt(np.array([4, 7]), 5).tolist() == [4, 7, 4, 7, 4]


@pytest.mark.parametrize("wrong", [{"copies": ()}, {"copies": (0,)}, {"per_count": 0}])
def test_senseless_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        with_canaries(base(), **wrong)
    with pytest.raises(InvalidInput):
        canaries(-1, (1, 2, 2), 0)


def test_canaries_need_data_to_hide_among() -> None:
    with pytest.raises(EmptySet, match="hide canaries among"):
        with_canaries(base(0))
