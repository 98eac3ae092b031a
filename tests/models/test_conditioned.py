from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel

from vestige.errors import BadWeights, InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.conditioned import ConditionedDenoiser, from_unet
from vestige.models.denoiser import Prediction
from vestige.models.guidance import Guided
from vestige.models.schedule import DiscreteTable, VariancePreserving

SHAPE = (4, 8, 8)
TABLE = torch.arange(1.0, 13).view(3, 2, 2)
STEPS = DiscreteTable(torch.linspace(0.999, 0.01, 1000))


def unet(seed=0, **config):
    settings = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(**{**settings, **config})


def prompts(seed=0, n=3, width=16):
    return torch.randn(n, 5, width, generator=torch.Generator().manual_seed(seed))


def wrap(function, table=TABLE, **settings):
    given = {"schedule": STEPS, "prediction": Prediction.NOISE, "shape": (1, 2, 2), "identity": "f", **settings}
    schedule, prediction, shape = given.pop("schedule"), given.pop("prediction"), given.pop("shape")
    return ConditionedDenoiser(function, schedule, prediction, shape, table, **given)


def test_a_condition_is_a_row_of_the_table_and_none_is_the_last():
    seen = []

    def function(x_t, time, embedding):
        seen.append((time, embedding))
        return x_t

    denoiser = wrap(function, null_condition=2)
    x, t = torch.zeros(2, 1, 2, 2), torch.tensor([0.001, 1.0])
    denoiser.predict(x, t, torch.tensor([1, 0]))
    denoiser.predict(x, t)
    denoiser.predict_embedded(x, t, TABLE[[2, 1]])
    assert [time.tolist() for time, _ in seen] == [[0, 999]] * 3  # indices of trained steps
    for (_, embedding), rows in zip(seen, ([1, 0], [2, 2], [2, 1]), strict=True):
        assert torch.equal(embedding, TABLE[rows])
    assert (denoiser.classes, denoiser.null_condition, denoiser.evaluations) == (2, 2, 6)
    assert (denoiser.access, denoiser.device) == (Access.SCORES, torch.device("cpu"))
    wrap(function, schedule=VariancePreserving(), time_scale=100.0).predict(x, t, torch.tensor([0, 2]))
    assert seen[-1][0].tolist() == pytest.approx([0.1, 100])


def test_guidance_mixes_a_prompt_with_the_empty_one():
    denoiser = wrap(lambda x, t, e: x + e.sum((1, 2)).view(-1, 1, 1, 1), null_condition=2)
    answer = Guided(denoiser, 3.0).predict(torch.zeros(1, 1, 2, 2), torch.tensor([0.5]), torch.tensor([0]))
    assert torch.equal(answer, torch.full((1, 1, 2, 2), float(42 + 3 * (10 - 42))))


def test_gradients_reach_embeddings_given_directly_and_in_another_table():
    denoiser = wrap(lambda x, t, e: x * e.square().sum((1, 2)).view(-1, 1, 1, 1), null_condition=2)
    x, t, condition = torch.ones(2, 1, 2, 2), torch.tensor([0.5, 0.5]), torch.tensor([1, 0])
    direct = denoiser.embedding(condition, 2).clone().requires_grad_()
    denoiser.predict_embedded(x, t, direct).sum().backward()
    assert torch.equal(direct.grad, 4 * 2 * TABLE[[1, 0]])
    table = TABLE[[1, 0, 2]].clone().requires_grad_()
    view = denoiser.with_table(table, null_condition=2)
    view.predict(x, t, torch.tensor([0, 1])).sum().backward()
    assert torch.equal(table.grad, torch.cat([direct.grad, torch.zeros(1, 2, 2)]))
    assert (denoiser.evaluations, view.evaluations) == (2, 2)
    assert torch.equal(denoiser.table, TABLE)
    assert denoiser.with_table(TABLE[:1]).null_condition is None


