from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from vestige.audit.geometry.attribution import ConditionAttribution, TokenAttribution
from vestige.audit.geometry.detectors.detector import noise_of, times
from vestige.audit.geometry.detectors.guidance_alignment import GuidanceAlignment
from vestige.audit.geometry.detectors.guidance_norm import GuidanceNorm
from vestige.audit.geometry.detectors.guided_score_norm import GuidedScoreNorm
from vestige.audit.geometry.detectors.low_dimension import LowDimension
from vestige.audit.geometry.detectors.score_norm import ScoreNorm
from vestige.audit.geometry.detectors.sharpness import Sharpness
from vestige.audit.geometry.dsm import DSM
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.normal_bundle import NormalBundle
from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.conditioned import ConditionedDenoiser, from_unet
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import gaussian_denoiser
from vestige.models.schedule import VariancePreserving

SHAPE = (1, 2, 2)
WORK = Work(seed=5)
TOKENS, WIDTH, TOLD = 4, 3, 2
"""Only the token at place TOLD means anything to the network."""
DETECTORS = [ScoreNorm(), GuidanceNorm(), GuidedScoreNorm(), Sharpness(), GuidanceAlignment(), LowDimension()]


def randoms(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def model(tokens=(TOLD,)):
    """Smooth and nonlinear in image and embedding; looks only at some of the tokens."""
    inner, outer = randoms(4, 4, seed=1) / 2, randoms(4, 4, seed=2) / 2
    reads = randoms(len(tokens) * WIDTH, 4, seed=3)

    def function(x_t, time, embedding):
        told = embedding[:, list(tokens)].flatten(1) @ reads
        return (torch.tanh(x_t.flatten(1) @ inner + told + time[:, None]) @ outer).view_as(x_t)

    table = randoms(4, TOKENS, WIDTH, seed=4)
    settings = {"identity": "f", "null_condition": 3, "time_scale": 1.0}
    return ConditionedDenoiser(function, VariancePreserving(), Prediction.NOISE, SHAPE, table, **settings)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_the_one_token_that_matters_is_found_point_by_point(detector):
    points, condition = randoms(3, *SHAPE, seed=6), torch.tensor([0, 2, 1])
    attribution = TokenAttribution(detector, at=(0.3, 0.8), draws=2)
    found = attribution.attribute(model(), points, [7, 8, 9], condition, work=WORK)
    others = [i for i in range(TOKENS) if i != TOLD]
    assert not found.strength[:, others].any()
    assert (found.strength[:, TOLD] > 1e-3).all()
    assert (found.order[:, 0] == TOLD).all()
    assert found.strength.shape == found.error.shape == (3, TOKENS)
    assert (found.error >= 0).all()
    assert found.error[:, TOLD].max() > 0
    assert found.evaluations == 2 * 2 * 2 * 3 * detector.evaluations_per_draw
    alone = attribution.attribute(model(), points[1:2], [8], condition[1:2], work=Work(seed=5, batch_size=1))
    np.testing.assert_allclose(alone.strength, found.strength[1:2], rtol=1e-9)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_the_gradient_is_that_of_finite_differences(detector):
    denoiser, time = model(tokens=(0, 1, 2, 3)), 0.4
    points, condition = randoms(1, *SHAPE, seed=6), torch.tensor([1])
    found = TokenAttribution(detector, at=(time,), draws=1).attribute(denoiser, points, [7], condition, work=WORK)
    noise, t, step = noise_of(points, [7], 0, WORK), times(denoiser, time, points), 1e-5

    def value(token, place, by):
        table = denoiser.table.clone()
        table[1, token, place] += by
        view = denoiser.with_table(table, null_condition=3)
        return float(detector.value(view, points, noise, t, condition).detach())

    slopes = [[(value(i, j, step) - value(i, j, -step)) / (2 * step) for j in range(WIDTH)] for i in range(TOKENS)]
    assert (found.strength > 0).all()
    # central differences are off by a multiple of step^2, and by rounding over step: both near 1e-10
    np.testing.assert_allclose(found.strength[0], np.linalg.norm(slopes, axis=1), rtol=1e-5)
    assert np.isnan(found.error).all()


def latent_model():
    """The kinds of layers of Stable Diffusion 1.x, on latents 4 x 8 x 8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            cross_attention_dim=16,
            attention_head_dim=8,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=8,
        )
        table = torch.randn(3, 5, 16)
    return unet, from_unet(unet, DDPMScheduler(), table, null_condition=2)


def test_a_unet_with_attention_has_second_derivatives_and_keeps_its_state():
    unet, denoiser = latent_model()
    unet.conv_in.bias.requires_grad_(False)
    asked = {name: p.requires_grad for name, p in unet.named_parameters()}
    flash = torch.backends.cuda.flash_sdp_enabled()
    points = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for detector in (GuidanceNorm(), LowDimension()):
        found = TokenAttribution(detector, at=(0.5,), draws=1).attribute(
            denoiser, points, [0, 1], torch.tensor([0, 1]), work=WORK
        )
        assert bool(np.isfinite(found.strength).all())
        assert (found.strength > 0).all()
    assert {name: p.requires_grad for name, p in unet.named_parameters()} == asked
    assert all(p.grad is None for p in unet.parameters())
    assert torch.backends.cuda.flash_sdp_enabled() == flash
    assert denoiser.evaluations == 2 * 2 * (2 + 4)  # two points; there and back; two networks, and their products


def test_latents_are_measured_at_the_cost_that_is_promised():
    _, denoiser = latent_model()
    point, told = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1])
    costs = {
        DSM(ratios=(0.1,), draws=2): 2,
        FLIPD(ratios=(0.1,), probes=1, exact=0): 1 + 1,
        GuidanceNorm(draws=1): 2,
    }
    for method, cost in costs.items():
        ask = method.score if isinstance(method, GuidanceNorm) else method.estimate
        before = denoiser.evaluations
        ask(denoiser, point, [0], told, work=WORK)
        assert denoiser.evaluations - before == cost
    before = denoiser.evaluations
    with pytest.raises(Unsupported, match="DSM"):
        NormalBundle().estimate(denoiser, point, [0], told, work=Work(budget=1 << 20))
    assert denoiser.evaluations == before


def test_the_label_of_the_smallest_dimension_is_found():
    zero = torch.zeros(SHAPE, dtype=torch.float64)
    spread = [torch.full((4,), 0.5), torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.0, 0.0])]
    each = [gaussian_denoiser(zero, torch.diag(v.double())) for v in (*spread, torch.full((4,), 0.7))]

    def function(x_t, t, condition):
        return torch.stack([one.mean(x_t, t) for one in each])[condition, torch.arange(len(x_t))]

    settings = {"identity": "four", "classes": 3, "null_condition": 3}
    denoiser = FunctionDenoiser(function, VariancePreserving(), Prediction.CLEAN, SHAPE, **settings)
    detector = LowDimension(time=0.01, draws=1, scale=1.0)
    found = ConditionAttribution(detector).attribute(denoiser, zero[None], [0], work=WORK)
    np.testing.assert_allclose(found.strength[0], [-4, -1, -2], atol=0.1)  # short by r^2 / 0.5 = 0.004 each
    assert found.order.tolist() == [[1, 2, 0]]
    assert found.evaluations == 3 * 2


def test_what_has_no_tokens_or_gradients_is_refused():
    points, condition = randoms(1, *SHAPE, seed=6), torch.tensor([0])
    plain = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), torch.eye(4))
    with pytest.raises(Unsupported, match="ConditionAttribution"):
        TokenAttribution().attribute(plain, points, [0], condition, work=WORK)
    with pytest.raises(Unsupported, match="takes no condition"):
        ConditionAttribution().attribute(plain, points, [0], work=WORK)
    deaf = model()
    deaf.network = lambda x, t, e: x * e.detach().mean((1, 2)).view(-1, 1, 1, 1)
    with pytest.raises(Unsupported, match="no gradient through"):
        TokenAttribution().attribute(deaf, points, [0], condition, work=WORK)
    for settings in ({"at": ()}, {"at": (0.0,)}, {"draws": 0}):
        with pytest.raises(InvalidInput, match="Attribution at times"):
            TokenAttribution(**settings)
