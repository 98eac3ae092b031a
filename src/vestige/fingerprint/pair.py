"""Two models, or their cards, side by side: shared tokens, matched layers and the aligned residual stream.

What several kinds of evidence need is found once, when first asked for.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.alignment import Alignment, align
from vestige.fingerprint.card import Fingerprint
from vestige.fingerprint.layers import LayerMatch, cosines, level_of, match_layers
from vestige.fingerprint.terms import EXACT, Entry, Recipe
from vestige.fingerprint.words import Band, Sampled, Words, shared
from vestige.models.transformer.block import Block, Transformer

_ALIGNED = 8
"""Tokens a column of the residual stream to align two models by, where the vocabulary has so many."""
_MOST, _FEWEST = 8192, 1024


class Pair:
    """Two models to compare; ``models`` is None where only their cards are known.

    Raises
    ------
    InvalidInput : the cards were made with different sketches.
    """

    def __init__(
        self, first: Fingerprint, second: Fingerprint, models: tuple[Transformer, Transformer] | None = None
    ) -> None:
        made = [(card.sketch_size, card.sketch_seed, card.last, card.layers.shape[2]) for card in (first, second)]
        if made[0] != made[1]:
            raise InvalidInput(
                f"The cards were made with size, seed, layers and layer size {made[0]} and {made[1]}.",
                expected="cards of one plan.",
                remedy="make both with the same plan.",
            )
        self.first, self.second, self._models = first, second, models

    @property
    def models(self) -> tuple[Transformer, Transformer]:
        """Both models.

        Raises
        ------
        Unsupported : only the cards are known.
        """
        if self._models is None:
            raise Unsupported(
                "Only the cards of the models are known.",
                expected="the weights of both.",
                remedy="compare the models themselves.",
            )
        return self._models

    @property
    def has_weights(self) -> bool:
        """Whether the models themselves are at hand."""
        return self._models is not None

    @cached_property
    def words(self) -> tuple[Words, Words]:
        """The words that both models have, in the order of the first."""
        return shared(Words.of(self.models[0]), Words.of(self.models[1]))

    def entries(self, band: Band, recipe: Recipe = EXACT) -> tuple[Entry, Entry]:
        """The shared tokens of a band, as each model reads them; the first model's order of rows decides the band."""
        places = band.choose(self.words[0])
        ours, theirs = (words.at(places) for words in self.words)
        return Entry(self.models[0], ours.rows, recipe), Entry(self.models[1], theirs.rows, recipe)

    @cached_property
    def aligned_by(self) -> tuple[Entry, Entry]:
        """The shared tokens that the residual streams are aligned by: a sample of the whole vocabulary."""
        count = min(_MOST, max(_FEWEST, _ALIGNED * max(self.first.width, self.second.width)))
        return self.entries(Sampled(count))

    @cached_property
    def alignment(self) -> Alignment:
        """The second residual stream in the first's basis. Raises EmptySet where there are too few shared tokens."""
        ours, theirs = self.aligned_by
        return align(ours.matrix, theirs.matrix)

    @cached_property
    def match(self) -> LayerMatch | None:
        """Which layer became which, from the sketches of all layers; None where the cards hold none."""
        first, second = (card.layers.reshape(len(card.layers), -1) for card in (self.first, self.second))
        return match_layers(cosines(first, second), level_of(first.shape[1])) if len(first) and len(second) else None

    @property
    def layers_match(self) -> bool:
        """Whether most layers of the shallower model were matched by their sketches."""
        return self.match is not None and 2 * len(self.match.pairs) > min(self.first.depth, self.second.depth)

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Pairs of layers to compare: those that match, or those at the same relative depth."""
        if self.match is not None and self.layers_match:
            return self.match.pairs
        depths = self.first.depth, self.second.depth
        steps = min(depths)
        ours, theirs = (np.linspace(0, depth - 1, steps).round().astype(int).tolist() for depth in depths)
        return tuple(zip(ours, theirs, strict=True))

    def some_layers(self, count: int) -> tuple[tuple[int, int], ...]:
        """At most ``count`` pairs of layers, evenly spread, the last one among them."""
        every = self.layers
        chosen = sorted({round(place) for place in np.linspace(0, len(every) - 1, min(count, len(every))).tolist()})
        return tuple(every[place] for place in chosen)

    def blocks(self, layers: tuple[int, int]) -> tuple[Block, Block]:
        """A pair of blocks, read now."""
        return self.models[0].block(layers[0]), self.models[1].block(layers[1])
