"""Verdicts, and the names of what was undone on the way to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.card import fingerprint
from vestige.fingerprint.compare import Judge, Lineage, compare, compare_cards
from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.evidence.huref import HuRef
from vestige.fingerprint.evidence.product_spectra import ProductSpectra
from vestige.fingerprint.launder.drop_channels import DropChannels
from vestige.fingerprint.launder.drop_layers import DropLayers
from vestige.fingerprint.launder.expert_permutation import ExpertPermutation
from vestige.fingerprint.launder.extend_vocabulary import ExtendVocabulary
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.fold_means import FoldMeans
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.linear_merge import LinearMerge
from vestige.fingerprint.launder.low_rank_update import LowRankUpdate
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.pruning import Pruning
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.repeat_layers import RepeatLayers
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.residual_scale import ResidualScale
from vestige.fingerprint.launder.residual_signs import ResidualSigns
from vestige.fingerprint.launder.round_to_nearest import RoundToNearest
from vestige.fingerprint.launder.row_overwrite import RowOverwrite
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.undone import Transformation as T
from vestige.fingerprint.words import Everything

FOLDED = (FoldGains(), ResidualRotation())
NAMED = [
    ("llama", (), set()),
    ("llama", (VocabularyPermutation(),), {T.VOCABULARY_PERMUTED}),
    ("llama", (ExtendVocabulary(9),), {T.VOCABULARY_EXTENDED}),
    ("llama", (RowOverwrite(12),), {T.ROWS_OVERWRITTEN}),
    ("llama", (ResidualPermutation(),), {T.RESIDUAL_PERMUTED}),
    ("llama", (ResidualSigns(),), {T.RESIDUAL_SIGNS}),
    ("llama", (ResidualPermutation(), ResidualSigns()), {T.RESIDUAL_PERMUTED, T.RESIDUAL_SIGNS}),
    ("llama", FOLDED, {T.GAINS_FOLDED, T.RESIDUAL_ROTATED}),
    ("llama", (*FOLDED, GainShift()), {T.GAINS_FOLDED, T.RESIDUAL_ROTATED, T.GAINS_SHIFTED}),
    ("llama", (ResidualScale(2.0),), {T.RESIDUAL_SCALED}),
    ("llama", (FoldGains(),), {T.GAINS_FOLDED}),
    ("llama", (GainShift(0.2),), {T.GAINS_SHIFTED}),
    ("llama", (GainShift(0.2), ResidualPermutation()), {T.GAINS_SHIFTED, T.RESIDUAL_PERMUTED}),
    ("gpt2", (FoldMeans(),), {T.MEAN_FOLDED}),
    ("llama", (HeadPermutation(),), {T.HEADS_PERMUTED}),
    ("llama", (ValueBasis(),), {T.HEAD_BASES_CHANGED}),
    ("llama", (QueryKeyBasis(),), {T.HEAD_BASES_CHANGED}),
    ("llama", (NeuronPermutation(),), {T.NEURONS_PERMUTED}),
    ("llama", (NeuronScale(),), {T.NEURONS_SCALED}),
    ("mixtral", (ExpertPermutation(),), {T.EXPERTS_PERMUTED}),
    ("llama", (DropLayers(1),), {T.LAYERS_DROPPED}),
    ("llama", (RepeatLayers(1),), {T.LAYERS_INSERTED}),
    ("llama", (DropChannels(0.1),), {T.RESIDUAL_RESIZED}),
    ("llama", (Noise(0.1), HeadPermutation(), ResidualSigns()), {T.HEADS_PERMUTED, T.RESIDUAL_SIGNS}),
]


@pytest.mark.parametrize(
    ("kind", "steps", "named"), NAMED, ids=["+".join([k, *(type(step).__name__ for step in s)]) for k, s, _ in NAMED]
)
def test_what_was_done_is_undone_and_named(model, plan, kind, steps, named):
    base = model(kind, layers=4, heads=8)
    found = compare(base, laundered(base, steps, 4), plan=plan)
    assert found.verdict is Lineage.SAME
    assert {done.transformation for done in found.undone} == named


def test_an_extended_vocabulary_seen_from_the_other_side_is_a_trimmed_one(model, plan):
    base = model(layers=4)
    found = compare(ExtendVocabulary(9).apply(base, 0), base, plan=plan)
    assert [(done.transformation, done.amount) for done in found.undone] == [(T.VOCABULARY_TRIMMED, 9)]


def test_amounts_are_what_was_done(model, plan):
    base = model(layers=5)
    steps = (RowOverwrite(32), ResidualScale(2.5), DropLayers(2), ExtendVocabulary(7))
    found = {u.transformation: u for u in compare(base, laundered(base, steps, 1), plan=plan).undone}
    assert found[T.ROWS_OVERWRITTEN].amount == pytest.approx(0.25, abs=0.03)
    assert found[T.RESIDUAL_SCALED].amount == pytest.approx(2.5, rel=0.01)
    assert (found[T.LAYERS_DROPPED].amount, found[T.LAYERS_DROPPED].unit) == (2, "layers")
    assert (found[T.VOCABULARY_EXTENDED].amount, found[T.VOCABULARY_EXTENDED].unit) == (7, "tokens")


OFFSPRING = [
    Noise(0.3),
    LowRankUpdate(4, 0.2),
    Pruning(0.5),
    RoundToNearest(4),
    DropLayers(2),
    RepeatLayers(2),
    ExtendVocabulary(60),
    DropChannels(0.2),
    RowOverwrite(32),
]


@pytest.mark.parametrize("change", OFFSPRING, ids=lambda change: type(change).__name__)
@pytest.mark.parametrize("hidden", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "laundered"])
def test_offspring_is_of_the_same_lineage_laundered_or_not(model, plan, change, hidden):
    base = model(layers=4)
    steps = (FoldGains(), ResidualRotation(), GainShift(), HeadPermutation(), ValueBasis(), NeuronScale())
    child = laundered(change.apply(base, 0), steps if hidden else (), 1)
    found = compare(base, child, plan=plan)
    assert found.verdict is Lineage.SAME
    assert found.p_value <= Judge().alpha


def test_laundering_does_not_change_the_similarity_of_offspring(model, plan):
    base = model()
    child = Noise(0.2).apply(base, 0)
    judge = Judge(evidence=(HuRef(bands=(Everything(),)),))
    plain = compare(base, child, judge, plan).similarity
    hidden = compare(base, laundered(child, (FoldGains(), ResidualRotation(), ValueBasis()), 1), judge, plan).similarity
    assert hidden == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("seed", range(1, 6))
def test_independent_models_are_never_of_one_lineage(model, plan, seed):
    found = compare(model(layers=4), model(seed=seed, layers=4), plan=plan)
    assert found.verdict is not Lineage.SAME
    assert found.undone == ()
    assert abs(found.similarity) < 0.1


def test_a_merge_belongs_to_both_parents(model, plan):
    first, second = model(layers=4), model(seed=1, layers=4)
    child = LinearMerge(second, 0.3).apply(first, 0)
    assert compare(first, child, plan=plan).verdict is Lineage.SAME
    assert compare(first, child, plan=plan).score > compare(second, child, plan=plan).score


def test_without_common_tokens_spectra_tell_a_copy_and_nobody_clears_a_stranger(model, plan, renamed):
    base = model(layers=4)
    child = laundered(base, (FoldGains(), ResidualRotation()), 0)
    found = compare(base, renamed(child), plan=plan)
    assert (found.similarity, found.shared) == (None, 0)
    assert {w.finding.evidence for w in found.evidence if w.p_value is not None} == {"ProductSpectra"}
    assert found.p_value < 1e-3
    apart = compare(base, renamed(model(seed=1, layers=4)), plan=plan)
    assert apart.verdict is Lineage.UNDETERMINED
    assert apart.p_value > 0.05
    assert "share too few tokens" in apart.reasons[-1]
    assert compare(base, renamed(child), Judge(alpha=1e-3), plan).verdict is Lineage.SAME
    assert compare(base, renamed(child), Judge(alpha=1e-9), plan).verdict is Lineage.UNDETERMINED


def test_cards_alone_tell_kin_from_strangers(model, plan):
    base = model(layers=4)
    steps = (FoldGains(), ResidualRotation(), HeadPermutation(), VocabularyPermutation())
    cards = [
        fingerprint(m, plan)
        for m in (base, laundered(base, steps, 0), model(seed=1, layers=4), DropLayers(1).apply(base, 0))
    ]
    kin, stranger, shallow = (compare_cards(cards[0], card) for card in cards[1:])
    assert kin.verdict is Lineage.SAME
    assert kin.similarity == pytest.approx(1, abs=1e-3)
    assert kin.shared is None
    assert stranger.verdict is not Lineage.SAME
    assert [done.transformation for done in shallow.undone] == [T.LAYERS_DROPPED]
    whole = compare(base, model(seed=1, layers=4), plan=plan)
    assert stranger.finding("LayerSketches") == whole.finding("LayerSketches")


def test_comparing_is_symmetric_in_what_it_finds(model, plan):
    base = model(layers=4)
    child = laundered(Noise(0.2).apply(base, 0), (ResidualPermutation(),), 1)
    there, back = compare(base, child, plan=plan), compare(child, base, plan=plan)
    assert there.similarity == pytest.approx(back.similarity, abs=0.02)
    assert there.score == pytest.approx(back.score, rel=0.05)


def test_cards_of_different_plans_and_judges_without_sense_are_refused(model, plan):
    base = model()
    card, other = fingerprint(base, plan), fingerprint(base, replace(plan, sketch=Sketch(size=24, seed=1)))
    with pytest.raises(InvalidInput, match="one plan"):
        compare_cards(card, other)
    with pytest.raises(Unsupported, match="weights of both"):
        HuRef().measure(Pair(card, card))
    for wrong in ({"alpha": 0.1}, {"clear": 1.0}, {"evidence": ()}):
        with pytest.raises(InvalidInput):
            Judge(**wrong)


def test_the_judge_is_told_which_evidence_to_take(model, plan):
    found = compare(model(layers=4), model(layers=4), Judge(evidence=(ProductSpectra(),)), plan)
    assert [weighed.finding.evidence for weighed in found.evidence] == ["ProductSpectra"]
    assert found.similarity is None
