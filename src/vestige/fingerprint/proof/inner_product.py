"""Two committed vectors have the committed inner product: one proof of logarithmic size that shows nothing else.

Given X = <x, G> + a h, Y = <y, H> + b h and Z = f B + c h, the prover shows knowledge of x, y, f, a, b, c with
<x, y> = f. It is the inner-product argument of Bulletproofs (Bünz et al. 2018, IACR 2017/1066, sections 3 and 4.2)
with the two sides kept apart, so that x is shown to lie in G alone and y in H alone:

    mask     S = <s, G> + . h,  S' = <s', H> + . h,  T1 = (<x, s'> + <s, y>) B + . h,  T2 = <s, s'> B + . h
    reveal   for a challenge z: t = <l, r> with l = x + z s and r = y + z s', and the blinders of
             X + z S, Y + z S' and Z + z T1 + z^2 T2 (both sides can now compute <l, G>, <r, H> and check t)
    halve    l and r against G, H and the product's own base w Q, in log2(n) rounds, to one entry each

l and r are uniform whatever x and y are, so halving them in the open shows nothing. ``docs/proof.md`` has the argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vestige.fingerprint.proof.algebra import (
    Bases,
    Equation,
    dot,
    fold,
    folded_weights,
    inverse,
)
from vestige.fingerprint.proof.group import ORDER, Point, multiply
from vestige.fingerprint.proof.transcript import Blinders, Dialogue, say, say_scalars


@dataclass(frozen=True)
class Halving:
    """One round: cross products of the halves, down (low entries on high bases) and up, for the left and right side."""

    left_down: Point
    left_up: Point
    right_down: Point
    right_up: Point

    @property
    def points(self) -> tuple[Point, ...]:
        """In the order in which they are sent."""
        return self.left_down, self.left_up, self.right_down, self.right_up


@dataclass(frozen=True)
class Masks:
    """The first message: S, S', T1 and T2."""

    left: Point
    right: Point
    linear: Point
    square: Point

    @property
    def points(self) -> tuple[Point, ...]:
        """In the order in which they are sent."""
        return self.left, self.right, self.linear, self.square


@dataclass(frozen=True)
class Revealed:
    """The second message: t, and the blinders of X + z S, of Y + z S' and of Z + z T1 + z^2 T2."""

    product: int
    blind_left: int
    blind_right: int
    blind_product: int

    @property
    def scalars(self) -> tuple[int, ...]:
        """In the order in which they are sent."""
        return self.product, self.blind_left, self.blind_right, self.blind_product


@dataclass(frozen=True)
class InnerProduct:
    """The messages of the prover, in order; ``left`` and ``right`` are what is left of l and r."""

    masks: Masks
    revealed: Revealed
    rounds: tuple[Halving, ...]
    left: int
    right: int


@dataclass(frozen=True)
class Opened:
    """What the prover knows: ``left`` and ``right`` of at most n entries, and the blinders of X, Y and Z."""

    left: Sequence[int]
    right: Sequence[int]
    blind_left: int
    blind_right: int
    blind_value: int


def prove_inner_product(known: Opened, base: Bases, dialogue: Dialogue, blinders: Blinders) -> InnerProduct:
    """Prove ``<x, y> = f`` for the vectors that the prover knows; n = len(base.left) is a power of two."""
    size = len(base.left)
    left = [*known.left, *[0] * (size - len(known.left))]
    right = [*known.right, *[0] * (size - len(known.right))]
    hidden_left, hidden_right = blinders.scalars("mask left", size), blinders.scalars("mask right", size)
    of_left, of_right, of_linear, of_square = blinders.scalars("mask blinders", 4)
    left_mask = multiply((*base.left, base.blind), (*hidden_left, of_left))
    right_mask = multiply((*base.right, base.blind), (*hidden_right, of_right))
    cross = dot(left, hidden_right) + dot(hidden_left, right)
    linear = multiply((base.value, base.blind), (cross, of_linear))
    square = multiply((base.value, base.blind), (dot(hidden_left, hidden_right), of_square))
    masks = Masks(left_mask, right_mask, linear, square)
    say(dialogue, "mask", *masks.points)
    z = dialogue.scalar("mask")
    left, right = fold(left, hidden_left, z), fold(right, hidden_right, z)
    revealed = Revealed(
        dot(left, right),
        (known.blind_left + z * of_left) % ORDER,
        (known.blind_right + z * of_right) % ORDER,
        (known.blind_value + z * of_linear + z * z * of_square) % ORDER,
    )
    say_scalars(dialogue, "revealed", *revealed.scalars)
    product = multiply((base.product,), (dialogue.scalar("product"),))
    rounds, last_left, last_right = _halve(left, right, base, product, dialogue)
    say_scalars(dialogue, "last", last_left, last_right)
    return InnerProduct(masks, revealed, rounds, last_left, last_right)


