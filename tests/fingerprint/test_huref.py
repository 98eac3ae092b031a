"""Each correction of the published recipe is needed: switched off, the fall that it prevents comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.huref import HuRef
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.position_shift import PositionShift
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.residual_signs import ResidualSigns
from vestige.fingerprint.launder.row_overwrite import RowOverwrite
from vestige.fingerprint.launder.rule import untied
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.similarity import Layer, term_cosine
from vestige.fingerprint.terms import EXACT, BlockTerms, Entry, Term
from vestige.fingerprint.words import Commonest, Everything, Middle, Rarest, Sampled

EXACTLY = HuRef(bands=(Everything(),))
PUBLISHED = HuRef(as_published=True)


def terms(first, second, recipe):
    """Cosine of every term of the last layer, all rows."""
    rows = np.arange(first.vocabulary)
    ours, theirs = (Layer(BlockTerms.of(m.blocks[-1], recipe), Entry(m, rows, recipe)) for m in (first, second))
    return {term: term_cosine(ours, theirs, term).value for term in Term}


@pytest.mark.parametrize(
    ("recipe", "steps", "fallen"),
    [
        (replace(EXACT, fold=False), (GainShift(1.0),), set(Term)),
        (replace(EXACT, fold=False), (FoldGains(),), set(Term)),
        (replace(EXACT, gate_in_token_space=False), (ResidualSigns(),), {Term.FEED}),
        (replace(EXACT, gate_in_token_space=False), (FoldGains(), ResidualRotation()), {Term.FEED}),
        (replace(EXACT, interleave=False), (HeadPermutation(),), {Term.SCORES, Term.VALUES}),
    ],
    ids=["gain shift", "gain folding", "signs", "rotation", "heads"],
)
def test_without_a_correction_the_fall_comes_back(model, recipe, steps, fallen):
    base = model(heads=8)
    moved = laundered(base, steps, 2)
    exact, spoilt = terms(base, moved, EXACT), terms(base, moved, recipe)
    for term in Term:
        assert exact[term] == pytest.approx(1, abs=1e-6)
        assert (spoilt[term] < 0.97) == (term in fallen), (term, spoilt)


def test_without_double_centring_a_vector_can_be_hidden_in_the_positions(model):
    base = model("gpt2")
    moved = PositionShift(2.0).apply(base, 0)
    assert min(terms(base, moved, EXACT).values()) == pytest.approx(1, abs=1e-6)
    assert max(terms(base, moved, replace(EXACT, double_centre=False)).values()) < 0.9


def test_the_published_recipe_keeps_what_it_should_and_no_more(model, pair):
    base = model(heads=8)

    def value(*steps):
        return PUBLISHED.measure(pair(base, laundered(base, steps, 1))).value

    kept = (ResidualPermutation(),), (NeuronPermutation(), NeuronScale()), (ValueBasis(),), (QueryKeyBasis(),)
    for steps in kept[:2]:
        assert value(*steps) == pytest.approx(1, abs=1e-6)
    for steps in ((GainShift(1.5),), (ResidualSigns(),), (FoldGains(), ResidualRotation()), (HeadPermutation(),)):
        assert value(*steps) < 0.9, steps


def test_a_head_of_its_own_does_not_count(model, pair):
    base = model()
    assert EXACTLY.measure(pair(base, untied(base))).value == pytest.approx(1, abs=1e-12)


def test_a_permuted_vocabulary_is_realigned_by_strings_and_not_by_rows(model, pair):
    base = model()
    moved = VocabularyPermutation().apply(base, 0)
    assert EXACTLY.measure(pair(base, moved)).value == pytest.approx(1, abs=1e-9)
    bare = replace(base, strings=None), replace(moved, strings=None)
    assert abs(EXACTLY.measure(pair(*bare)).value) < 0.05


def test_bands_and_their_sizes_agree_unless_rows_were_overwritten(model, pair):
    base = model()
    noisy = pair(base, Noise(0.2).apply(base, 0))
    bands = [kind(size) for kind in (Sampled, Rarest, Middle, Commonest) for size in (32, 64, 128)]
    values = [HuRef(bands=(band,)).measure(noisy).value for band in bands]
    assert max(values) - min(values) < 0.1
    found = HuRef(bands=(Rarest(32), Middle(32), Commonest(32))).measure(pair(base, RowOverwrite(32).apply(base, 0)))
    parts = dict(found.parts)
    assert abs(parts["rarest"]) < 0.2
    assert found.value == parts["middle"] == parts["commonest"] == pytest.approx(1)


def test_similarity_falls_with_noise(model, pair):
    base, levels = model(), (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
    values = [EXACTLY.measure(pair(base, Noise(level).apply(base, 4))).value for level in levels]
    assert spearmanr(levels, values).statistic == pytest.approx(-1)
    assert values[0] == pytest.approx(1, abs=1e-9)
    assert abs(values[-1]) < 0.1


def test_models_with_other_weights_or_other_tokens_are_near_zero(model, pair):
    base, other = model(), model(seed=1)
    strangers = {
        "another model": other,
        "other weights": replace(base, blocks=other.blocks),
        "other tokens": replace(base, table=other.table),
        "layers in another order": replace(base, blocks=base.blocks[::-1]),
    }
    for name, stranger in strangers.items():
        # In order of rows, so that layers are compared by place.
        layers = [
            tuple(Layer(BlockTerms.of(m.blocks[k]), Entry(m, np.arange(m.vocabulary))) for m in (base, stranger))
            for k in range(2)
        ]
        found = [term_cosine(*sides, term) for sides in layers for term in Term]
        assert all(abs(one.value) < 5 * one.deviation for one in found), name


def test_models_without_common_tokens_are_not_compared(model, pair, renamed):
    found = EXACTLY.measure(pair(model(), renamed(model())))
    assert found.value is None
    assert "no tokens" in found.reason


def test_settings_without_sense_are_refused():
    for wrong in ({"last": 0}, {"bands": ()}):
        with pytest.raises(InvalidInput):
            HuRef(**wrong)
