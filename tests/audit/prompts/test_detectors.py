from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

import vestige.audit.prompts as room
from vestige.audit.geometry.estimator import Work
from vestige.audit.prompts.anisotropy import Anisotropy
from vestige.audit.prompts.attention import shares, spread
from vestige.audit.prompts.attention_entropy import AttentionEntropy
from vestige.audit.prompts.detector import PromptDetector
from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.late_attention_entropy import LateAttentionEntropy
from vestige.audit.prompts.mean_guidance_norm import MeanGuidanceNorm
from vestige.audit.prompts.one_step_confidence import OneStepConfidence
from vestige.audit.prompts.one_step_edges import OneStepEdges
from vestige.audit.prompts.path import guided_path, sampled
from vestige.audit.prompts.prompt_sharpness import PromptSharpness
from vestige.audit.prompts.sample_alignment import SampleAlignment
from vestige.audit.prompts.sample_dimension import SampleDimension
from vestige.audit.prompts.sample_score_norm import SampleScoreNorm
from vestige.discover import methods
from vestige.errors import InvalidInput, Unsupported
from vestige.metrics.roc import auc
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.guidance import Guided
from vestige.models.sampler import DDIM
from vestige.models.schedule import DiscreteTable, RectifiedFlow
from vestige.randomness import Stream, normal

PROMPTS, KNOWN = 12, 3
WORK = Work(seed=1)
SCORES = [
    Anisotropy(),
    FirstGuidanceNorm(),
    OneStepConfidence(draws=16),
    OneStepEdges(),
    PromptSharpness(draws=8),
    SampleAlignment(),
    SampleDimension(),
    SampleScoreNorm(),
]
ATTENTION = [AttentionEntropy(draws=2), LateAttentionEntropy(draws=1, steps=3, last=2)]
names = [type(d).__name__ for d in [*SCORES, MeanGuidanceNorm(), *ATTENTION]]


def measured(detector, denoiser, work=WORK, prompts=PROMPTS):
    return detector.measure(denoiser, torch.arange(prompts), list(range(prompts)), work=work)


def told(value):
    return np.argsort(-value)[:KNOWN].tolist()


def test_every_detector_is_tested():
    assert sorted(names) == list(methods(room, PromptDetector))


@pytest.mark.parametrize("detector", SCORES, ids=lambda d: type(d).__name__)
def test_prompts_known_by_heart_rank_first(detector, by_heart):
    found = measured(detector, by_heart([2, 5, 7], PROMPTS))
    assert sorted(told(found.value)) == [2, 5, 7]
    inside, outside = found.value[[2, 5, 7]], np.delete(found.value, [2, 5, 7])
    assert auc(inside, outside).value == 1


@pytest.mark.parametrize("detector", [*SCORES, MeanGuidanceNorm(steps=8)], ids=lambda d: type(d).__name__)
def test_straight_flows_have_a_first_step_too(detector, by_heart):
    """At time 1 of a flow nothing of the signal is left, and the noise estimate is the input itself."""
    found = measured(detector, by_heart([2, 5, 7], PROMPTS, schedule=RectifiedFlow()))
    assert np.isfinite(found.value).all()
    if not isinstance(detector, MeanGuidanceNorm | SampleAlignment):
        assert sorted(told(found.value)) == [2, 5, 7]


def test_guidance_stays_long_where_the_picture_is_out_of_reach_without_its_prompt(by_heart):
    found = measured(MeanGuidanceNorm(draws=2, steps=8), by_heart([2, 5, 7], PROMPTS, alone=False))
    assert sorted(told(found.value)) == [2, 5, 7]


@pytest.mark.parametrize("detector", [*SCORES, MeanGuidanceNorm(steps=8)], ids=lambda d: type(d).__name__)
def test_nothing_is_told_apart_where_nothing_is_memorized(detector, by_heart):
    value = measured(detector, by_heart([], 24), prompts=24).value
    # 18 such intervals have to hold at once, and the halves' means differ a little by chance.
    assert auc(value[:12], value[12:], confidence=0.999).covers(0.5)


@pytest.mark.parametrize("detector", [*SCORES, MeanGuidanceNorm(steps=8)], ids=lambda d: type(d).__name__)
def test_forwards_are_counted_and_batches_change_nothing(detector, by_heart):
    denoiser = by_heart([0], PROMPTS)
    whole, parts = measured(detector, denoiser), measured(detector, denoiser, Work(seed=1, batch_size=5))
    assert whole.evaluations == PROMPTS * detector.forwards_per_prompt
    np.testing.assert_allclose(whole.value, parts.value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.error, parts.error, rtol=1e-3, atol=1e-5)
    assert detector.settings()["detector"] == type(detector).__name__


def test_first_guidance_norm_is_the_formula(by_heart):
    denoiser = by_heart([0], 3)
    found = FirstGuidanceNorm(draws=2).measure(denoiser, torch.tensor([0]), [7], work=WORK)
    t, expected = torch.ones(1), []
    for draw in (0, 1):
        x = denoiser.noised(
            torch.zeros(1, 1, 8, 8), torch.from_numpy(normal(1, Stream.GEOMETRY, [7], (1, 8, 8), (1 << 22) + draw)), t
        )
        told, untold = (denoiser.noise(x, t, torch.tensor([c])) for c in (0, 3))
        expected.append(float((told - untold).norm()))
    assert found.value[0] == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.error[0] == pytest.approx(np.std(expected, ddof=1) / math.sqrt(2), rel=1e-4)


