"""Do two models descend from one another? One score, a p-value, a verdict, and what was undone on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from vestige.errors import InvalidInput
from vestige.fingerprint.calibration import MEASURED, Calibration, combined
from vestige.fingerprint.card import Fingerprint, Plan, fingerprint
from vestige.fingerprint.evidence.aligned_cka import AlignedCKA
from vestige.fingerprint.evidence.aligned_cosine import AlignedCosine
from vestige.fingerprint.evidence.bias_terms import BiasTerms
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.evidence.flat_terms import FlatTerms
from vestige.fingerprint.evidence.huref import HuRef
from vestige.fingerprint.evidence.product_spectra import ProductSpectra
from vestige.fingerprint.evidence.sketches import LayerSketches, SketchedTerms
from vestige.fingerprint.evidence.strength_curves import StrengthCurves
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.undone import Undone, of_layers, of_norms, of_residual, of_words
from vestige.fingerprint.undone_inner import inside_blocks
from vestige.models.transformer.block import Transformer


class Lineage(Enum):
    """What the evidence amounts to."""

    SAME = "same lineage"
    INDEPENDENT = "independent"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Judge:
    """How findings become a verdict.

    Parameters
    ----------
    evidence : looked at; kinds that need weights are left out where only cards are known.
    calibration : what independent models reach.
    alpha : largest p-value of the same lineage.
    clear : least p-value of independence, which also needs evidence over common tokens.
    """

    evidence: tuple[Evidence, ...] = (
        HuRef(),
        FlatTerms(),
        SketchedTerms(),
        LayerSketches(),
        AlignedCKA(),
        AlignedCosine(),
        BiasTerms(),
        ProductSpectra(),
        StrengthCurves(),
    )
    calibration: Calibration = MEASURED
    alpha: float = 1e-4
    clear: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < self.clear < 1 or not self.evidence:
            raise InvalidInput(
                f"A judge with alpha {self.alpha}, clear {self.clear} and {len(self.evidence)} kinds of evidence.",
                expected="0 < alpha < clear < 1 and at least one kind of evidence.",
                remedy="change the setting.",
            )


@dataclass(frozen=True)
class Weighed:
    """A finding with its p-value; None where it has no value."""

    finding: Finding
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models compared.

    Parameters
    ----------
    similarity : cosine of the invariant terms in [-1, 1]; None where the models share no tokens.
    p_value : probability that independent models look as much alike.
    score : ``-log10 p_value``, higher = likelier of one lineage.
    verdict : at the judge's levels.
    evidence : every kind that was looked at.
    undone : what was done to one of the models, as far as it could be undone; empty unless of the same lineage.
    layers : pairs of layers that were compared.
    shared : number of tokens that both have; None where only cards were compared.
    reasons : why the verdict is what it is, one sentence each.
    """

    similarity: float | None
    p_value: float
    score: float
    verdict: Lineage
    evidence: tuple[Weighed, ...]
    undone: tuple[Undone, ...]
    layers: tuple[tuple[int, int], ...]
    shared: int | None
    reasons: tuple[str, ...]

    def finding(self, evidence: str) -> Finding:
        """The finding of one kind of evidence (KeyError if it was not looked at)."""
        return {weighed.finding.evidence: weighed.finding for weighed in self.evidence}[evidence]


_OVER_TOKENS = {"HuRef", "FlatTerms", "SketchedTerms", "AlignedCKA", "AlignedCosine"}


def compare(
    first: Transformer, second: Transformer, judge: Judge | None = None, plan: Plan | None = None
) -> Comparison:
    """Compare two models by their weights; every block is read a few times and none is kept.

    Raises
    ------
    EmptySet : a model has no layers or no usable tokens.
    """
    cards = fingerprint(first, plan), fingerprint(second, plan)
    return judged(Pair(*cards, (first, second)), judge or Judge())


def compare_cards(first: Fingerprint, second: Fingerprint, judge: Judge | None = None) -> Comparison:
    """Compare two models by their published cards alone.

    Raises
    ------
    InvalidInput : the cards were made with different plans.
    """
    return judged(Pair(first, second), judge or Judge())


def judged(pair: Pair, judge: Judge) -> Comparison:
    """Compare two models that were put side by side before, so that one card serves many comparisons."""
    findings = tuple(kind.measure(pair) for kind in judge.evidence if pair.has_weights or not kind.needs_weights)
    found = weigh(findings, judge)
    values = {finding.evidence: finding.value for finding in findings}
    similarity = values.get("HuRef")
    return Comparison(
        values.get("SketchedTerms") if similarity is None else similarity,
        found.p_value,
        -math.log10(found.p_value),
        found.verdict,
        found.evidence,
        _undone(pair) if found.verdict is Lineage.SAME else (),
        pair.layers,
        len(pair.words[0]) if pair.has_weights else None,
        _reasons(found.evidence, found.p_value, found.verdict, judge, pair),
    )


@dataclass(frozen=True)
class Weight:
    """All findings together: one p-value and the verdict."""

    evidence: tuple[Weighed, ...]
    p_value: float
    verdict: Lineage


def weigh(findings: Sequence[Finding], judge: Judge) -> Weight:
    """What the findings on one pair of models amount to; measured once, they can be judged by many calibrations."""
    weighed = tuple(Weighed(finding, judge.calibration.p_value(finding)) for finding in findings)
    p_value = combined([item.p_value for item in weighed if item.p_value is not None])
    return Weight(weighed, p_value, _verdict(weighed, p_value, judge))


def _verdict(weighed: tuple[Weighed, ...], p_value: float, judge: Judge) -> Lineage:
    if p_value <= judge.alpha:
        return Lineage.SAME
    told = any(item.p_value is not None and item.finding.evidence in _OVER_TOKENS for item in weighed)
    return Lineage.INDEPENDENT if told and p_value >= judge.clear else Lineage.UNDETERMINED


def _undone(pair: Pair) -> tuple[Undone, ...]:
    """Everything that can be named; what cards alone tell is the layers."""
    if not pair.has_weights:
        return tuple(of_layers(pair))
    if len(pair.aligned_by[0]) < 8:
        return (*of_words(pair), *of_layers(pair))
    return (*of_words(pair), *of_residual(pair.alignment), *of_norms(pair), *inside_blocks(pair), *of_layers(pair))


def _reasons(
    weighed: tuple[Weighed, ...], p_value: float, verdict: Lineage, judge: Judge, pair: Pair
) -> tuple[str, ...]:
    found = [(item.p_value, item.finding) for item in weighed if item.p_value is not None]
    reasons: list[str] = []
    if found:
        least, finding = min(found, key=lambda item: item[0])
        reasons.append(
            f"{finding.evidence} is {finding.value:.3f}, reached by independent models with p = {least:.1e}."
        )
    told = any(finding.evidence in _OVER_TOKENS for _, finding in found)
    if verdict is Lineage.UNDETERMINED:
        reasons.append(
            f"The combined p-value {p_value:.1e} lies between {judge.alpha:g} and {judge.clear:g}."
            if told
            else "The models share too few tokens, and what needs none does not tell them apart."
        )
    if verdict is Lineage.INDEPENDENT and not pair.has_weights:
        reasons.append("Long continued training can move cards this far apart: compare the weights to be sure.")
    return tuple(reasons)
