"""A tree over models from how alike every two are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from vestige.record import Figure, Series

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """A leaf with a name, or two branches that meet at a distance (1 - likeness, their average over all pairs)."""

    distance: float
    name: str = ""
    parts: tuple[Branch, ...] = ()

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names below it, in the order in which they are drawn."""
        return (self.name,) if self.name else tuple(name for part in self.parts for name in part.leaves)


def grown(names: Sequence[str], likeness: Doubles) -> Branch:
    """The tree of average linkage (UPGMA; Sokal and Michener 1958) over ``1 - likeness`` [n, n].

    It shows who is near whom, not who came first: a base and its offspring are neighbours in it.
    """
    distances = np.clip(1 - (likeness + likeness.T) / 2, 0, 2)
    np.fill_diagonal(distances, 0)
    branches = [Branch(0.0, name) for name in names]
    for first, second, distance, _ in linkage(squareform(distances, checks=False), "average").tolist():
        pair = sorted((branches[int(first)], branches[int(second)]), key=lambda branch: min(branch.leaves))
        branches.append(Branch(float(distance), parts=tuple(pair)))
    return branches[-1]


def drawn(tree: Branch) -> Figure:
    """The tree as a figure: leaves at 1 on the right, every meeting at the likeness of what meets there."""
    x: list[float | str] = []
    y: list[float | None] = []
    labels: list[str] = []
    rows = {name: float(len(tree.leaves) - 1 - place) for place, name in enumerate(tree.leaves)}
    for segment in _segments(tree, rows):
        for across, height in segment:
            x.append(1 - across)
            y.append(height)
            labels.append("")
        x.append(x[-1])
        y.append(None)
        labels.append("")
    for name, row in rows.items():
        x.append(1.0)
        y.append(row)
        labels.append(name)
    series = Series(name="average linkage", x=x, y=y, labels=labels)
    return Figure(name="tree", title="Who is near whom", kind="tree", series=[series], x_label="likeness")


def _height(branch: Branch, rows: dict[str, float]) -> float:
    if branch.name:
        return rows[branch.name]
    return sum(_height(part, rows) for part in branch.parts) / len(branch.parts)


def _segments(branch: Branch, rows: dict[str, float]) -> Iterator[list[tuple[float, float]]]:
    """One bracket a meeting: out to the lower part, along, and back to the upper part."""
    if branch.name:
        return
    low, high = branch.parts
    ends = _height(low, rows), _height(high, rows)
    yield [
        (low.distance, ends[0]),
        (branch.distance, ends[0]),
        (branch.distance, ends[1]),
        (high.distance, ends[1]),
    ]
    for part in branch.parts:
        yield from _segments(part, rows)
