from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import EmptySet
from vestige.models.adapters.diffusers import DiffusersDenoiser
from vestige.models.generator import DiffusionGenerator, SampleBank
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM, DDPM, Heun, Sampler

SAMPLERS = [DDIM(3), DDIM(3, eta=1.0), DDPM(3), Heun(3)]


@settings(max_examples=6)
@given(st.sampled_from(SAMPLERS), st.lists(st.integers(0, 10**6), min_size=1, max_size=7), st.integers(1, 8))
def test_an_oracle_row_is_one_image_whatever_else_is_asked(gaussian, sampler, rows, batch):
    oracle = gaussian_denoiser(*gaussian)
    everything = DiffusionGenerator(oracle, sampler, batch).sample(np.array(rows), seed=4)
    for place, row in enumerate(rows):
        assert (DiffusionGenerator(oracle, sampler).sample(np.array([row]), seed=4)[0] == everything[place]).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_network_row_is_one_image_up_to_rounding(tiny_unet, sampler):
    denoiser = DiffusersDenoiser(tiny_unet(num_class_embeds=3), DDPMScheduler(100))
    rows = np.array([5, 0, 9, 2, 7])
    batches = [DiffusionGenerator(denoiser, sampler, size).sample(rows, seed=1) for size in (5, 2, 1)]
    batches.append(DiffusionGenerator(denoiser, sampler, 3).sample(rows[::-1], seed=1)[::-1])
    for other in batches[1:]:
        assert np.abs(other.astype(int) - batches[0]).max() <= 1
    assert len({image.tobytes() for image in batches[0]}) == len(rows)


@dataclass(frozen=True)
class Listener(Sampler):
    """Keeps the noise that it is handed."""

    heard: ClassVar[list[torch.Tensor]] = []

    def _step(self, denoiser, x_t, t, s, condition, fresh, draw):
        self.heard.extend([fresh(0), fresh(draw)])
        return x_t


def test_every_seed_row_and_step_has_noise_of_its_own(gaussian):
    Listener.heard.clear()
    for seed in (0, 1):
        DiffusionGenerator(gaussian_denoiser(*gaussian), Listener(3), batch_size=2).sample(np.arange(4), seed)
    # Two seeds, two batches, three steps: each heard the noise of its start and its own.
    starts, steps = torch.stack(Listener.heard[::2]), torch.stack(Listener.heard[1::2])
    assert starts.shape == steps.shape == (12, 2, 1, 2, 2)
    assert torch.equal(starts[0::3], starts[1::3])
    assert torch.equal(starts[0::3], starts[2::3])
    every = torch.cat([starts[0::3].flatten(), steps.flatten()])
    assert len(every.unique()) == len(every)


def test_classes_cycle_by_row():
    images = torch.linspace(-1, 1, 3).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    generator = DiffusionGenerator(EmpiricalDenoiser(images, labels=torch.arange(3)), DDIM(10), batch_size=4)
    rows = np.array([0, 1, 2, 3, 10, 11])
    labels = generator.condition_of(rows)
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert generator.sample(rows, 0)[:, 0, 0, 0].tolist() == [0, 128, 255, 0, 128, 255]
    assert DiffusionGenerator(EmpiricalDenoiser(images), DDIM(10)).condition_of(rows) is None
    assert (generator.classes, generator.implicit) == (3, False)


def test_no_rows_give_no_images_and_the_key_names_everything(gaussian):
    oracle = gaussian_denoiser(*gaussian)
    generator = DiffusionGenerator(oracle, DDIM(3))
    assert generator.sample(np.arange(0), 0).shape == (0, 1, 2, 2)
    assert generator.limit is None
    same = DiffusionGenerator(oracle, DDIM(3), batch_size=7)
    others = [DiffusionGenerator(oracle, DDIM(4)), DiffusionGenerator(gaussian_denoiser(*gaussian), DDPM(3))]
    others.append(DiffusionGenerator(EmpiricalDenoiser(gaussian[0][None]), DDIM(3)))
    assert same.key() == generator.key()
    assert len({str(g.key()) for g in (generator, *others)}) == 4


def test_a_sample_bank_hands_out_its_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 4), dtype=np.uint8)
    bank = SampleBank(pixels)
    assert (bank.limit, bank.shape) == (5, (3, 2, 4))
    assert (bank.sample(np.array([4, 0, 4]), seed=9) == pixels[[4, 0, 4]]).all()
    assert bank.condition_of(np.array([0])) is None
    assert (bank.classes, bank.implicit, bank.evaluations) == (0, False, 0)
    assert bank.key() != SampleBank(pixels[:4]).key()
    with pytest.raises(EmptySet):
        SampleBank(pixels[:0])
