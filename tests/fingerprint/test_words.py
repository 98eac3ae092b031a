"""Tokens are matched by what they stand for, and bands are drawn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vestige.fingerprint.words as room
from vestige.errors import InvalidInput
from vestige.fingerprint.words import (
    Band,
    Commonest,
    Everything,
    Listed,
    Middle,
    Rarest,
    Sampled,
    Words,
    hash_of,
    shared,
)

names = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=60).map(tuple)


def words(strings):
    return Words(tuple(strings), np.arange(len(strings), dtype=np.int64))


@given(names, names)
def test_the_shared_words_are_the_intersection_row_by_row(first, second):
    ours, theirs = shared(words(first), words(second))
    assert ours.names == theirs.names
    assert set(ours.names) == set(first) & set(second)
    assert [first[row] for row in ours.rows] == [second[row] for row in theirs.rows] == list(ours.names)
    assert list(ours.rows) == sorted(ours.rows)


def test_strings_of_two_rows_and_rows_behind_the_last_token_are_left_out(model):
    base = replace(model(), strings=("a", "b", "a", "c", "") + ("",) * 10)
    found = Words.of(base)
    assert found.names == ("b", "c")
    assert found.rows.tolist() == [1, 3]


def test_a_model_without_tokens_is_matched_by_row_with_one_of_as_many_rows(model):
    bare, other = replace(model(), strings=None), replace(model(seed=1), strings=None)
    assert len(shared(Words.of(bare), Words.of(other))[0]) == 128
    assert len(shared(Words.of(bare), Words.of(replace(other, table=other.table[:100])))[0]) == 0
    assert len(shared(Words.of(bare), Words.of(model()))[0]) == 0


def test_bands_take_what_their_names_say():
    every = words([f"w{k}" for k in range(100)])
    assert Rarest(10).choose(every).tolist() == list(range(90, 100))
    assert Commonest(10).choose(every).tolist() == list(range(10))
    assert Middle(10).choose(every).tolist() == list(range(45, 55))
    assert Everything().choose(every).tolist() == list(range(100))
    assert Listed("few", ("w7", "w3", "none")).choose(every).tolist() == [3, 7]
    assert Listed("few", ()).name == "few"
    for band in (Rarest(500), Commonest(500), Middle(500), Sampled(500)):
        assert band.choose(every).tolist() == list(range(100))
    for wrong in (Rarest, Commonest, Middle, Sampled):
        with pytest.raises(InvalidInput):
            wrong(1)


@given(names.filter(lambda n: len(n) > 3), st.integers(0, 2**32 - 1))
def test_a_sampled_band_depends_on_the_words_and_not_on_their_order(strings, seed):
    band, order = Sampled(3), np.random.default_rng(seed).permutation(len(strings))
    mixed = words([strings[place] for place in order])
    chosen = {strings[place] for place in band.choose(words(strings))}
    assert chosen == {mixed.names[place] for place in band.choose(mixed)}
    assert chosen == set(sorted(strings, key=hash_of)[:3])
    # New words take places only where their hashes are smaller.
    longer = {(*strings, "something new")[place] for place in band.choose(words((*strings, "something new")))}
    assert len(chosen & longer) >= 2


def test_every_band_says_what_it_claims():
    bands = [
        item for item in vars(room).values() if isinstance(item, type) and issubclass(item, Band) and item is not Band
    ]
    assert len(bands) == 6
    assert all(band.claim.endswith(".") for band in bands)


def test_hashes_are_fixed():
    assert hash_of("the") == int.from_bytes(__import__("hashlib").blake2b(b"the", digest_size=8).digest(), "little")
    assert hash_of("\ud800") >= 0  # a lone surrogate, as byte tokens can decode to
