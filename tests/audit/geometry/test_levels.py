from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.levels import RATIOS, Batch, levels
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch, Unsupported
from vestige.models.oracle import gaussian_denoiser
from vestige.models.schedule import DiscreteTable, RectifiedFlow, VariancePreserving

CONTINUOUS = ("vp", "cosine", "flow")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_schedule_has_every_ratio(closed_forms, name):
    found = levels(closed_forms.SCHEDULES[name], RATIOS)
    np.testing.assert_allclose(found.ratios, RATIOS, rtol=1e-9)
    assert (np.diff(found.times) > 0).all()


def test_steps_of_a_table_are_merged_and_tell_their_own_ratio(closed_forms):
    table = closed_forms.SCHEDULES["table"]
    found = levels(table, (0.0001, 0.003, 0.01, 0.05, 0.0501, 1.0))
    steps = found.times * table.steps
    np.testing.assert_allclose(steps, np.round(steps))
    kept = table.alphas_cumprod.numpy()[np.round(steps).astype(int) - 1]
    np.testing.assert_allclose(found.ratios, np.sqrt(1 / kept - 1), rtol=1e-9)
    # Three ratios lie at or below the first step, and two on one step.
    assert len(found) == 3
    assert found.times[0] == 1 / table.steps
    assert found.ratios[0] == pytest.approx(0.01, rel=1e-3)


def test_ratios_beyond_the_end_are_dropped():
    found = levels(RectifiedFlow(), (0.1, 1e30))
    np.testing.assert_allclose(found.ratios, [0.1])
    with pytest.raises(Unsupported, match="reaches none"):
        levels(RectifiedFlow(), (1e30,))
    pure_noise = DiscreteTable(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(Unsupported, match="reaches none"):
        levels(pure_noise, RATIOS)


@pytest.mark.parametrize("ratios", [(), (0.0,), (-0.1, 0.1), (float("nan"),), (float("inf"),)])
def test_what_is_no_ratio_is_refused(ratios):
    with pytest.raises(InvalidInput, match="noise levels"):
        levels(VariancePreserving(), ratios)


def test_parts_of_a_batch_keep_names_and_labels():
    batch = Batch(torch.arange(3.0).view(3, 1, 1, 1), (5, 7, 9), torch.tensor([0, 1, 2]))
    part = batch.take(slice(1, 3)).repeat(2)
    assert part.points.flatten().tolist() == [1, 2, 1, 2]
    assert part.rows == (7, 9, 7, 9)
    assert part.condition.tolist() == [1, 2, 1, 2]
    assert batch.times(0.5).tolist() == [0.5] * 3


def test_what_does_not_fit_together_is_refused():
    from vestige.audit.geometry.dsm import DSM
    from vestige.audit.geometry.estimator import Work

    model = gaussian_denoiser(torch.zeros(1, 1, 2), torch.eye(2))
    points = torch.zeros(2, 1, 1, 2)
    with pytest.raises(EmptySet, match="No point"):
        DSM().curve(model, points[:0], [], work=Work())
    with pytest.raises(ShapeMismatch, match="shape"):
        DSM().curve(model, torch.zeros(2, 1, 2, 1), [0, 1], work=Work())
    with pytest.raises(InvalidInput, match="2 points come with 1 names"):
        DSM().curve(model, points, [0], work=Work())
    with pytest.raises(InvalidInput, match="negative"):
        DSM().curve(model, points, [0, -1], work=Work())
