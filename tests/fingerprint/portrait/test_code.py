from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.fingerprint.portrait.code import ALPHABET, VectorCode
from vestige.fingerprint.portrait.public import directed, gaussian, orthonormal
from vestige.fingerprint.portrait.study import FamilyStudy


def vector(seed: int = 0, size: int = 510) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def test_codes_are_short_and_legible() -> None:
    code = VectorCode.of(vector())
    assert [len(group) for group in code.kin.split("-")] == [4] * 3
    assert [len(group) for group in code.exact.split("-")] == [4] * 4
    assert set(code.kin + code.exact) <= {*ALPHABET, "-"}
    assert len(set(ALPHABET)) == 32
    assert not set("ILOU") & set(ALPHABET)


def test_a_code_is_what_it_was() -> None:
    ramp = np.arange(-255.0, 255)
    assert VectorCode.of(ramp) == VectorCode("BFT2-6KMN-X6A6", "FRCG-N67Y-N43D-G9WV")


@given(st.integers(0, 100), st.floats(1e-30, 1e30))
def test_the_length_of_a_vector_does_not_matter(seed: int, scale: float) -> None:
    assert VectorCode.of(vector(seed) * scale) == VectorCode.of(vector(seed))


def test_the_exact_code_of_near_vectors_differs_and_the_kin_code_hardly() -> None:
    first = vector()
    near = first + 1e-2 * vector(1)
    assert VectorCode.of(first).exact != VectorCode.of(near).exact
    assert VectorCode.of(first).exact == VectorCode.of(first.astype(np.float64)).exact
    assert (VectorCode.of(first).bits() != VectorCode.of(near).bits()).sum() <= 3
    assert len({VectorCode.of(vector(seed)).exact for seed in range(50)}) == 50


def test_bits_come_back_from_letters() -> None:
    code = VectorCode.of(vector())
    sides = orthonormal(0, 60, 510, 1) @ vector() > 0
    np.testing.assert_array_equal(code.bits(), sides)
    np.testing.assert_array_equal(VectorCode(code.kin.lower().replace("-", ""), "").bits(), sides)
    for wrong in ("", "0000-0000-000", "0000-0000-000U"):
        with pytest.raises(InvalidInput, match="12 letters"):
            VectorCode(wrong, "").bits()


def test_kin_codes_estimate_the_cosine() -> None:
    bases, offspring = FamilyStudy(bases=60, cosines=(0.99, 0.7, 0.0, -0.9), size=60).vectors()
    codes = [VectorCode.of(base) for base in bases]
    for place, cosine in enumerate((0.99, 0.7, 0.0, -0.9)):
        found = [code.cosine(VectorCode.of(row[place])) for code, row in zip(codes, offspring, strict=True)]
        shares = [math.acos(np.clip(one.value, -1, 1)) / math.pi for one in found]
        expected = math.acos(cosine) / math.pi
        assert np.mean(shares) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 3600))
        assert np.mean([one.covers(cosine) for one in found]) > 0.88
    same = codes[0].cosine(codes[0])
    assert same.value == same.high == pytest.approx(1)
    assert 0.9 < same.low < 1


@pytest.mark.parametrize(
    "wrong", [[], [1.0], [[1.0, 2.0]], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")], ["a", "b"], [1j, 2]]
)
def test_what_is_no_vector_is_refused(wrong: list[object]) -> None:
    with pytest.raises(InvalidInput, match="fingerprint vector"):
        VectorCode.of(np.array(wrong))


@given(st.sampled_from([(3, 8), (8, 3), (5, 5)]), st.integers(0, 2**64 - 1))
def test_the_public_map_is_orthonormal(shape: tuple[int, int], seed: int) -> None:
    found = orthonormal(seed, *shape, 0)
    small = found @ found.T if shape[0] <= shape[1] else found.T @ found
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)
    np.testing.assert_array_equal(found, orthonormal(seed, *shape, 0))


def test_public_numbers_are_normal_and_stay_what_they_are() -> None:
    numbers = gaussian(0, 200, 500, 0)
    assert abs(numbers.mean()) < 0.02
    assert numbers.std() == pytest.approx(1, abs=0.01)
    raw = np.random.Philox(key=np.array([7, 20], np.uint64), counter=[0, 0, 1, 0]).random_raw(3)
    expected = [NormalDist().inv_cdf(((int(bits) >> 11) + 0.5) * 2**-53) for bits in raw]
    np.testing.assert_allclose(gaussian(7, 1, 3, 0)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(expected, [0.373988230252011, 1.955648496399575, -0.741500492009768], rtol=1e-12)
    assert not np.allclose(gaussian(0, 2, 3, 0), gaussian(0, 2, 3, 1))


def test_directed_is_of_mean_square_one() -> None:
    assert np.mean(directed(vector() * 1e-200) ** 2) == pytest.approx(1)
    np.testing.assert_allclose(directed([3, -4]), np.array([3, -4]) * math.sqrt(2) / 5)
