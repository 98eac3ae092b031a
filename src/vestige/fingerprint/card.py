"""The fingerprint of a model: a small card that can be published, kept and compared without the weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vestige.errors import EmptySet, InvalidInput
from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.fold import Doubles, unused_directions
from vestige.fingerprint.profile import RANKS, Profile, profile
from vestige.fingerprint.similarity import Layer, flattened
from vestige.fingerprint.terms import BlockTerms, Entry, Term
from vestige.fingerprint.words import BANDS, Band, Hashes, Sampled, Words
from vestige.models.transformer.block import Block, Transformer

_TERMS = tuple(Term)
_EVERY_LAYER = 1
"""Draw of the sketches of all layers; those of the vector have draw 0."""


_SPANNING = 2
"""Tokens a direction of the residual stream from which one that none has any part in is known."""


@dataclass(frozen=True)
class Plan:
    """What goes into a card. Only cards of one plan can be compared.

    Parameters
    ----------
    sketch : encodes the last layers.
    bands : tokens of the vectors, the first of which is the one that stands for the model.
    last : how many layers from the end the vectors are made of.
    layer_sketch, layer_tokens : encode the flattened terms of every layer over a few tokens, so that layers can be
        matched and models told apart that were trained on the same data.
    every_layer : read all layers; off, only the last ones, and the card matches no layers and holds no spectra.
    """

    sketch: Sketch = field(default_factory=Sketch)
    bands: tuple[Band, ...] = tuple(BANDS)
    last: int = 2
    layer_sketch: Sketch = field(default_factory=lambda: Sketch(size=96))
    layer_tokens: Sampled = field(default_factory=lambda: Sampled(count=256))
    every_layer: bool = True

    def __post_init__(self) -> None:
        names = [band.name for band in self.bands]
        if self.last < 1 or not names or len(set(names)) < len(names):
            raise InvalidInput(
                f"A card of the last {self.last} layers over the bands {names}.",
                expected="at least 1 layer and 1 band, each band once.",
                remedy="change the plan.",
            )


@dataclass(frozen=True, eq=False)
class BandVector:
    """The sketch [last * 3 * size] over one band of ``count`` tokens, and the digest of which tokens they are."""

    band: str
    count: int
    tokens: str
    vector: Doubles


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is published of a model; weights cannot be computed back from it.

    Parameters
    ----------
    architecture, depth, width, vocabulary, digest : of the model; the digest identifies every weight.
    sketch_size, sketch_seed, last : of the vectors.
    bands : one vector a band of tokens, the one that stands for the model first.
    layers : sketch [depth, 3, m] of the flattened terms of every layer; [0, 3, m] where only the last ones were read.
    spectra, strengths : [depth, 3, RANKS] and [depth, 3], see :class:`vestige.fingerprint.profile.Profile`.
    least_words : the smallest hashes of the model's tokens, ascending: enough to estimate which share two models have.
    words : number of usable tokens.
    """

    architecture: str
    depth: int
    width: int
    vocabulary: int
    digest: str
    sketch_size: int
    sketch_seed: int
    last: int
    bands: tuple[BandVector, ...]
    layers: Doubles
    spectra: Doubles
    strengths: Doubles
    least_words: Hashes
    words: int

    @property
    def vector(self) -> Doubles:
        """The vector that stands for the model."""
        return self.bands[0].vector

    @cached_property
    def code(self) -> Doubles:
        """The vector with nearly standard normal entries, for a portrait; cosines are kept."""
        return Sketch(self.sketch_size, self.sketch_seed).mixed(self.vector)


LEAST = 256
"""Hashes kept to estimate the share of common tokens."""


def _kept(array: Doubles) -> Doubles:
    """Numbers as exact as a published card holds them."""
    return array.astype(np.float32).astype(np.float64)


def digest_words(words: Words) -> str:
    """Digest of a set of words, whatever their order."""
    return hashlib.sha256(np.sort(words.hashes).tobytes()).hexdigest()


def word_share(first: Fingerprint, second: Fingerprint) -> float:
    """Estimated share of common tokens among all tokens of both models (bottom-k sampling of hashes)."""
    union = np.union1d(first.least_words, second.least_words)[:LEAST]
    both = np.isin(union, first.least_words) & np.isin(union, second.least_words)
    return float(both.mean()) if len(union) else 0.0