@pytest.mark.parametrize("scheduler", [DDPMScheduler(), DDIMScheduler(prediction_type="v_prediction")])
def test_a_unet_is_told_what_diffusers_tells_it(scheduler):
    network, table = unet(), prompts()
    denoiser = from_unet(network, scheduler, table, null_condition=2)
    x, t = torch.randn(2, *SHAPE), torch.tensor([0.1, 0.7])
    with torch.no_grad():
        answer = denoiser.predict(x, t, torch.tensor([1, 0]))
        wanted = network(x, torch.tensor([99, 699]), encoder_hidden_states=table[[1, 0]]).sample
        wide = denoiser.predict(x.double(), t.double(), torch.tensor([1, 0]))
    assert torch.equal(answer, wanted)
    assert wide.dtype == torch.float64
    assert torch.equal(wide.float(), wanted)
    assert (denoiser.shape, denoiser.access, denoiser.module) == (SHAPE, Access.WEIGHTS, network)
    assert denoiser.prediction is (Prediction.VELOCITY if isinstance(scheduler, DDIMScheduler) else Prediction.NOISE)
    other = denoiser.with_module(unet(1))
    assert not torch.equal(other.predict(x, t), denoiser.predict(x, t))
    assert other.null_condition == 2


def test_a_flow_network_is_told_time_in_thousandths():
    network = unet()
    denoiser = from_unet(network, FlowMatchEulerDiscreteScheduler(), prompts())
    x = torch.randn(1, *SHAPE)
    with torch.no_grad():
        answer = denoiser.predict(x, torch.tensor([0.25]), torch.tensor([0]))
        assert torch.equal(answer, network(x, torch.tensor([250.0]), encoder_hidden_states=prompts()[:1]).sample)


def test_half_precision_weights_answer_in_the_precision_of_the_question():
    denoiser = from_unet(unet().to(torch.bfloat16), DDPMScheduler(), prompts(), null_condition=2)
    with torch.no_grad():
        answer = denoiser.noise(torch.randn(1, *SHAPE), torch.tensor([0.5]))
    assert answer.dtype == torch.float32
    assert bool(answer.isfinite().all())


def test_the_digest_follows_everything_that_changes_answers():
    module = unet()
    digest = from_unet(module, DDPMScheduler(), prompts()).digest
    others = [
        from_unet(module, DDPMScheduler(), prompts(1)),
        from_unet(module, DDPMScheduler(), prompts(), null_condition=2),
        from_unet(module, DDPMScheduler(prediction_type="v_prediction"), prompts()),
        from_unet(module, DDPMScheduler(beta_end=0.01), prompts()),
        from_unet(unet(1), DDPMScheduler(), prompts()),
        wrap(lambda x, t, e: x),
        wrap(lambda x, t, e: x, identity="g"),
        wrap(lambda x, t, e: x, time_scale=1000.0),
    ]
    assert len({digest, *(d.digest for d in others)}) == 9
    assert from_unet(module, DDPMScheduler(), prompts()).digest == digest


def test_what_cannot_be_asked_is_refused():
    x, t = torch.zeros(1, 1, 2, 2), torch.tensor([0.5])
    denoiser = wrap(lambda x, t, e: x)
    with pytest.raises(InvalidInput, match="without a condition"):
        denoiser.predict(x, t)
    for row in (-1, 3):
        with pytest.raises(InvalidInput, match=r"rows of the table of embeddings, 0\.\.2"):
            denoiser.predict(x, t, torch.tensor([row]))
    with pytest.raises(InvalidInput, match="answered with shape"):
        wrap(lambda x, t, e: x[:, :, :1]).predict(x, t, torch.tensor([0]))
    with pytest.raises(Unsupported, match="plain function"):
        _ = denoiser.module


def test_tables_and_networks_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match="last row"):
        wrap(lambda x, t, e: x, null_condition=0)
    with pytest.raises(InvalidInput, match="shape"):
        wrap(lambda x, t, e: x, table=torch.zeros(0, 2, 2))
    with pytest.raises(BadWeights, match="table of embeddings"):
        wrap(lambda x, t, e: x, table=torch.full((1, 2, 2), torch.nan))
    with pytest.raises(InvalidInput, match="time scale"):
        wrap(lambda x, t, e: x, schedule=VariancePreserving())
    with pytest.raises(InvalidInput, match="cross_attention_dim"):
        from_unet(unet(), DDPMScheduler(), prompts(width=8))
    with pytest.raises(Unsupported, match="9 channels in and 4 out"):
        from_unet(unet(in_channels=9), DDPMScheduler(), prompts())
    with pytest.raises(Unsupported, match="class_embed_type"):
        from_unet(unet(class_embed_type="timestep"), DDPMScheduler(), prompts())
    with pytest.raises(InvalidInput, match="sample_size"):
        from_unet(unet(sample_size=None), DDPMScheduler(), prompts())
    broken = unet()
    broken.conv_in.bias.data[0] = torch.inf
    with pytest.raises(BadWeights, match=r"conv_in\.bias"):
        from_unet(broken, DDPMScheduler(), prompts())
