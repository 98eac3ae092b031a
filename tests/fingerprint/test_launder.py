"""The contract of laundering, over every way that discovery finds, on every make of model."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

import vestige.fingerprint.launder as room
from vestige.discover import methods
from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.launder.drop_channels import DropChannels
from vestige.fingerprint.launder.drop_layers import DropLayers
from vestige.fingerprint.launder.expert_permutation import ExpertPermutation
from vestige.fingerprint.launder.extend_vocabulary import ExtendVocabulary
from vestige.fingerprint.launder.fold_biases import FoldBiases
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.fold_means import FoldMeans
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.key_bias import KeyBias
from vestige.fingerprint.launder.launder import Launder, laundered
from vestige.fingerprint.launder.linear_merge import LinearMerge
from vestige.fingerprint.launder.low_rank_update import LowRankUpdate
from vestige.fingerprint.launder.mean_shift import MeanShift
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.position_shift import PositionShift
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
from vestige.fingerprint.launder.value_bias import ValueBias
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.similarity import Layer, term_cosine
from vestige.fingerprint.terms import BlockTerms, Entry, Term
from vestige.fingerprint.words import Words, shared
from vestige.models.transformer.forward import forward

TEXT = np.random.default_rng(5).integers(0, 100, 12)
OVERWRITTEN = 16

PRESERVING: tuple[Launder, ...] = (
    ExpertPermutation(),
    FoldBiases(),
    FoldGains(),
    FoldMeans(),
    GainShift(),
    HeadPermutation(),
    KeyBias(),
    MeanShift(),
    NeuronPermutation(),
    NeuronScale(),
    PositionShift(),
    QueryKeyBasis(),
    ResidualPermutation(),
    ResidualRotation(),
    ResidualScale(),
    ResidualSigns(),
    RowOverwrite(OVERWRITTEN),
    ValueBasis(),
    ValueBias(),
    VocabularyPermutation(),
)
# What has to be undone first, where a make does not allow a change as it is.
PREPARED = {
    "llama": (FoldGains(),),
    "gpt2": (FoldMeans(), FoldGains()),
    "opt": (FoldMeans(), FoldGains()),
    "neox": (FoldMeans(), FoldGains()),
    "mixtral": (FoldGains(),),
    "qwen2_moe": (FoldGains(),),
    "qwen3": (FoldGains(),),
}


# Per make, what must be possible: a refusal too many would hide a symmetry that somebody else uses.
REFUSED = {
    "llama": "ExpertPermutation FoldBiases FoldMeans KeyBias MeanShift PositionShift",
    "qwen2": "ExpertPermutation FoldBiases FoldMeans KeyBias MeanShift PositionShift ResidualRotation",
    "qwen3": "ExpertPermutation FoldBiases FoldMeans KeyBias MeanShift PositionShift QueryKeyBasis",
    "gemma2": "ExpertPermutation FoldBiases FoldMeans KeyBias MeanShift PositionShift ResidualRotation",
    "mixtral": "FoldBiases FoldMeans KeyBias MeanShift PositionShift",
    "qwen2_moe": "FoldBiases FoldMeans KeyBias MeanShift PositionShift",
    "gpt2": "ExpertPermutation FoldMeans MeanShift NeuronScale",
    "opt": "ExpertPermutation FoldMeans MeanShift",
    "neox": "ExpertPermutation FoldMeans KeyBias MeanShift NeuronScale PositionShift",
    "gptj": "ExpertPermutation KeyBias NeuronScale PositionShift ResidualRotation ResidualSigns",
    "bloom": "ExpertPermutation FoldMeans HeadPermutation MeanShift NeuronScale PositionShift"
    " ResidualRotation ResidualSigns",
}
# Between them these have gains, means, gates, biases, experts, rotary and learned positions; the others are slow.
QUICK = {"llama", "gpt2", "qwen2_moe"}


def logits(model, text=TEXT):
    """Logits of one text, columns in the order of the first model's tokens, with whatever ids the model has for it."""
    place = {token: row for row, token in enumerate(model.tokens)}
    names = [f"t{row}" for row in range(len(place))]
    found = forward(model, np.array([place[names[token]] for token in text]))
    return found[:, [place[name] for name in names]]


def similarity(first, second, skip=0):
    """The least cosine of all terms of all layers over the tokens that both have, the last ``skip`` left out."""
    ours, theirs = shared(Words.of(first), Words.of(second))
    kept = np.arange(len(ours) - skip)
    entries = Entry(first, ours.at(kept).rows), Entry(second, theirs.at(kept).rows)
    layers = [
        tuple(
            Layer(BlockTerms.of(model.blocks[k]), entry) for model, entry in zip((first, second), entries, strict=True)
        )
        for k in range(first.depth)
    ]
    return min(term_cosine(*pair, term).value for pair in layers for term in Term)


