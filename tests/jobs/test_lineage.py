"""The tree and the groups of a scan, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vestige.fingerprint.compare import Comparison, Lineage, Weighed
from vestige.fingerprint.evidence.evidence import Finding
from vestige.jobs.lineage_report import Relation, families, matrix, words
from vestige.jobs.lineage_tree import Branch, drawn, grown
from vestige.report.figure import draw

NAMES = ["c", "a", "b", "d"]
LIKENESS = np.array([[1.0, 0.1, 0.3, 0.0], [0.1, 1.0, 0.9, 0.0], [0.3, 0.9, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def relation(first: str, second: str, value: float | None, verdict: Lineage) -> Relation:
    found = Weighed(Finding("SketchedTerms", 0.95), 0.5), Weighed(Finding("LayerSketches", value), 0.5)
    other = Weighed(Finding("ProductSpectra", 0.99), 0.5)
    return Relation(first, second, Comparison(value, 0.5, 0.3, verdict, (*found, other), (), (), None, ()))


def test_branches_meet_at_the_average_over_pairs() -> None:
    tree = grown(NAMES, LIKENESS)
    assert tree.leaves == ("a", "b", "c", "d")
    top, inner = tree, tree.parts[0]
    assert top.distance == pytest.approx(1.0)  # d is alike with nobody
    assert inner.distance == pytest.approx(1 - (0.1 + 0.3) / 2)  # c meets a and b
    assert inner.parts[0].distance == pytest.approx(0.1)
    assert inner.parts[0].parts == (Branch(0.0, "a"), Branch(0.0, "b"))


def test_a_tree_is_drawn_with_every_name_and_meeting() -> None:
    tree = grown(NAMES, LIKENESS)
    figure = drawn(tree)
    (series,) = figure.series
    ends = {label: (x, y) for label, x, y in zip(series.labels, series.x, series.y, strict=True) if label}
    assert ends == {"a": (1.0, 3.0), "b": (1.0, 2.0), "c": (1.0, 1.0), "d": (1.0, 0.0)}
    turns = {round(x, 6) for x, y in zip(series.x, series.y, strict=True) if y is not None}
    assert turns == {1.0, 0.9, 0.2, 0.0}
    # The bracket of a and b joins their rows; that of c joins its own and the middle of theirs.
    assert {y for x, y in zip(series.x, series.y, strict=True) if y is not None and math.isclose(x, 0.9)} == {
        2.0,
        2.5,
        3.0,
    }
    svg = draw(figure, prefix="t").svg
    for name in NAMES:
        assert f">{name}</text>" in svg
    assert draw(drawn(grown(["x$y", "z"], np.eye(2))), prefix="t").svg.count("x$y") == 1


def test_models_are_grouped_by_chains_of_one_lineage() -> None:
    same, apart, unknown = Lineage.SAME, Lineage.INDEPENDENT, Lineage.UNDETERMINED
    relations = [
        relation("a", "b", 0.9, same),
        relation("b", "c", 0.8, same),
        relation("a", "c", 0.2, unknown),
        *(relation(name, "d", -0.1, apart) for name in "abc"),
    ]
    names = list("abcd")
    assert families(names, relations) == [["a", "b", "c"], ["d"]]
    held = matrix(names, relations)
    np.testing.assert_array_equal(held, held.T)
    assert held[0].tolist() == [1.0, 0.9, 0.2, 0.0]
    text = " ".join(words(names, relations))
    assert "Of one lineage: a, b, c." in text
    assert "Undetermined: a and c;" in text


def test_likeness_without_sketches_of_layers() -> None:
    nothing = relation("a", "b", None, Lineage.UNDETERMINED)
    assert nothing.likeness == 0.95
    empty = Comparison(None, 1.0, 0.0, Lineage.UNDETERMINED, (), (), (), None, ())
    assert Relation("a", "b", empty).likeness == 0.0
