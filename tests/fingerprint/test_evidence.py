"""The contract of evidence, over every kind that discovery finds."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import vestige.fingerprint.baselines
import vestige.fingerprint.evidence
from vestige.discover import methods
from vestige.fingerprint.baselines.awm_like import AwmLike
from vestige.fingerprint.baselines.parameter_cosine import ParameterCosine
from vestige.fingerprint.baselines.reef_like import ReefLike
from vestige.fingerprint.evidence.aligned_cka import AlignedCKA, haar_deviation, u_centred
from vestige.fingerprint.evidence.aligned_cosine import AlignedCosine
from vestige.fingerprint.evidence.bias_terms import BiasTerms
from vestige.fingerprint.evidence.evidence import Evidence
from vestige.fingerprint.evidence.product_spectra import ProductSpectra
from vestige.fingerprint.evidence.strength_curves import StrengthCurves
from vestige.fingerprint.launder.fold_biases import FoldBiases
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.fold_means import FoldMeans
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.key_bias import KeyBias
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.residual_signs import ResidualSigns
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.value_bias import ValueBias

ROOMS = vestige.fingerprint.evidence, vestige.fingerprint.baselines
EVERY = {name: kind for room in ROOMS for name, kind in methods(room, Evidence).items()}
OURS = methods(vestige.fingerprint.evidence, Evidence)
DEEP = 9
INNER = (HeadPermutation(), ValueBasis(), QueryKeyBasis(), NeuronPermutation(), NeuronScale())


@pytest.fixture(params=EVERY)
def evidence(request):
    return EVERY[request.param]()


@pytest.fixture(params=OURS)
def our_evidence(request):
    return OURS[request.param]()


def deep(model, kind="qwen2", seed=0):
    return model(kind, seed, layers=DEEP)


@pytest.fixture(scope="module")
def moved(model, pair):
    """A deep model beside itself after some steps; what kinds of evidence have in common is found once."""

    @cache
    def beside(kind="qwen2", steps=()):
        base = deep(model, kind)
        return pair(base, laundered(base, steps, 1))

    return beside


@pytest.fixture(scope="module")
def apart(model, pair):
    """Two deep models of one make that have nothing in common."""
    return cache(lambda seed: pair(deep(model), deep(model, seed=seed)))


def test_a_model_is_itself_and_evidence_says_what_it_is(moved, evidence):
    found = evidence.measure(moved())
    assert found.evidence == type(evidence).__name__
    assert found.value == pytest.approx(1, abs=1e-6)
    assert found.deviation > 0
    assert all(math.isfinite(value) for _, value in found.parts)
    assert evidence.claim.endswith(".")
    assert evidence.source


def test_independent_models_lie_within_what_chance_allows(apart, evidence):
    values = [evidence.measure(apart(seed)) for seed in (1, 2, 3)]
    if isinstance(evidence, ParameterCosine):  # gains lie near one in all models, a known fault of the method
        assert min(found.value for found in values) > 0.1
        return
    for found in values:
        # States of models that read the same tokens are alike for that reason alone.
        assert abs(found.value) < (1.0 if isinstance(evidence, ReefLike) else 5 * found.deviation)


def test_every_symmetry_leaves_our_evidence_alone(moved, our_evidence):
    for kind, steps in (
        ("qwen2", (FoldGains(), ResidualRotation(), GainShift(), *INNER)),
        ("qwen2", (GainShift(), ResidualPermutation(), ResidualSigns(), *INNER)),
        ("gpt2", (FoldMeans(), FoldGains(), FoldBiases(), ResidualRotation(), KeyBias(), ValueBias(), *INNER[:4])),
    ):
        found = our_evidence.measure(moved(kind, steps))
        # Small singular values hold the rounding of large ones.
        tolerance = 0.02 if isinstance(our_evidence, ProductSpectra) else 1e-5
        assert found.value == pytest.approx(1, abs=tolerance), (kind, found)


def test_our_evidence_falls_with_noise(moved, our_evidence):
    values = [our_evidence.measure(moved(steps=(Noise(level),))).value for level in (0.01, 0.3, 3.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9


def test_evidence_over_tokens_keeps_silent_without_any(model, pair, renamed, evidence):
    found = evidence.measure(pair(deep(model), renamed(deep(model))))
    if isinstance(evidence, ProductSpectra | StrengthCurves | ParameterCosine):
        assert found.value == pytest.approx(1, abs=1e-6)
    else:
        assert found.value is None
        assert found.reason


@pytest.mark.parametrize(
    ("baseline", "keeps", "loses"),
    [
        (
            AwmLike(),
            [(ResidualPermutation(), ResidualSigns(), HeadPermutation())],
            [(FoldGains(), ResidualRotation()), (GainShift(1.5),)],
        ),
        (ReefLike(), [(FoldGains(), ResidualRotation(), *INNER)], []),
        (ParameterCosine(), [], [(ResidualPermutation(),), (HeadPermutation(), ValueBasis(), QueryKeyBasis())]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_baselines_keep_what_their_papers_say_and_lose_the_rest(model, pair, baseline, keeps, loses):
    base = model()
    for steps in keeps:
        assert baseline.measure(pair(base, laundered(base, steps, 1))).value == pytest.approx(1, abs=1e-5)
    for steps in loses:
        assert baseline.measure(pair(base, laundered(base, steps, 1))).value < 0.9, steps


def test_depths_that_differ_are_matched_by_every_kind_that_can(model, pair):
    base = deep(model)
    shallow = replace(base, blocks=(*base.blocks[:3], *base.blocks[5:]))
    both = pair(base, shallow)
    for kind in (AlignedCKA(), AlignedCosine(), BiasTerms(), ProductSpectra(), AwmLike()):
        assert kind.measure(both).value == pytest.approx(1, abs=1e-6), kind
    assert StrengthCurves().measure(both).value is None


def test_u_centred_matrices_are_those_of_the_definition():
    gram = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    gram = gram + gram.T
    expected = np.zeros((6, 6))
    held = gram.astype(np.float64) * (1 - np.eye(6))
    for i in range(6):
        for j in range(6):
            if i != j:
                expected[i, j] = held[i, j] - held[i].sum() / 4 - held[:, j].sum() / 4 + held.sum() / 20
    np.testing.assert_allclose(u_centred(gram), expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(0), 0, atol=1e-6)


def test_the_deviation_of_turned_matrices_is_that_of_a_simulation():
    random, d = np.random.default_rng(0), 8
    first, second = (m + m.T for m in random.standard_normal((2, d, d)))
    first, second = (m - np.eye(d) * np.trace(m) / d for m in (first, second))
    values = []
    for _ in range(4000):
        turn, upper = np.linalg.qr(random.standard_normal((d, d)))
        turn = turn * np.sign(np.diag(upper))
        values.append(np.sum(first * (turn @ second @ turn.T)))
    simulated = np.std(values) / np.linalg.norm(first) / np.linalg.norm(second)
    assert haar_deviation(d) == pytest.approx(simulated, rel=0.05)


def test_a_key_bias_counts_only_where_positions_turn_keys(model, pair):
    for kind, counts in (("qwen2", True), ("gpt2", False)):
        found = BiasTerms().measure(pair(model(kind), model(kind)))
        assert ("key bias" in dict(found.parts)) == counts
    assert BiasTerms().measure(pair(model("llama"), model("llama"))).value is None
    assert BiasTerms().measure(pair(model("qwen3"), model("qwen3"))).value is None
