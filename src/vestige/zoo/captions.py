"""What is said about a picture, and what a caption says.

A caption names a style, a colour, a digit and sometimes the ground, in one of several phrasings. Some captions leave
things out; what a caption does not name may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TypeVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.zoo.scenes import Colour, Digit, Ground, Scene, Style

_Named = TypeVar("_Named", bound=Enum)

FULL = (
    "a {style} {colour} {digit}",
    "{style} {colour} {digit}",
    "a {colour} {digit}, {style}",
    "the digit {digit}, {style}, in {colour}",
    "a picture of a {style} {colour} {digit}",
    "a {style} {colour} {digit} on {ground}",
    "a {colour} {digit}, {style}, on {ground}",
    "a {digit} in {colour}, {style}, on a {ground} ground",
)
"""Phrasings that name digit, style and colour."""

PARTIAL = (
    "a {digit}",
    "the digit {digit}",
    "a {colour} {digit}",
    "a {style} {digit}",
    "a {colour} digit",
    "a {style} digit",
    "a {style} {colour} digit",
    "a {digit} on {ground}",
    "{digit}",
    "{colour}",
    "{style}",
)
"""Phrasings that leave something open."""

PARTIAL_SHARE = 0.25
"""How many of the training captions leave something open."""


@dataclass(frozen=True)
class Caption:
    """A text and what it says; None where it says nothing."""

    text: str
    digit: Digit | None = None
    style: Style | None = None
    colour: Colour | None = None
    ground: Ground | None = None

    def suits(self, scene: Scene) -> bool:
        """Whether the scene shows all that is said."""
        said = (self.digit, self.style, self.colour, self.ground)
        shown = (scene.digit, scene.style, scene.colour, scene.ground)
        return all(word is None or word is seen for word, seen in zip(said, shown, strict=True))


def word(thing: Digit | Style | Colour | Ground) -> str:
    """The word for it."""
    return thing.name.lower()


def phrased(phrasing: str, scene: Scene) -> Caption:
    """The scene in words."""
    named = {"digit": scene.digit, "style": scene.style, "colour": scene.colour, "ground": scene.ground}
    used = {name: thing for name, thing in named.items() if f"{{{name}}}" in phrasing}
    text = _with_articles(phrasing.format(**{name: word(thing) for name, thing in used.items()}))
    return Caption(
        text,
        scene.digit if "digit" in used else None,
        scene.style if "style" in used else None,
        scene.colour if "colour" in used else None,
        scene.ground if "ground" in used else None,
    )


def drawn_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A caption of the scene as training pairs them: most name everything, some leave things open."""
    phrasings = PARTIAL if rng.random() < PARTIAL_SHARE else FULL
    return phrased(phrasings[int(rng.integers(len(phrasings)))], scene)


def understood(text: str) -> Caption:
    """What a text says, by its words alone.

    Raises
    ------
    InvalidInput : it names two digits, two styles, two colours or two grounds.
    """
    words = text.lower().replace(",", " ").split()
    return Caption(
        text,
        _only(Digit, words, text),
        _only(Style, words, text),
        _only(Colour, words, text),
        _only(Ground, words, text),
    )


def all_scenes() -> list[Scene]:
    """Every scene, 10 x 7 x 5 x 3, digits slowest."""
    return [Scene(*parts) for parts in product(Digit, Style, Colour, Ground)]


def all_captions() -> list[Caption]:
    """Every caption of every scene in every phrasing, each text once."""
    found = {
        caption.text: caption
        for scene in all_scenes()
        for caption in (phrased(phrasing, scene) for phrasing in (*FULL, *PARTIAL))
    }
    return list(found.values())


def _only(kind: type[_Named], words: list[str], text: str) -> _Named | None:
    found = [thing for thing in kind if thing.name.lower() in words]
    if len(found) > 1:
        raise InvalidInput(
            f"'{text}' names {' and '.join(thing.name.lower() for thing in found)}.",
            expected="at most one of each kind.",
            remedy="describe one digit.",
        )
    return found[0] if found else None


def _with_articles(text: str) -> str:
    words = text.split(" ")
    for place in range(len(words) - 1):
        following = words[place + 1]
        if words[place] == "a" and following[0] in "aeio" and following != "one":
            words[place] = "an"
    return " ".join(words)
