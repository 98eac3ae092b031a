from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load, load_file, save_file

from vestige.errors import (
    BadWeights,
    CorruptFile,
    InvalidInput,
    NotFound,
    Unsupported,
    VestigeError,
)
from vestige.models.access import Access
from vestige.models.adapters.diffusers import (
    DiffusersDenoiser,
    from_pipeline,
    is_pipeline_folder,
    load_folder,
    schedule_and_prediction,
)
from vestige.models.denoiser import Prediction
from vestige.models.schedule import DiscreteTable, RectifiedFlow

WEIGHTS = "diffusion_pytorch_model.safetensors"
TABLED = """
DDPM DDPMParallel DDIM DDIMParallel DDIMInverse PNDM DPMSolverMultistep DPMSolverMultistepInverse DPMSolverSinglestep
UniPCMultistep SASolver DEISMultistep EulerDiscrete EulerAncestralDiscrete HeunDiscrete LMSDiscrete KDPM2Discrete
KDPM2AncestralDiscrete LCM TCD
""".split()
"""Schedulers of diffusers that carry alphas_cumprod and take betas, less those that need another package."""


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(3, 1, 8, 8, generator=rng), torch.tensor([0.01, 0.5, 1.0])


@pytest.fixture
def saved(tiny_unet, tmp_path) -> Path:
    folder = tmp_path / "saved"
    DDPMPipeline(tiny_unet(), DDPMScheduler(50)).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # some of them use numpy in a way of the past
@pytest.mark.parametrize("name", TABLED)
def test_every_tabled_scheduler_reads_as_the_ddpm_it_was_trained_with(name):
    betas = {"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.03, "beta_schedule": "linear"}
    expected = DDPMScheduler(**betas).alphas_cumprod.double()
    for kind, prediction in (
        ("epsilon", Prediction.NOISE),
        ("v_prediction", Prediction.VELOCITY),
        ("sample", Prediction.CLEAN),
    ):
        scheduler = getattr(diffusers, f"{name}Scheduler")(**betas, prediction_type=kind)
        schedule, found = schedule_and_prediction(scheduler)
        assert isinstance(schedule, DiscreteTable)
        assert found is prediction
        # Euler and its kin store their table through sigma; float32 rounding is all that may differ.
        assert torch.allclose(schedule.alphas_cumprod, expected, rtol=1e-6, atol=0)


def test_flow_schedulers_are_straight_lines():
    for name in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM"):
        found = schedule_and_prediction(getattr(diffusers, f"{name}Scheduler")())
        assert found == (RectifiedFlow(), Prediction.FLOW)
    multistep = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert schedule_and_prediction(multistep) == (RectifiedFlow(), Prediction.FLOW)


@pytest.mark.parametrize(
    "name", ["ScoreSdeVe", "EDMEuler", "EDMDPMSolverMultistep", "KarrasVe", "IPNDM", "CMStochasticIterative"]
)
def test_other_schedulers_are_refused_by_name(name):
    with pytest.raises(Unsupported, match=rf"{name}Scheduler.*FunctionDenoiser"):
        schedule_and_prediction(getattr(diffusers, f"{name}Scheduler")())


@pytest.mark.parametrize(("pipeline", "scheduler"), [(DDPMPipeline, DDPMScheduler), (DDIMPipeline, DDIMScheduler)])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_folder_and_object_are_one_model(tiny_unet, tmp_path, inputs, pipeline, scheduler, prediction_type):
    made = pipeline(tiny_unet(), scheduler(num_train_timesteps=50, prediction_type=prediction_type))
    made.save_pretrained(tmp_path)
    here, there = from_pipeline(made), load_folder(tmp_path)
    assert is_pipeline_folder(tmp_path)
    assert not is_pipeline_folder(tmp_path / "unet")
    assert there.digest == here.digest
    assert (there.shape, there.classes, there.access) == ((1, 8, 8), 0, Access.WEIGHTS)
    assert torch.equal(there.mean(*inputs), here.mean(*inputs))
    # And the model is the network at the steps it was trained at.
    with torch.no_grad():
        raw = made.unet(inputs[0], torch.tensor([0, 24, 49])).sample
    assert torch.equal(there.predict(*inputs), raw)


def test_digest_follows_the_weights_wherever_they_are_changed(tiny_unet):
    denoiser = DiffusersDenoiser(tiny_unet(), DDPMScheduler(50))
    digest = denoiser.digest
    weight = next(denoiser.module.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1
    assert denoiser.digest != digest
    weight.data.copy_(kept)
    assert denoiser.digest == digest
    weight.data[0, 0, 0, 0] += 1  # leaves no trace in the tensor's version
    assert denoiser.digest != digest
    weight.data.copy_(kept)
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], fused=True).step()  # nor does this
    assert denoiser.digest != digest
    others = [
        DiffusersDenoiser(tiny_unet(1), DDPMScheduler(50)),
        DiffusersDenoiser(tiny_unet(), DDPMScheduler(51)),
        DiffusersDenoiser(tiny_unet(), DDPMScheduler(50, prediction_type="sample")),
    ]
    assert len({digest, *(d.digest for d in others)}) == 4
    assert DiffusersDenoiser(tiny_unet(), DDIMScheduler(50)).digest == digest
    assert others[0].with_module(tiny_unet()).digest == digest