def _halve(
    left: list[int], right: list[int], base: Bases, product: Point, dialogue: Dialogue
) -> tuple[tuple[Halving, ...], int, int]:
    """Fold both vectors and their bases to one entry each."""
    upon_left, upon_right = list(base.left), list(base.right)
    rounds: list[Halving] = []
    while (half := len(left) // 2) > 0:
        (low, high), (low_right, high_right) = (left[:half], left[half:]), (right[:half], right[half:])
        message = Halving(
            multiply((*upon_left[half:], product), (*low, dot(low, high_right))),
            multiply((*upon_left[:half], product), (*high, dot(high, low_right))),
            multiply(upon_right[:half], high_right),
            multiply(upon_right[half:], low_right),
        )
        say(dialogue, "halve", *message.points)
        u = dialogue.scalar("halve")
        back = inverse(u)
        left, right = fold(low, high, u), fold(low_right, high_right, back)
        upon_left = [multiply(pair, (1, back)) for pair in zip(upon_left[:half], upon_left[half:], strict=True)]
        upon_right = [multiply(pair, (1, u)) for pair in zip(upon_right[:half], upon_right[half:], strict=True)]
        rounds.append(message)
    return tuple(rounds), left[0], right[0]


def inner_product_equations(
    proof: InnerProduct, left: Equation, right: Equation, value: Equation, base: Bases, dialogue: Dialogue
) -> list[Equation]:
    """Three sums that are neutral if the proof holds for X, Y and Z, each given as a sum.

    ``proof`` has log2(len(base.left)) rounds.
    """
    masks, revealed = proof.masks, proof.revealed
    say(dialogue, "mask", *masks.points)
    z = dialogue.scalar("mask")
    say_scalars(dialogue, "revealed", *revealed.scalars)
    w = dialogue.scalar("product")
    challenges: list[int] = []
    for message in proof.rounds:
        say(dialogue, "halve", *message.points)
        challenges.append(dialogue.scalar("halve"))
    say_scalars(dialogue, "last", proof.left, proof.right)
    size, backs = len(base.left), [inverse(u) for u in challenges]
    up, down = folded_weights(challenges, size), folded_weights(backs, size)
    on_value: Equation = [
        *value,
        (masks.linear, z),
        (masks.square, z * z),
        (base.value, -revealed.product),
        (base.blind, -revealed.blind_product),
    ]
    on_left: Equation = [
        *left,
        (masks.left, z),
        (base.blind, -revealed.blind_left),
        (base.product, w * (revealed.product - proof.left * proof.right)),
        *((point, -proof.left * weight) for point, weight in zip(base.left, down, strict=True)),
    ]
    on_right: Equation = [
        *right,
        (masks.right, z),
        (base.blind, -revealed.blind_right),
        *((point, -proof.right * weight) for point, weight in zip(base.right, up, strict=True)),
    ]
    for message, u, back in zip(proof.rounds, challenges, backs, strict=True):
        on_left += [(message.left_down, back), (message.left_up, u)]
        on_right += [(message.right_down, back), (message.right_up, u)]
    return [on_value, on_left, on_right]
