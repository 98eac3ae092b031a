from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vestige.data.load import as_uint8, load_images
from vestige.errors import CorruptFile, EmptySet, InvalidInput, NotFound, ShapeMismatch

GREY = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)


def put(path: Path, pixels: np.ndarray = GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_a_flat_folder_is_read_in_name_order(tmp_path):
    for name, value in (("b.PNG", 1), ("a.bmp", 2), ("c.tiff", 3)):
        put(tmp_path / name, np.full((5, 6), value, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    images, skipped = load_images(tmp_path)
    assert (images.names, skipped, images.labels) == (("a.bmp", "b.PNG", "c.tiff"), (), None)
    assert images.pixels[:, 0, 0, 0].tolist() == [2, 1, 3]
    assert images.shape == (1, 5, 6)
    assert images.source == str(tmp_path)


def test_sub_folders_are_classes_unless_an_image_stands_outside(tmp_path):
    for name in ("dog/2.png", "cat/deep/1.png", "cat/2.png", "emu/1.png"):
        put(tmp_path / name)
    images, _ = load_images(tmp_path)
    assert images.labels is not None
    # Ordered by path, part by part; classes are numbered cat, dog, emu.
    assert list(zip(images.names, images.labels.tolist(), strict=True)) == [
        ("cat/2.png", 0),
        ("cat/deep/1.png", 0),
        ("dog/2.png", 1),
        ("emu/1.png", 2),
    ]
    put(tmp_path / "stray.png")
    assert load_images(tmp_path)[0].labels is None


def test_colour_and_grey_survive_losslessly(tmp_path):
    put(tmp_path / "grey" / "g.png")
    put(tmp_path / "colour" / "c.png", COLOUR)
    assert (load_images(tmp_path / "grey")[0].pixels[0, 0] == GREY).all()
    assert (load_images(tmp_path / "colour")[0].pixels[0] == COLOUR.transpose(2, 0, 1)).all()


def test_palette_alpha_and_one_bit_images(tmp_path):
    colour, flat = Image.fromarray(COLOUR), Image.fromarray(np.full((5, 6), 40, np.uint8))
    bits = Image.fromarray((GREY > 127).astype(np.uint8) * 255).convert("1")
    few = Image.fromarray(COLOUR // 128 * 255)
    alpha = colour.copy()
    alpha.putalpha(Image.fromarray(GREY))
    cases = {
        "palette.png": (few.convert("P", palette=Image.Palette.ADAPTIVE, colors=8), np.asarray(few)),
        "alpha.png": (alpha, COLOUR),
        "grey_alpha.png": (flat.convert("LA"), np.full((5, 6, 3), 40)),
        "cmyk.tif": (flat.convert("RGB").convert("CMYK"), np.full((5, 6, 3), 40)),
    }
    for name, (image, expected) in cases.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        image.save(folder / name)
        assert (load_images(folder)[0].pixels[0].transpose(1, 2, 0) == expected).all(), name
    (tmp_path / "bits").mkdir()
    bits.save(tmp_path / "bits" / "one.png")
    assert Image.open(tmp_path / "bits" / "one.png").mode == "1"
    assert (load_images(tmp_path / "bits")[0].pixels == np.where(GREY > 127, 255, 0)[None, None]).all()
    assert load_images(tmp_path / "bits")[0].shape == (1, 5, 6)


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "deep.png"), (np.int32, "deep.tif"), (np.float32, "deep.tif")])
def test_more_than_eight_bits_are_refused_rather_than_saturated(tmp_path, dtype, name):
    put(tmp_path / name, GREY.astype(dtype) * 200)
    for skip in (False, True):
        with pytest.raises(InvalidInput, match=rf"{name} has more than 8 bits"):
            load_images(tmp_path, skip_corrupt=skip)


@pytest.mark.parametrize("other", [GREY[:4], COLOUR])
def test_images_of_another_size_or_colour_are_named(tmp_path, other):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", other)
    with pytest.raises(ShapeMismatch, match=r"b\.png has .*, but .*a\.png has \(1, 5, 6\)"):
        load_images(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, -40])
def test_a_corrupt_image_is_named_and_skipped_only_when_asked(tmp_path, keep):
    put(tmp_path / "good.png")
    bad = put(tmp_path / "torn.png")
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"torn\.png cannot be decoded.*--skip-corrupt"):
        load_images(tmp_path)
    images, skipped = load_images(tmp_path, skip_corrupt=True)
    assert (images.names, skipped) == (("good.png",), (str(bad),))
    (tmp_path / "good.png").unlink()
    with pytest.raises(EmptySet, match="no readable image"):
        load_images(tmp_path, skip_corrupt=True)