class _BandWork:
    """One band while its card is made: the vectors of its terms so far."""

    def __init__(self, transformer: Transformer, words: Words, band: Band, plan: Plan) -> None:
        self.band, self.words, self.sketch = band, words.at(band.choose(words)), plan.sketch
        if len(self.words) < 2:
            raise EmptySet(
                f"The band '{band.name}' holds {len(self.words)} tokens of the model.",
                expected="at least 2.",
                remedy="choose another band.",
            )
        self.entry = Entry(transformer, self.words.rows)
        self.directions = plan.sketch.directions(self.words, plan.last * len(_TERMS))
        self.parts = np.zeros((plan.last, len(_TERMS), plan.sketch.size))

    def encode(self, terms: BlockTerms, from_end: int) -> None:
        """Add the terms of one of the last layers."""
        for place, term in enumerate(_TERMS):
            directions = self.directions[from_end * len(_TERMS) + place]
            self.parts[-1 - from_end, place] = self.sketch.encode(Layer(terms, self.entry), term, directions)

    def finished(self) -> BandVector:
        """The vector, the last layer last."""
        return BandVector(self.band.name, len(self.words), digest_words(self.words), _kept(self.parts.ravel()))


class _LayerWork:
    """Sketches and profiles of all layers while a card is made."""

    def __init__(self, transformer: Transformer, words: Words, plan: Plan) -> None:
        few = words.at(plan.layer_tokens.choose(words))
        self.sketch, self.entry = plan.layer_sketch, Entry(transformer, few.rows)
        self.directions = self.sketch.directions(few, len(_TERMS), _EVERY_LAYER)
        enough = words.at(Sampled(max(2, _SPANNING * transformer.width)).choose(words))
        self.unused = unused_directions(Entry(transformer, enough.rows).matrix)
        self.sketches: list[Doubles] = []
        self.profiles: list[Profile] = []

    def read(self, block: Block, terms: BlockTerms) -> None:
        """Add one layer."""
        layer = Layer(terms, self.entry)
        pairs = zip(_TERMS, self.directions, strict=True)
        encoded = [self.sketch.encode_flat(flattened(layer, term), directions) for term, directions in pairs]
        self.sketches.append(np.array(encoded))
        self.profiles.append(profile(block, self.unused))


def _usable(transformer: Transformer) -> Words:
    words = Words.of(transformer)
    if len(words) < 2 or transformer.depth < 1:
        raise EmptySet(
            f"A model of {transformer.depth} layers with {len(words)} tokens that stand for one row each.",
            expected="at least one layer and two tokens.",
            remedy="pass a whole language model with its tokenizer.",
        )
    return words


def fingerprint(transformer: Transformer, plan: Plan | None = None) -> Fingerprint:
    """The card of a model. Every block is read once and none is kept.

    Raises
    ------
    EmptySet : the model has no layers, or a band chooses fewer than two of its tokens.
    """
    plan, words = plan or Plan(), _usable(transformer)
    bands = [_BandWork(transformer, words, band, plan) for band in plan.bands]
    every = _LayerWork(transformer, words, plan)
    for index in range(0 if plan.every_layer else max(0, transformer.depth - plan.last), transformer.depth):
        _read(transformer, index, plan, bands, every)
    return Fingerprint(
        transformer.architecture,
        transformer.depth,
        transformer.width,
        transformer.vocabulary,
        transformer.digest,
        plan.sketch.size,
        plan.sketch.seed,
        plan.last,
        tuple(work.finished() for work in bands),
        _kept(np.array(every.sketches)).reshape(-1, len(_TERMS), plan.layer_sketch.size),
        _kept(np.array([item.spectra for item in every.profiles])).reshape(-1, len(_TERMS), RANKS),
        _kept(np.array([item.strengths for item in every.profiles])).reshape(-1, len(_TERMS)),
        np.sort(words.hashes)[:LEAST],
        len(words),
    )


def _read(transformer: Transformer, index: int, plan: Plan, bands: list[_BandWork], every: _LayerWork) -> None:
    """Take all that is wanted of one block, which is let go on return."""
    block = transformer.block(index)
    terms = BlockTerms.of(block)
    if plan.every_layer:
        every.read(block, terms)
    from_end = transformer.depth - 1 - index
    if from_end < plan.last:
        for work in bands:
            work.encode(terms, from_end)