def test_conditional_model_with_null_condition_survives_its_folder(tiny_unet, tmp_path, inputs):
    x_t, t = inputs
    denoiser = DiffusersDenoiser(tiny_unet(num_class_embeds=4), DDPMScheduler(50), null_condition=3)
    denoiser.save(tmp_path)
    again = load_folder(tmp_path)
    assert (again.classes, again.null_condition, again.digest) == (3, 3, denoiser.digest)
    null = torch.full((3,), 3)
    assert torch.equal(again.predict(x_t, t), denoiser.predict(x_t, t, null))
    assert not torch.equal(again.predict(x_t, t, torch.tensor([0, 1, 2])), again.predict(x_t, t))
    (tmp_path / "vestige.json").unlink()
    without = load_folder(tmp_path)
    assert (without.classes, without.null_condition) == (4, None)
    assert without.digest != denoiser.digest
    with pytest.raises(InvalidInput, match=r"without labels.*0\.\.3"):
        without.predict(x_t, t)
    assert load_folder(tmp_path, null_condition=3).digest == denoiser.digest


@pytest.mark.parametrize(("labels", "null"), [(4, 0), (4, 4), (None, 0)])
def test_a_null_condition_that_is_not_the_last_label_is_refused(tiny_unet, labels, null):
    with pytest.raises(InvalidInput, match=rf"null condition is {null}"):
        DiffusersDenoiser(tiny_unet(num_class_embeds=labels), DDPMScheduler(50), null_condition=null)


def test_a_learned_variance_is_cut(tiny_unet, inputs):
    unet = tiny_unet(out_channels=2)
    denoiser = DiffusersDenoiser(unet, DDPMScheduler(50, variance_type="learned_range"))
    with torch.no_grad():
        raw = unet(inputs[0], torch.tensor([0, 24, 49])).sample
    assert torch.equal(denoiser.predict(*inputs), raw[:, :1])


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"in_channels": 3, "out_channels": 1}, Unsupported, "takes 3 channels and answers with 1"),
        ({"class_embed_type": "timestep"}, Unsupported, "embeds classes as 'timestep'"),
        ({"sample_size": None}, InvalidInput, "no sample_size"),
    ],
)
def test_networks_that_are_no_image_denoisers_are_refused(tiny_unet, config, error, message):
    with pytest.raises(error, match=message):
        DiffusersDenoiser(tiny_unet(**config), DDPMScheduler(50))


def test_sides_may_differ(tiny_unet):
    assert DiffusersDenoiser(tiny_unet(sample_size=(8, 16)), DDPMScheduler(50)).shape == (1, 8, 16)


@pytest.mark.parametrize("trained", [1000, 50])
def test_a_flow_model_is_asked_at_its_own_time_scale(tiny_unet, tmp_path, inputs, trained):
    DDPMPipeline(tiny_unet(), FlowMatchEulerDiscreteScheduler(trained, shift=3.0)).save_pretrained(tmp_path)
    denoiser = load_folder(tmp_path)
    x_t, t = inputs
    with torch.no_grad():
        raw = denoiser.unet(x_t, t * trained).sample
    assert (denoiser.schedule, denoiser.prediction) == (RectifiedFlow(), Prediction.FLOW)
    assert torch.equal(denoiser.predict(x_t, t), raw)
    assert torch.allclose(denoiser.mean(x_t, t), x_t - t.view(-1, 1, 1, 1) * raw, atol=1e-6)