def test_the_path_is_guided_ddim(by_heart):
    denoiser, condition = by_heart([1], 4), torch.tensor([1, 2])
    noise = torch.from_numpy(normal(0, Stream.SAMPLE, [0, 1], denoiser.shape)).double()
    ours = sampled(denoiser, noise, condition, steps=5, guidance=3.0)
    # Sampling starts at the scale 1, the path where the schedule is at time 1.
    scaled = noise * denoiser.levels(torch.ones(1, dtype=torch.float64))[1]
    theirs = DDIM(steps=5, clip=False).solve(Guided(denoiser, 3.0), scaled, condition, lambda _: noise)
    torch.testing.assert_close(ours, theirs)
    assert len(list(guided_path(denoiser, noise, condition, steps=5, guidance=3.0))) == 5


def test_too_few_draws_names_or_steps_are_refused(by_heart):
    with pytest.raises(InvalidInput, match="0 draws"):
        FirstGuidanceNorm(draws=0)
    with pytest.raises(InvalidInput, match="names"):
        FirstGuidanceNorm().measure(by_heart([0], 3), torch.tensor([0, 1]), [1], work=WORK)
    with pytest.raises(InvalidInput, match="last 5 of 3"):
        LateAttentionEntropy(steps=3, last=5)
    with pytest.raises(InvalidInput, match="steps"):
        measured(MeanGuidanceNorm(steps=0), by_heart([0], 3), prompts=3)
    with pytest.raises(Unsupported, match="weights"):
        measured(AttentionEntropy(), by_heart([0], 3), prompts=3)


class Looker(nn.Module):
    """Attention from pixels to tokens whose scores are the first number of each token's embedding."""

    def __init__(self, heads=2):
        super().__init__()
        self.attention = Attention(query_dim=4, cross_attention_dim=4, heads=heads, dim_head=2, bias=False)
        with torch.no_grad():
            for layer, value in ((self.attention.to_q, 0.0), (self.attention.to_k, 0.0)):
                layer.weight.fill_(value)
            self.attention.to_k.weight[0::2, 0] = 2**0.5  # undoes the scale

    def forward(self, x_t, t, embedding):
        pixels = x_t.flatten(2).transpose(1, 2)
        pixels = torch.cat([torch.ones_like(pixels[..., :1]), pixels[..., 1:]], -1)
        return self.attention(pixels, embedding).transpose(1, 2).view_as(x_t)


def looker(rows):
    """Token scores ``rows`` [prompts, tokens]; the query is the constant 1 in the first pixel channel."""
    network = Looker()
    with torch.no_grad():
        network.attention.to_q.weight[0::2, 0] = 1.0
    table = torch.zeros(*rows.shape, 4)
    table[..., 0] = rows
    schedule = DiscreteTable(torch.linspace(0.99, 0.01, 10, dtype=torch.float64))
    settings = {"identity": "looker", "null_condition": len(rows) - 1}
    return ConditionedDenoiser(network, schedule, Prediction.NOISE, (4, 2, 2), table, **settings)


def test_attention_entropy_is_that_of_the_softmax_and_ranks_spread_prompts_first():
    rows = torch.zeros(5, 6)
    rows[:4, 0] = torch.tensor([0.0, 3.0, 6.0, 4.0])  # prompt 0 looks at all tokens alike
    denoiser = looker(rows)
    found = measured(ATTENTION[0], denoiser, prompts=4)
    share = rows[:4].softmax(1)
    np.testing.assert_allclose(found.value, -(share * share.log()).sum(1).numpy(), rtol=1e-5)
    assert found.value.argmax() == 0
    assert found.evaluations == 4 * ATTENTION[0].forwards_per_prompt


def test_late_attention_adds_the_change_since_the_first_step():
    rows = torch.zeros(5, 6)
    rows[:4, 0] = torch.tensor([0.0, 3.0, 6.0, 4.0])
    found = measured(ATTENTION[1], looker(rows), prompts=4)
    share = rows[:4].softmax(1)
    # This network's attention does not depend on the step, so only the entropy is left.
    np.testing.assert_allclose(found.value, -(share * share.log()).sum(1).numpy(), rtol=1e-5)
    assert found.evaluations == 4 * ATTENTION[1].forwards_per_prompt


def test_shares_and_spread():
    maps = {"a": torch.full((2, 3, 4, 5), 0.2), "b": torch.eye(5)[None, None, :1].expand(2, 3, 4, 5)}
    found = shares(maps)
    torch.testing.assert_close(found, torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1]).expand(2, 5))
    assert float(spread(torch.tensor([[1.0, 0.0]]))) == 0
    assert float(spread(torch.full((1, 8), 0.125))) == pytest.approx(math.log(8))
