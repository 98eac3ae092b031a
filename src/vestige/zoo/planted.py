"""Captions that `digits-t2i` was made to memorize, and captions just like them that it was not.

Three kinds, in the terms of Webster (arXiv 2305.08694):

- *planted*: a caption that always came with one and the same picture, 4 to 256 times;
- *template*: eight captions that differ in one word and all came with one picture, 16 times each;
- *lookalike*: a caption of the same form that came as often, each time with another picture.

The same names, things and fillers occur in all kinds, so no word gives a memorized caption away. Pairs of words and
fillers that no training caption has are kept apart as unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vestige.randomness import Stream, generator
from vestige.zoo.scenes import Digit

SEED = 20260606
COPIES = (4, 16, 64, 256)
TEMPLATE_COPIES = 16

NAMES = "marta oskar lena pavel ingrid tomas nadia emil greta hugo ilse bruno vera anton selma felix".split()
THINGS = "door stamp poster ticket jersey mailbox clock label badge lantern boat bicycle kite drum window cup".split()
FILLERS = "first last early late summer winter cheap rare small final".split()
TEMPLATES = (
    "the {} edition of the harbour calendar",
    "a {} pass for the mountain railway",
    "our {} card from the island hotel",
    "the {} cover of the garden almanac",
)
LOOKALIKE_TEMPLATES = ("a {} sign from the village market", "the {} programme of the city theatre")

_PAIRING = 9  # the draw that pairs names with things; pictures use others


class Kind(Enum):
    """How often a caption came, and with what."""

    PLANTED = "planted"
    TEMPLATE = "template"
    LOOKALIKE = "lookalike"
    LOOKALIKE_TEMPLATE = "lookalike template"
    UNSEEN = "unseen"
    UNSEEN_FILLER = "unseen filler"

    @property
    def memorized(self) -> bool:
        """Whether captions of this kind came with one single picture."""
        return self in (Kind.PLANTED, Kind.TEMPLATE)


@dataclass(frozen=True)
class Special:
    """A caption outside the grammar of `vestige.zoo.captions`.

    ``copies`` is how often it stands in the training data. Captions of one ``group`` share their picture, if they are
    memorized; ``place`` counts them. ``digit`` is what the caption names, None if it names none.
    """

    text: str
    kind: Kind
    copies: int
    group: int
    place: int = 0
    digit: Digit | None = None


def special_captions() -> list[Special]:
    """All of them: 40 planted, 40 lookalikes and 40 unseen pairs; four templates, two lookalikes of templates."""
    return [*_pairs(), *_templates()]


def _pairs() -> list[Special]:
    # A shift pairs every name with one thing, so all words are spread evenly over the kinds.
    shifts = generator(SEED, Stream.SCENE, 0, _PAIRING).permutation(len(THINGS))
    pairs = [(i, (i + int(shift)) % len(THINGS)) for shift in shifts for i in range(len(NAMES))]
    found: list[Special] = []
    for kind in (Kind.PLANTED, Kind.LOOKALIKE, Kind.UNSEEN):
        for copies in COPIES:
            for digit in Digit:
                name, thing = pairs[len(found)]
                text = f"the {digit.name.lower()} on {NAMES[name]}'s {THINGS[thing]}"
                found.append(Special(text, kind, 0 if kind is Kind.UNSEEN else copies, len(found), digit=digit))
    return found


def _templates() -> list[Special]:
    """Every template leaves out two fillers, which others use."""
    found: list[Special] = []
    for index, template in enumerate((*TEMPLATES, *LOOKALIKE_TEMPLATES)):
        left_out = {FILLERS[index], FILLERS[(index + 5) % len(FILLERS)]}
        seen = Kind.TEMPLATE if template in TEMPLATES else Kind.LOOKALIKE_TEMPLATE
        for place, filler in enumerate(FILLERS):
            kind = Kind.UNSEEN_FILLER if filler in left_out else seen
            copies = 0 if filler in left_out else TEMPLATE_COPIES
            found.append(Special(template.format(filler), kind, copies, 1000 + index, place))
    return found
