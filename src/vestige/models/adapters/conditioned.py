"""Text-conditioned networks as denoisers: a condition is a row of a table of embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.diffusers import schedule_and_prediction
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.models.network import device_of, finite, weights_digest
from vestige.models.schedule import DiscreteTable, Schedule

Embeddings = Float[Tensor, "prompts tokens features"]


class ConditionedDenoiser(Denoiser):
    """A network that is told an embedding, as the UNet of a latent text-to-image model is.

    Its images are whatever the network denoises: latents [4, 64, 64] for Stable Diffusion 1.x, scaled as in training.

    Parameters
    ----------
    network : called as ``f(x_t, time, embedding)``; x_t float [n, c, h, w], time [n], embedding float
        [n, tokens, width]; answers [n, c, h, w], or an object whose ``sample`` is that. A module is put into
        evaluation mode and works in the precision of its weights, whatever that of its input.
    table : embeddings of the prompts [prompts, tokens, width]. Condition i is its row i.
    identity : a name that changes whenever the network's answers change; it keys stored results. A module is
        identified by its weights as well.
    null_condition : the row of the empty prompt, the last one, if there is one.
    time_scale : what the network calls time 1. None: it is told the index of the trained step, which needs a
        schedule that is a table.

    Raises
    ------
    InvalidInput : the table is empty, the null condition is not its last row, or there is no trained step to tell.
    BadWeights : a weight or an embedding is NaN or infinite.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        schedule: Schedule,
        prediction: Prediction,
        shape: tuple[int, int, int],
        table: Embeddings,
        *,
        identity: str,
        null_condition: int | None = None,
        time_scale: float | None = None,
    ) -> None:
        access = Access.WEIGHTS if isinstance(network, nn.Module) else Access.SCORES
        classes = _prompts(table, null_condition)
        super().__init__(schedule, prediction, shape, classes=classes, null_condition=null_condition, access=access)
        if time_scale is None and not isinstance(schedule, DiscreteTable):
            raise InvalidInput(
                f"A {type(schedule).__name__} schedule has no trained steps, and no time scale was given.",
                expected="what the network calls time 1.",
                remedy="pass time_scale=1000.0, or what its training used.",
            )
        if isinstance(network, nn.Module):
            network.eval()
            for name, tensor in network.state_dict().items():
                finite(tensor, f"network's weight {name}")
        self.network, self.identity, self.time_scale = network, identity, time_scale
        self.table = table.to(device_of(network))

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Look the embeddings up and call the network; None asks with the null condition.

        Raises
        ------
        InvalidInput : a condition is no row of the table, or none was given and there is no null condition.
        """
        return self._answer(x_t, t, self.embedding(condition, len(x_t)))

    def predict_embedded(self, x_t: Images, t: Times, embedding: Float[Tensor, "n tokens features"]) -> Images:
        """The raw prediction under embeddings that need not be in the table, counted; differentiable in all three."""
        self.evaluations += len(x_t)
        return self._answer(x_t, t, embedding)

    def embedding(self, condition: Labels | None, n: int) -> Float[Tensor, "n tokens features"]:
        """Rows of the table, n times the null condition for None.

        Raises
        ------
        InvalidInput : see :meth:`forward`.
        """
        if condition is None:
            if self.null_condition is None:
                raise InvalidInput(
                    "A text-conditioned model was evaluated without a condition.",
                    expected=f"a row of its table, 0..{len(self.table) - 1}, for every image.",
                    remedy="name the prompts, or put the empty prompt last in the table and pass null_condition.",
                )
            return self.table[-1:].expand(n, -1, -1)
        if len(condition) and not 0 <= int(condition.min()) <= int(condition.max()) < len(self.table):
            raise InvalidInput(
                f"Conditions reach from {int(condition.min())} to {int(condition.max())}.",
                expected=f"rows of the table of embeddings, 0..{len(self.table) - 1}.",
                remedy="check which prompts the table was made from.",
            )
        return self.table[condition]

    def _answer(self, x_t: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        kind = self._dtype or x_t.dtype
        answer = self.network(x_t.to(kind), self._told(t).to(x_t.device), embedding.to(kind))
        answer = answer if isinstance(answer, Tensor) else answer.sample
        if answer.shape != x_t.shape:
            raise InvalidInput(
                f"The network answered with shape {tuple(answer.shape)}.",
                expected=f"the shape of its input, {tuple(x_t.shape)}.",
                remedy="wrap it so that it returns one prediction a pixel.",
            )
        return answer.to(x_t.dtype)

    def _told(self, t: Tensor) -> Tensor:
        if self.time_scale is None and isinstance(self.schedule, DiscreteTable):
            return self.schedule.index(t).clamp_min(0)
        return t * (self.time_scale or 1.0)

    @property
    def _dtype(self) -> torch.dtype | None:
        if not isinstance(self.network, nn.Module):
            return None
        return next((p.dtype for p in self.network.parameters() if p.is_floating_point()), None)

    def with_table(self, table: Embeddings, *, null_condition: int | None = None) -> ConditionedDenoiser:
        """The same network with another table, which may require gradients; it has a counter of its own.

        Raises
        ------
        InvalidInput, BadWeights : as for the class.
        """
        other = copy.copy(self)
        other.classes, other.null_condition = _prompts(table, null_condition), null_condition
        other.table, other.evaluations = table.to(self.device), 0
        return other

    @property
    def device(self) -> torch.device:
        """Device of the module's first parameter; the CPU for a plain function."""
        return device_of(self.network)

    @property
    def module(self) -> nn.Module:
        """The wrapped module.

        Raises
        ------
        Unsupported : a plain function was wrapped.
        """
        if not isinstance(self.network, nn.Module):
            raise Unsupported(
                "A plain function has no weights to change.",
                expected="a torch nn.Module.",
                remedy="wrap the module itself instead of a function around it.",
            )
        return self.network

    def with_module(self, module: nn.Module) -> ConditionedDenoiser:
        """The same declaration around another module."""
        return ConditionedDenoiser(
            module,
            self.schedule,
            self.prediction,
            self.shape,
            self.table,
            identity=self.identity,
            null_condition=self.null_condition,
            time_scale=self.time_scale,
        )

    @property
    def digest(self) -> str:
        """Digest of identity, weights, table, schedule and prediction, computed anew each time."""
        settings = {"identity": self.identity, "prediction": self.prediction.value, "null": self.null_condition}
        tensors = {"weights": weights_digest(self.network), "table": digest_tensors({"table": self.table})}
        return digest_json({**settings, **tensors, "time_scale": self.time_scale, **self.schedule.key()})


