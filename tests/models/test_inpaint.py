from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.inpaint import Inpaint
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.schedule import Cosine

LEFT = torch.tensor([True, True, False, False]).expand(1, 3, 4)


def drawn(rows: list[int], shape: tuple[int, int, int] = (1, 3, 4)) -> Callable[[], Tensor]:
    streams = [np.random.default_rng(row) for row in rows]
    return lambda: torch.from_numpy(np.stack([stream.standard_normal(shape) for stream in streams]))


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 1, 3, 4)))


def test_a_memorizer_completes_what_it_was_trained_on() -> None:
    train = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (20, 1, 8, 8)))
    known = (torch.arange(8) < 4).expand(1, 8, 8)
    model = EmpiricalDenoiser(train)
    done = Inpaint(steps=20, resample=10).complete(model, train, known, None, drawn(list(range(20)), (1, 8, 8)))
    torch.testing.assert_close(done, train, atol=1e-3, rtol=0)
    assert model.evaluations == 20 * 200


def test_hidden_pixels_are_never_read_and_known_ones_never_changed() -> None:
    model, images = EmpiricalDenoiser(pictures(20)), pictures(4, seed=1)
    other = torch.where(LEFT, images, 0.5)
    one, two = (
        Inpaint(steps=5, resample=2).complete(model, x, LEFT, None, drawn([0, 1, 2, 3])) for x in (images, other)
    )
    torch.testing.assert_close(one, two, atol=0, rtol=0)
    torch.testing.assert_close(torch.where(LEFT, one, 0), torch.where(LEFT, images, 0), atol=0, rtol=0)


def test_independent_pixels_are_sampled_as_if_nothing_were_known() -> None:
    model = gaussian_denoiser(torch.zeros(1, 3, 4), torch.eye(12) * 0.04, Cosine())
    done = Inpaint(steps=8).complete(model, pictures(3), LEFT, None, drawn([0, 1, 2]))
    plain = DDIM(steps=8).sample(model, drawn([0, 1, 2])(), None, lambda _: torch.zeros(0))
    torch.testing.assert_close(done[~LEFT.expand(3, 1, 3, 4)], plain[~LEFT.expand(3, 1, 3, 4)])


def test_resampling_brings_the_parts_together() -> None:
    # Columns 2 and 3 repeat columns 0 and 1, so the hidden half is known exactly.
    twice = torch.cat([torch.eye(2), torch.eye(2)]).double()
    covariance = torch.kron(torch.eye(3).double(), twice @ twice.T) * 0.09
    model = gaussian_denoiser(torch.zeros(1, 3, 4), covariance, Cosine())
    truth = (
        (torch.from_numpy(np.random.default_rng(3).standard_normal((40, 1, 3, 2))) * 0.3)
        .clamp(-1, 1)
        .repeat(1, 1, 1, 2)
    )
    errors = []
    for resample in (1, 4, 16):
        painter = Inpaint(steps=12, resample=resample)
        before = model.evaluations
        done = painter.complete(model, truth, LEFT, None, drawn(list(range(40))))
        assert model.evaluations - before == 40 * painter.evaluations() == 40 * 12 * resample
        errors.append(float((done - truth).square().mean().sqrt()))
    # What is left is the noise on the known half in the last step.
    assert max(errors[1:]) < 0.7 * errors[0]


def test_a_completion_does_not_depend_on_its_batch() -> None:
    model, images = EmpiricalDenoiser(pictures(30)), pictures(5, seed=1)
    painter = Inpaint(steps=4, resample=2)
    whole = painter.complete(model, images, LEFT, None, drawn([7, 8, 9, 10, 11]))
    for row in range(5):
        alone = painter.complete(model, images[row : row + 1], LEFT, None, drawn([7 + row]))
        torch.testing.assert_close(alone, whole[row : row + 1])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"resample": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        Inpaint(**wrong)
