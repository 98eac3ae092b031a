"""Challenges from everything that was said before (Fiat and Shamir 1986), and blinders from a secret seed.

A transcript is a chain of SHA-512 states. Every message is absorbed with its label and the length of each part, so no
two sequences of messages are the same bytes, and a challenge is SHAKE-256 of the state, read modulo the order of the
group from 64 bytes, which leaves a bias below 2**-250.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

from vestige.fingerprint.proof.group import ORDER, SCALAR_BYTES, Point, encode

_WIDE = 64


@runtime_checkable
class Dialogue(Protocol):
    """The one who sends challenges: a transcript, or somebody who draws them at random."""

    def absorb(self, label: str, *parts: bytes) -> None:
        """Hear a message of the prover."""
        ...

    def scalar(self, label: str) -> int:
        """The next challenge, in [1, ORDER)."""
        ...


class Transcript:
    """Challenges that depend on every message before them."""

    def __init__(self, domain: str) -> None:
        self._state = hashlib.sha512(b"vestige transcript 1").digest()
        self.absorb("domain", domain.encode())

    def absorb(self, label: str, *parts: bytes) -> None:
        """Take in a message: its label, the number of parts, and each part behind its length."""
        chain = hashlib.sha512(self._state)
        for part in (label.encode(), len(parts).to_bytes(8, "big"), *parts):
            chain.update(len(part).to_bytes(8, "big"))
            chain.update(part)
        self._state = chain.digest()

    def bytes(self, label: str, length: int) -> bytes:
        """``length`` challenge bytes."""
        self.absorb("challenge", label.encode(), length.to_bytes(8, "big"))
        return hashlib.shake_256(self._state).digest(length)

    def scalar(self, label: str) -> int:
        """The next challenge, in [1, ORDER)."""
        while not (value := int.from_bytes(self.bytes(label, _WIDE), "big") % ORDER):
            pass
        return value


def say(dialogue: Dialogue, label: str, *points: Point) -> None:
    """Absorb points."""
    dialogue.absorb(label, *(encode(point) for point in points))


def say_scalars(dialogue: Dialogue, label: str, *scalars: int) -> None:
    """Absorb scalars of [0, ORDER)."""
    dialogue.absorb(label, *(scalar.to_bytes(SCALAR_BYTES, "big") for scalar in scalars))


class Blinders:
    """Uniform secret scalars, each a function of the seed, a label and an index alone."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed

    def scalar(self, label: str, index: int = 0) -> int:
        """One blinder in [0, ORDER)."""
        message = b"vestige blinder 1" + self._seed + index.to_bytes(8, "big") + label.encode()
        return int.from_bytes(hashlib.shake_256(message).digest(_WIDE), "big") % ORDER

    def scalars(self, label: str, count: int) -> list[int]:
        """``count`` blinders."""
        return [self.scalar(label, index) for index in range(count)]
