from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vestige.erase.concept.null_space import FreeSpace, capacity, check_room, free_spaces, leak_of
from vestige.errors import InvalidInput


def rows(count: int, width: int, seed: int, rank: int | None = None) -> Tensor:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((count, rank or count)) @ rng.standard_normal((rank or count, width))
    return torch.from_numpy(made)


def by_svd(stack: Tensor) -> Tensor:
    """Projector on the null space, one concept at a time, from singular vectors."""
    _, values, vectors = torch.linalg.svd(stack, full_matrices=True)
    used = vectors[: int((values > 1e-6 * values[0]).sum())]
    return torch.eye(stack.shape[1], dtype=stack.dtype) - used.mT @ used


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.integers(0, 10_000))
def test_the_batch_equals_one_singular_value_decomposition_each(concepts: int, each: int, shared: int, seed: int):
    width = 24
    first, own = rows(shared, width, seed), [rows(each, width, seed + 1 + i) for i in range(concepts)]
    found = free_spaces(first, own)
    for place, space in enumerate(found):
        others = [block for i, block in enumerate(own) if i != place]
        stack = torch.cat([first, *others])
        wanted = by_svd(stack) if len(stack) else torch.eye(width, dtype=stack.dtype)
        torch.testing.assert_close(space.basis.mT @ space.basis, wanted, rtol=0, atol=1e-9)
        torch.testing.assert_close(space.basis @ space.basis.mT, torch.eye(space.free, dtype=stack.dtype))
        assert space.free + space.listed == width


def test_dependent_rows_take_no_more_than_their_rank_and_other_scales_no_less():
    stack = rows(40, 30, 0, rank=7)
    (space,) = free_spaces(stack, [stack[:0]])
    assert space.listed == 7
    (scaled,) = free_spaces(torch.cat([stack, 1e-4 * rows(3, 30, 5)]), [stack[:0]])
    assert scaled.listed == 10


def test_guards_take_the_directions_in_which_they_are_strongest_until_their_leak_is_small():
    axes = torch.eye(10, dtype=torch.float64)
    guard = axes[2:8] * torch.tensor([1.0, 1e-1, 1e-3, 10.0, 2e-3, 0.0])[:, None]
    (space,) = free_spaces(axes[:2], [axes[:0]], guard=guard, leak=1e-6)
    # 10^2 + 1 + .01 of energy, of which 1e-6 (1e-4) may be left: 1e-6 + 4e-6 are.
    assert (space.listed, space.guarded, space.free) == (2, 3, 5)
    taken = torch.eye(10, dtype=torch.float64) - space.basis.mT @ space.basis
    torch.testing.assert_close(taken, torch.diag(torch.tensor([1.0, 1, 1, 1, 0, 1, 0, 0, 0, 0]).double()))
    assert space.guard_leak == pytest.approx(5e-6 / (100 + 1 + 0.01 + 5e-6))
    (loose,) = free_spaces(axes[:2], [axes[:0]], guard=guard, leak=1.0)
    assert loose.guarded == 0


@given(st.integers(0, 1000), st.floats(1e-6, 0.5))
def test_the_leak_of_guards_is_never_above_what_was_allowed(seed: int, leak: float):
    listed, guard, own = rows(4, 20, seed), rows(9, 20, seed + 1), [rows(3, 20, seed + 2), rows(3, 20, seed + 3)]
    for place, space in enumerate(free_spaces(listed, own, guard=guard, leak=leak)):
        energy = float(guard.square().sum())
        assert float((guard @ space.basis.mT).square().sum()) <= leak * energy * (1 + 1e-9)
        kept = torch.cat([listed, own[1 - place]])
        assert float((kept @ space.basis.mT).abs().max()) < 1e-6 * float(kept.abs().max())


def test_capacity_is_that_of_prompts_that_share_their_first_token():
    assert [capacity(768, 77, need) for need in (1, 8, 83)] == [10, 9, 9]
    assert capacity(1024, 77, 1) == 13
    assert capacity(2048, 77, 1) == 26
    first = rows(1, 48, 0)
    prompts = [torch.cat([first, rows(15, 48, i + 1)]) for i in range(4)]
    for count in range(1, 5):
        (space,) = free_spaces(torch.cat(prompts[:count]), [first[:0]])
        assert (space.free >= 4) == (count <= capacity(48, 16, 4))


def test_too_many_prompts_are_refused_with_the_number_that_fits():
    space = FreeSpace(torch.zeros(2, 48), 40, 6, 0.0)
    with pytest.raises(InvalidInput, match="2 prompts of 16 tokens") as caught:
        check_room(space, "red", 5, 16, 4)
    assert "--guard" in caught.value.remedy
    check_room(space, "red", 5, 16, 2)


def test_the_leak_is_relative_to_what_the_layer_answers():
    kept, weight = rows(5, 8, 0), rows(6, 8, 1)
    assert leak_of(kept, weight, weight * 1e-3) == pytest.approx(1e-3)
