"""The relations of many models in words and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vestige.digest import short
from vestige.errors import VestigeError
from vestige.fingerprint.card import Fingerprint
from vestige.fingerprint.compare import Comparison, Lineage
from vestige.jobs.lineage_tree import Branch, Doubles, drawn
from vestige.record import Cell, Estimate, NotDone, Section, Table

_COSINES = ("LayerSketches", "SketchedTerms")
_WIDEST = 64
"""Models of the largest matrix that the page shows; ``matrix.csv`` holds any."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Two models and what their cards say of them."""

    first: str
    second: str
    comparison: Comparison

    @property
    def likeness(self) -> float:
        """Cosine in [0, 1] of the sketches of all layers, which independent models do not share; of the vectors where
        there are no such sketches, 0 where there is neither."""
        values = {item.finding.evidence: item.finding.value for item in self.comparison.evidence}
        told = [value for value in map(values.get, _COSINES) if value is not None]
        return min(max(told[0], 0.0), 1.0) if told else 0.0


def matrix(names: Sequence[str], relations: Sequence[Relation]) -> Doubles:
    """Likeness of every two models [n, n]; 1 on the diagonal."""
    place = {name: index for index, name in enumerate(names)}
    found = np.eye(len(names))
    for relation in relations:
        a, b = place[relation.first], place[relation.second]
        found[a, b] = found[b, a] = relation.likeness
    return found


def families(names: Sequence[str], relations: Sequence[Relation]) -> list[list[str]]:
    """Groups joined by pairs of the same lineage, largest first; a model alone is one too."""
    group = {name: {name} for name in names}
    for relation in relations:
        if relation.comparison.verdict is Lineage.SAME:
            joined = group[relation.first] | group[relation.second]
            for name in joined:
                group[name] = joined
    unique = {id(members): members for members in group.values()}
    return sorted((sorted(members) for members in unique.values()), key=lambda m: (-len(m), m))


def words(names: Sequence[str], relations: Sequence[Relation]) -> list[str]:
    """In sentences: who belongs together, and what stays open."""
    found = families(names, relations)
    text = [f"{len(names)} models, {len(found)} lineages that are not known to be connected."]
    text += [f"Of one lineage: {', '.join(members)}." for members in found if len(members) > 1]
    open_pairs = [r for r in relations if r.comparison.verdict is Lineage.UNDETERMINED]
    if open_pairs:
        some = ", ".join(f"{r.first} and {r.second}" for r in open_pairs[:5])
        more = f" and {len(open_pairs) - 5} more" if len(open_pairs) > 5 else ""
        text.append(f"Undetermined: {some}{more}; compare their weights with `vestige compare-weights`.")
    text.append(
        "Cards were compared, with the level divided by the number of pairs. Long continued training can move cards "
        "apart that the weights still connect. The tree says who is near whom, not who came first."
    )
    return text


def summary(names: Sequence[str], relations: Sequence[Relation]) -> list[Estimate]:
    """Counts."""
    verdicts = [relation.comparison.verdict for relation in relations]
    lines = [
        Estimate(name="lineage/models", value=float(len(names)), unit="models"),
        Estimate(name="lineage/families", value=float(len(families(names, relations))), unit="families"),
    ]
    return lines + [
        Estimate(name=f"pairs/{kind.value}", value=float(verdicts.count(kind)), n=len(verdicts), unit="pairs")
        for kind in Lineage
    ]


def sections(
    names: Sequence[str], cards: Mapping[str, Fingerprint], relations: Sequence[Relation], tree: Branch
) -> list[Section]:
    """The tree, the matrix, the models and all pairs."""
    tables = [_models(names, cards, relations)]
    if len(names) <= _WIDEST:
        tables.append(_matrix_table(tree.leaves, names, relations))
    return [
        Section(name="tree", title="Tree", tables=tables, figures=[drawn(tree)]),
        Section(name="pairs", title="Every pair", tables=[pairs_table(relations)]),
    ]


def _models(names: Sequence[str], cards: Mapping[str, Fingerprint], relations: Sequence[Relation]) -> Table:
    number = {name: place + 1 for place, group in enumerate(families(names, relations)) for name in group}
    rows: list[list[Cell]] = [
        [name, number[name], cards[name].architecture, cards[name].depth, cards[name].width, short(cards[name].digest)]
        for name in sorted(names, key=lambda name: (number[name], name))
    ]
    columns = ["model", "lineage", "architecture", "layers", "width", "weights"]
    return Table(name="models", title="Models by lineage", columns=columns, rows=rows)


def matrix_csv(order: Sequence[str], names: Sequence[str], relations: Sequence[Relation]) -> str:
    """Likeness of every two as comma-separated values, in the order of the tree."""
    held, place = matrix(names, relations), {name: index for index, name in enumerate(names)}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["", *order])
    for name in order:
        writer.writerow([name, *(f"{held[place[name], place[other]]:.4f}" for other in order)])
    return file.getvalue()


def _matrix_table(order: Sequence[str], names: Sequence[str], relations: Sequence[Relation]) -> Table:
    held, place = matrix(names, relations), {name: index for index, name in enumerate(names)}
    rows: list[list[Cell]] = [
        [f"{row + 1} {name}", *(round(float(held[place[name], place[other]]), 2) for other in order)]
        for row, name in enumerate(order)
    ]
    columns = ["likeness", *(str(column + 1) for column in range(len(order)))]
    caption = "Rows and columns in the order of the tree."
    return Table(name="matrix", title="Likeness of every two", columns=columns, rows=rows, caption=caption)


def pairs_table(relations: Sequence[Relation]) -> Table:
    """A row a pair, most alike first."""
    ordered = sorted(relations, key=lambda relation: (-relation.likeness, relation.first, relation.second))
    rows: list[list[Cell]] = [
        [r.first, r.second, r.comparison.verdict.value, round(r.likeness, 3), f"{r.comparison.p_value:.1e}"]
        for r in ordered
    ]
    columns = ["model", "other", "verdict", "likeness", "p"]
    return Table(name="pairs", title="Every pair", columns=columns, rows=rows)


def not_read(failed: Sequence[tuple[str, VestigeError]]) -> list[NotDone]:
    """Models that could not be read."""
    return [NotDone(what=name, reason=error.found, remedy=error.remedy) for name, error in failed]
