from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.errors import Unsupported
from vestige.models.access import Access
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.generator import DiffusionGenerator
from vestige.models.guidance import Guided
from vestige.models.sampler import DDIM
from vestige.models.schedule import VariancePreserving
from vestige.models.subject import Subject

SHAPE = (1, 2, 2)


class Network(torch.nn.Module):
    """Answers linearly in a learnt vector of classes; class 3 means "no condition"."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = torch.nn.Parameter(torch.tensor([0.5, -0.2, 0.9, 0.1]))

    def forward(self, x_t, t, condition):
        return torch.tanh(x_t) + (self.classes[condition] * t).view(-1, 1, 1, 1)


def conditional(null: int | None = 3) -> FunctionDenoiser:
    return FunctionDenoiser(
        Network(), VariancePreserving(), Prediction.NOISE, SHAPE, identity="n", classes=3, null_condition=null
    )


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(4, *SHAPE, generator=rng), torch.linspace(0.1, 1, 4), torch.tensor([0, 1, 2, 1])


def test_scale_zero_and_one_are_the_model_without_and_with_its_condition(inputs):
    x_t, t, condition = inputs
    inner = conditional()
    for method in ("predict", "mean", "noise", "velocity", "score"):
        without, given = getattr(inner, method)(x_t, t), getattr(inner, method)(x_t, t, condition)
        assert torch.equal(getattr(Guided(inner, 0.0), method)(x_t, t, condition), without)
        assert torch.allclose(getattr(Guided(inner, 1.0), method)(x_t, t, condition), given, rtol=1e-5, atol=1e-5)
        # Linear in the prediction, hence in everything derived from it.
        expected = without + 2.5 * (given - without)
        assert torch.allclose(getattr(Guided(inner, 2.5), method)(x_t, t, condition), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(Guided(inner, 7.0).predict(x_t, t), inner.predict(x_t, t))


def test_a_model_without_null_condition_is_refused():
    with pytest.raises(Unsupported, match="without a condition"):
        Guided(conditional(null=None), 2.0)


def test_both_evaluations_of_an_image_are_counted(inputs):
    x_t, t, condition = inputs
    guided = Guided(conditional(), 2.0)
    guided.mean(x_t, t, condition)
    assert guided.evaluations == guided.inner.evaluations == 8
    guided.mean(x_t, t)
    Guided(guided.inner, 0.0).mean(x_t, t, condition)
    assert (guided.evaluations, guided.inner.evaluations) == (12, 16)


def test_guided_stands_for_its_inner_model():
    inner = conditional()
    guided = Guided(inner, 2.0)
    assert (guided.classes, guided.null_condition, guided.access) == (3, 3, Access.WEIGHTS)
    assert guided.module is inner.module
    other = Network()
    other.classes.data += 1
    replaced = guided.with_module(other)
    assert isinstance(replaced, Guided)
    assert len({inner.digest, guided.digest, Guided(inner, 3.0).digest, replaced.digest}) == 4
    rows = np.arange(6)
    plain, strong = (DiffusionGenerator(d, DDIM(3)).sample(rows, 0) for d in (inner, guided))
    assert plain.shape == strong.shape == (6, *SHAPE)
    assert (plain != strong).any()


def test_guidance_of_a_subject_acts_on_sampling_alone():
    inner = conditional()
    subject = Subject.of_denoiser("n", inner, DDIM(3), guidance=2.0)
    assert subject.opened("this") is inner
    assert subject.digest == inner.digest
    rows = np.arange(4)
    expected = DiffusionGenerator(Guided(conditional(), 2.0), DDIM(3)).sample(rows, 0)
    assert (subject.generator.sample(rows, 0) == expected).all()
    assert subject.evaluations == 4 * 3 * 2