def test_every_way_is_in_the_list():
    found = {name for name, way in methods(room, Launder).items() if way.preserves}
    assert found == {type(way).__name__ for way in PRESERVING}


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in REFUSED])
@pytest.mark.parametrize("way", PRESERVING, ids=lambda way: type(way).__name__)
def test_logits_and_similarity_stay_or_the_change_is_refused(model, kind, way):
    for steps in {(), PREPARED.get(kind, ())}:
        base = laundered(model(kind), steps, 0)
        reason = way.refusal(base)
        if reason:
            with pytest.raises(Unsupported, match=type(way).__name__):
                way.apply(base, 1)
            continue
        moved = way.apply(base, 1)
        assert np.abs(logits(moved) - logits(base)).max() < 2e-5
        skip = OVERWRITTEN if isinstance(way, RowOverwrite) else 0
        assert similarity(base, moved, skip) == pytest.approx(1, abs=1e-6)


def test_what_is_refused_is_what_would_change_the_function(model, kind):
    base = laundered(model(kind), PREPARED.get(kind, ()), 0)
    assert {type(way).__name__ for way in PRESERVING if way.refusal(base)} == set(REFUSED[kind].split())


@pytest.mark.parametrize("way", [ResidualSigns(), ResidualRotation()], ids=lambda way: type(way).__name__)
def test_a_refused_change_does_change_the_function(model, way):
    base = model("gpt2")
    assert np.abs(logits(way.change(base, np.random.default_rng(0))) - logits(base)).max() > 0.01


def test_a_rotation_waits_for_folding_and_scaling_neurons_for_relu(model):
    llama, gpt2 = model("llama"), model("gpt2")
    for way, base in ((ResidualRotation(), llama), (NeuronScale(), gpt2)):
        moved = way.change(base, np.random.default_rng(0))
        assert np.abs(logits(moved) - logits(base)).max() > 0.01
    with pytest.raises(Unsupported, match="fold gains and means first"):
        ResidualRotation().apply(llama, 0)


SUITES = {
    "llama": (
        GainShift(1.5),
        FoldGains(),
        ResidualRotation(),
        GainShift(),
        ResidualPermutation(),
        ResidualSigns(),
        HeadPermutation(),
        ValueBasis(),
        ValueBias(),
        QueryKeyBasis(),
        NeuronPermutation(),
        NeuronScale(),
        ResidualScale(7.0),
        VocabularyPermutation(),
    ),
    "gpt2": (
        PositionShift(),
        MeanShift(),
        FoldMeans(),
        FoldGains(),
        FoldBiases(),
        ResidualRotation(),
        KeyBias(),
        ValueBias(),
        HeadPermutation(),
        ValueBasis(),
        QueryKeyBasis(),
        NeuronPermutation(),
        ResidualScale(0.2),
        GainShift(),
    ),
    "gemma2": (
        ResidualPermutation(),
        ResidualSigns(),
        GainShift(),
        HeadPermutation(),
        ValueBasis(),
        QueryKeyBasis(),
        NeuronScale(),
        ResidualScale(),
    ),
    "qwen2_moe": (
        FoldGains(),
        ResidualRotation(),
        ExpertPermutation(),
        NeuronPermutation(),
        NeuronScale(),
        HeadPermutation(),
        QueryKeyBasis(),
    ),
}


@pytest.mark.parametrize("kind", SUITES)
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_suite_at_once_changes_neither_logits_nor_similarity(model, kind, seed):
    base = model(kind, seed)
    moved = laundered(base, SUITES[kind], seed)
    assert np.abs(logits(moved) - logits(base)).max() < 1e-4
    assert similarity(base, moved) == pytest.approx(1, abs=1e-5)


def arrays(part, name=""):
    if isinstance(part, np.ndarray):
        yield name, part
    elif isinstance(part, tuple):
        for place, item in enumerate(part):
            yield from arrays(item, f"{name}.{place}")
    elif hasattr(part, "__dataclass_fields__"):
        for field in fields(part):
            yield from arrays(getattr(part, field.name), f"{name}.{field.name}")


@pytest.mark.parametrize("way", PRESERVING, ids=lambda way: type(way).__name__)
def test_it_moves_weights_repeatably_and_leaves_the_given_model_alone(model, way):
    makes = (
        laundered(model(kind), steps, 0) for kind in ("llama", "gpt2", "mixtral") for steps in ((), PREPARED[kind])
    )
    base = next(made for made in makes if not way.refusal(made))
    before = {name: array.copy() for name, array in arrays(base)}
    one, again, other = (way.apply(base, seed).digest for seed in (1, 1, 2))
    assert one == again
    assert one != base.digest
    assert (one == other) == isinstance(way, FoldGains | FoldMeans | FoldBiases | ResidualScale)
    for name, array in arrays(base):
        np.testing.assert_array_equal(array, before[name])


