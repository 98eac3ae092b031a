"""Diffusers pipelines and UNets as denoisers, read without executing anything of the user's."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from diffusers import DDPMPipeline, UNet2DModel
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound, Unsupported
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.models.schedule import DiscreteTable, RectifiedFlow, Schedule

CARD = "vestige.json"
_PREDICTIONS = {
    "epsilon": Prediction.NOISE,
    "v_prediction": Prediction.VELOCITY,
    "sample": Prediction.CLEAN,
    "flow_prediction": Prediction.FLOW,
}


def schedule_and_prediction(scheduler: Any) -> tuple[Schedule, Prediction]:
    """Noise levels and prediction type of a diffusers scheduler.

    Every scheduler that carries ``alphas_cumprod`` describes the same trained table,
    whatever its sampler; flow-matching schedulers are straight lines.

    Raises
    ------
    Unsupported : another kind of scheduler (score-SDE VE, EDM preconditioning, …).
    """
    config = dict(getattr(scheduler, "config", {}))
    name = type(scheduler).__name__
    if name.startswith("FlowMatch"):
        return RectifiedFlow(), Prediction.FLOW
    prediction = _PREDICTIONS.get(config.get("prediction_type", "epsilon"))
    table = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, Tensor) or prediction is None or name.startswith("EDM"):
        raise Unsupported(
            f"The scheduler {name} with prediction_type {config.get('prediction_type')!r} is not one vestige reads.",
            expected="a scheduler with alphas_cumprod that predicts epsilon, v_prediction or sample, or FlowMatch.",
            remedy="wrap the network with FunctionDenoiser and declare its schedule.",
        )
    # Flow-trained models may sit under a multistep solver; their path is a straight line all the same.
    schedule = RectifiedFlow() if prediction is Prediction.FLOW else DiscreteTable(table.detach().double().cpu())
    return schedule, prediction


class DiffusersDenoiser(Denoiser):
    """A ``UNet2DModel`` with its scheduler.

    Parameters
    ----------
    unet : the network; put into evaluation mode.
    scheduler : any scheduler that :func:`schedule_and_prediction` reads.
    null_condition : the class label that means "no condition", if training dropped labels.

    Raises
    ------
    BadWeights : a weight is NaN or infinite.
    InvalidInput : the null condition is not the network's last label, or the image size is unknown.
    Unsupported : the network's class embedding takes something else than labels, or its answer is no image.
    """

    def __init__(self, unet: UNet2DModel, scheduler: Any, *, null_condition: int | None = None) -> None:
        schedule, prediction = schedule_and_prediction(scheduler)
        config = dict(unet.config)
        if config.get("class_embed_type") not in (None, "none"):
            raise Unsupported(
                f"The network embeds classes as {config['class_embed_type']!r}.",
                expected="num_class_embeds, or no class embedding.",
                remedy="wrap the network with FunctionDenoiser.",
            )
        size = config.get("sample_size")
        if size is None:
            raise InvalidInput(
                "The network's configuration has no sample_size.",
                expected="the side of its images, in pixels.",
                remedy='add "sample_size" to unet/config.json.',
            )
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        channels, answered = int(config["in_channels"]), int(config["out_channels"])
        if answered not in (channels, 2 * channels):
            raise Unsupported(
                f"The network takes {channels} channels and answers with {answered}.",
                expected=f"{channels} channels, or {2 * channels} with a learned variance.",
                remedy="wrap the network with FunctionDenoiser.",
            )
        labels = int(config.get("num_class_embeds") or 0)
        if null_condition is not None and null_condition != labels - 1:
            raise InvalidInput(
                f"The null condition is {null_condition}, and the network has {labels} labels.",
                expected=f"{labels - 1}, the last label." if labels else "no null condition: it takes no labels.",
                remedy='pass the label that stood for "no condition" in training, or none.',
            )
        super().__init__(
            schedule,
            prediction,
            (channels, height, width),
            classes=labels - (null_condition is not None),
            null_condition=null_condition,
            access=Access.WEIGHTS,
        )
        self.unet, self.scheduler = unet.eval(), scheduler
        self._learns_variance = answered == 2 * channels
        check_finite(unet)

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """The network's prediction; a learned variance is cut off."""
        if condition is None and self.null_condition is not None:
            condition = torch.full((len(x_t),), self.null_condition, device=x_t.device)
        if condition is None and self.classes:
            raise InvalidInput(
                "A class-conditional model was evaluated without labels.",
                expected=f"a label in 0..{self.classes - 1} for every image.",
                remedy="give the data labels (one sub-folder a class, or `labels` in the npz).",
            )
        if isinstance(self.schedule, DiscreteTable):
            step = self.schedule.index(t).clamp_min(0)
        else:
            step = t * self.scheduler.config.num_train_timesteps
        answer = self.unet(x_t, step, class_labels=condition if self.classes else None).sample
        return answer[:, : self.shape[0]] if self._learns_variance else answer

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.unet.device

    @property
    def module(self) -> nn.Module:
        """The UNet."""
        return self.unet

    @property
    def digest(self) -> str:
        """Digest of weights, schedule, prediction and null condition, computed anew each time.

        Nothing cheaper tells that a weight changed: edits through ``.data`` and fused
        optimizers leave a tensor's version as it was.
        """
        settings = {"prediction": self.prediction.value, "null": self.null_condition, **self.schedule.key()}
        return digest_json({"weights": digest_tensors(self.unet.state_dict()), **settings})

    def with_module(self, module: nn.Module) -> DiffusersDenoiser:
        """The same scheduler around another ``UNet2DModel``."""
        return DiffusersDenoiser(cast(UNet2DModel, module), self.scheduler, null_condition=self.null_condition)

    def save(self, folder: Path) -> None:
        """Write a diffusers pipeline folder (safetensors)."""
        DDPMPipeline(self.unet, self.scheduler).save_pretrained(folder, safe_serialization=True)
        if self.null_condition is not None:
            (folder / CARD).write_text(json.dumps({"null_condition": self.null_condition}) + "\n")


