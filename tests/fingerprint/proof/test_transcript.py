from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.fingerprint.proof.group import ORDER, hashed
from vestige.fingerprint.proof.transcript import Blinders, Transcript, say, say_scalars

pytest.importorskip("py_arkworks_bls12381")

MESSAGES = st.lists(st.tuples(st.text(max_size=3), st.lists(st.binary(max_size=3), max_size=3)), max_size=3)


def _challenge(messages, domain="d"):
    transcript = Transcript(domain)
    for label, parts in messages:
        transcript.absorb(label, *parts)
    return transcript.scalar("c")


@given(MESSAGES, MESSAGES)
def test_challenges_are_equal_exactly_if_everything_said_is(first, second):
    assert (_challenge(first) == _challenge(second)) == (first == second)


def test_moving_a_byte_between_parts_or_messages_changes_the_challenge():
    ways = [
        [("a", [b"xy"])],
        [("a", [b"x", b"y"])],
        [("a", [b"x"]), ("a", [b"y"])],
        [("ax", [b"y"])],
        [("a", [b"xy", b""])],
        [("a", [b"xy"]), ("", [])],
    ]
    assert len({_challenge(way) for way in ways} | {_challenge(ways[0], "e")}) == len(ways) + 1


def test_challenges_follow_each_other_and_their_labels():
    transcript = Transcript("d")
    found = [transcript.scalar("c") for _ in range(3)]
    assert len(set(found)) == 3
    assert all(0 < value < ORDER for value in found)
    other = Transcript("d")
    assert other.scalar("e") != found[0]
    assert len(Transcript("d").bytes("b", 5)) == 5


def test_zero_is_never_a_challenge(monkeypatch):
    transcript = Transcript("d")
    drawn = iter([b"\0" * 64, ORDER.to_bytes(64, "big"), (7).to_bytes(64, "big")])
    monkeypatch.setattr(transcript, "bytes", lambda label, length: next(drawn))
    assert transcript.scalar("c") == 7


def test_points_and_scalars_are_heard():
    def said(*what):
        transcript = Transcript("d")
        for one in what:
            (say_scalars if isinstance(one, int) else say)(transcript, "m", one)
        return transcript.scalar("c")

    ways = {said(1), said(2), said(1, 2), said(hashed("a")), said(hashed("a", 1)), said()}
    assert len(ways) == 6


def test_blinders_depend_on_seed_label_and_index():
    first = Blinders(b"s" * 32)
    assert first.scalars("a", 3) == [first.scalar("a", index) for index in range(3)]
    every = [*first.scalars("a", 20), *first.scalars("b", 20), *Blinders(b"t" * 32).scalars("a", 20)]
    assert len(set(every)) == 60
    assert all(0 <= value < ORDER for value in every)
    # Uniform over 255 bits: of 60 the highest quarter is reached and the mean is near the middle.
    assert max(every) > 3 * ORDER // 4
    assert sum(every) / 60 / ORDER == pytest.approx(0.5, abs=0.15)
