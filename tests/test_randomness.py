from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import InvalidInput
from vestige.randomness import Stream, generator, normal

words = st.integers(0, 2**64 - 1)


@given(words, st.sampled_from(Stream), st.integers(0, 2**62), st.integers(0, 2**62))
def test_key_and_counter_are_laid_out_as_documented(seed, stream, row, draw):
    philox = np.random.Philox(key=int(stream) << 64 | seed, counter=row << 128 | draw << 64)
    expected = np.random.Generator(philox).standard_normal(5, np.float32)
    assert (normal(seed, stream, [row], (5,), draw)[0] == expected).all()


@given(st.permutations(range(8)), st.integers(1, 8))
def test_a_row_is_the_same_in_every_batch(rows, cut):
    everything = normal(3, Stream.LOSS, range(8), (2, 3), 4)
    parts = [normal(3, Stream.LOSS, rows[:cut], (2, 3), 4), normal(3, Stream.LOSS, rows[cut:], (2, 3), 4)]
    assert (np.concatenate(parts) == everything[rows]).all()
    assert everything.dtype == np.float32


def test_no_rows_give_no_noise():
    assert normal(0, Stream.SAMPLE, [], (1, 2, 2)).shape == (0, 1, 2, 2)


def test_seeds_streams_rows_and_draws_never_share_numbers():
    keys = [(s, 0, 0, 0) for s in (0, 1, 2**63, 2**63 + 1, 2**64 - 1)]
    keys += [(0, stream, 0, 0) for stream in list(Stream)[1:]] + [(0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1)]
    drawn = {generator(s, Stream(k), r, d).bytes(16) for s, k, r, d in keys}
    assert len(drawn) == len(keys)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_would_alias_another_is_refused(seed):
    with pytest.raises(InvalidInput, match=str(seed)):
        generator(seed, Stream.SAMPLE, 0)


def test_noise_is_standard_normal_and_rows_are_uncorrelated():
    noise = normal(11, Stream.SAMPLE, range(400), (64,)).astype(np.float64)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    for one, two in ((noise[:-1], noise[1:]), (noise, normal(11, Stream.SAMPLE, range(400), (64,), 1))):
        assert stats.pearsonr(one.ravel(), two.ravel()).pvalue > 1e-4