def test_flipping_signs_twice_is_the_identity_and_folding_undoes_a_shift(model):
    base = model()
    assert ResidualSigns().apply(ResidualSigns().apply(base, 1), 1).digest == base.digest
    assert ResidualScale(0.5).apply(ResidualScale(2.0).apply(base, 0), 0).table.tolist() == base.table.tolist()
    folded, shifted = FoldGains().apply(base, 0), FoldGains().apply(GainShift().apply(base, 1), 0)
    for (name, one), (_, other) in zip(arrays(folded), arrays(shifted), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7, err_msg=name)


def test_steps_of_a_suite_share_no_noise(model):
    base = model()
    twice = laundered(base, (ResidualSigns(), ResidualSigns()), 0)
    assert twice.digest != base.digest


def test_merging_mixes_every_array(model):
    first, second = model(), model(seed=1)
    mixed = LinearMerge(second, 0.3).apply(first, 0)
    for (name, one), (_, other), (_, got) in zip(arrays(first), arrays(second), arrays(mixed), strict=True):
        np.testing.assert_allclose(got, 0.7 * one + 0.3 * other, rtol=1e-5, atol=1e-6, err_msg=name)
    assert LinearMerge(second, 0.0).apply(first, 0).digest == first.digest
    for other in (model(f=40), model(layers=3), model("qwen3"), replace(second, strings=None)):
        with pytest.raises(Unsupported):
            LinearMerge(other).apply(first, 0)


def test_pruning_zeroes_its_share_and_rounding_leaves_its_levels(model):
    base = model()
    gate = Pruning(0.25).apply(base, 0).blocks[0].experts[0].gate
    assert np.mean(gate == 0) == pytest.approx(0.25, abs=0.01)
    kept = gate != 0
    np.testing.assert_array_equal(gate[kept], base.blocks[0].experts[0].gate[kept])
    coarse = RoundToNearest(3).apply(base, 0).table
    assert max(len(np.unique(row)) for row in coarse) <= 7
    assert np.abs(coarse - base.table).max() <= np.abs(base.table).max() / 3 / 2 * (1 + 1e-6)


def test_a_low_rank_update_has_its_rank_and_length_and_noise_its_level(model):
    base = model()
    change = LowRankUpdate(3, 0.2).apply(base, 0).blocks[0].experts[0].up - base.blocks[0].experts[0].up
    values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
    assert values[3] < 1e-5 * values[0]
    assert np.linalg.norm(change) == pytest.approx(0.2 * np.linalg.norm(base.blocks[0].experts[0].up), rel=1e-4)
    moved = Noise(0.3).apply(base, 0).table - base.table
    assert moved.std() == pytest.approx(0.3 * base.table.std(), rel=0.05)


def test_layers_channels_and_tokens_come_and_go(model):
    base = model(layers=5)
    shallow = DropLayers(2).apply(base, 0)
    assert (shallow.depth, shallow.blocks[0], shallow.blocks[-1]) == (3, base.blocks[0], base.blocks[-1])
    deep = RepeatLayers(2).apply(base, 0)
    assert deep.depth == 7
    assert set(map(id, deep.blocks)) == set(map(id, base.blocks))
    narrow = DropChannels(0.25).apply(base, 0)
    assert narrow.width == narrow.blocks[0].attention.query.shape[1] == len(narrow.blocks[0].attention.output) == 24
    longer = ExtendVocabulary(5).apply(base, 0)
    assert (longer.vocabulary, len(longer.tokens)) == (133, 133)
    np.testing.assert_array_equal(longer.table[:128], base.table)
    assert np.isfinite(forward(narrow, TEXT)).all()
    for way in (DropLayers(4), RepeatLayers(6), RowOverwrite(128)):
        with pytest.raises(Unsupported):
            way.apply(base, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GainShift(0),
        lambda: NeuronScale(-1),
        lambda: ResidualScale(0),
        lambda: ValueBasis(-1),
        lambda: QueryKeyBasis(-1),
        lambda: RowOverwrite(0),
        lambda: Noise(-1),
        lambda: LowRankUpdate(0),
        lambda: Pruning(1),
        lambda: RoundToNearest(1),
        lambda: DropLayers(0),
        lambda: RepeatLayers(0),
        lambda: ExtendVocabulary(0),
        lambda: DropChannels(1),
    ],
)
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(InvalidInput):
        wrong()


def test_every_way_says_what_it_claims():
    for name, way in methods(room, Launder).items():
        assert way.claim.endswith("."), name
        assert way.__doc__, name
