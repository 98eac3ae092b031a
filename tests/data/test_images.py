from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from vestige.data.images import ImageSet, check_fits, to_float, to_uint8
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch

RAMP = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)
RAMP_ID = "1a94d4c1cfca275d"


def test_every_byte_survives_the_way_into_a_model_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = to_float(every)
    assert (float(floats.min()), float(floats.max())) == (-1, 1)
    assert (to_uint8(floats) == every).all()
    assert (to_uint8(floats.double() + 0.9 / 255) == every).all()
    assert to_uint8(torch.tensor([-7.0, 7.0]).view(2, 1, 1, 1)).flatten().tolist() == [0, 255]


def test_ids_are_the_documented_hash_in_every_process():
    expected = hashlib.sha256(b"(2, 2, 2)" + bytes(range(8))).hexdigest()[:16]
    assert ImageSet(RAMP).ids == (expected,) == (RAMP_ID,)
    code = "import numpy as np; from vestige.data.images import ImageSet; "
    code += "print(ImageSet(np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)).ids[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == RAMP_ID


def test_equal_images_share_an_id_whatever_their_memory_and_set():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    turned = np.ascontiguousarray(pixels.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    assert ImageSet(pixels).ids == ImageSet(turned).ids == ImageSet(pixels[::-1]).ids[::-1]
    assert ImageSet(pixels.reshape(3, 1, 2, 8)).ids != ImageSet(pixels).ids
    assert len(set(ImageSet(pixels).ids)) == 3


def test_digest_follows_rows_order_and_labels():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 2, 2), dtype=np.uint8)
    sets = [ImageSet(pixels), ImageSet(pixels[::-1]), ImageSet(pixels[:2])]
    sets += [ImageSet(pixels, np.array(labels)) for labels in ([0, 1, 2], [0, 1, 1])]
    assert len({s.digest for s in sets}) == 5
    assert ImageSet(pixels, source="elsewhere", names=("a", "b", "c")).digest == sets[0].digest


def test_unique_keeps_first_appearances_and_counts():
    kinds = np.array([2, 0, 2, 1, 2, 0])
    pixels = np.repeat(kinds.astype(np.uint8), 4).reshape(6, 1, 2, 2)
    images = ImageSet(pixels, kinds, names=tuple("abcdef"))
    distinct, counts = images.unique()
    assert (distinct.names, counts.tolist()) == (("a", "b", "d"), [3, 2, 1])
    assert distinct.labels is not None
    assert distinct.labels.tolist() == [2, 0, 1]
    again, ones = distinct.unique()
    assert (again.ids, ones.tolist()) == (distinct.ids, [1, 1, 1])


def test_take_flat_and_floats():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 2, 2), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(4))
    some = images.take([3, 0, 3])
    assert (some.pixels == pixels[[3, 0, 3]]).all()
    assert some.names == ("3", "0", "3")
    assert (images.flat == pixels.reshape(4, 12)).all()
    assert torch.equal(images.floats(np.array([2])), to_float(pixels[[2]]))
    assert images.floats().shape == (4, 3, 2, 2)
    nothing = images.take([])
    assert (len(nothing), nothing.names, nothing.ids) == (0, (), ())
    with pytest.raises(EmptySet, match="holds no image to forget"):
        nothing.required("to forget")
    assert images.required("to forget") is images


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (np.zeros((2, 4, 4), np.uint8), None),
        (np.zeros((2, 1, 4, 4), np.int64), None),
        (np.zeros((2, 1, 4, 4), np.uint8), np.arange(3)),
        (np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 1), np.int64)),
    ],
)
def test_what_is_no_image_set_is_refused(pixels, labels):
    # Past the type checks of this suite, as a user's own arrays would arrive.
    with pytest.raises(Exception, match=r"uint8|labels") as caught:
        ImageSet(pixels, labels)
    assert isinstance(caught.value, InvalidInput) or "TypeCheck" in type(caught.value).__name__


def test_a_model_of_another_shape_is_named():
    images = ImageSet(np.zeros((1, 3, 28, 32), np.uint8), source="photos")
    check_fits(images, (3, 28, 32), "it")
    with pytest.raises(ShapeMismatch, match=r"photos holds RGB images of 32x28 .*grey images of 28x28 .*as m was"):
        check_fits(images, (1, 28, 28), "m")
