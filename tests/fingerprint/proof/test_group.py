from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import CorruptFile, InvalidInput
from vestige.fingerprint.proof import group
from vestige.fingerprint.proof.algebra import bases, dot, fold, folded_weights, holds, inverse, rounds_for, width_for
from vestige.fingerprint.proof.group import ORDER, decode, encode, hashed, identity, multiply, multiply_small

G1Point = pytest.importorskip("py_arkworks_bls12381").G1Point

FIELD = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB


def _add(first, second):
    """Chord and tangent on y^2 = x^3 + 4, from the textbook; None is neutral."""
    if first is None or second is None:
        return first or second
    (x, y), (u, v) = first, second
    if x == u and (y + v) % FIELD == 0:
        return None
    slope = (3 * x * x * pow(2 * y, -1, FIELD) if first == second else (v - y) * pow(u - x, -1, FIELD)) % FIELD
    out = (slope * slope - x - u) % FIELD
    return out, (slope * (x - out) - y) % FIELD


def _times(point, scalar):
    total = None
    for bit in bin(scalar)[2:]:
        total = _add(total, total)
        total = _add(total, point) if bit == "1" else total
    return total


def _plain(point):
    data = point.to_xy_bytes_be()
    return None if point == identity() else (int.from_bytes(data[:48], "big"), int.from_bytes(data[48:], "big"))


def test_multiplication_agrees_with_the_curve_equation():
    draw = random.Random(0)
    points = [hashed("some", index) for index in range(3)]
    scalars = [draw.randrange(ORDER), -draw.randrange(ORDER), 5]
    expected = None
    for point, scalar in zip(points, scalars, strict=True):
        x, y = _plain(point)
        assert (y * y - x**3 - 4) % FIELD == 0
        expected = _add(expected, _times((x, y), scalar % ORDER))
    assert _plain(multiply(points, scalars)) == expected


def test_the_order_is_a_prime_that_kills_every_point():
    for base in (2, 3, 5, 7, 11, 13):  # Fermat
        assert pow(base, ORDER - 1, ORDER) == 1
    x, y = _plain(hashed("some"))
    assert _times((x, y), ORDER) is None
    assert _times((x, y), 2) is not None


def test_points_are_hashed_as_rfc_9380_says():
    # Appendix J.9.1: the suite's own tag and the empty message.
    point = G1Point.hash_to_curve(b"", b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_")
    assert point.to_xy_bytes_be().hex() == (
        "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1"
        "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265"
    )
    assert hashed("left", 7) == G1Point.hash_to_curve(
        b"left/\x00\x00\x00\x07", b"VESTIGE-FINGERPRINT-V1-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"
    )


def test_all_fixed_points_differ_and_do_not_depend_on_the_size():
    small, large = bases(2), bases(8)
    assert small.left == large.left[:2]
    points = [*large.left, *large.right, large.value, large.product, large.blind]
    assert len({encode(point) for point in points}) == 19
    assert identity() not in points


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4))
def test_small_multiples_agree(scalars):
    points = [hashed("some", index) for index in range(len(scalars))]
    assert multiply_small(points, scalars, 50) == multiply(points, scalars)


def test_unequal_lists_are_refused():
    with pytest.raises(InvalidInput):
        multiply([hashed("some")], [1, 2])
    with pytest.raises(InvalidInput):
        multiply_small([hashed("some"), hashed("some", 1)], [1], 2)


def _outside():
    """A point of the curve that is not in the group."""
    for x in range(1, 99):
        try:
            point = G1Point.from_compressed_bytes_unchecked(bytes([0x80]) + x.to_bytes(47, "big"))
        except ValueError:
            continue
        if not point.is_in_subgroup():
            return encode(point)
    raise LookupError


def test_only_points_of_the_group_are_read():
    good = encode(hashed("some"))
    assert decode(good, "it") == hashed("some")
    too_large = bytes([0x80]) + bytes(47)
    too_large = (int.from_bytes(too_large, "big") | FIELD).to_bytes(48, "big")
    wrong = [b"", good[:-1], good + b"\0", b"\xff" * 48, bytes(48), bytes([0xC0]) + bytes(47), too_large, _outside()]
    wrong += [bytes([0xC0]) + bytes(46) + b"\1", bytes([good[0] & 0x7F]) + good[1:]]
    for data in wrong:
        with pytest.raises(CorruptFile):
            decode(data, "it")


@given(st.binary(min_size=48, max_size=48))
def test_what_is_read_is_written_the_same(data):
    try:
        point = decode(data, "it")
    except CorruptFile:
        return
    assert encode(point) == data
    assert point.is_in_subgroup()


def test_an_old_python_is_named(monkeypatch):
    monkeypatch.setattr(group.sys, "version_info", type("V", (tuple,), {"major": 3, "minor": 10})((3, 10)))
    group._library.cache_clear()
    with pytest.raises(group.Unsupported, match=r"Python 3\.10"):
        hashed("some")
    monkeypatch.undo()
    group._library.cache_clear()


SCALARS = st.integers(0, ORDER - 1)


@given(st.lists(SCALARS, min_size=1, max_size=11), st.lists(SCALARS.filter(bool), min_size=4, max_size=4))
def test_weights_of_folding_are_those_of_folding(entries, challenges):
    used = challenges[: rounds_for(len(entries))]
    held = entries
    for u in used:
        half = 1 << ((len(held) - 1).bit_length() - 1)
        held = fold(held[:half], held[half:], u)
    assert held == [dot(folded_weights(used, len(entries)), entries)]


def test_sizes():
    assert [width_for(n) for n in (1, 2, 3, 4, 5, 1536)] == [1, 2, 4, 4, 8, 2048]
    assert [rounds_for(n) for n in (1, 2, 3, 512, 513)] == [0, 1, 2, 9, 10]
    assert inverse(7) * 7 % ORDER == 1


def test_one_false_equation_among_true_ones_is_found():
    point = hashed("some")
    true, false = [(point, 3), (point, -3)], [(point, 3), (point, -2)]
    weight = int.from_bytes(hashlib.sha256(b"weight").digest(), "big") % ORDER
    assert holds([true, true], weight)
    assert not holds([true, false], weight)
    assert not holds([false, true], weight)
    # Two false ones that cancel without weights do not with them.
    assert not holds([false, [(point, -1)]], weight)