def test_an_image_that_claims_to_be_enormous_is_corrupt(tmp_path):
    # 65535 x 65535 pixels in a few bytes: Pillow refuses with an error that is no OSError.
    bomb = bytearray(put(tmp_path / "bomb.bmp").read_bytes())
    bomb[18:26] = (65535).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(bomb)
    with pytest.raises(CorruptFile, match=r"bomb\.bmp"):
        load_images(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(EmptySet, match=r"files ending in \.bmp"):
        load_images(tmp_path)
    with pytest.raises(NotFound, match="nowhere does not exist"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"single file of type \.png"):
        load_images(put(tmp_path / "one.png"))


PIXELS = np.random.default_rng(2).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
PIXELS[0, 0, 0, :2] = 0, 255


@pytest.mark.parametrize("key", ["images", "pixels", "samples", "arr_0", "x"])
def test_npz_names(tmp_path, key):
    np.savez(tmp_path / "a.npz", **{key: PIXELS, "labels": np.array([3, 0, 0, 1], np.uint8)})
    images, skipped = load_images(tmp_path / "a.npz")
    assert (images.pixels == PIXELS).all()
    assert images.labels is not None
    assert (images.labels.tolist(), images.labels.dtype, skipped) == ([3, 0, 0, 1], np.int64, ())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["nhw", "nhwc", "nchw"]),
    st.sampled_from([1, 3]),
    st.sampled_from(["bytes", "unit", "signed"]),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_every_documented_layout_and_range_gives_the_same_bytes(layout, channels, scale, dtype):
    pixels = PIXELS[:, :1] if layout == "nhw" else PIXELS[:, :channels]
    laid = {"nhw": pixels[:, 0], "nhwc": pixels.transpose(0, 2, 3, 1), "nchw": pixels}[layout]
    if scale == "unit":
        laid = (laid / 255).astype(dtype)
    elif scale == "signed":
        laid = (laid / 127.5 - 1).astype(dtype)
    found = as_uint8(laid, "it")
    assert found.flags.c_contiguous
    assert (found == pixels).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros((1, 1, 1, 4, 4)),
        np.zeros((2, 4, 4), np.int64),
        np.full((2, 4, 4), 1.5),
        np.full((2, 4, 4), -1.5),
        np.full((2, 4, 4), np.nan),
        np.zeros((2, 4, 4), bool),
        np.zeros((2, 4, 4), "U3"),
    ],
)
def test_arrays_of_unknown_layout_or_range_are_refused(tmp_path, array):
    np.savez(tmp_path / "a.npz", images=array)
    with pytest.raises(InvalidInput, match="images"):
        load_images(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "labels", [np.arange(3), np.full(4, 0.5), np.array(list("abcd")), np.eye(4), np.array(1), np.full(4, np.nan)]
)
def test_labels_that_are_not_one_whole_number_an_image_are_refused(tmp_path, labels):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels)
    with pytest.raises(InvalidInput, match=r"labels"):
        load_images(tmp_path / "a.npz")


def test_npz_without_images(tmp_path):
    np.savez(tmp_path / "a.npz", other=PIXELS)
    with pytest.raises(InvalidInput, match="holds other"):
        load_images(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=PIXELS[:0])
    with pytest.raises(EmptySet):
        load_images(tmp_path / "b.npz")


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_pickles_are_refused_and_never_run(tmp_path):
    marker, file = tmp_path / "marker", tmp_path / "a.npz"
    np.savez(file, images=np.array([Trap(marker)], dtype=object))
    with pytest.raises(CorruptFile, match="pickled objects are never loaded"):
        load_images(file)
    file.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(CorruptFile):
        load_images(file)
    assert not marker.exists()
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the trap itself works"


def test_damaged_archives_are_corrupt_wherever_they_break(tmp_path):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, images=PIXELS, labels=np.arange(4))
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    damaged = [whole[: int(n)] for n in rng.integers(0, len(whole), 40)]
    for place in rng.integers(0, len(whole), 150):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    np.save(tmp_path / "b.npy", PIXELS)
    damaged.append((tmp_path / "b.npy").read_bytes())
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        try:
            images, _ = load_images(file)
        except (CorruptFile, InvalidInput):
            refused += 1
        else:
            # Only names, times and the like were hit.
            assert (images.pixels == PIXELS).all()
    assert refused > 150


def test_datasets_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(p.transpose(1, 2, 0)) for p in PIXELS]
    table = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 2, 1]}).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"test": table.select([0]), "train": table}).save_to_disk(tmp_path / "dict")
    for name in ("one", "dict"):
        found, _ = load_images(tmp_path / name)
        assert (found.pixels == PIXELS).all()
        assert found.labels is not None
        assert found.labels.tolist() == [1, 0, 2, 1]
    table.rename_column("image", "picture").save_to_disk(tmp_path / "odd")
    with pytest.raises(InvalidInput, match="columns picture, label"):
        load_images(tmp_path / "odd")
    table.remove_columns("image").add_column("image", [1, 2, 3, 4]).save_to_disk(tmp_path / "numbers")
    with pytest.raises(InvalidInput, match="column image holds int"):
        load_images(tmp_path / "numbers")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(CorruptFile, match="cannot be read as a dataset"):
        load_images(tmp_path / "one")
