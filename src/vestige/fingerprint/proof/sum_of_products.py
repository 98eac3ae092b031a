"""Many inner products of committed vectors over the same points, brought down to one.

Given commitments X_k and Y_k to vectors x_k and y_k, and Z to ``f = sum over k of <x_k, y_k>``, halves of the list
are folded as the inner-product argument folds halves of a vector: the prover commits to the two cross sums, and for a
challenge u both sides go on with ``x_k + u x_(k+half)`` and ``y_k + y_(k+half) / u``. The commitments to the folded
vectors follow from those before, so a round costs two points whatever the vectors' length, and after log2 of their
number one pair is left. ``docs/proof.md`` has the argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from vestige.fingerprint.proof.algebra import Bases, Equation, dot, fold, inverse
from vestige.fingerprint.proof.group import ORDER, Point, multiply
from vestige.fingerprint.proof.transcript import Blinders, Dialogue, say

Vectors = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Crossing:
    """One round: commitments to the sums of (lower left, upper right) and of (upper left, lower right) products."""

    down: Point
    up: Point


@dataclass(frozen=True)
class Folded:
    """The pair that is left, the blinder of the sum, and the challenges on the way."""

    left: Sequence[int]
    right: Sequence[int]
    blind_value: int
    challenges: tuple[int, ...]


def prove_sum(
    left: Vectors, right: Vectors, blind_value: int, base: Bases, dialogue: Dialogue, blinders: Blinders
) -> tuple[tuple[Crossing, ...], Folded]:
    """Fold the pairs to one; ``blind_value`` is the blinder of Z. Vectors of a list may differ in length."""
    rounds: list[Crossing] = []
    challenges: list[int] = []
    while len(left) > 1:
        half = 1 << ((len(left) - 1).bit_length() - 1)
        of_down, of_up = blinders.scalar("cross down", len(rounds)), blinders.scalar("cross up", len(rounds))
        # Where the upper half is shorter, what it lacks is zero.
        down = sum(dot(x, y) for x, y in zip(left[:half], right[half:], strict=False))
        up = sum(dot(x, y) for x, y in zip(left[half:], right[:half], strict=False))
        message = Crossing(
            multiply((base.value, base.blind), (down, of_down)), multiply((base.value, base.blind), (up, of_up))
        )
        say(dialogue, "cross", message.down, message.up)
        u = dialogue.scalar("cross")
        back = inverse(u)
        left, right = _halved(left, half, u), _halved(right, half, back)
        blind_value = (blind_value + back * of_down + u * of_up) % ORDER
        rounds.append(message)
        challenges.append(u)
    return tuple(rounds), Folded(left[0], right[0], blind_value, tuple(challenges))


def _halved(vectors: Vectors, half: int, factor: int) -> list[list[int]]:
    return [fold(low, high, factor) for low, high in zip_longest(vectors[:half], vectors[half:], fillvalue=())]


def sum_challenges(rounds: Sequence[Crossing], dialogue: Dialogue) -> tuple[int, ...]:
    """The challenges of the rounds, on the verifier's side."""
    challenges: list[int] = []
    for message in rounds:
        say(dialogue, "cross", message.down, message.up)
        challenges.append(dialogue.scalar("cross"))
    return tuple(challenges)


def folded_value(value: Equation, rounds: Sequence[Crossing], challenges: Sequence[int]) -> Equation:
    """The commitment to the product of the pair that is left, from that to the sum."""
    folded = list(value)
    for message, u in zip(rounds, challenges, strict=True):
        folded += [(message.down, inverse(u)), (message.up, u)]
    return folded
