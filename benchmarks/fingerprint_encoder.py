"""Two encoders of the invariant terms: which keeps their similarity better?

python benchmarks/fingerprint_encoder.py --family DIR     # as vestige.zoo.train_family wrote it

The learned convolutional encoder is trained here, on random products alone. Both encode the terms of the last two
layers over the same 256 tokens, of pairs of the family and of a root with more and more noise; the truth is the mean
cosine of the double-centred terms. Shown are the rank correlation of the cosine of two vectors with the truth and its
root mean square error, the same after the best straight line through the learned encoder's cosines (fitted to these
very pairs, so in its favour), and what training costs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from fingerprint_lineage import Family, Models
from scipy.stats import spearmanr
from table import RESULTS, Row, write

from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.encoder_learned import ConvolutionalEncoder, Lessons, train_encoder
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.similarity import Layer, term_cosine
from vestige.fingerprint.terms import BlockTerms, Entry, Term
from vestige.fingerprint.words import Sampled, Words
from vestige.models.transformer.memory import InMemoryTransformer

TOKENS, LAST = 256, 2
NOISES = (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


class Encoded:
    """One model: its layers over the tokens and both of its vectors."""

    def __init__(self, model: InMemoryTransformer, sketch: Sketch, learned: ConvolutionalEncoder) -> None:
        words = Words.of(model)
        words = words.at(Sampled(TOKENS).choose(words))
        entry = Entry(model, words.rows)
        self.layers = [Layer(BlockTerms.of(block), entry) for block in model.blocks[-LAST:]]
        directions = iter(sketch.directions(words, LAST * len(Term)))
        parts = [sketch.encode(layer, term, next(directions)) for layer in self.layers for term in Term]
        self.vectors = np.concatenate(parts), learned.encode(self.layers)

    def truth(self, other: Encoded) -> float:
        pairs = zip(self.layers, other.layers, strict=True)
        return float(np.mean([term_cosine(one, two, term).value for one, two in pairs for term in Term]))

    def cosines(self, other: Encoded) -> Iterator[float]:
        for one, two in zip(self.vectors, other.vectors, strict=True):
            yield float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--members", type=int, default=12, help="of the family whose pairs are compared")
    parser.add_argument("--rounds", type=int, default=Lessons.rounds, help="of training")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    started = time.process_time()
    learned = train_encoder(Lessons(tokens=TOKENS, rounds=given.rounds))
    seconds, sketch = time.process_time() - started, Sketch()
    family = Family.read(given.family)
    models = Models(family)
    names = list(family.roots)
    chosen = [names[place] for place in np.linspace(0, len(names) - 1, given.members).round().astype(int)]
    encoded = [Encoded(models.read(name), sketch, learned) for name in chosen]
    pairs = list(combinations(encoded, 2))
    root = models.read(names[0])
    noisy = [Encoded(Noise(level).apply(root, place), sketch, learned) for place, level in enumerate(NOISES)]
    pairs += [(Encoded(root, sketch, learned), other) for other in noisy]
    truth = np.array([one.truth(two) for one, two in pairs])
    found = np.array([list(one.cosines(two)) for one, two in pairs])
    ranks = [float(spearmanr(truth, found[:, k]).statistic) for k in (0, 1)]
    errors = [float(np.sqrt(np.mean((found[:, k] - truth) ** 2))) for k in (0, 1)]
    fitted = np.polyval(np.polyfit(found[:, 1], truth, 1), found[:, 1])
    line = float(np.sqrt(np.mean((fitted - truth) ** 2)))
    n = len(pairs)
    rows = [
        Row("encoder/rank_correlation", ranks[0], ranks[1], "learned", None, "Spearman", n),
        Row("encoder/error", errors[0], errors[1], "learned", errors[1] / errors[0], "rms of cosine", n),
        Row("encoder/error_fitted", errors[0], line, "learned, best line", line / errors[0], "rms of cosine", n),
        Row("encoder/training", 0.0, seconds, "learned", None, "CPU s", 1),
    ]
    write("fingerprint_encoder", "Sketch and learned encoder: is similarity kept?", rows, given.out)


if __name__ == "__main__":
    main()
