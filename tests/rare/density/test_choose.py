from __future__ import annotations

import numpy as np
import pytest

from vestige.errors import EmptySet
from vestige.rare.density.choose import CANDIDATES, choose
from vestige.rare.density.kernel import KernelDensity
from vestige.rare.density.mahalanobis import Mahalanobis
from vestige.rare.density.mixture import GaussianMixture
from vestige.rare.density.neighbours import NearestNeighbours


def clusters(rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 3)) + 6 * rng.integers(2, size=(rows, 1))


def test_the_best_by_held_out_likelihood_is_chosen_and_the_table_says_by_how_much() -> None:
    mixture = GaussianMixture(components=2, starts=6)
    densities = (Mahalanobis(), mixture, NearestNeighbours(), KernelDensity())
    choice = choose(densities, clusters())
    held_out = {line.name: line.held_out.value for line in choice.table if line.comparable}
    assert choice.best.name == max(held_out, key=held_out.__getitem__) == mixture.name
    assert choice.decided
    gauss, best, nearest, _ = choice.table
    assert gauss.behind is not None
    assert gauss.behind.value == pytest.approx(best.held_out.value - gauss.held_out.value)
    assert gauss.behind.low > 0
    assert best.behind is None
    assert (nearest.comparable, nearest.behind) == (False, None)
    assert [line.name for line in choice.table] == [density.name for density in densities]
    # two means and two upper triangular roots of three dimensions, two weights and two constants
    assert best.parameters == 2 * 3 + 2 * 9 + 2 + 2
    assert all(line.seconds > 0 for line in choice.table)


def test_a_tie_is_undecided() -> None:
    rng = np.random.default_rng(0)
    choice = choose((Mahalanobis(), GaussianMixture(components=1)), rng.standard_normal((300, 2)))
    assert not choice.decided


def test_nothing_to_choose_from() -> None:
    with pytest.raises(EmptySet, match="integrates to one"):
        choose((NearestNeighbours(),), clusters(40))


def test_the_candidates_need_no_labels_and_no_extra() -> None:
    assert {type(density).__name__ for density in CANDIDATES} == {
        "GaussianMixture",
        "KernelDensity",
        "Mahalanobis",
        "NearestNeighbours",
    }
    assert len(choose(CANDIDATES[:2], clusters(100)).table) == 2
