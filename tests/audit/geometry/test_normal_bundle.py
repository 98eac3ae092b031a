from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.normal_bundle import NormalBundle, Rank, frame
from vestige.errors import InvalidInput, Unsupported
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser

D = 12
SHAPE = (1, 3, 4)
WORK = Work(seed=2)
ONE = (0.02,)


def flat_model(closed_forms, dimension):
    """A Gaussian on a plane of that dimension; 0 is one point."""
    return gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), closed_forms.spectrum(D, dimension)[1])


@pytest.mark.parametrize("dimension", [0, 1, 5, 11, 12])
def test_the_count_is_exact_on_planes_and_the_gap_only_between(closed_forms, dimension):
    model, zero = flat_model(closed_forms, dimension), torch.zeros(2, *SHAPE, dtype=torch.float64)
    curve = NormalBundle(ratios=ONE, frames=2).curve(model, zero, (0, 1), work=WORK)
    assert curve.dimension.tolist() == [[dimension], [dimension]]
    assert curve.error.tolist() == [[0.0], [0.0]]
    by_gap = NormalBundle(ratios=ONE, rank=Rank.GAP).curve(model, zero, (0, 1), work=WORK).dimension
    if 0 < dimension < D:
        assert (by_gap == dimension).all()
    else:
        assert ((by_gap >= 1) & (by_gap <= D - 1)).all()


def test_memorized_points_are_atoms_by_the_count_and_not_by_the_gap():
    train = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)))
    memorizer = EmpiricalDenoiser(train)
    assert (NormalBundle(ratios=ONE).curve(memorizer, train, range(4), work=WORK).dimension == 0).all()
    by_gap = NormalBundle(ratios=ONE, rank=Rank.GAP).curve(memorizer, train, range(4), work=WORK).dimension
    assert (by_gap >= 1).all()


def test_singular_values_are_read_as_defined():
    spectrum = np.array([0.02, 0.1, 0.45, 0.7, 0.98, 1.0])
    assert NormalBundle().dimension(spectrum) == 3
    assert NormalBundle(rank=Rank.GAP).dimension(spectrum) == 2


def test_frames_are_orthogonal_and_belong_to_row_and_draw():
    z = frame(1, 2, 3, D)
    torch.testing.assert_close(z @ z.T, D * torch.eye(D, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(frame(1, 2, 3, D), z)
    for other in (frame(0, 2, 3, D), frame(1, 1, 3, D), frame(1, 2, 0, D)):
        assert not torch.allclose(other, z)
    # Uniformly turned: each entry has mean 0 and variance 1.
    entries = torch.stack([frame(0, row, 0, 3)[0, 0] for row in range(400)])
    assert abs(float(entries.mean())) < 4 / 20
    assert float(entries.var()) == pytest.approx(1, abs=4 * np.sqrt(2 / 400))


def test_evaluations_are_the_draws_and_batches_do_not_matter(closed_forms):
    model, points = flat_model(closed_forms, 5), torch.zeros(2, *SHAPE, dtype=torch.float64)
    method = NormalBundle(ratios=(0.05, 0.3), frames=3)
    whole = method.curve(model, points, (4, 5), work=WORK)
    assert whole.evaluations == model.evaluations == 2 * 2 * 3 * D
    again = method.curve(model, points[1:], (5,), work=Work(seed=2, batch_size=5))
    assert (again.dimension == whole.dimension[1:]).all()
    assert np.isnan(NormalBundle(ratios=ONE, frames=1).curve(model, points, (4, 5), work=WORK).error).all()


def test_too_many_dimensions_are_refused_with_advice():
    shape = (4, 64, 64)
    model = EmpiricalDenoiser(torch.zeros(1, *shape))
    with pytest.raises(Unsupported, match=r"16,384 axes takes 32,768 evaluations.*DSM, or FLIPD or LHSD"):
        NormalBundle().curve(model, torch.zeros(1, *shape), (0,), work=WORK)
    small = EmpiricalDenoiser(torch.zeros(1, 1, 32, 32))
    with pytest.raises(Unsupported, match=r"1,024 dimensions needs .* GiB.*DSM, FLIPD or LHSD"):
        NormalBundle().curve(small, torch.zeros(1, 1, 32, 32), (0,), work=Work(budget=1 << 20))
    assert model.evaluations == small.evaluations == 0
    with pytest.raises(InvalidInput, match="frames is 0"):
        NormalBundle(frames=0)
