"""Shadow models: who is in which, resumption, reading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vestige.data.images import ImageSet
from vestige.errors import AlreadyExists, CorruptFile, InvalidInput, NotFound
from vestige.models.shadows import Shadows
from vestige.train import shadow
from vestige.train.recipe import Recipe
from vestige.train.shadow import halves, train_shadows

SMALL = Recipe(channels=(4, 8), steps=2, batch=4)


@pytest.fixture(scope="module")
def pool() -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
    return ImageSet(np.concatenate([pixels, pixels[:2]]))


@pytest.fixture(scope="module")
def made(pool: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Shadows:
    return train_shadows(pool, tmp_path_factory.mktemp("shadows") / "here", models=4, recipe=SMALL)


def test_every_image_is_in_half_of_the_models() -> None:
    inside = halves(8, 300, 0)
    assert (inside.sum(0) == 4).all()
    # The share of images in a model is 1/2; 5 standard deviations of 300 draws.
    assert np.abs(inside.mean(1) - 0.5).max() < 5 * np.sqrt(0.25 / 300)
    # Two models share an image with probability 3/7, not independently.
    assert abs((inside[0] & inside[1]).mean() - 3 / 14) < 5 * np.sqrt(0.25 / 300)


def test_the_draw_of_an_image_does_not_depend_on_the_pool() -> None:
    np.testing.assert_array_equal(halves(6, 20, 1)[:, :7], halves(6, 7, 1))


def test_copies_count_once_and_ids_tell_who_was_inside(made: Shadows, pool: ImageSet) -> None:
    assert len(made) == 4
    assert made.ids == pool.unique()[0].ids
    np.testing.assert_array_equal(made.inside_of(pool.ids[10:]), made.inside[:, :2])
    assert not made.inside_of(["no such image"]).any()


def test_models_differ_and_open(made: Shadows) -> None:
    digests = {made.denoiser(i).digest for i in range(4)}
    assert len(digests) == 4
    assert made.denoiser(0).shape == (1, 8, 8)


def test_a_second_call_trains_nothing(made: Shadows, pool: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "train", lambda *_, **__: pytest.fail("trained again"))
    assert train_shadows(pool, made.folder, models=4, recipe=SMALL).digest == made.digest


def test_an_unfinished_model_is_left_out(made: Shadows, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    (folder / "001" / "model_index.json").unlink()
    read = Shadows.open(folder)
    assert read.names == ("000", "002", "003")
    np.testing.assert_array_equal(read.inside, made.inside[[0, 2, 3]])


def test_another_request_does_not_share_the_folder(made: Shadows, pool: ImageSet) -> None:
    with pytest.raises(AlreadyExists, match="another pool"):
        train_shadows(pool, made.folder, models=4, recipe=SMALL, seed=1)


@pytest.mark.parametrize("models", [0, 1, 3])
def test_an_odd_number_of_models_is_refused(pool: ImageSet, tmp_path: Path, models: int) -> None:
    with pytest.raises(InvalidInput, match="even number"):
        train_shadows(pool, tmp_path, models=models, recipe=SMALL)


def test_what_is_no_folder_of_shadows_is_named(made: Shadows, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no shadow models"):
        Shadows.open(tmp_path)
    (tmp_path / "pool.npz").write_bytes(b"half a file")
    (tmp_path / "shadows.json").write_text(json.dumps({"models": []}))
    with pytest.raises(CorruptFile):
        Shadows.open(tmp_path)
