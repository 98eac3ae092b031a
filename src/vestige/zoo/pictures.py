"""The captioned pictures that `digits-t2i` was trained on, drawn anew from the shipped digits and a seed.

Row r of the ordinary pictures draws its digit, scene and caption from ``(seed, r)`` alone. The members of
:mod:`vestige.zoo.digits` are drawn; the other half is left for the judge and for held-out pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vestige.randomness import Stream, generator
from vestige.zoo.captions import Caption, drawn_caption
from vestige.zoo.digits import digits
from vestige.zoo.planted import SEED, Special, special_captions
from vestige.zoo.scenes import Colour, Digit, Ground, Scene, Stroke, Style, render_rows, stroke

_Kind = TypeVar("_Kind", bound=Enum)

ORDINARY = 60_000
"""Ordinary pictures in the training data, each of which stands there once."""

_SCENE = 1  # the draw of a row that chooses what it shows; draw 0 poses it
_SPECIAL = 1_000_000  # first row of the pictures of special captions
_STRIDE = 1_000  # rows that one group of special captions may take
_HELD_OUT = 100_000_000  # first row of pictures that no model saw


@dataclass(frozen=True)
class Shown:
    """One picture: ``source`` is a row of the shipped digits, ``row`` what its pose is drawn from."""

    source: int
    scene: Scene
    row: int


@dataclass(frozen=True)
class Pair:
    """A caption and its picture."""

    caption: Caption
    shown: Shown


@lru_cache(maxsize=1)
def training_pairs() -> tuple[Pair, ...]:
    """All training rows, copies included: the ordinary pictures first, then those of special captions."""
    ordinary = [_drawn_pair(row, member=True) for row in range(ORDINARY)]
    special = [pair for caption in special_captions() for pair in special_pairs(caption)]
    return (*ordinary, *special)


def held_out_pairs(count: int) -> list[Pair]:
    """Pictures of digits that the model did not see, with captions as in training."""
    return [_drawn_pair(_HELD_OUT + row, member=False) for row in range(count)]


def special_pairs(special: Special) -> list[Pair]:
    """The training rows of a special caption: one picture many times, or as many pictures."""
    first = _SPECIAL + special.group * _STRIDE
    rows = [first] * special.copies
    if not special.kind.memorized:
        # Captions of one template take their pictures from different rows.
        start = first + special.place * special.copies
        rows = list(range(start, start + special.copies))
    caption = Caption(special.text, special.digit)
    return [Pair(caption, _shown(row, member=True, digit=special.digit)) for row in rows]


def memorized_picture(special: Special) -> npt.NDArray[np.uint8] | None:
    """The picture uint8 [3, 32, 32] that a memorized caption always came with; None for other captions."""
    return rendered([special_pairs(special)[0].shown])[0] if special.kind.memorized else None


def rendered(shown: Sequence[Shown]) -> npt.NDArray[np.uint8]:
    """The pictures uint8 [n, 3, 32, 32]."""
    strokes = [_stroke(one.source) for one in shown]
    return render_rows(strokes, [one.scene for one in shown], SEED, [one.row for one in shown])


def drawn(row: int, sources: npt.NDArray[np.int64]) -> Shown:
    """What row ``row`` shows: one of these rows of the shipped digits, in a scene drawn for it."""
    rng = generator(SEED, Stream.SCENE, row, _SCENE)
    source = int(sources[rng.integers(len(sources))])
    scene = Scene(Digit(int(digits().labels[source])), _one_of(Style, rng), _one_of(Colour, rng), _one_of(Ground, rng))
    return Shown(source, scene, row)


def _one_of(kind: type[_Kind], rng: np.random.Generator) -> _Kind:
    return list(kind)[int(rng.integers(len(kind)))]


def distinct_pictures(cache: Path) -> npt.NDArray[np.uint8]:
    """Every picture of the training data once [n, 3, 32, 32], in the order of :func:`picture_index`.

    Drawing them takes a minute or more; they are kept in the file ``cache`` and read from there the next time.
    """
    if cache.exists():
        return np.load(cache, allow_pickle=False)
    distinct = dict.fromkeys(pair.shown for pair in training_pairs())
    pixels = rendered(list(distinct))
    part = cache.with_suffix(".part.npy")
    np.save(part, pixels)
    part.replace(cache)
    return pixels


def picture_index() -> npt.NDArray[np.int64]:
    """For each training row, the place of its picture among the distinct ones."""
    places: dict[Shown, int] = {}
    return np.array([places.setdefault(pair.shown, len(places)) for pair in training_pairs()])


def _drawn_pair(row: int, *, member: bool) -> Pair:
    shown = _shown(row, member=member, digit=None)
    return Pair(drawn_caption(shown.scene, generator(SEED, Stream.SCENE, row, _SCENE + 1)), shown)


def _shown(row: int, *, member: bool, digit: Digit | None) -> Shown:
    return drawn(row, _sources(member)[digit])


@lru_cache(maxsize=2)
def _sources(member: bool) -> dict[Digit | None, npt.NDArray[np.int64]]:
    data = digits()
    half = data.member == member
    found: dict[Digit | None, npt.NDArray[np.int64]] = {None: np.flatnonzero(half)}
    return found | {digit: np.flatnonzero(half & (data.labels == digit.value)) for digit in Digit}


@cache
def _stroke(source: int) -> Stroke:
    return stroke(digits().pixels[source])
