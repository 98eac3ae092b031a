from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.erase.data import saliency
from vestige.erase.data.saliency import accumulated, largest, saliency_mask, spread, stratified
from vestige.erase.driver import derivatives, noise_loss
from vestige.errors import BadWeights, InvalidInput, NothingChanged
from vestige.models.denoiser import Prediction

CPU = torch.device("cpu")


def by_sorting(values: list[torch.Tensor], count: int) -> list[bool]:
    """A stable sort of all magnitudes."""
    flat = torch.cat([v.flatten().double() for v in values]).abs().numpy()
    kept = np.zeros(len(flat), bool)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    return kept.tolist()


def unpacked(values: list[torch.Tensor], count: int) -> list[bool]:
    mask = largest(values, count)
    assert mask.count == count
    assert mask.total == sum(v.numel() for v in values)
    parts = mask.unpacked(CPU)
    assert [p.shape for p in parts] == [v.shape for v in values]
    return torch.cat([p.flatten() for p in parts]).tolist()


@given(
    seed=st.integers(0, 2**32),
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4),
    share=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    levels=st.sampled_from([0, 1, 3]),
)
def test_the_mask_is_that_of_a_stable_sort(
    seed: int, shapes: list[list[int]], share: float, dtype: torch.dtype, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    values = [torch.as_tensor(rng.standard_normal(shape) * 10.0 ** rng.integers(-12, 4)).to(dtype) for shape in shapes]
    if levels:  # few different magnitudes, so that most are ties
        values = [
            (v.double() * 0 + torch.from_numpy(rng.integers(-levels, levels + 1, v.shape))).to(dtype) for v in values
        ]
    values = [torch.nan_to_num(v, posinf=60000.0, neginf=-60000.0) for v in values]
    count = max(1, round(share * sum(v.numel() for v in values)))
    assert unpacked(values, count) == by_sorting(values, count)


def test_neighbouring_numbers_and_signed_zeros_are_told_apart_exactly() -> None:
    one = torch.tensor(1.0)
    up, down = torch.nextafter(one, torch.tensor(2.0)), torch.nextafter(one, torch.tensor(0.0))
    tiny = torch.tensor(1e-45)  # the smallest subnormal
    values = [torch.stack([down, -one, up, torch.tensor(0.0), -tiny, torch.tensor(-0.0)])]
    order = [2, 1, 0, 4, 3, 5]
    for count in range(1, 7):
        assert np.flatnonzero(unpacked(values, count)).tolist() == sorted(order[:count])


def test_of_equal_gradients_the_first_are_taken() -> None:
    values = [torch.ones(3), torch.full((2, 2), -1.0), torch.ones(2)]
    assert unpacked(values, 5) == [True] * 5 + [False] * 4


def test_one_bit_a_weight() -> None:
    mask = largest([torch.arange(1001.0)], 10)
    assert sum(b.nbytes for b in mask.bits) == 126


@pytest.mark.parametrize("count", [0, 4])
def test_shares_that_make_no_sense_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="of 3 weights"):
        largest([torch.ones(3)], count)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(BadWeights, match="NaN or infinity"):
        largest([torch.tensor([1.0, bad])], 1)


@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.CLEAN])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.913, 1.0])
def test_the_mask_holds_the_largest_gradients_of_the_mean_loss(
    shop: Any, tmp_path: Path, prediction: Prediction, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saliency, "CHUNK", 16)
    base, images = shop.denoiser(prediction=prediction), shop.images().take(range(5))
    mask, spent = saliency_mask(base, base.module, images, share, 33, shop.context(tmp_path))
    parameters = list(base.module.parameters())
    total = sum(p.numel() for p in parameters)
    assert (mask.count, mask.total) == (round(share * total), total)
    batch = stratified(base, images, np.arange(5), 7, 0)  # 33 samples of 5 images are 7 each
    assert spent == 3 * 5 * 7
    exact = derivatives(noise_loss(base, batch), parameters)
    kept = torch.cat([m.flatten() for m in mask.unpacked(CPU)])
    size = torch.cat([g.flatten() for g in exact]).abs()
    assert float(size[kept].min()) >= (float(size[~kept].max()) if share < 1 else 0) - 1e-6 * float(size.max())
    assert all(p.grad is None for p in parameters)


def test_a_mask_is_found_once(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, images, context = shop.denoiser(), shop.images(), shop.context(tmp_path)
    first, spent = saliency_mask(base, base.module, images, 0.3, 40, context)
    monkeypatch.setattr(saliency, "noise_loss", None)
    again, same = saliency_mask(base, base.module, images, 0.3, 40, context)
    assert same == spent
    assert all(np.array_equal(a, b) for a, b in zip(first.bits, again.bits, strict=True))
    with pytest.raises(TypeError):
        saliency_mask(base, base.module, images, 0.31, 40, context)


def test_a_network_whose_every_weight_is_frozen_is_refused(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    base.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        saliency_mask(base, base.module, shop.images(), 0.5, 8, shop.context(tmp_path))


def test_every_part_of_time_is_visited_once_by_each_row(shop: Any) -> None:
    base, images = shop.denoiser(), shop.images()
    rows = np.array([2, 7, 11])
    batch = stratified(base, images, rows, 8, 3)
    assert np.array_equal(
        np.floor(np.nextafter(batch.t.numpy(), 0) * 8).astype(int).reshape(3, 8), np.tile(range(7, -1, -1), (3, 1))
    )
    assert batch.condition is not None
    assert batch.condition.tolist() == np.repeat(images.labels[rows], 8).tolist()
    clean = images.floats(np.repeat(rows, 8))
    torch.testing.assert_close(batch.x_t, base.noised(clean, batch.noise, batch.t))
    alone = stratified(base, images, rows[1:2], 8, 3)
    assert torch.equal(alone.x_t, batch.x_t[8:16])
    other = stratified(base, images, rows, 8, 4)
    assert not torch.equal(other.t, batch.t)


def test_rows_are_spread_without_repetition(shop: Any) -> None:
    images = shop.images()
    assert spread(images, 100, 0).tolist() == list(range(12))
    some = spread(images, 5, 0).tolist()
    assert some == sorted(set(some))
    assert len(some) == 5
    assert spread(images, 5, 1).tolist() != some


def test_sums_that_were_cut_off_go_on_where_they_were(shop: Any, tmp_path: Path) -> None:
    parts = [np.array([i], np.int64) for i in range(10)]

    def run(folder: Path, stop: int) -> list[int]:
        seen: list[int] = []

        def add(sums: list[torch.Tensor], part: np.ndarray) -> None:
            if part[0] == stop:
                raise InterruptedError
            seen.append(int(part[0]))
            sums[0] += 1 / (1 + float(part[0]))

        result = accumulated(folder, [torch.zeros(1)], parts, add, shop.context(tmp_path), "sums")
        assert float(result[0]) == whole
        return seen

    total = torch.zeros(1)
    for i in range(10):
        total += 1 / (1 + i)
    whole = float(total)
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", 8)
    assert run(tmp_path / "cut", 99) == [6, 7, 8, 9]
    assert run(tmp_path / "cut", 99) == []


def test_an_unconditional_model_gets_no_labels(shop: Any) -> None:
    assert stratified(shop.denoiser(0), shop.images(), np.arange(2), 2, 0).condition is None
