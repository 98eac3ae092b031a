from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import EmptySet, NotFound
from vestige.jobs.forget import forgotten_rows, request_for


@pytest.fixture(scope="module")
def who() -> Split:
    """Twelve images of three classes; row 9 is row 0 but for one pixel, row 10 stands twice."""
    pixels = np.random.default_rng(0).integers(0, 250, (12, 1, 8, 8), dtype=np.uint8)
    pixels[9] = pixels[0]
    pixels[9, 0, 0, 0] += 1
    return split(ImageSet(np.concatenate([pixels, pixels[10:11]]), np.array([*np.arange(12) % 3, 1])))


def test_every_way_to_name_rows_means_the_same(who: Split, tmp_path: Path) -> None:
    ids = [who.members.ids[row] for row in (2, 5)]
    (tmp_path / "rows.txt").write_text("\n".join(ids) + "\n")
    for row in (2, 5):
        Image.fromarray(who.members.pixels[row, 0]).save(tmp_path / f"{row}.png")
    np.savez(tmp_path / "images.npz", images=who.members.pixels[[5, 2]])
    for forget in (
        f"rows:{ids[0]}, {ids[1]}",
        tmp_path / "rows.txt",
        str(tmp_path / "rows.txt"),
        str(tmp_path),
        tmp_path / "images.npz",
        who.members.take([5, 2, 5]),
    ):
        assert forgotten_rows(forget, who).tolist() == [2, 5]


def test_a_class_is_all_its_rows(who: Split) -> None:
    assert forgotten_rows("class:1", who).tolist() == [1, 4, 7, 10]


def test_near_duplicates_are_forgotten_along(who: Split) -> None:
    assert forgotten_rows(f"rows:{who.members.ids[9]}", who).tolist() == [0, 9]


def test_the_rest_is_retained_as_often_as_it_stands(who: Split) -> None:
    request = request_for(who, np.array([0, 9]))
    assert not set(request.forget.ids) & set(request.retain.ids)
    assert len(request.retain) == 10
    assert request.retain_copies.tolist() == [1] * 8 + [2, 1]


@pytest.mark.parametrize(
    ("forget", "error", "words"),
    [
        ("rows:", EmptySet, "The forget set rows: is empty"),
        ("rows:0123456789abcdef", NotFound, "'0123456789abcdef' among them"),
        ("class:7", NotFound, "one of: 0, 1, 2"),
        ("class:cat", NotFound, "no class 'cat'"),
        ("no/such/folder", NotFound, "no/such/folder does not exist"),
    ],
)
def test_what_is_not_there_is_named(who: Split, forget: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        forgotten_rows(forget, who)


def test_data_without_labels_has_no_class(who: Split) -> None:
    plain: Any = split(ImageSet(who.members.pixels))
    with pytest.raises(NotFound, match="the data has no labels"):
        forgotten_rows("class:0", plain)


def test_classes_without_a_retained_image_are_named(who: Split) -> None:
    labels = who.members.labels
    assert labels is not None
    assert request_for(who, np.array([0, 9])).whole_classes == []
    assert request_for(who, np.flatnonzero(labels == labels[0])).whole_classes == [labels[0]]
