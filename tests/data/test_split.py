from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.data.images import ImageSet
from vestige.data.split import DUPLICATE_RADIUS, duplicate_groups, hold_out, split
from vestige.errors import EmptySet, InvalidInput


def flat(values: list[int]) -> ImageSet:
    """One even 4x4 image of each brightness: rms distances are brightness differences over 255."""
    return ImageSet(np.repeat(np.array(values, np.uint8), 16).reshape(-1, 1, 4, 4))


def brightness(images: ImageSet) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


def test_exact_and_near_copies_are_counted_apart():
    # 5 levels are 0.0196 < 0.02 and 6 are 0.0235: 100-105-110 is a chain, 120 stands alone.
    found = split(flat([100, 100, 105, 200, 110, 100, 120, 200]))
    assert brightness(found.members) == [100, 105, 200, 110, 120]
    assert found.exact.tolist() == [3, 1, 2, 1, 1]
    assert found.copies.tolist() == [5, 5, 2, 5, 1]
    assert found.cluster.tolist() == [0, 0, 2, 0, 4]
    assert (found.others, found.dropped) == (None, 0)


def test_others_that_are_copies_of_members_are_dropped():
    found = split(flat([100, 200]), flat([100, 105, 106, 94, 95, 50, 50, 206]))
    assert found.others is not None
    assert brightness(found.others) == [106, 94, 50, 206]
    assert found.dropped == 3
    everything = split(flat([100]), flat([100]))
    assert everything.others is not None
    assert (len(everything.others), everything.dropped) == (0, 1)


def test_the_radius_is_the_users():
    found = split(flat([100, 130]), flat([160, 200]), radius=30 / 255)
    assert found.copies.tolist() == [2, 2]
    assert found.others is not None
    assert brightness(found.others) == [200]
    assert split(flat([100, 101]), radius=0.0).copies.tolist() == [1, 1]


def test_empty_sides_are_refused():
    with pytest.raises(EmptySet, match="to compare with"):
        split(flat([]))
    with pytest.raises(EmptySet, match="to serve as non-members"):
        split(flat([1]), flat([]))


def test_digest_follows_counts_and_others():
    digests = [
        split(flat([100, 200])).digest,
        split(flat([100, 200, 200])).digest,
        split(flat([100, 100, 105])).digest,
        split(flat([100, 105, 105])).digest,
        split(flat([100, 105]), radius=0.0).digest,
        split(flat([100, 105])).digest,
        split(flat([100, 200]), flat([50])).digest,
        split(flat([100, 200]), flat([60])).digest,
    ]
    assert len(set(digests)) == 8
    assert split(flat([100, 200]), radius=DUPLICATE_RADIUS).digest == digests[0]


@given(st.integers(0, 2**64 - 1), st.floats(0.1, 0.9))
def test_hold_out_parts_images_by_whole_clusters(seed, share):
    # Ten clusters: 0-5-10 is a chain, 100 stands there three times, the rest alone.
    values = [0, 100, 5, 20, 40, 100, 60, 80, 10, 120, 140, 160, 100, 180]
    kept, held = (brightness(side) for side in hold_out(flat(values), share, seed=seed))
    assert sorted(kept + held) == sorted(values)
    assert kept == [v for v in values if v in kept]  # in the given order
    assert not set(kept) & set(held)
    clusters = len(set(held) - {5, 10}) if 0 in held else len(set(held))
    assert clusters == round(share * 10)
    assert not 0 < len({0, 5, 10} & set(held)) < 3


def test_hold_out_follows_its_seed_and_refuses_empty_sides():
    images = flat(list(range(0, 250, 10)))
    draws = [brightness(hold_out(images, 0.4, seed=seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) == 3
    for share in (0.0, 1.0, -0.5, 0.001, 0.999):
        with pytest.raises(InvalidInput, match=f"share={share}"):
            hold_out(images, share, seed=0)
    with pytest.raises(EmptySet, match="to divide"):
        hold_out(flat([]), 0.5, seed=0)


def test_duplicate_groups_have_the_documented_edges():
    edges = [1, 2, 3, 4, 15, 16, 63, 64, 255, 256, 1023, 1024]
    groups = {name: np.array(edges)[mask].tolist() for name, mask in duplicate_groups(np.array(edges))}
    assert groups == {
        "1": [1],
        "2-3": [2, 3],
        "4-15": [4, 15],
        "16-63": [16, 63],
        "64-255": [64, 255],
        "256-1023": [256, 1023],
        "1024-4095": [1024],
    }


@given(st.lists(st.integers(1, 5000), max_size=30))
def test_duplicate_groups_part_the_rows(copies):
    groups = duplicate_groups(np.array(copies, np.int64))
    assert sum(mask for _, mask in groups) == pytest.approx(np.ones(len(copies))) if copies else groups == []
    assert all(mask.any() for _, mask in groups)