def test_pipelines_without_a_pixel_unet_are_refused():
    with pytest.raises(Unsupported, match="SimpleNamespace holds no UNet2DModel"):
        from_pipeline(SimpleNamespace(unet=None))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_weights_load_and_never_run(tiny_unet, tmp_path):
    made = DDPMPipeline(tiny_unet(), DDPMScheduler(50))
    made.save_pretrained(tmp_path / "bin", safe_serialization=False)
    file = tmp_path / "bin" / "unet" / "diffusion_pytorch_model.bin"
    assert load_folder(tmp_path / "bin").digest == from_pipeline(made).digest

    marker = tmp_path / "marker"
    trap = pickle.dumps(Trap(marker))
    pickle.loads(trap)
    assert marker.exists(), "the trap itself works"
    marker.unlink()
    writers: list[Callable[[], object]] = [
        lambda: file.write_bytes(trap),
        lambda: torch.save({"weight": Trap(marker)}, file),
        lambda: torch.save({"weight": Trap(marker)}, file, _use_new_zipfile_serialization=False),
    ]
    for write in writers:
        write()
        with pytest.raises(VestigeError, match="could not be read"):
            load_folder(tmp_path / "bin")
        assert not marker.exists()


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_missing_things_are_named(saved, tmp_path):
    with pytest.raises(NotFound, match="nowhere is not a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(Unsupported, match=r"no model_index\.json"):
        load_folder(tmp_path)
    (saved / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(NotFound, match=r"scheduler_config\.json does not exist"):
        load_folder(saved)
    (saved / "unet" / WEIGHTS).unlink()
    with pytest.raises(CorruptFile, match="could not be read"):
        load_folder(saved)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated_weights_are_corrupt(saved, keep):
    file = saved / "unet" / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"unet could not be read"):
        load_folder(saved)


def test_weights_that_do_not_fit_are_bad(saved):
    file = saved / "unet" / WEIGHTS
    whole = load(file.read_bytes())
    name = "conv_in.weight"
    changes = {
        "not_ours": {**whole, "not_ours": torch.zeros(2)},
        name: {k: v for k, v in whole.items() if k != name},
        "conv_out.bias": {**whole, "conv_out.bias": torch.zeros(5)},
    }
    for wrong, tensors in changes.items():
        save_file(tensors, file)
        with pytest.raises(BadWeights, match=rf"1 weights in .*{wrong} among them"):
            load_folder(saved)
    for bad in (float("nan"), float("inf")):
        poisoned = whole[name].clone()
        poisoned.view(-1)[3] = bad
        save_file({**whole, name: poisoned}, file)
        with pytest.raises(BadWeights, match=rf"{name} holds NaN or infinity"):
            load_folder(saved)
    save_file({k: v.half() for k, v in whole.items()}, file)
    assert {v.dtype for v in load_folder(saved).module.state_dict().values()} == {torch.float32}
    assert load_file(file)[name].dtype == torch.float16


@pytest.mark.parametrize(
    ("file", "changes", "error"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "utils"}, Unsupported),
        ("scheduler/scheduler_config.json", {"_class_name": "os.system"}, Unsupported),
        ("scheduler/scheduler_config.json", {"_class_name": 5}, Unsupported),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, Unsupported),
        ("scheduler/scheduler_config.json", {"beta_schedule": "no such"}, CorruptFile),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": None}, CorruptFile),
        ("scheduler/scheduler_config.json", {"prediction_type": "no such"}, Unsupported),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, Unsupported),
        ("unet/config.json", {"down_block_types": ["NoSuch", "NoSuch"]}, CorruptFile),
        ("unet/config.json", {"layers_per_block": "x"}, CorruptFile),
        ("unet/config.json", {"norm_num_groups": 0}, CorruptFile),
        ("unet/config.json", {"in_channels": 3, "out_channels": 3}, BadWeights),
        ("unet/config.json", {"num_class_embeds": 3}, BadWeights),
        ("vestige.json", {"null_condition": "a"}, CorruptFile),
        ("vestige.json", {"null_condition": 3}, InvalidInput),
    ],
)
def test_settings_that_make_no_sense_end_in_a_typed_error(saved, file, changes, error):
    if not (saved / file).exists():
        (saved / file).write_text("{}")
    edit(saved / file, **changes)
    with pytest.raises(error):
        load_folder(saved)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b""])
@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "unet/config.json", "vestige.json"])
def test_broken_json_is_corrupt(saved, file, content):
    (saved / file).write_bytes(content)
    with pytest.raises(CorruptFile, match=Path(file).name):
        load_folder(saved)
