from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.nearest import blocks, count_within, distance2_of_pairs, kernels, pairs_within, topk

sizes = st.integers(1, 6)
dims = st.sampled_from([1, 2, 7, 1023, 1024, 1025, 2050, 3072])
seeds = st.integers(0, 2**32 - 1)


def assemble(queries, rows, **options):
    full = np.full((len(queries), len(rows)), -1, np.int64)
    for block in blocks(queries, rows, **options):
        assert (full[block.query, block.row] == -1).all()
        full[block.query, block.row] = block.distance2.numpy()
    return full


def least(d: int) -> int:
    return 96 + 2 * 12 * min(d, 1024)


@given(seeds, seeds, sizes, sizes, dims, st.integers(0, 60_000))
def test_blocks_equal_brute_force_for_every_budget(brute, images, one, two, n, m, d, extra):
    queries, rows = images(one, n, d), images(two, m, d)
    assert (assemble(queries, rows, budget=least(d) + extra) == brute(queries, rows)).all()
    assert (assemble(queries, rows) == brute(queries, rows)).all()


@pytest.mark.parametrize("d", [1, 33_024, 33_025, 33_026, 140_000])
def test_black_and_white_are_farthest_apart_in_int32_and_int64(d):
    black, white = np.zeros((2, d), np.uint8), np.full((3, d), 255, np.uint8)
    assert (assemble(black, white) == 65025 * d).all()
    assert (assemble(white, white) == 0).all()
    assert np.diag(assemble(white, white, exclude_same_index=True)).tolist() == [65025 * d + 1] * 3


def test_near_duplicates_keep_their_last_unit():
    rows = np.random.default_rng(0).integers(250, 256, (40, 4096), dtype=np.uint8)
    other = rows.copy()
    other[:, 5] -= 1
    assert np.diag(assemble(rows, other)).tolist() == [1] * 40


def test_order_of_tiles_and_the_upper_half(images):
    rows = images(0, 23, 5)
    tiles = [(b.query.start, b.row.start) for b in blocks(rows, rows, budget=2000)]
    assert len(tiles) > 9
    assert tiles == sorted(tiles)
    upper = {
        (i, j)
        for b in blocks(rows, rows, upper=True, budget=2000)
        for i in range(23)[b.query]
        for j in range(23)[b.row]
    }
    assert {(i, j) for i in range(23) for j in range(i + 1, 23)} <= upper
    assert len(upper) < 23 * 23


def set_medium():
    torch.set_float32_matmul_precision("medium")


def set_backends():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


@pytest.mark.parametrize("reduce_precision", [set_medium, set_backends])
def test_reduced_precision_is_kept_out_and_put_back(monkeypatch, brute, images, reduce_precision):
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    if not all(hasattr(b, "fp32_precision") for b in backends):
        pytest.skip("this torch has one setting for all backends")
    seen: list[str] = []

    def multiply(left, right):
        seen.extend(b.fp32_precision for b in backends)
        return left @ right.T

    monkeypatch.setattr(kernels, "FLOAT32", kernels.Kernel("seen", torch.float32, 1024, multiply))
    before = [b.fp32_precision for b in backends]
    rows = images(0, 30, 1500)
    try:
        reduce_precision()
        during = [b.fp32_precision for b in backends]
        with torch.autocast("cpu", torch.bfloat16):
            for block in blocks(rows, rows, budget=400_000):
                assert [b.fp32_precision for b in backends] == during
                assert torch.is_autocast_enabled("cpu")
                assert (block.distance2.numpy() == brute(rows[block.query], rows[block.row])).all()
        assert [b.fp32_precision for b in backends] == during != ["ieee", "ieee"]
        assert set(seen) == {"ieee"}
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


class Peak(TorchDispatchMode):
    """The most bytes of tensors alive at once."""

    def __init__(self):
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return out


@pytest.mark.parametrize(("budget", "n"), [(100_000, 16), (1_000_000, 120), (10_000_000, 600)])
@pytest.mark.parametrize(
    "reduction",
    [
        lambda rows, budget: topk(rows, rows, 20, budget=budget),
        lambda rows, budget: count_within(rows, rows, 0.1, budget=budget),
        lambda rows, budget: pairs_within(rows, 1.0, budget=budget),
    ],
)
def test_tensors_stay_within_the_budget(images, reduction, budget, n):
    rows = images(0, n, 1500)
    with Peak() as peak:
        reduction(rows, budget)
    assert 0.05 * budget < peak.bytes <= budget


@given(seeds, dims, st.integers(0, 20), st.integers(24 * 1024, 100_000))
def test_distances_of_pairs(brute, images, seed, d, p, budget):
    queries, rows = images(seed, 4, d), images(seed + 1, 6, d)
    pairs = np.random.default_rng(seed).integers(0, [4, 6], (p, 2))
    expected = brute(queries, rows)[pairs[:, 0], pairs[:, 1]]
    assert (distance2_of_pairs(queries, rows, pairs, budget=budget) == expected).all()


@pytest.mark.parametrize("bad", [np.zeros((2, 3), np.float32), np.zeros(3, np.uint8), np.zeros((2, 0), np.uint8)])
def test_rows_that_are_not_uint8_images_are_refused(monkeypatch, bad):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checker of types in between
    with pytest.raises(InvalidInput, match="queries is"):
        topk(bad, np.zeros((2, 3), np.uint8), 1)


def test_inputs_that_do_not_fit_are_named():
    good = np.zeros((2, 3), np.uint8)
    with pytest.raises(ShapeMismatch, match="3 pixels, rows 2"):
        next(blocks(good, good[:, :2]))
    with pytest.raises(ShapeMismatch, match="2 queries and 1 rows"):
        next(blocks(good, good[:1], exclude_same_index=True))
    with pytest.raises(EmptySet):
        next(blocks(good, good[:0]))
    with pytest.raises(InvalidInput, match="at least 168"):
        next(blocks(good, good, budget=167))
    assert len(list(blocks(good, good, budget=168))) == 4
    assert list(blocks(good[:0], good)) == []


def test_read_only_memory_and_strides_are_taken_as_they_are(brute, images):
    rows = images(0, 12, 40)[::2, ::3]
    rows.flags.writeable = False
    assert (assemble(rows, rows) == brute(rows, rows)).all()