def _prompts(table: Tensor, null_condition: int | None) -> int:
    """Number of conditions beside the null one."""
    if 0 in table.shape:
        raise InvalidInput(
            f"The table of embeddings has shape {tuple(table.shape)}.",
            expected="[prompts, tokens, width], none of them 0.",
            remedy="encode at least one prompt.",
        )
    if null_condition is not None and null_condition != len(table) - 1:
        raise InvalidInput(
            f"The null condition is row {null_condition} of a table of {len(table)}.",
            expected=f"{len(table) - 1}, the last row.",
            remedy="put the embedding of the empty prompt last.",
        )
    finite(table.detach(), "table of embeddings")
    return len(table) - (null_condition is not None)


def from_unet(
    unet: UNet2DConditionModel, scheduler: Any, table: Embeddings, *, null_condition: int | None = None
) -> ConditionedDenoiser:
    """A ``UNet2DConditionModel`` with its scheduler and the embeddings of the prompts to ask it about.

    Raises
    ------
    InvalidInput : the embeddings are not as wide as the network wants them, or the image size is unknown.
    Unsupported : the network or the scheduler wants more than an embedding, or its answer is no image.
    BadWeights : a weight or an embedding is NaN or infinite.
    """
    schedule, prediction = schedule_and_prediction(scheduler)
    config = dict(unet.config)
    more = [k for k in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(k)]
    channels, answered, size = int(config["in_channels"]), int(config["out_channels"]), config.get("sample_size")
    if more or answered != channels:
        found = f"{more[0]} {config[more[0]]!r}" if more else f"{channels} channels in and {answered} out"
        raise Unsupported(
            f"The network has {found}.",
            expected="one embedding a prompt as its only condition, and an answer of the shape of its input.",
            remedy="wrap a function that supplies the rest with ConditionedDenoiser.",
        )
    if size is None:
        raise InvalidInput(
            "The network's configuration has no sample_size.",
            expected="the side of its images or latents.",
            remedy='add "sample_size" to unet/config.json.',
        )
    width = config["cross_attention_dim"]
    if set(width if isinstance(width, (list, tuple)) else [width]) != {table.shape[-1]}:
        raise InvalidInput(
            f"The embeddings are {table.shape[-1]} wide.",
            expected=f"{width}, the network's cross_attention_dim.",
            remedy="encode the prompts with the text encoder that the network was trained with.",
        )
    height, wide = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    scale = None if isinstance(schedule, DiscreteTable) else float(scheduler.config.num_train_timesteps)
    return ConditionedDenoiser(
        unet,
        schedule,
        prediction,
        (channels, height, wide),
        table,
        identity=type(unet).__name__,
        null_condition=null_condition,
        time_scale=scale,
    )