def check_finite(module: nn.Module) -> None:
    """Raise BadWeights if any weight is NaN or infinite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadWeights(
                f"The weight {name} holds NaN or infinity.",
                expected="finite weights.",
                remedy="save the checkpoint again; if training diverged, go back to an earlier one.",
            )


def is_pipeline_folder(folder: Path) -> bool:
    """Whether the folder looks like a saved diffusers pipeline."""
    return (folder / "model_index.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file (NotFound or CorruptFile if there is none)."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except FileNotFoundError as error:
        raise NotFound(
            f"{path} does not exist.",
            expected="a folder written by a diffusers pipeline's save_pretrained.",
            remedy="save the pipeline with `pipeline.save_pretrained(FOLDER)` and pass that folder.",
        ) from error
    except (OSError, ValueError) as error:
        raise CorruptFile(
            f"{path} is not readable JSON ({error}).",
            expected="the file that save_pretrained wrote.",
            remedy="save the pipeline again.",
        ) from error


def load_scheduler(folder: Path) -> Any:
    """The scheduler in a folder of a pipeline (Unsupported or CorruptFile if it cannot be read)."""
    name = str(read_json(folder / "scheduler_config.json").get("_class_name", ""))
    kind = getattr(diffusers, name, None) if name.isidentifier() else None
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)):
        raise Unsupported(
            f"{folder / 'scheduler_config.json'} names the scheduler {name!r}, which diffusers does not have.",
            expected="a scheduler class of the installed diffusers.",
            remedy="install the diffusers version that wrote the folder, or save it with a DDPMScheduler.",
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # each scheduler fails in its own way on settings that make no sense
        raise CorruptFile(
            f"{folder / 'scheduler_config.json'} does not describe a {name} ({first_line(error)}).",
            expected="the file that save_pretrained wrote.",
            remedy="save the pipeline again.",
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def _load_unet(folder: Path) -> UNet2DModel:
    kind = read_json(folder / "config.json").get("_class_name", "")
    if kind != "UNet2DModel":
        raise Unsupported(
            f"{folder / 'config.json'} describes a {kind or 'nameless network'}.",
            expected="a UNet2DModel (an image diffusion model in pixel space).",
            remedy="wrap other networks with FunctionDenoiser from Python.",
        )
    safe = any(folder.glob("*.safetensors"))
    try:
        # Where only .bin weights exist, diffusers reads them with torch.load(weights_only=True).
        loaded: Any = UNet2DModel.from_pretrained(
            folder,
            use_safetensors=safe,
            local_files_only=True,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        unet, report = loaded
    except Exception as error:  # torch, safetensors and the network itself share no base for what they raise
        raise CorruptFile(
            f"The network in {folder} could not be read ({first_line(error)}).",
            expected="the files that save_pretrained wrote.",
            remedy="copy or save the pipeline again.",
        ) from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *(m[0] for m in report["mismatched_keys"])]
    if wrong:
        raise BadWeights(
            f"{len(wrong)} weights in {folder} do not fit its config.json, {wrong[0]} among them.",
            expected="exactly the weights that the configuration describes.",
            remedy="check that config.json and the weights come from the same model.",
        )
    return unet.float()


def _null_condition(card: Path) -> int | None:
    stated = read_json(card).get("null_condition")
    if stated is None or type(stated) is int:
        return stated
    raise CorruptFile(
        f"{card} states the null condition {stated!r}.", expected="a whole number.", remedy="correct or remove it."
    )


def load_folder(folder: Path, *, null_condition: int | None = None) -> DiffusersDenoiser:
    """Read a folder written by ``save_pretrained``: safetensors, else ``.bin`` with ``weights_only=True``.

    ``null_condition`` defaults to what the folder's ``vestige.json`` states, if it has one.

    Raises
    ------
    NotFound, CorruptFile, BadWeights, Unsupported : see each message.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder.", expected="a diffusers pipeline folder.", remedy="check the path.")
    if not is_pipeline_folder(folder):
        raise Unsupported(
            f"{folder} has no model_index.json, so it is not a saved diffusers pipeline.",
            expected="a folder written by `pipeline.save_pretrained(FOLDER)`.",
            remedy="save the pipeline, or pass a folder of generated images to audit them as a black box.",
        )
    if null_condition is None and (folder / CARD).is_file():
        null_condition = _null_condition(folder / CARD)
    return DiffusersDenoiser(
        _load_unet(folder / "unet"), load_scheduler(folder / "scheduler"), null_condition=null_condition
    )


def from_pipeline(pipeline: Any, *, null_condition: int | None = None) -> DiffusersDenoiser:
    """A pipeline object with a ``UNet2DModel`` and a scheduler (DDPMPipeline, DDIMPipeline).

    Raises
    ------
    Unsupported : the pipeline has no ``UNet2DModel``.
    """
    unet = getattr(pipeline, "unet", None)
    if not isinstance(unet, UNet2DModel):
        raise Unsupported(
            f"A {type(pipeline).__name__} holds no UNet2DModel.",
            expected="a DDPMPipeline or DDIMPipeline.",
            remedy="wrap the network with FunctionDenoiser.",
        )
    return DiffusersDenoiser(unet, pipeline.scheduler, null_condition=null_condition)
