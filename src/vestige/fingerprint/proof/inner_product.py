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


@dataclass(frozen=True)
class InnerProduct:
    """The messages of the prover, in the order of :mod:`vestige.fingerprint.proof.inner_product`."""

    mask_left: Point
    mask_right: Point
    linear: Point
    square: Point
    product: int
    blind_left: int
    blind_right: int
    blind_product: int
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
    mask_left = multiply((*base.left, base.blind), (*hidden_left, of_left))
    mask_right = multiply((*base.right, base.blind), (*hidden_right, of_right))
    cross = dot(left, hidden_right) + dot(hidden_left, right)
    linear = multiply((base.value, base.blind), (cross, of_linear))
    square = multiply((base.value, base.blind), (dot(hidden_left, hidden_right), of_square))
    say(dialogue, "mask", mask_left, mask_right, linear, square)
    z = dialogue.scalar("mask")
    left, right = fold(left, hidden_left, z), fold(right, hidden_right, z)
    revealed = (
        dot(left, right),
        (known.blind_left + z * of_left) % ORDER,
        (known.blind_right + z * of_right) % ORDER,
        (known.blind_value + z * of_linear + z * z * of_square) % ORDER,
    )
    say_scalars(dialogue, "revealed", *revealed)
    product = multiply((base.product,), (dialogue.scalar("product"),))
    rounds, left, right = _halve(left, right, base, product, dialogue)
    say_scalars(dialogue, "last", left, right)
    return InnerProduct(mask_left, mask_right, linear, square, *revealed, rounds, left, right)


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
        _say(dialogue, message)
        u = dialogue.scalar("halve")
        back = inverse(u)
        left, right = fold(low, high, u), fold(low_right, high_right, back)
        upon_left = [multiply(pair, (1, back)) for pair in zip(upon_left[:half], upon_left[half:], strict=True)]
        upon_right = [multiply(pair, (1, u)) for pair in zip(upon_right[:half], upon_right[half:], strict=True)]
        rounds.append(message)
    return tuple(rounds), left[0], right[0]


def _say(dialogue: Dialogue, message: Halving) -> None:
    say(dialogue, "halve", message.left_down, message.left_up, message.right_down, message.right_up)


def inner_product_equations(
    proof: InnerProduct, left: Equation, right: Equation, value: Equation, base: Bases, dialogue: Dialogue
) -> list[Equation]:
    """Three sums that are neutral if the proof holds for X, Y and Z, each given as a sum.

    ``proof`` has log2(len(base.left)) rounds.
    """
    say(dialogue, "mask", proof.mask_left, proof.mask_right, proof.linear, proof.square)
    z = dialogue.scalar("mask")
    say_scalars(
        dialogue, "revealed", proof.product, proof.blind_left, proof.blind_right, proof.blind_product
    )
    w = dialogue.scalar("product")
    challenges: list[int] = []
    for message in proof.rounds:
        _say(dialogue, message)
        challenges.append(dialogue.scalar("halve"))
    say_scalars(dialogue, "last", proof.left, proof.right)
    size, backs = len(base.left), [inverse(u) for u in challenges]
    up, down = folded_weights(challenges, size), folded_weights(backs, size)
    revealed: Equation = [
        *value,
        (proof.linear, z),
        (proof.square, z * z),
        (base.value, -proof.product),
        (base.blind, -proof.blind_product),
    ]
    on_left: Equation = [
        *left,
        (proof.mask_left, z),
        (base.blind, -proof.blind_left),
        (base.product, w * (proof.product - proof.left * proof.right)),
        *((point, -proof.left * weight) for point, weight in zip(base.left, down, strict=True)),
    ]
    on_right: Equation = [
        *right,
        (proof.mask_right, z),
        (base.blind, -proof.blind_right),
        *((point, -proof.right * weight) for point, weight in zip(base.right, up, strict=True)),
    ]
    for message, u, back in zip(proof.rounds, challenges, backs, strict=True):
        on_left += [(message.left_down, back), (message.left_up, u)]
        on_right += [(message.right_down, back), (message.right_up, u)]
    return [revealed, on_left, on_right]
