from __future__ import annotations

import pytest
import torch

from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import Cosine, VariancePreserving

SHAPE = (1, 2, 2)


class Scale(torch.nn.Module):
    def __init__(self, by: float = 0.5) -> None:
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(by))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x_t, t):
        return self.dropout(x_t * self.by)


def wrap(function, **settings):
    given = {"schedule": VariancePreserving(), "prediction": Prediction.NOISE, "shape": SHAPE, "identity": "f"}
    given |= settings
    schedule, prediction, shape = given.pop("schedule"), given.pop("prediction"), given.pop("shape")
    return FunctionDenoiser(function, schedule, prediction, shape, **given)


def test_a_function_sees_scaled_times_and_grants_scores():
    seen = []

    def function(x_t, t):
        seen.append(t)
        return 2 * x_t

    denoiser = wrap(function, time_scale=999)
    x = torch.ones(2, *SHAPE)
    assert torch.equal(denoiser.predict(x, torch.tensor([0.0, 1.0])), 2 * x)
    assert seen[0].tolist() == [0, 999]
    assert (denoiser.access, denoiser.device) == (Access.SCORES, torch.device("cpu"))
    with pytest.raises(Unsupported, match="plain function"):
        _ = denoiser.module


def test_a_module_is_put_into_evaluation_and_grants_weights():
    module = Scale()
    denoiser = wrap(module)
    x = torch.ones(8, *SHAPE)
    assert torch.equal(denoiser.predict(x, torch.full((8,), 0.5)), x / 2)
    assert denoiser.access is Access.WEIGHTS
    assert denoiser.module is module
    other = denoiser.with_module(Scale(0.25))
    assert torch.equal(other.predict(x, torch.full((8,), 0.5)), x / 4)
    assert (other.schedule, other.prediction, other.shape) == (denoiser.schedule, denoiser.prediction, SHAPE)


def test_a_condition_is_passed_only_to_conditional_functions():
    seen = []

    def function(x_t, t, condition):
        seen.append(condition)
        return x_t + t.view(-1, 1, 1, 1)

    x, t = torch.zeros(2, *SHAPE), torch.full((2,), 0.5)
    denoiser = wrap(function, classes=4, null_condition=4, time_scale=1000)
    assert torch.equal(denoiser.predict(x, t, torch.tensor([0, 2])), torch.full_like(x, 500))
    seen.clear()
    denoiser.predict(x, t, torch.tensor([3, 1]))
    denoiser.predict(x, t)
    wrap(function, classes=4).predict(x, t)
    assert [None if c is None else c.tolist() for c in seen] == [[3, 1], [4, 4], None]
    assert torch.equal(wrap(lambda x_t, t: x_t).predict(x, t, torch.tensor([0, 1])), x)


@pytest.mark.parametrize("answer", [lambda x, t: x[:1], lambda x, t: x.mean(1), lambda x, t: torch.cat([x, x], 1)])
def test_an_answer_of_another_shape_is_refused(answer):
    with pytest.raises(InvalidInput, match=r"answered with shape .* shape of its input, \(3, 1, 2, 2\)"):
        wrap(answer).predict(torch.zeros(3, *SHAPE), torch.full((3,), 0.5))


def test_the_digest_follows_everything_that_changes_answers():
    module = Scale()
    digest = wrap(module).digest
    settings = [
        {"identity": "g"},
        {"time_scale": 1000.0},
        {"schedule": Cosine()},
        {"prediction": Prediction.CLEAN},
        {"classes": 3},
        {"classes": 3, "null_condition": 3},
    ]
    others = [wrap(module, **s).digest for s in settings] + [wrap(Scale(0.1)).digest, wrap(lambda x, t: x).digest]
    assert len({digest, *others}) == 9
    module.by.data.add_(1)
    assert wrap(module).digest != digest
    module.by.data.sub_(1)
    assert wrap(module).digest == digest
